"""The checklist of a run: can its robustness numbers be believed?

Every point that a program can decide is decided on test images, through the
run's ledger: a killed checklist goes on where it was. `checklist.json` holds

  dataset, data, method, weights, weights_digest, seed, commit: as in
    results.json;
  num_images: test images; minimum_images: below these no point is decided
    that needs statistics;
  deviations: standard deviations that a figure may be above its threshold;
  points: a dictionary a point, see `points.Point`;
  explanations: means of `explanations.Quality` over the first images.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from rich.text import Text

from atat_tf.attacks import columns
from atat_tf.evaluation import evaluate_run, opening
from atat_tf.evaluation.attention import explanations
from atat_tf.evaluation.checklist import attacks as checklist_attacks
from atat_tf.evaluation.checklist import files as checklist_files
from atat_tf.evaluation.checklist import gates
from atat_tf.evaluation.checklist.points import (
    CRITERIA,
    DEVIATIONS,
    FAIL,
    NOT_RUN,
    PASS,
    Point,
    compared,
    counted,
    from_standing,
    not_run,
    share_error,
)
from atat_tf.evaluation.ledger import CLEAN
from atat_tf.evaluation.opening import OpenRun
from atat_tf.runs import folder as run_folder
from atat_tf.runs import naming, terminal

FILE = run_folder.CHECKLIST
NUM_IMAGES = 500
MINIMUM_IMAGES = 200
# More points than these share a note by their numbers.
_NAMED = 3
# Of the verdicts, on a terminal.
_COLOURS = {PASS: "green", FAIL: "bold red", NOT_RUN: "yellow"}


def run_checklist(
    workdir: run_folder.Path,
    num_images: int | None = None,
    weights: str | None = None,
    dataset_name: str | None = None,
    data_dir: run_folder.Path | None = None,
    seed: int | None = None,
) -> list[Point]:
    """Decides every point for a run, prints the table, writes checklist.json.

    Args:
      workdir: the run folder.
      num_images: the first so many test images; None for NUM_IMAGES.
      weights, dataset_name, data_dir, seed: as for `opening.open_run`.

    Returns:
      A list of `points.Point`, one a criterion.

    Raises:
      InputError: bad arguments, or no run there.
    """
    opened = opening.open_run(
        workdir,
        NUM_IMAGES if num_images is None else num_images,
        weights=weights,
        dataset_name=dataset_name,
        data_dir=data_dir,
        seed=seed,
    )
    twin = opening.open_twin(opened)
    quality = gates.explained(opened)
    points = decided_points(opened, twin, quality=quality)
    run_folder.write_json(
        opened.run.folder / FILE,
        {
            "dataset": opened.dataset.name,
            "data": opened.dataset.provenance,
            "method": naming.method(opened.config),
            "num_images": len(opened.split),
            "minimum_images": MINIMUM_IMAGES,
            "deviations": DEVIATIONS,
            "weights": opened.weights,
            "weights_digest": opened.ledger.identity["weights"],
            "seed": opened.seed,
            "commit": run_folder.commit(),
            "points": [dataclasses.asdict(point) for point in points],
            "explanations": quality.means() if quality else {},
        },
    )
    title = (
        f"{workdir}: {len(opened.split):,} test images of {opened.dataset.name}"
    )
    print_table(title, points)
    return points


def decided_points(
    opened: OpenRun,
    teacher: OpenRun | None,
    minimum: int = MINIMUM_IMAGES,
    quality: explanations.Quality | None = None,
) -> list[Point]:
    """Returns the Point of every criterion, in the order of CRITERIA.

    Args:
      opened: the run, with frozen statistics.
      teacher: the undefended twin, or None.
      minimum: images below which nothing that needs statistics is decided.
      quality: of the run's attention maps; None where it has none.
    """
    _announce("logits")
    points = gates.output_points(opened)
    broken = [name for name, point in points.items() if point.verdict == FAIL]
    few = f"{len(opened.split)} images; at least {minimum} are needed"
    if len(opened.split) < minimum:
        points["gradients"] = not_run("gradients", few)
        obstacle = few
    elif opened.is_served:
        obstacle = checklist_attacks.NO_GRADIENT
        if not broken:
            points |= _queried_points(opened)
    else:
        _announce("gradients")
        points["gradients"] = gates.gradients_point(opened)
        points["class_sensitivity"] = gates.class_sensitivity_point(quality)
        obstacle = ""
        if points["gradients"].figure == 100:
            obstacle = "no image has a gradient"
    if broken:
        obstacle = f"no verdict counts while {broken[0]} fails"
    if not obstacle:
        points |= _attacked_points(opened, teacher)
    _announce("worst_case")
    points["worst_case"] = checklist_files.worst_case_point(opened)
    points["checkpoint"] = checklist_files.checkpoint_point(opened)
    return [
        points.get(criterion.name) or not_run(criterion.name, obstacle)
        for criterion in CRITERIA
    ]


def _announce(name):
    terminal.stage(f"{_place(name)}, {name}")


def _place(name):
    """Returns "point 8 of 22" for a criterion's name, "all" for others."""
    names = [criterion.name for criterion in CRITERIA]
    if name not in names:
        return "all"
    return f"point {names.index(name) + 1} of {len(names)}"


