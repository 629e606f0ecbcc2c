"""The figures of results.json: which of them stay beside new ones."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from atat_tf.attacks import columns
from atat_tf.evaluation.opening import OpenRun
from atat_tf.runs import folder as run_folder
from atat_tf.runs import terminal

# What the columns of one results.json have in common.
_SETTINGS = (
    "data",
    "num_images",
    "bn_eval",
    "seed",
    "weights",
    "weights_digest",
    "batch_size",
    "split",
)
# What figures have in common that may be of different numbers of images.
_SAME_IMAGES = ("data", "bn_eval", "weights_digest", "split")


def kept(opened: OpenRun, results: dict) -> dict:
    """Returns results as they are to be shown, written where they are kept.

    Columns of the same settings stay beside the new ones, as far as the ledger
    has their lines. Of the same weights, fewer images replace no figures, and
    validation images none of test images.

    Args:
      opened: OpenRun.
      results: of one evaluation, see `evaluate_run.evaluate_run`.
    """
    path = opened.run.folder / run_folder.RESULTS
    before = opened.run.read(run_folder.RESULTS) or {}
    is_of_these = all(before.get(n) == results.get(n) for n in _SAME_IMAGES)
    is_fewer = before.get("num_images", 0) > results["num_images"]
    is_aside = "split" in results and "split" not in before
    is_aside &= before.get("weights_digest") == results["weights_digest"]
    if is_aside or (is_of_these and is_fewer):
        kept, shown = (_images(each) for each in (before, results))
        terminal.console().print(
            f"{path} keeps its figures of {kept}: those of {shown} are shown "
            "alone."
        )
        return results
    if all(before.get(name) == results.get(name) for name in _SETTINGS):
        # Another command may have added lines, and columns, meanwhile.
        opened = dataclasses.replace(opened, ledger=opened.ledger.again())
        results = _merged(opened, before, results)
    run_folder.write_json(path, results)
    return results


def _images(results):
    """Returns which images a results.json is of, in words."""
    split = f"{results['split']} " if "split" in results else ""
    return f"{results['num_images']:,} {split}images"


def _merged(opened, before, results):
    """Returns results with the columns that a results.json had before."""
    stands, attacks = {}, {}
    for name, descriptions in {
        **before["attacks"],
        **results["attacks"],
    }.items():
        of_one = opened.ledger.standing(descriptions, results["num_images"])
        if of_one is not None:
            stands[name], attacks[name] = of_one, descriptions
    if not {*results["attacks"]} <= {*attacks}:
        return results
    # The narrower interval takes the place of the wider one, and a figure of
    # all images that of an estimate of the same attacks, whatever their name.
    estimates: dict[str, dict] = {}
    for source in (before, results):
        for name, of_one in source.get("estimates", {}).items():
            kept = estimates.get(name, of_one)
            old, new = kept.get("attacks"), of_one.get("attacks")
            if old and new and old != new:
                kept = of_one  # the name stood for other attacks then
            estimates[name] = min(
                of_one, kept, key=lambda found: found["high"] - found["low"]
            )
    known = opened.known_columns([*attacks, *estimates])
    described = {n: columns.descriptions(known[n]) for n in known}
    estimates = {
        name: of_one
        for name, of_one in estimates.items()
        if name not in attacks
        and described.get(name) not in [*attacks.values()]
    }
    built = {n: known[n] for n in known if n in attacks or n in estimates}
    results = {name: results[name] for name in results if name != "estimates"}
    if estimates:
        results["estimates"] = estimates
    return {
        **results,
        "accuracy": {name: float(np.mean(s)) for name, s in stands.items()},
        "worst_case": worst_case(opened.config, built, stands),
        "refuted": opened.ledger.refuted(
            columns.described(built) | {*itertools.chain(*attacks.values())},
            results["num_images"],
        ),
        "attacks": attacks,
    }


def worst_case(
    config: ConfigDict,
    built: Mapping[str, Sequence],
    stands: Mapping[str, np.ndarray],
) -> float | None:
    """Returns the share of images correct under every attack at once.

    Of the columns inside the config's threat model, clean among them; None
    where there is none, where one of them is an estimate, without a verdict of
    each image, and where a column is of a plugin that is not here, whose radius
    is not known.

    Args:
      config: gives ε.
      built: {column: stepped attacks}.
      stands: {column: bool [n]}, without those that are estimated.
    """
    within = [
        name
        for name, attacks in built.items()
        if in_threat_model(config, attacks)
    ]
    if not within or not {*within} <= {*stands} <= {*built}:
        return None
    return float(np.mean(np.all([stands[name] for name in within], axis=0)))


def in_threat_model(config: ConfigDict, attacks: Iterable) -> bool:
    """Returns whether all attacks of a column stay in the config's ball."""
    return all(
        attack.epsilon <= config.attack.epsilon
        and getattr(attack, "norm", "linf") == "linf"
        for attack in attacks
    )
