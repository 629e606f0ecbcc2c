"""Training steps on a machine with a GPU and JAX, and without TensorFlow.

  PYTHONPATH=. python tools/gpu_run.py prepare --folder=runs/gpu \
      --data_dir=../shared/tfds
  python runs/gpu/gpu_run.py run --folder=runs/gpu --output=runs/gpu_back
  PYTHONPATH=. python tools/gpu_run.py evaluate --output=runs/gpu_back \
      --data_dir=../shared/tfds

`prepare` and `evaluate` run here, `run` there, with a copy of the folder, JAX
and NumPy alone. The steps are the project's own, lowered to StableHLO with all
variables as arguments; weights too large to send are drawn there. `run` ends
by its own clock and writes report.json after each of its parts:

  parity: one step in float32 beside the figures made here;
  speed: the ATAT step of WRN-34-10 in bfloat16 at the largest batch that fits;
  train: N-FGSM for as many epochs of one cycle as the clock leaves, with the
    weights in files below 16 MiB, which `evaluate` attacks.
"""

import argparse
import gc
import gzip
import json
import math
import os
import pathlib
import re
import shutil
import sys
import time

import numpy as np

_REPORT, _PLAN = "report.json", "plan.json"
# Relative; on GPUs sums are in other orders.
_TOLERANCE = {"figures": 0.01, "weights": 0.2}
# Dense bfloat16 operations a second, of the vendor's data sheets.
_PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
_PEAK_RATE, _PEAK_AT = 0.2, 0.4
_LARGEST_SHIFT = 4
_PART_BYTES = 15 * 2**20
# What is small is sent as it is; larger weights are drawn there.
_SENT_NUMBERS = 2**14
# {name: what is prepared}; 18,000 images are 53 MiB.
_SIZES = {
    "full": {
        "num_images": 18_000,
        "check": {"depth": 10, "width": 1, "batch": 32, "steps": 7},
        "speed": {"depth": 34, "width": 10, "batch": (1024, 512, 256, 128)},
        "train": {"depth": 28, "width": 4, "batch": 256},
    },
    "tiny": {
        "num_images": 64,
        "check": {"depth": 10, "width": 1, "batch": 4, "steps": 1},
        "speed": {"depth": 10, "width": 1, "batch": (8, 4)},
        "train": {"depth": 10, "width": 1, "batch": 16},
    },
}


def prepare(folder: pathlib.Path, size: str, data_dir: str | None) -> None:
    """Writes the lowered steps, their states, the images and this file."""
    from atat_tf.runs import build

    sizes = _SIZES[size]
    config = _config("reference", sizes["train"])
    train = build.load_dataset(config, data_dir).train
    folder.mkdir(parents=True, exist_ok=True)
    train = train.take(sizes["num_images"])
    images, labels = train.images, train.labels
    np.savez(folder / "data.npz", images=images, labels=labels)
    plan = {
        "check": _prepare_check(folder, sizes["check"], images, labels),
        "speed": [
            _prepare_speed(folder, sizes["speed"], batch)
            for batch in sizes["speed"]["batch"]
        ],
        "train": _prepare_train(folder, sizes["train"]),
    }
    (folder / _PLAN).write_text(json.dumps(plan))
    shutil.copy(__file__, folder)
    total = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {total / 2**20:.1f} MiB")


def _config(recipe, sizes, **fields):
    """Returns a recipe's config on CIFAR-10 with another network."""
    from atat_tf.runs import config as run_config
    from atat_tf.runs import recipes

    config = recipes.load(recipe)
    config.update_from_flattened_dict(
        {
            "backbone.depth": sizes["depth"],
            "backbone.width": sizes["width"],
            **fields,
        }
    )
    return run_config.resolve(config)


def _trainer(config, rate):
    """Returns a new trainer whose learning rate is a variable."""
    import keras

    from atat_tf.data import datasets
    from atat_tf.runs import build
    from atat_tf.runs import config as run_config
    from atat_tf.training import build as training_build

    keras.utils.set_random_seed(config.seed)
    spec = datasets.spec(config.dataset)
    student = build.build_classifier(config, spec)
    teacher = None
    if run_config.needs_teacher(config):
        teacher = build.build_classifier(config, spec)
    trainer = training_build.build_trainer(config, student, teacher, 1)
    trainer.compile(
        keras.optimizers.SGD(rate, momentum=config.optimizer.momentum)
    )
    return trainer


