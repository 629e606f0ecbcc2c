"""Times how long one waits for a first answer, in processes of their own.

  python -m benchmarks.startup
  python -m benchmarks.startup --parts=help --repeats=9 --json=FILE

help        `--help` of every command of atat_tf and serving, and whether it
            imports TensorFlow
training    import, build and first ATAT step, tracing included
applications  the same of networks of keras.applications at 64 × 64, in
            processor seconds, beside the first step of Keras' own fit
evaluation  import, build, reading weights and first clean batch

Goals: 1 second and no TensorFlow; 30 s at batch 2; 15 s at batch 16; the
latter two for WRN-34-10.
"""

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

from atat_tf.runs import command_line, terminal
from benchmarks import command, fresh, ratios

_PARTS = ("help", "training", "applications", "evaluation")
# In processor seconds each.
_APPLICATION_PARTS = {
    "fit_seconds": "Keras' own first step, CPU",
    "build_seconds": "trainer, networks and checks, CPU",
    "step_seconds": "first ATAT step, CPU",
}
_APPLICATIONS = ("ResNet50V2", "EfficientNetB0", "ConvNeXtTiny")
_TRAINING_BATCH, _EVALUATION_BATCH = 2, 16
_FOLDERS = ("atat_tf", "serving")

flags.adopt_module_key_flags(command)
_ONLY = flags.DEFINE_list("parts", list(_PARTS), "what to time")
_COMMANDS = flags.DEFINE_list(
    "commands", None, "modules whose --help is timed (default: all)"
)
_DEPTH = flags.DEFINE_integer("depth", 34, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 10, "of the Wide ResNet")
_REPEATS = flags.DEFINE_integer("repeats", 5, "processes each", lower_bound=1)

# Runs a module as a command and says on the last line what it has imported.
_WATCHED = """
import runpy, sys
module = sys.argv.pop(1)
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    print("\\nTENSORFLOW" if "tensorflow" in sys.modules else "\\nNONE")
"""


def commands() -> list[str]:
    """Returns the modules that are commands, by name."""
    paths = [p for f in _FOLDERS for p in (command.ROOT / f).rglob("*.py")]
    stems = [
        path.relative_to(command.ROOT).with_suffix("").as_posix()
        for path in paths
        if '\nif __name__ == "__main__":' in path.read_text()
    ]
    names = (stem.removesuffix("/__main__") for stem in stems)
    return sorted(name.replace("/", ".") for name in names)


def helps(modules: list[str], repeats: int) -> dict[str, dict]:
    """Returns {module: {"seconds": [...], "imports_tensorflow"}}."""
    rows = {name: {"seconds": []} for name in modules}
    for _ in range(repeats):
        for name, row in rows.items():
            begin = time.perf_counter()
            ran = subprocess.run(
                [sys.executable, "-c", _WATCHED, name, "--help"],
                cwd=command.ROOT,
                capture_output=True,
                text=True,
            )
            row["seconds"].append(time.perf_counter() - begin)
            # absl ends with 1 after --help.
            if ran.returncode not in (0, 1) or not ran.stdout:
                last = (ran.stderr.strip().splitlines() or [""])[-1]
                raise RuntimeError(f"{name} --help failed: {last}")
            last = ran.stdout.splitlines()[-1]
            row["imports_tensorflow"] = last == "TENSORFLOW"
    return rows


def help_comparisons(rows: dict[str, dict]) -> list[dict]:
    """Returns the slowest command's comparison, and how many are not light."""
    slowest = max(rows, key=lambda name: max(rows[name]["seconds"]))
    heavy = [name for name, row in rows.items() if row["imports_tensorflow"]]
    return [
        ratios.comparison(
            f"--help, the slowest of {len(rows)}: {slowest}",
            "",
            rows[slowest]["seconds"],
            "<= 1",
            "s",
        ),
        ratios.comparison(
            "commands whose --help imports TensorFlow"
            + (f": {', '.join(heavy)}" if heavy else ""),
            "",
            [len(heavy)],
            "<= 0",
        ),
    ]


def first_step(depth: int, width: int, batch_size: int) -> dict:
    """Returns what the first ATAT step of a process costs.

    Args:
      depth, width: of the Wide ResNet.
      batch_size: images.

    Returns:
      "import_seconds"; "build_seconds" of teacher, student and trainer;
      "step_seconds" of the first step, tracing included.
    """
    begin = time.perf_counter()
    with command_line.quiet_start():
        from atat_tf.training import build as training_build
        from benchmarks import timings

    imported = time.perf_counter()
    config = timings.resolved_config("atat", depth, width, batch_size)
    split = timings.random_split(batch_size)
    step = timings.training_step(config, split, training_build.build_strategy())
    built = time.perf_counter()
    step()
    return _seconds(begin, imported, built)


def first_evaluation(
    folder: str, depth: int, width: int, batch_size: int
) -> dict:
    """Returns what the first clean batch of an evaluation costs.

    Args:
      folder: with the weights, see `written_weights`.
      depth, width: of the Wide ResNet.
      batch_size: images.

    Returns:
      As `first_step`; "step_seconds" are those of reading and of the batch.
    """
    begin = time.perf_counter()
    with command_line.quiet_start():
        from atat_tf.evaluation import attacker as attacker_lib
        from atat_tf.runs import folder as run_folder
        from benchmarks import timings

    imported = time.perf_counter()
    config = timings.resolved_config("at", depth, width, batch_size)
    split = timings.random_split(batch_size)
    classifier = timings.classifier(config)
    built = time.perf_counter()
    run_folder.load_weights(pathlib.Path(folder), "best", classifier)
    runner = attacker_lib.Attacker(classifier, batch_size)
    runner.logits(split.images).argmax(-1)
    return _seconds(begin, imported, built)