def print_table(title: str, points: Iterable[Point]) -> None:
    """Prints the points with figure, threshold and verdict, then the notes.

    Points are numbered as the stages were. A note that several points have is
    printed once; last comes the sum. On a terminal verdicts have colours.
    """
    points = list(points)
    rows: list[list[str | Text]] = []
    notes: dict[str, list[int]] = {}
    for number, point in enumerate(points, 1):
        name = f"{number}. {point.compared}"
        notes.setdefault(point.note, []).append(number)
        figure, threshold = "", ""
        if point.figure is not None:
            figure = f"{point.figure:.1f}"
            threshold = f"≤ {point.threshold:g} + {point.allowance:.1f}"
        verdict = Text(point.verdict, _COLOURS[point.verdict])
        rows.append([name, figure, threshold, verdict])
    heads = ["figures in points", "figure", "threshold", "verdict"]
    terminal.table(title, heads, rows)
    screen = terminal.console()
    for note, numbers in notes.items():
        screen.print(f"{_named(numbers, points)}: {note}")
    counts = counted(point.verdict for point in points)
    screen.print(f"{len(points)} points: {counts}")


def _named(numbers, points):
    """Returns the points that share a note: by number where they are many."""
    if len(numbers) > _NAMED:
        return f"points {', '.join(map(str, numbers))}"
    return "; ".join(f"{n}. {points[n - 1].compared}" for n in numbers)


def _queried_points(opened):
    """Returns the points that need no gradient, {name: Point}."""
    groups = checklist_attacks.query_groups(opened)
    _standing(opened, groups)
    return _line_points(opened, groups)


def _attacked_points(opened, teacher):
    """Returns the points that are decided by attacks, {name: Point}."""
    results = opened.run.results or {}
    reported = *results.get("accuracy", ()), *results.get("estimates", ())
    groups, absent = checklist_attacks.groups(opened, teacher, reported)
    stands = _standing(opened, groups)
    if teacher:
        twin = checklist_attacks.on_twin(opened, groups)
        stands |= _standing(teacher, {"undefended_twin": twin})
    else:
        absent["undefended_twin"] = checklist_attacks.NO_TWIN
    points = from_standing(stands, absent)
    return {**points, **_line_points(opened, groups)}


def _line_points(opened, groups):
    """Returns the points that the lines of attacks decide, {name: Point}."""
    # The ledger may know of more images than are asked here.
    count = len(opened.split)
    lines = [line for line in _lines(opened, groups) if line["index"] < count]
    wrong = [
        line
        for line in opened.ledger.verdicts(CLEAN).values()
        if line["broken"] and line["index"] < count
    ]
    return {
        "candidates": _candidates(lines),
        "winner": _winner([*wrong, *lines], count),
    }


def _standing(opened, groups):
    """Returns {group: {column: bool [n]}} for {group: {column: attacks}}."""
    called = {
        (group, column): f"{_place(group)}, {group}: {column}"
        for group, of_group in groups.items()
        for column in of_group
    }
    built = {
        name: groups[group][column] for (group, column), name in called.items()
    }
    terminal.stage(f"attacking for {len(groups)} points")
    # With a word before the names they would not fit into 80 columns.
    # What was refuted decides a point here.
    stands = evaluate_run.standing(opened, built, "", expects_confirmed=False)
    return {
        group: {column: stands[called[group, column]] for column in of_group}
        for group, of_group in groups.items()
    }


def _lines(opened, groups):
    """Returns the ledger's lines of all attacks, one for each that broke.

    Broken images, and those whose candidate was refuted.
    """
    descriptions = {
        columns.description(attack)
        for of_group in groups.values()
        for built in of_group.values()
        for attack in built
    }
    return [
        line
        for description in sorted(descriptions)
        for line in opened.ledger.verdicts(description).values()
        if line["broken"] or line["refuted"]
    ]


def _winner(lines, count):
    """Returns the Point of images that some attack broke without a winner."""
    without = {line["index"] for line in lines if _has_no_winner(line)}
    flags = np.arange(count) < len(without)
    note = f"{len(without)} of {count} images, clean or under any attack"
    return compared("winner", float(np.mean(flags)), share_error(flags), note)


def _has_no_winner(line):
    """Returns whether a line's margin is 0, or that of no finite score."""
    return line["margin"] == 0 or line["margin"] <= np.finfo(np.float32).min


def _candidates(lines):
    """Returns the Point of candidates that were refuted when alone."""
    refuted = np.array([line["refuted"] for line in lines], bool)
    if not len(refuted):
        return not_run("candidates", "no attack broke an image")
    note = f"{refuted.sum()} of {len(refuted)}"
    error = share_error(refuted)
    return compared("candidates", np.mean(refuted), error, note)