def _prepare_check(folder, sizes, images, labels):
    config = _config("atat", sizes, **{"attack.num_steps": sizes["steps"]})
    trainer = _trainer(config, 0.1)
    batch = images[: sizes["batch"]], labels[: sizes["batch"]]
    about = _lower(folder, "check", trainer, sizes["batch"], sends_all=True)
    # The plain graph, which is not what was lowered.
    before = [variable.numpy() for variable in trainer.student.weights]
    import tensorflow as tf

    figures = tf.function(trainer.train_step)(tuple(map(tf.constant, batch)))
    after = [variable.numpy() for variable in trainer.student.weights]
    np.savez(
        folder / "check_expected.npz",
        **{f"before_{i}": array for i, array in enumerate(before)},
        **{f"after_{i}": array for i, array in enumerate(after)},
    )
    figures = {name: float(value) for name, value in figures.items()}
    return {**about, "expected": figures}


def _prepare_speed(folder, sizes, batch):
    from atat_tf.models import graphs
    from atat_tf.training import cost

    config = _config("atat", sizes, precision="mixed_bfloat16")
    trainer = _trainer(config, 0.1)
    about = _lower(folder, f"speed-{batch}", trainer, batch)
    each = graphs.flops_per_image(trainer.student)
    return {**about, "flops": each * cost.passes_per_image(config)}


def _prepare_train(folder, sizes):
    from atat_tf.runs import config as run_config

    # The last weights of a cycle, at a rate of zero, need no average.
    fields = {
        "optimizer.ema": 0.0,
        "optimizer.ema_statistics": "last",
        "evaluation.weights": "last",
        "batch_size": sizes["batch"],
    }
    # In bfloat16 there; the run that is evaluated here has float32.
    half = _config("reference", sizes, precision="mixed_bfloat16", **fields)
    about = _lower(folder, "train", _trainer(half, 0.0), sizes["batch"])
    whole = _config("reference", sizes, **fields)
    return {**about, "config": run_config.to_dict(whole)}


def _lower(folder, name, trainer, batch, sends_all=False):
    """Writes NAME.mlir.gz and NAME.npz; returns what the plan says of them."""
    import tensorflow as tf

    step = tf.function(
        lambda images, labels: trainer.train_step((images, labels)),
        jit_compile=True,
    )
    shape = trainer.student.input_shape[1:]
    given = (
        tf.zeros([batch, *shape], tf.uint8),
        tf.zeros([batch], tf.int32),
    )
    concrete = step.get_concrete_function(*given)
    places = {id(h): i for i, h in enumerate(concrete.captured_inputs)}
    variables = {id(v.handle): v for v in concrete.variables}
    values = [variables.get(id(h), h) for h in concrete.captured_inputs]
    lowered = step.experimental_get_compiler_ir(*given)
    with gzip.open(folder / f"{name}.mlir.gz", "wt") as file:
        file.write(lowered(stage="stablehlo"))
    # "{ {1}: (3, {}, may-alias)": output 1 is the new value of argument 3.
    header = lowered(stage="hlo").partition("\n")[0]
    alias = re.findall(r"\{(\d+)\}: \((\d+), \{\}, \w+-alias\)", header)
    sent, state = {}, []
    for place, value in enumerate(values):
        array = value.numpy()
        entry = {"shape": array.shape, "dtype": array.dtype.name}
        if sends_all or array.size <= _SENT_NUMBERS:
            sent[f"state_{place}"] = array
        elif np.ptp(array) == 0:
            entry["value"] = float(array.flat[0])
        else:
            entry["deviation"] = float(array.std())
        state.append(entry)
    np.savez_compressed(folder / f"{name}.npz", **sent)
    rate = trainer.optimizer.learning_rate
    return {
        "name": name,
        "batch": batch,
        "figures": sorted(concrete.structured_outputs),
        "state": state,
        # {output: place in the state}; the arguments come before the state.
        "alias": {int(o): int(a) - len(given) for o, a in alias},
        "weights": [
            places[id(w.value.handle)] for w in trainer.student.weights
        ],
        # Those that the step updates.
        "metrics": [
            places[id(variable.value.handle)]
            for metric in trainer.metrics
            for variable in metric.variables
            if id(variable.value.handle) in places
        ],
        "rate": places[id(rate.value.handle)],
    }


