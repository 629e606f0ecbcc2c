"""Points of the checklist that a run folder's files decide.

Whether results.json says what the ledger does, and whether the weights are
those that validation images chose.
"""

import numpy as np

from atat_tf.evaluation import accuracy as robustness
from atat_tf.evaluation.checklist.points import Point, compared, held, not_run
from atat_tf.evaluation.figures import worst_case
from atat_tf.evaluation.opening import OpenRun
from atat_tf.runs import build
from atat_tf.runs.folder import kept_epoch, validation_field


def worst_case_point(opened: OpenRun) -> Point:
    """Returns the Point of the reported worst case, from the ledger's lines."""
    name, results = "worst_case", opened.run.results
    if not results:
        return not_run(name, "the run has no results.json of test images")
    if "worst_case" not in results:
        return held(name, "results.json gives no worst case", "")
    if results.get("estimates"):
        names = ", ".join(results["estimates"])
        return not_run(name, f"{names}: an estimate, without a verdict of each")
    built = opened.known_columns(results["attacks"])
    if unknown := ", ".join(sorted({*results["attacks"]} - {*built})):
        return not_run(name, f"the plugin of {unknown} is not given")
    reported = results["worst_case"]
    if reported is None:
        why = (
            "no column is within ε, or the plugin of one was not given when "
            "results.json was written: evaluate again"
        )
        return not_run(name, why)
    if results["bn_eval"] != "frozen":
        return held(name, "results.json is of batch statistics (bn_eval)", "")
    if results.get("weights_digest") != opened.ledger.identity["weights"]:
        return not_run(name, "results.json is of other weights")
    computed = _worst_in_ledger(opened, results, built)
    if computed is None:
        return not_run(name, "the ledger lacks lines of results.json")
    wrong = None
    if abs(computed - reported) > 1e-9:
        wrong = (
            f"results.json reports {100 * reported:.2f} %, the ledger's lines "
            f"give {100 * computed:.2f} %"
        )
    least = min(results["accuracy"].values())
    note = f"{100 * reported:.2f} %; the least column has {100 * least:.2f} %"
    return held(name, wrong, note)


def _worst_in_ledger(opened, results, built):
    """Returns the worst case by the ledger, or None where lines are missing."""
    lines, count = opened.run.ledger, results["num_images"]
    stands = {
        name: lines and lines.standing(attacks, count)
        for name, attacks in results["attacks"].items()
    }
    if any(of_one is None for of_one in stands.values()):
        return None
    return worst_case(opened.config, built, stands)


def checkpoint_point(opened: OpenRun) -> Point:
    """Returns the Point of whether the weights are those validation chose.

    The figure of the epoch that they are of is measured again.

    Args:
      opened: OpenRun.
    """
    weights = opened.weights
    under, recorded = _recorded(opened.run.metrics, weights)
    if recorded is None or not len(opened.dataset.validation):
        why = f"no validation figures of the weights {weights!r} are recorded"
        return not_run("checkpoint", why)
    if opened.dataset.name != opened.config.dataset:
        return not_run("checkpoint", "the run was trained on another data set")
    attack = {
        "clean": None,
        "pgd": build.build_validation_attack(opened.config),
    }[under]
    correct = robustness.Evaluator(opened.classifier, {under: attack}).correct(
        under, opened.dataset.validation, opened.attacker.batch_size
    )
    measured = float(np.mean(correct))
    note = (
        f"{100 * measured:.1f} % of {len(correct)} validation images ({under})"
        f"; {100 * recorded:.1f} % in the epoch that was kept"
    )
    # The same images: there is no sampling error.
    return compared("checkpoint", abs(measured - recorded), 0.0, note)


def _recorded(rows, weights):
    """Returns the attack that validates, and what the weights had under it.

    None where no line of metrics.jsonl has it.
    """
    if not rows:
        return "clean", None
    epoch = kept_epoch(rows, weights)
    kept: dict = next((row for row in rows if row["epoch"] == epoch), {})
    # A rollback makes the best epoch's own weights the averaged ones.
    is_averaged = weights == "ema" and "rolled_back_to" not in rows[-1]
    for under in ("pgd", "clean"):
        field = validation_field(under, is_averaged)
        if field in kept:
            return under, kept[field]
    return "clean", None
