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
import tensorflow as tf
from rich.text import Text

from atat_tf import losses
from atat_tf.attacks import columns, linf, randomness
from atat_tf.errors import InputError
from atat_tf.evaluation import evaluate_run, explanations, opening
from atat_tf.evaluation.attacker import as_pixels
from atat_tf.evaluation.checklist import attacks as checklist_attacks
from atat_tf.evaluation.checklist import files as checklist_files
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
    held,
    not_run,
    share_error,
)
from atat_tf.evaluation.ledger import CLEAN
from atat_tf.evaluation.opening import OpenRun
from atat_tf.models import classifiers, judging
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.runs import naming, terminal

FILE = run_folder.CHECKLIST
NUM_IMAGES = 500
MINIMUM_IMAGES = 200
_GATE_IMAGES = 32
_EXPLAINED_IMAGES = 200
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
    quality = explained(opened)
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
    points = _gate_points(opened)
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
        points["gradients"] = _gradients(opened)
        points["class_sensitivity"] = class_sensitivity_point(quality)
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


def explained(opened: OpenRun) -> explanations.Quality | None:
    """Returns the Quality of a run's attention maps on its first images.

    None where the classifier has no map, as where its logits have no gradient
    to a layer with one, or answers no logits.
    """
    config = opened.config
    if opened.is_served:
        return None
    part = slice(_EXPLAINED_IMAGES)
    ball = config.attack.epsilon, config.attack.step_size
    try:
        layer = classifiers.shown_layer(
            opened.classifier, config.defense.get("layers", ())
        )
        terminal.stage("measuring what the attention maps are worth")
        return explanations.quality(
            opened.classifier,
            layer,
            as_pixels(tf.constant(opened.split.images[part])).numpy(),
            opened.split.labels[part],
            linf.pgd(*ball, 20),
            run_config.score(config),
            opened.seed,
        )
    except InputError:
        return None


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


def _gate_points(opened):
    sample = opened.split.images[:_GATE_IMAGES]
    logits = opened.attacker.logits(sample)
    agreement = f"to {judging.AGREEMENT:g} relative, on {len(sample)} images"
    return {
        "logits": held(
            "logits",
            judging.not_logits(logits),
            f"from {logits.min():.1f} to {logits.max():.1f} on {len(sample)} "
            "images",
        ),
        "repeatable": held(
            "repeatable",
            judging.not_repeatable(opened.attacker.logits, sample, logits),
            agreement,
        ),
        "batch_independence": held(
            "batch_independence",
            judging.batch_dependent(
                opened.attacker.logits, opened.attacker.logits_alone, sample
            ),
            agreement,
        ),
    }


def class_sensitivity_point(quality: explanations.Quality | None) -> Point:
    """Returns the Point of how alike the maps of different classes are."""
    if quality is None:
        return not_run("class_sensitivity", "the classifier has no map")
    alike = 1 - quality.class_sensitivity
    error = np.std(alike) / np.sqrt(len(alike))
    note = f"mean cosine {np.mean(alike):.2f} on {len(alike)} images"
    return compared("class_sensitivity", np.mean(alike), error, note)


def _gradients(opened):
    """Returns the Point of the share of images without a usable gradient."""
    dead = dead_gradients(opened)
    note = f"{dead.sum()} of {len(dead)} images, there or at a random start"
    return compared("gradients", np.mean(dead), share_error(dead), note)


def dead_gradients(opened: OpenRun) -> np.ndarray:
    """Returns which images' cross-entropy has no usable gradient.

    At the image itself or at a uniform random start in the ball it is zero in
    every pixel, or somewhere not finite.

    Args:
      opened: the run.

    Returns:
      bool [n].
    """
    epsilon = opened.config.attack.epsilon

    @tf.function(reduce_retracing=True)
    def dead(images, labels, indices):
        images = as_pixels(images)
        seeds = randomness.example_seeds(opened.seed, 0, indices)
        start = linf.pgd(epsilon, epsilon, 1).first_point(images, seeds)
        return _is_dead(opened, images, labels) | _is_dead(
            opened, start, labels
        )

    parts = []
    for first in range(0, len(opened.split), opened.attacker.batch_size):
        part = slice(first, first + opened.attacker.batch_size)
        images, labels = opened.split.images[part], opened.split.labels[part]
        indices = np.arange(first, first + len(labels))
        parts.append(dead(images, labels, indices).numpy())
    return np.concatenate(parts)


def _is_dead(opened, images, labels):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        loss = losses.cross_entropy(labels, opened.attacker.logits_fn(images))
    gradient = tape.gradient(loss, images, unconnected_gradients="zero")
    total = tf.reduce_sum(tf.abs(gradient), axis=(1, 2, 3))
    return (total == 0) | ~tf.math.is_finite(total)


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
        reference = groups["reference"]
        twin = {"pgd20": reference["pgd20"]}
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