class Step:
    """A lowered step and its variables, which stay on the device.

    Args:
      folder: with NAME.mlir.gz and NAME.npz.
      about: what the plan says of it.
    """

    def __init__(self, folder: pathlib.Path, about: dict) -> None:
        import jax
        from jax._src.lib import xla_client

        self._jax, self._about = jax, about
        self._device = jax.devices()[0]
        client, options = self._device.client, xla_client.CompileOptions()
        with gzip.open(folder / f"{about['name']}.mlir.gz") as file:
            text = file.read()
        if hasattr(client, "compile_and_load"):
            devices = xla_client.DeviceList((self._device,))
            self._executable = client.compile_and_load(text, devices, options)
        else:
            self._executable = client.compile(text, options)
        self._alias = {int(o): place for o, place in about["alias"].items()}
        self._first = self._initial(folder)
        self.restart()

    def _initial(self, folder):
        generator, found = np.random.default_rng(0), []
        with np.load(folder / f"{self._about['name']}.npz") as sent:
            for place, entry in enumerate(self._about["state"]):
                shape, dtype = entry["shape"], np.dtype(entry["dtype"])
                if "value" in entry:
                    array = np.full(shape, entry["value"], dtype)
                elif "deviation" in entry:
                    array = generator.standard_normal(shape, np.float32)
                    array = (array * entry["deviation"]).astype(dtype)
                else:
                    array = sent[f"state_{place}"]
                found.append(array)
        return found

    def restart(self, places: list[int] | None = None) -> None:
        """Gives variables their first values again; None for all."""
        if places is None:
            self._state = [None] * len(self._first)
            places = range(len(self._first))
        for place in places:
            self.put(place, self._first[place])

    def put(self, place: int, value: np.ndarray) -> None:
        """Gives a variable a value of the first one's shape and dtype."""
        array = np.asarray(value, self._first[place].dtype)
        self._state[place] = self._jax.device_put(array, self._device)

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> dict:
        """Takes one step; returns {figure: array on the device}."""
        given = [
            self._jax.device_put(array, self._device)
            for array in (images, labels)
        ]
        outputs = self._executable.execute_sharded(given + self._state)
        arrays = outputs.disassemble_into_single_device_arrays()
        arrays = [a[0] if isinstance(a, (list, tuple)) else a for a in arrays]
        for output, place in self._alias.items():
            self._state[place] = arrays[output]
        rest = [a for i, a in enumerate(arrays) if i not in self._alias]
        return dict(zip(self._about["figures"], rest, strict=True))

    def weights(self) -> list[np.ndarray]:
        """Returns the student's weights, in its order."""
        return [np.asarray(self._state[p]) for p in self._about["weights"]]


def run(folder: pathlib.Path, output: pathlib.Path, seconds: float) -> int:
    """Runs what was prepared; returns the exit status, 1 without parity."""
    end = time.monotonic() + seconds
    plan = json.loads((folder / _PLAN).read_text())
    # Read when the libraries load.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    import jax

    jax.config.update("jax_enable_x64", True)  # counters are int64
    device = jax.devices()[0]
    with np.load(folder / "data.npz") as data:
        images, labels = data["images"], data["labels"].astype(np.int32)
    output.mkdir(parents=True, exist_ok=True)
    report = {"device": device.device_kind, "jax": jax.__version__}

    def told(name, what):
        report[name] = what
        (output / _REPORT).write_text(json.dumps(report, indent=1))
        print(f"{name}: {json.dumps(what)}", flush=True)

    told("parity", _parity(folder, plan["check"], images, labels))
    # Half of what is left is the training's.
    half = end - (end - time.monotonic()) / 2
    told("speed", _speed(folder, plan["speed"], images, labels, device, half))
    told("train", _train(folder, output, plan["train"], images, labels, end))
    (output / _PLAN).write_text(json.dumps(plan["train"]))
    return 0 if report["parity"]["holds"] else 1


