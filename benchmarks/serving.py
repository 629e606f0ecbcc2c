"""Times the embedded server against the model in process and an empty echo.

  python -m benchmarks.serving
  python -m benchmarks.serving --repeats=9 --seconds=1 --json=FILE

Server, echo and callers are processes of their own, over loopback; the callers
are threads of one process that send ready bytes and read none of the answers.
In process, as many threads run the same signature. Images are random. Ratios
and differences are taken round by round in one run; goals are stated, not
asserted.
"""

import os
import pathlib
import statistics
import sys
import tempfile

from absl import app, flags, logging

from benchmarks import command, ratios

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

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_RUN = _ROOT / "results/small/cifar10/atat/seed0"
_SERVED, _LOCAL, _ECHO = "served", "in process", "echo"
_PLAIN = ": predict"  # the signature without attention
_COLUMNS = ("clients x images", "p50 ms", "spread", "p99", "images/s", "CPU ms")


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
    from benchmarks import serving_load, serving_requests

    newest = _newest_version(model_folder)
    rounds = {}
    with serving_load.Processes(model_folder) as processes:
        model = serving_requests.Model(newest)
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
    from atat_tf import errors

    folder = pathlib.Path(folder)
    names = os.listdir(folder) if folder.is_dir() else []
    versions = [name for name in names if name.isdecimal()]
    rule = "a model_folder with numbered versions"
    errors.expect(versions, rule, model_folder=str(folder))
    return folder / max(versions, key=int)


def _functions(processes, model, batch, seconds):
    """Returns {what: function of the number of clients}, in their order."""
    answer = processes.predict(model.payload("", batch), 1, 0)["answer"]

    def served(signature):
        payload = model.payload(signature, batch)
        return lambda count: processes.predict(payload, count, seconds)

    def local(signature):
        call = model.call(signature, batch)
        return lambda count: model.timed(call, count, seconds)

    def echo(count):
        payload = model.payload("", batch)
        return processes.echo(payload, answer, count, seconds)

    return {
        _SERVED: served("serving_default"),
        _LOCAL: local("serving_default"),
        _ECHO: echo,
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
    rows = [
        ratios.comparison(
            f"{name} served, added p50",
            "in process + echo",
            added,
            "<= 2",
            "ms",
        )
    ]
    for what in (_SERVED, _LOCAL):
        slower = _over(case[what], case[what + _PLAIN], "p50")
        rows.append(
            ratios.comparison(
                f"{name} {what}", "without attention", slower, "<= 1.10"
            )
        )
    return [*rows, _p99(name, case), _processor(name, case)]


def _together(name, case):
    rates = _over(case[_SERVED], case[_LOCAL], "images_per_second")
    return [
        ratios.comparison(
            f"{name} served, rate", "in process", rates, ">= 0.9"
        ),
        _p99(name, case),
        _processor(name, case),
    ]


def _p99(name, case):
    return ratios.comparison(
        f"{name} served, p99 of all calls",
        "",
        [1e3 * case[_SERVED]["p99"]],
        "",
        "ms",
    )


def _processor(name, case):
    used = _over(case[_SERVED], case[_LOCAL], "processor_seconds")
    return ratios.comparison(f"{name} served, CPU", "in process", used)


def _over(row, other, field):
    return ratios.over(row[field], other[field])


def _cells(row):
    return (
        f"{row['clients']} x {row['batch']} {row['what']}",
        *ratios.figures(row["p50"], 1e3),
        f"{1e3 * row['p99']:.1f}",
        ratios.figures(row["images_per_second"])[0],
        ratios.figures(row["processor_seconds"], 1e3)[0],
    )


def main(argv: list[str]) -> None:
    about = command.begin(argv, onednn=False)  # as the server is
    from atat_tf.errors import InputError
    from atat_tf.runs import terminal
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
        try:
            if not folder:
                folder = pathlib.Path(temporary, "model")
                writing.export_run(_RUN, folder)
            rows = measure(os.path.abspath(folder), **sizes)
        except InputError as error:
            sys.exit(f"error: {error}")
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
    app.run(main)
