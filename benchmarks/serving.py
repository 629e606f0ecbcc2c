"""Times the embedded server against the model in process and an empty echo.

  python -m benchmarks.serving
  python -m benchmarks.serving --repeats=9 --seconds=1 --json=FILE

Server, echo and callers are processes of their own, over loopback; the callers
are threads of one process that send ready bytes and read none of the answers.
In process, as many threads run the same signature. Images are random. Ratios
and differences are taken round by round in one run; goals are stated, not
asserted.
"""

import functools
import os
import pathlib
import statistics
import tempfile
from collections.abc import Callable

import numpy as np
from absl import flags, logging

from atat_tf.errors import expect
from atat_tf.runs import command_line, terminal
from benchmarks import command, ratios, serving_load

flags.adopt_module_key_flags(command)
_MODEL_FOLDER = flags.DEFINE_string(
    "model_folder",
    None,
    "folder of the versions to serve; the newest is measured (default: a new "
    "export of results/small/cifar10/atat/seed0)",
)
_BATCHES = flags.DEFINE_multi_integer(
    "batch", [1, 8, 64], "images in a call", lower_bound=1
)
_CLIENTS = flags.DEFINE_multi_integer(
    "clients", [1, 16], "callers at a time", lower_bound=1
)
_REPEATS = flags.DEFINE_integer("repeats", 5, "rounds", lower_bound=3)
_SECONDS = flags.DEFINE_float(
    "seconds", 0.5, "of each measurement in each round", lower_bound=0.01
)

_RUN = command.ROOT / "results/small/cifar10/atat/seed0"
_SERVED, _LOCAL, _ECHO = "served", "in process", "echo"
_PLAIN = ": predict"  # the signature without attention
_COLUMNS = ("clients x images", "p50 ms", "spread", "p99", "images/s", "CPU ms")