def _parity(folder, about, images, labels):
    begin = time.monotonic()
    step = Step(folder, about)
    figures = step(images[: about["batch"]], labels[: about["batch"]])
    found = {name: float(value) for name, value in figures.items()}
    expected = about["expected"]
    figures_off = max(
        abs(found[name] - value) / max(abs(value), 1e-6)
        for name, value in expected.items()
        if not name.endswith("accuracy")
    )
    moved = off = 0.0
    with np.load(folder / "check_expected.npz") as stored:
        for number, mine in enumerate(step.weights()):
            before = stored[f"before_{number}"]
            after = stored[f"after_{number}"]
            moved += float(np.sum((after - before) ** 2))
            off += float(np.sum((mine - after) ** 2))
    differences = {"figures": figures_off, "weights": (off / moved) ** 0.5}
    return {
        "holds": all(differences[k] <= _TOLERANCE[k] for k in _TOLERANCE),
        "relative_difference": differences,
        "found": found,
        "expected": expected,
        "seconds": time.monotonic() - begin,
    }


def _speed(folder, steps, images, labels, device, end):
    """Returns the speed at the largest batch that fits, and what did not."""
    failed = {}
    for about in steps:
        batch = about["batch"]
        if time.monotonic() > end:
            failed[batch] = "no time left"
            continue
        begin, step = time.monotonic(), None
        rows = np.arange(batch) % len(images)
        given = images[rows], labels[rows]
        try:
            step = Step(folder, about)
            _ready(step(*given))
        except Exception as error:  # noqa: BLE001 (of another kind in each JAX)
            failed[batch] = str(error)[:300]
            del step
            gc.collect()
            continue
        compiled, times = time.monotonic() - begin, []
        while len(times) < 20 and (len(times) < 2 or time.monotonic() < end):
            start = time.monotonic()
            _ready(step(*given))
            times.append(time.monotonic() - start)
        rate = batch / float(np.median(times))
        kind = device.device_kind
        peak = next((p for name, p in _PEAKS.items() if name in kind), None)
        memory = device.memory_stats() or {}
        return {
            "batch": batch,
            "images_per_second": rate,
            "share_of_peak": rate * about["flops"] / peak if peak else None,
            "peak_bytes": memory.get("peak_bytes_in_use"),
            "first_step_seconds": compiled,
            "step_seconds": times,
            "failed": failed,
        }
    return {"batch": None, "failed": failed}


def _ready(figures):
    for value in figures.values():
        value.block_until_ready()


def _train(folder, output, about, images, labels, end):
    """Trains until the clock ends, and writes the weights."""
    step, batch = Step(folder, about), about["batch"]
    generator = np.random.default_rng(0)
    steps_per_epoch = len(images) // batch
    _ready(step(*_augmented(images, labels, np.arange(batch), generator)))
    start = time.monotonic()
    for _ in range(3):
        _ready(step(*_augmented(images, labels, np.arange(batch), generator)))
    each = (time.monotonic() - start) / 3
    step.restart()
    # A tenth, and ten seconds, for what is slower than three steps say and for
    # writing.
    left = 0.9 * (end - time.monotonic()) - 10
    num_steps = max(int(left / each), 1)
    if num_steps >= steps_per_epoch:
        num_steps -= num_steps % steps_per_epoch
    epochs, figures = [], {}
    for number in range(num_steps):
        if number % steps_per_epoch == 0:
            order = generator.permutation(len(images))
            step.restart(about["metrics"])
        done = number / num_steps
        rate = min(done / _PEAK_AT, (1 - done) / (1 - _PEAK_AT))
        step.put(about["rate"], _PEAK_RATE * rate)
        first = number % steps_per_epoch * batch
        rows = order[first : first + batch]
        figures = step(*_augmented(images, labels, rows, generator))
        if (number + 1) % steps_per_epoch == 0 or number + 1 == num_steps:
            epochs.append({n: float(v) for n, v in figures.items()})
            print(f"step {number + 1} of {num_steps}: {epochs[-1]}", flush=True)
    _save(output, step.weights())
    return {
        "num_images": len(images),
        "num_steps": num_steps,
        "epochs": epochs,
        "step_seconds": each,
    }


