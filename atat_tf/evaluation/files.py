"""The files that a run's report is made of, and what they must hold."""

import pathlib

from atat_tf.errors import expect
from atat_tf.evaluation import evaluate_run, ledger
from atat_tf.runs import folder as run_folder

# What of a file the page cannot do without.
_CONFIG_FIELDS = {"dataset", "backbone", "defense"}
_RESULTS_FIELDS = {
    "dataset",
    "data",
    "method",
    "num_images",
    "bn_eval",
    "seed",
    "accuracy",
    "attacks",
}


def config(workdir):
    """Returns what config.json holds.

    Raises:
      InputError: no run there.
    """
    path = pathlib.Path(workdir) / run_folder.CONFIG
    return _with(_CONFIG_FIELDS, path, run_folder.read_json(path))


def results(workdir):
    """Returns what results.json holds, or None where there is none.

    Raises:
      InputError: it is not what `evaluate` writes.
    """
    path = pathlib.Path(workdir) / run_folder.RESULTS
    if not path.exists():
        return None
    return _with(_RESULTS_FIELDS, path, run_folder.read_json(path))


def checked(workdir):
    """Returns what checklist.json holds, or None where there is none.

    Raises:
      InputError: it is not what `evaluate --checklist` writes.
    """
    path = pathlib.Path(workdir) / run_folder.CHECKLIST
    if not path.exists():
        return None
    return _with({"points", "num_images"}, path, run_folder.read_json(path))


def epochs(workdir):
    """Returns the rows of metrics.jsonl, those that are of an epoch."""
    rows = run_folder.read_metrics(workdir)
    return [row for row in rows if isinstance(row, dict) and "epoch" in row]


def book(workdir, found):
    """Returns the Ledger whose lines results.json was computed from, or None.

    Args:
      workdir: the run folder.
      found: what results.json holds, or None.
    """
    has_ledger = ledger.is_in(workdir)
    if not found or "weights_digest" not in found or not has_ledger:
        return None
    identity = evaluate_run.ledger_identity(
        found["weights_digest"],
        found["data"],
        found["bn_eval"],
        found["seed"],
        [found["batch_size"], found["num_images"]],
    )
    return ledger.Ledger(pathlib.Path(workdir) / ledger.FILE, identity)


def _with(fields, path, values):
    """Returns a file's values, which must have these fields."""
    missing = fields - set(values if isinstance(values, dict) else ())
    expect(
        not missing,
        f"{path.name} with {', '.join(sorted(fields))}",
        path=str(path),
        missing=sorted(missing),
    )
    return values