class Model:
    """A version of a model, in process and as requests.

    Args:
      folder: of the version, whose signatures take images.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        from serving.server import servable

        self._loaded = servable.Servable(folder)
        info = self._loaded.signatures["predict"].inputs["images"]
        self._shape = [dim.size for dim in info.tensor_shape.dim[1:]]

    def payload(self, signature: str, batch: int) -> bytes:
        """Returns the bytes of a PredictRequest for "model"."""
        from tensorflow_serving.apis import predict_pb2

        from serving import tensors

        request = predict_pb2.PredictRequest()
        request.model_spec.name = "model"
        request.model_spec.signature_name = signature
        tensors.to_proto(self._images(batch), request.inputs["images"])
        return request.SerializeToString()

    def call(self, signature: str, batch: int) -> Callable[[], object]:
        """Returns a function that runs a signature, all of its outputs."""
        signature = self._loaded.signatures[signature]
        feeds = {signature.inputs["images"].name: self._images(batch)}
        outputs = [signature.outputs[o].name for o in sorted(signature.outputs)]
        return functools.partial(self._loaded.run, feeds, outputs)

    def _images(self, batch):
        draw = np.random.default_rng(0)
        return draw.uniform(size=(batch, *self._shape)).astype(np.float32)


def measure(
    model_folder: str,
    batches: list[int],
    clients: list[int],
    repeats: int,
    seconds: float,
) -> list[dict]:
    """Returns what each kind of call took: one dictionary a row.

    Args:
      model_folder: folder of the versions.
      batches: images in a call, a row each.
      clients: callers at a time, a row each.
      repeats: number of rounds.
      seconds: of one measurement.

    Raises:
      InputError: there is no version in the folder.
    """
    model, rounds = Model(_newest_version(model_folder)), {}
    with serving_load.Processes(model_folder) as processes:
        for _ in range(repeats + 1):
            for batch in batches:
                timed = _functions(processes, model, batch, seconds)
                for count in clients:
                    for what, function in timed.items():
                        key = count, batch, what
                        rounds.setdefault(key, []).append(function(count))
    # The first round warms up.
    return [_row(*key, values[1:]) for key, values in rounds.items()]


def _newest_version(folder):
    folder = pathlib.Path(folder)
    names = os.listdir(folder) if folder.is_dir() else []
    versions = [name for name in names if name.isdecimal()]
    rule = "a model_folder with numbered versions"
    expect(versions, rule, model_folder=str(folder))
    return folder / max(versions, key=int)


def _functions(processes, model, batch, seconds):
    """Returns {what: function of the number of clients}, in their order."""
    payload = model.payload("", batch)
    answer = processes.predict(payload, 1, 0)["answer"]

    def served(signature):
        payload = model.payload(signature, batch)
        return lambda count: processes.predict(payload, count, seconds)

    def local(signature):
        call = model.call(signature, batch)
        call()
        return lambda count: serving_load.timed_calls([call] * count, seconds)

    return {
        _SERVED: served("serving_default"),
        _LOCAL: local("serving_default"),
        _ECHO: lambda count: processes.echo(payload, answer, count, seconds),
        _SERVED + _PLAIN: served("predict"),
        _LOCAL + _PLAIN: local("predict"),
    }


def _row(clients, batch, what, rounds):
    every = sorted(one for timed in rounds for one in timed["latencies"])
    counts = [len(timed["latencies"]) for timed in rounds]
    pairs = list(zip(counts, rounds, strict=True))
    return {
        "clients": clients,
        "batch": batch,
        "what": what,
        "calls": len(every),
        "p50": [statistics.median(timed["latencies"]) for timed in rounds],
        "p99": every[int(0.99 * len(every))],
        "images_per_second": [n * batch / t["seconds"] for n, t in pairs],
        "processor_seconds": [t["processor"] / n for n, t in pairs],
    }


def comparisons(rows: list[dict]) -> list[dict]:
    """Returns the comparisons of the rounds, see `ratios`."""
    found = {(r["clients"], r["batch"], r["what"]): r for r in rows}
    compared = []
    for clients, batch, what in found:
        if what == _SERVED:
            case = {
                key[2]: row
                for key, row in found.items()
                if key[:2] == (clients, batch)
            }
            compare = _alone if clients == 1 else _together
            compared += compare(f"{clients} x {batch}:", case)
    return compared


def _alone(name, case):
    served, local, echo = (case[w]["p50"] for w in (_SERVED, _LOCAL, _ECHO))
    added = [
        1e3 * (whole - model - wire)
        for whole, model, wire in zip(served, local, echo, strict=True)
    ]
    against = "in process + echo"
    rows = [
        ratios.comparison(
            f"{name} served, added p50", against, added, "<= 2", "ms"
        )
    ]
    for what in (_SERVED, _LOCAL):
        slower = ratios.over(case[what]["p50"], case[what + _PLAIN]["p50"])
        rows.append(
            ratios.comparison(
                f"{name} {what}", "without attention", slower, "<= 1.10"
            )
        )
    return [*rows, *_always(name, case)]


def _together(name, case):
    rates = (case[what]["images_per_second"] for what in (_SERVED, _LOCAL))
    rate = ratios.comparison(
        f"{name} served, rate", _LOCAL, ratios.over(*rates), ">= 0.9"
    )
    return [rate, *_always(name, case)]


def _always(name, case):
    p99 = [1e3 * case[_SERVED]["p99"]]
    used = (case[what]["processor_seconds"] for what in (_SERVED, _LOCAL))
    return [
        ratios.comparison(
            f"{name} served, p99 of all calls", "", p99, "", "ms"
        ),
        ratios.comparison(f"{name} served, CPU", _LOCAL, ratios.over(*used)),
    ]


def _cells(row):
    return (
        f"{row['clients']} x {row['batch']} {row['what']}",
        *ratios.figures(row["p50"], 1e3),
        f"{1e3 * row['p99']:.1f}",
        ratios.figures(row["images_per_second"])[0],
        ratios.figures(row["processor_seconds"], 1e3)[0],
    )


def main(argv: list[str]) -> None:
    del argv
    about = command.begin(onednn=False)  # as the server is
    from serving.saved_model import writing

    logging.set_verbosity(logging.ERROR)
    sizes = {
        "batches": _BATCHES.value,
        "clients": _CLIENTS.value,
        "repeats": _REPEATS.value,
        "seconds": _SECONDS.value,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = _MODEL_FOLDER.value
        if not folder:
            folder = pathlib.Path(temporary, "model")
            writing.export_run(_RUN, folder)
        rows = measure(os.path.abspath(folder), **sizes)
    terminal.table(
        f"{_REPEATS.value} rounds of {_SECONDS.value:g} s each; medians of the "
        "rounds, p99 of all calls; CPU: the server's processor time a call, or "
        "that of the process with the model",
        _COLUMNS,
        [_cells(row) for row in rows],
    )
    results = {"surroundings": about, **sizes, "rows": rows}
    results["comparisons"] = comparisons(rows)
    command.finish("Clients x images in a call", results)


if __name__ == "__main__":
    command_line.run(main, recipes=False)