def _augmented(images, labels, rows, generator):
    """Returns a batch shifted by up to 4 pixels, half of it mirrored."""
    side, shift = images.shape[1], _LARGEST_SHIFT
    padded = np.pad(
        images[rows], [(0, 0), (shift, shift), (shift, shift), (0, 0)]
    )
    places = generator.integers(0, 2 * shift + 1, (2, len(rows), 1))
    down, right = places + np.arange(side)
    mirrored = generator.random(len(rows)) < 0.5
    right[mirrored] = right[mirrored, ::-1]
    picked = (
        np.arange(len(rows))[:, None, None],
        down[:, :, None],
        right[:, None],
    )
    return padded[picked], labels[rows]


def _save(output, weights):
    """Writes weights-0.npz and so on, none of more than 15 MiB."""
    parts, size = [{}], 0
    for number, array in enumerate(weights):
        if parts[-1] and size + array.nbytes > _PART_BYTES:
            parts.append({})
            size = 0
        parts[-1][str(number)] = array
        size += array.nbytes
    for number, part in enumerate(parts):
        np.savez(output / f"weights-{number}.npz", **part)


def evaluate(
    output: pathlib.Path,
    data_dir: str | None,
    attacks: list[str],
    num_images: int | None,
) -> dict:
    """Makes a run folder, OUTPUT/run, of the weights, and evaluates it."""
    from atat_tf.data import datasets
    from atat_tf.evaluation import evaluate_run, printed_table
    from atat_tf.runs import build, naming
    from atat_tf.runs import config as run_config
    from atat_tf.runs import folder as run_folder

    about = json.loads((output / _PLAN).read_text())
    arrays = {}
    for path in output.glob("weights-*.npz"):
        with np.load(path) as part:
            arrays |= {int(name): part[name] for name in part.files}
    config = run_config.from_dict(about["config"])
    build.build_columns(config, attacks)  # refuses names that are none
    classifier = build.build_classifier(config, datasets.spec(config.dataset))
    classifier.set_weights([arrays[number] for number in sorted(arrays)])
    folder = run_folder.create(output / "run")
    run_folder.write_json(folder / run_folder.CONFIG, about["config"])
    run_folder.save_weights(folder, config.evaluation.weights, classifier)
    results = evaluate_run.evaluate_run(
        folder, attacks, num_images, data_dir=data_dir
    )
    printed_table.print_table([(naming.called(config), results)])
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=("prepare", "run", "evaluate"))
    parser.add_argument("--folder", type=pathlib.Path, default="runs/gpu")
    parser.add_argument("--output", type=pathlib.Path, default="runs/gpu_back")
    parser.add_argument("--data_dir")
    parser.add_argument("--size", choices=_SIZES, default="full")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--attacks", default="clean,pgd20,autoattack")
    parser.add_argument("--num_images", type=int)
    flags = parser.parse_args()
    if not 0 < flags.seconds < math.inf:
        parser.error(f"--seconds above 0, not {flags.seconds}")
    if flags.num_images is not None and flags.num_images < 1:
        parser.error(f"--num_images above 0, not {flags.num_images}")
    try:
        return _done(flags)
    except (OSError, ModuleNotFoundError, json.JSONDecodeError) as error:
        sys.exit(f"error: {error}")
    except ValueError as error:
        # The project's own, which there is not where the steps run.
        if type(error).__name__ != "InputError":
            raise
        sys.exit(f"error: {error}")


def _done(flags: argparse.Namespace) -> int:
    """Runs the command that is asked for; returns the exit status."""
    if flags.command == "prepare":
        prepare(flags.folder, flags.size, flags.data_dir)
    elif flags.command == "evaluate":
        names = flags.attacks.split(",")
        evaluate(flags.output, flags.data_dir, names, flags.num_images)
    else:
        return run(flags.folder, flags.output, flags.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