def first_application_step(application: str) -> dict:
    """Returns what a first step of a foreign network costs the processor.

    Args:
      application: a network of keras.applications.

    Returns:
      "fit_seconds" of Keras' own first step; "build_seconds" of student,
      teacher and trainer, and "step_seconds" of the first ATAT step: processor
      time, which other work on the machine leaves about as it is.
    """
    with command_line.quiet_start():
        import keras
        import numpy as np

        import atat_tf as atat
        from atat_tf.models import applications

    draw = np.random.default_rng(0)
    x = draw.random((_TRAINING_BATCH, 64, 64, 3), np.float32)
    y = np.arange(_TRAINING_BATCH)
    network = applications.factory(applications.PREFIX + application)

    def fit_seconds(model):
        begin = time.process_time()
        model.fit(x, y, batch_size=_TRAINING_BATCH, verbose=0)
        return time.process_time() - begin

    alone = network((64, 64, 3), 10, None, None)
    alone.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    seconds = {"fit_seconds": fit_seconds(alone)}
    begin = time.process_time()
    student, teacher = (network((64, 64, 3), 10, None, None) for _ in range(2))
    trainer = atat.AdversarialTrainer(
        student, atat.ATAT(), atat.pgd(8 / 255, 2 / 255, 7), teacher
    )
    trainer.compile("sgd")
    seconds["build_seconds"] = time.process_time() - begin
    return {**seconds, "step_seconds": fit_seconds(trainer)}


def application_comparisons(repeats: int) -> list[dict]:
    """Returns the comparisons of first steps with Keras' own first step."""
    compared = []
    for name in _APPLICATIONS:
        rounds = [
            fresh.called(first_application_step, application=name)
            for _ in range(repeats)
        ]
        for part, words in _APPLICATION_PARTS.items():
            what = f"{name}, 64 × 64, b = {_TRAINING_BATCH}: {words}"
            values = [each[part] for each in rounds]
            compared.append(ratios.comparison(what, "", values, "", "s"))
    return compared


def written_weights(folder: str, depth: int, width: int) -> dict:
    """Writes a classifier's random weights, as a run folder has them."""
    with command_line.quiet_start():
        from atat_tf.runs import folder as run_folder
        from benchmarks import timings

    config = timings.resolved_config("at", depth, width, 1)
    classifier = timings.classifier(config)
    run_folder.save_weights(pathlib.Path(folder), "best", classifier)
    return {}


def _seconds(begin, imported, built):
    return {
        "import_seconds": imported - begin,
        "build_seconds": built - imported,
        "step_seconds": time.perf_counter() - built,
    }


def first_calls(part: str, batch_size: int, repeats: int) -> list[dict]:
    """Returns the rounds of a part: what each process took, and in all."""
    size = {"depth": _DEPTH.value, "width": _WIDTH.value}
    if part == "training":
        return [
            fresh.called(first_step, **size, batch_size=batch_size)
            for _ in range(repeats)
        ]
    with tempfile.TemporaryDirectory() as folder:
        fresh.called(written_weights, folder=folder, **size)
        size |= {"folder": folder, "batch_size": batch_size}
        return [fresh.called(first_evaluation, **size) for _ in range(repeats)]


def print_calls(what: str, rounds: list[dict]) -> None:
    """Prints where the seconds of a first call went."""
    medians = {
        name: statistics.median(each[name] for each in rounds)
        for name in rounds[0]
    }
    terminal.console().print(
        f"{what}: import {medians['import_seconds']:.1f} s, build "
        f"{medians['build_seconds']:.1f} s, first call "
        f"{medians['step_seconds']:.1f} s"
    )


def main(argv: list[str]) -> None:
    del argv
    command.expect_names("--parts", _ONLY.value, _PARTS)
    compared = []
    results = {"surroundings": command.begin(), "comparisons": compared}
    if "help" in _ONLY.value:
        modules = _COMMANDS.value or commands()
        results["help"] = helps(modules, _REPEATS.value)
        compared += help_comparisons(results["help"])
    if "applications" in _ONLY.value:
        compared += application_comparisons(_REPEATS.value)
    for part, batch, goal in (
        ("training", _TRAINING_BATCH, "<= 30"),
        ("evaluation", _EVALUATION_BATCH, "<= 15"),
    ):
        if part in _ONLY.value:
            rounds = first_calls(part, batch, _REPEATS.value)
            network = f"WRN-{_DEPTH.value}-{_WIDTH.value}"
            what = f"first {part} batch, {network}, b = {batch}"
            print_calls(what, rounds)
            results[part] = rounds
            seconds = [each["process_seconds"] for each in rounds]
            compared.append(ratios.comparison(what, "", seconds, goal, "s"))
    command.finish("From the start of a process", results)


if __name__ == "__main__":
    command_line.run(main, recipes=False)
