"""Computes the numbers of a run's report from the files of its folder.

No image is read and no classifier is run.
"""

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atat_tf.evaluation import ledger
from atat_tf.evaluation.ledger import CLEAN
from atat_tf.runs import folder as run_folder
from atat_tf.runs import recipes

STANDS, BROKEN, WRONG, NOT_RUN = "stands", "broken", "wrong", "not run"
# Classes that a matrix on a screen has room for; of more, so many pairs.
_MATRIX_CLASSES = 20
_PAIRS = 20
_SHADES = 4
_AT_RADII = ",".join(
    ["clean", "pgd20", *(f"pgd20@{radius}/255" for radius in (1, 2, 4, 16))]
)

# What a run and its teacher have in common beside the network.
_OF_THE_SPLIT = (
    "num_epochs",
    "image_size",
    "image_shape",
    "num_validation",
    "split_seed",
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the ledger says of an image and a column.

    Attributes:
      word: STANDS, BROKEN, WRONG (misclassified before any attack) or NOT_RUN.
      step: after how many steps it broke; None where it did not.
      prediction: the class of the attacked image; None where it is not known.
    """

    word: str
    step: int | None = None
    prediction: int | None = None


def flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns [(name, text)] of a nested config, names joined by dots."""
    return [
        (name, f"{255 * value:g}/255" if _is_radius(name) else _text(value))
        for name, value in recipes.flat(values)
    ]


def _is_radius(name):
    return name.rpartition(".")[2] in ("epsilon", "step_size")


def provenance(
    named: Sequence[tuple[str, Mapping[str, Any]]],
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns how each row of the table was made, [(whose, [(what, text)])].

    Args:
      named: [(whose, what its results.json holds)].
    """
    rows = []
    for whose, results in named:
        names = ("data", "num_images", "bn_eval", "seed", "commit", "weights")
        names += ("weights_digest", "worst_case", "refuted")
        facts = [
            (name, _text(results[name])) for name in names if name in results
        ]
        for column, attacks in results["attacks"].items():
            facts += [(column, attack) for attack in attacks]
        rows.append((whose, facts))
    return rows


def commands(
    workdir: str | pathlib.Path,
    config: Mapping[str, Any],
    data_dir: str | None = None,
    num_images: int | None = None,
) -> dict[str, str]:
    """Returns {what is missing: the command that makes it}.

    Args:
      workdir: the run folder.
      config: as config.json holds it.
      data_dir: of tensorflow-datasets, as the report's own command had it.
      num_images: of the run's figures, beside which others then stand; None
        without any.
    """
    data = ("--data_dir", data_dir) if data_dir else ()
    images = ("--num_images", num_images) if num_images else ()
    teacher = run_folder.teacher_folder(workdir, config.get("teacher"))
    twin = [
        ("--config", "standard"),
        ("--dataset", config["dataset"]),
        *(
            (f"--config.{name}", config[name])
            for name in _OF_THE_SPLIT
            if config.get(name) is not None
        ),
    ]
    if config.get("model"):
        twin.append(("--model", config["model"]))
        low, high = config["model_range"]
        twin.append(("--config.model_range", f"({low}, {high})"))
    else:
        twin += [
            (f"--config.backbone.{name}", value)
            for name, value in config["backbone"].items()
        ]
    evaluate = "evaluate"
    return {
        "results": _command(evaluate, ("--workdir", workdir), data, images),
        "checklist": _command(
            evaluate, ("--workdir", workdir), data, ("--checklist",)
        ),
        "teacher": _command("train", *twin, ("--workdir", teacher), data),
        "teacher_results": _command(
            evaluate, ("--workdir", teacher), data, images
        ),
        "radii": _command(
            evaluate,
            ("--workdir", workdir),
            data,
            images,
            ("--attacks", _AT_RADII),
        ),
        "autoattack": _command(
            evaluate,
            ("--workdir", workdir),
            data,
            images,
            ("--attacks", "clean,pgd20,autoattack"),
        ),
        "report": _command("report", ("--workdir", workdir), data),
    }


def verdict(
    lines: ledger.Ledger, attacks: Sequence[str], index: int
) -> Verdict:
    """Returns the Verdict on an image.

    Args:
      lines: of the run.
      attacks: descriptions of a column's attacks, in order; () for "clean".
      index: of the test image.
    """
    line = lines.deciding(attacks, index)
    if line is None:
        return Verdict(NOT_RUN)
    if not line["broken"]:
        return Verdict(STANDS, prediction=line["label"])
    if lines.verdicts(CLEAN)[index]["broken"]:
        return Verdict(WRONG, prediction=line["prediction"])
    return Verdict(BROKEN, line["step"], line["attacked_prediction"])


def attacked_columns(results: Mapping[str, Any]) -> list[str]:
    """Returns the names of results.json's columns that attack, in order."""
    return [name for name in results["accuracy"] if name != "clean"]


def confusion(
    lines: ledger.Ledger, attacks: Sequence[str], count: int, num_classes: int
) -> np.ndarray | None:
    """Returns how often each class was taken for which under an attack.

    An image that was misclassified before the attack counts with the class it
    had then.

    Args:
      lines: of the run.
      attacks: descriptions of a column's attacks, in order.
      count: the first so many images.
      num_classes: k.

    Returns:
      int [k, k], rows are true classes; None where a class is not known, as
      with batch statistics.
    """
    counts = np.zeros((num_classes, num_classes), int)
    labels = lines.verdicts(CLEAN)
    for index in range(count):
        on = verdict(lines, attacks, index)
        if on.prediction is None:
            return None
        counts[labels[index]["label"], on.prediction] += 1
    return counts


def confusion_table(
    counts: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Returns a matrix with shades, or its largest errors where k is large.

    Args:
      counts: int [k, k].
      class_names: k strings.

    Returns:
      {names, rows: [[(count, shade)]], pairs: [(true, taken for, count)]};
      rows or pairs is None. Shades are 0 (none) to 4, by share of the row.
    """
    if len(class_names) <= _MATRIX_CLASSES:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        shades = np.ceil(_SHADES * shares).astype(int)
        rows = [
            list(zip(of_one.tolist(), shade.tolist(), strict=True))
            for of_one, shade in zip(counts, shades, strict=True)
        ]
        return {"names": class_names, "rows": rows, "pairs": None}
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    cells = zip(*np.unravel_index(order, wrong.shape), strict=True)
    pairs = [
        (class_names[i], class_names[j], int(wrong[i, j]))
        for i, j in cells
        if wrong[i, j]
    ]
    return {"names": class_names, "rows": None, "pairs": pairs}


def _command(module, *flags):
    """Returns a command line, its values quoted for a shell."""
    words = ["python", "-m", f"atat_tf.{module}"]
    for flag in flags:
        if flag:
            name, *value = map(str, flag)
            words.append("=".join([name, *map(shlex.quote, value)]))
    return " ".join(words)


def _text(value):
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "not set" if value in (None, "") else str(value)
