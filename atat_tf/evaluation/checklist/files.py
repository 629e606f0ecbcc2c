"""Points of the checklist that a run folder's files decide.

Whether results.json says what the ledger does, and whether the weights are
those that validation images chose.
"""

import numpy as np

from atat_tf.attacks import columns
from atat_tf.evaluation import accuracy as robustness
from atat_tf.evaluation import evaluate_run, ledger
from atat_tf.evaluation.checklist.points import compared, held, not_run
from atat_tf.evaluation.verdicts import CLEAN
from atat_tf.runs import build
from atat_tf.runs import folder as run_folder

_VALIDATION = "validation_{}_accuracy"


def results(workdir):
    """Returns results.json, or {} where the run was not evaluated."""
    path = workdir / run_folder.RESULTS
    return run_folder.read_json(path) if path.exists() else {}


def worst_case_point(run, workdir):
    """Returns the Point of the reported worst case, from the ledger's lines.

    Args:
      run: evaluation.OpenRun.
      workdir: the run folder.
    """
    name, found = "worst_case", results(workdir)
    if not found:
        return not_run(name, "the run has no results.json")
    reported = found.get("worst_case")
    if reported is None:
        return held(name, "results.json gives no worst case", "")
    if found["bn_eval"] != "frozen":
        return held(name, "results.json is of batch statistics (bn_eval)", "")
    if found["weights_digest"] != run.ledger.identity["weights"]:
        return not_run(name, "results.json is of other weights")
    computed = _worst_in_ledger(run, workdir, found)
    if computed is None:
        return not_run(name, "the ledger lacks lines of results.json")
    wrong = None
    if abs(computed - reported) > 1e-9:
        wrong = (
            f"results.json reports {100 * reported:.2f} %, the ledger's lines "
            f"give {100 * computed:.2f} %"
        )
    least = min(found["accuracy"].values())
    note = f"{100 * reported:.2f} %; the least column has {100 * least:.2f} %"
    return held(name, wrong, note)


def _worst_in_ledger(run, workdir, found):
    """Returns the worst case by the ledger, or None where lines are missing."""
    identity = evaluate_run.ledger_identity(
        found["weights_digest"],
        found["data"],
        found["bn_eval"],
        found["seed"],
        None,
    )
    book = ledger.Ledger(workdir / ledger.FILE, identity)
    classes = run.dataset.spec.num_classes
    built = build.build_columns(run.config, found["accuracy"], classes)
    try:
        stands = {
            name: _recorded(book, attacks, found["num_images"])
            for name, attacks in built.items()
        }
    except KeyError:
        return None
    return evaluate_run.worst_case(run.config, built, stands)


def _recorded(book, attacks, count):
    """Returns bool [count], who stands after a column by the ledger alone.

    Raises:
      KeyError: a line is missing.
    """
    stands = np.ones(count, bool)
    for description in (CLEAN, *map(columns.description, attacks)):
        lines = book.verdicts(description)
        for i in np.flatnonzero(stands):
            stands[i] = not lines[i]["broken"]
    return stands


def checkpoint_point(run, workdir, weights):
    """Returns the Point of whether the weights are those validation chose.

    The best epoch's figure, or the last one's for the weights "last", is
    measured again.

    Args:
      run: evaluation.OpenRun.
      workdir: the run folder.
      weights: which weights the run has.
    """
    rows = run_folder.read_metrics(workdir)
    under = "pgd" if rows and _VALIDATION.format("pgd") in rows[0] else "clean"
    field = _VALIDATION.format(under)
    scores = [row[field] for row in rows if field in row]
    if not scores or not len(run.dataset.validation) or weights == "ema":
        why = f"no validation figures of the weights {weights!r} are recorded"
        return not_run("checkpoint", why)
    if run.dataset.name != run.config.dataset:
        return not_run("checkpoint", "the run was trained on another data set")
    recorded = max(scores) if weights == "best" else scores[-1]
    attack = {
        "clean": None,
        "pgd": build.build_validation_attack(run.config),
    }[under]
    correct = robustness.Evaluator(run.classifier, {under: attack}).correct(
        under, run.dataset.validation, run.attacker.batch_size
    )
    measured = float(np.mean(correct))
    note = (
        f"{100 * measured:.1f} % of {len(correct)} validation images ({under})"
        f"; {100 * recorded:.1f} % in the epoch that was kept"
    )
    # The same images: there is no sampling error.
    return compared("checkpoint", abs(measured - recorded), 0.0, note)
