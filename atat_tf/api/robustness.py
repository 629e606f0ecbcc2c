"""Accuracy under attack of any classifier, and adversarial images.

The examples of this package have `model`, a small Keras classifier of
scikit-learn's digits with pixels in [0, 1], and `x` and `y`, a few test images
and their classes.
"""

import contextlib
import dataclasses
import math
import pathlib
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from atat_tf import losses
from atat_tf.api import arrays
from atat_tf.api.pixels import Bounds, labels_of
from atat_tf.api.results import Robustness, RobustnessCurve
from atat_tf.attacks import columns, linf, randomness, stepped
from atat_tf.errors import expect, unknown, with_checked_types
from atat_tf.evaluation import evaluate_run
from atat_tf.evaluation.attacker import Attacker
from atat_tf.evaluation.statistics.estimate import Estimate, expect_precision
from atat_tf.models import judging

NORMS = ("linf", "l2")
_WITHOUT_GRADIENT = "square"
_IN_L2 = tuple(name for name in columns.PARTS if name != "fab_t")
_TARGETED = ("fgsm", "ifgsm", "pgd")


@with_checked_types
def robust_accuracy(
    model: Any,
    x: ArrayLike,
    y: ArrayLike,
    attacks: str | Sequence[str] = ("clean", "pgd20", "autoattack"),
    *,
    epsilon: float | Sequence[float] = 8 / 255,
    bounds: Bounds = (0, 1),
    norm: str = "linf",
    batch_size: int = 100,
    seed: int = 0,
    ledger: str | pathlib.Path | None = None,
    class_names: Sequence[str] | None = None,
    precision: float | None = None,
) -> Robustness | RobustnessCurve:
    """Returns the accuracy of a classifier under attacks.

    Each attack, as AutoAttack (Croce & Hein 2020) whose parts run one after
    the other, is run on the images that are classified right and still stand.
    An adversarial example counts once the classifier, alone in a batch of
    one, is wrong about it, inside ball and box.

    Example:
      >>> result = atat.robust_accuracy(model, x, y, ["clean", "pgd5"])
      >>> result.accuracy["pgd5"] <= result.accuracy["clean"]
      True
      >>> result.adversarial["pgd5"].shape == x.shape
      True
      >>> radii = [2 / 255, 8 / 255]
      >>> curve = atat.robust_accuracy(model, x, y, "apgd_ce5", epsilon=radii)
      >>> len(curve.accuracy["apgd_ce5"])
      2

    Args:
      model: keras.Model (functional, sequential or subclassed; logits, or
        softmax, which is taken off), or a function of float32 images
        [b, H, W, C] within the bounds to scores [b, k]. A function that
        TensorFlow cannot differentiate, as one of NumPy, is attacked by Square
        alone, and a warning says so.
      x: images [n, H, W, C], floats within `bounds`, or uint8, which are
        scaled to them.
      y: integers [n], one-hot [n, k] or strings [n].
      attacks: "clean", "autoattack", its parts "apgd_ce", "apgd_dlr",
        "apgd_t", "fab_t", "square", with another number of steps as in
        "square1000"; "fgsm", "ifgsm20", "pgd20", "pgd20x10" (10 restarts).
        PGD's step is ε/4.
      epsilon: ε > 0, in the unit of the pixels where `bounds` are two
        numbers, and in that of pixels in [0, 1] where they are given for each
        channel. Several give a curve.
      bounds: (low, high), what the model takes for black and for white: two
        numbers, or two sequences of C numbers.
      norm: "linf"; or "l2" for "clean", APGD and Square.
      batch_size: images at a time; no verdict depends on it.
      seed: of the random starts; image i has that of (seed, i).
      ledger: a file of verdicts, taken from and added to, so that the same
        call goes on after a kill. Images are then not kept.
      class_names: k strings in the order of the model's outputs, for labels
        that are strings; None for their alphabetical order.
      precision: half the width of a 95 % interval, as 0.01 for a point:
        "autoattack" is then estimated. All images meet its first attack, and
        of those that stand a sample meets the others. None for all images.

    Returns:
      Robustness; RobustnessCurve for several radii.

    Raises:
      InputError: bad arguments, or a classifier that no attack can judge.
    """
    names = attacks.split(",") if isinstance(attacks, str) else tuple(attacks)
    are_names = all(isinstance(name, str) for name in names)
    expect(names and are_names, "names of attacks, one at least", attacks=names)
    expect(norm in NORMS, "norm of linf or l2", norm=norm)
    several = np.ndim(epsilon) > 0
    radii: list = list(np.ravel(epsilon)) if several else [epsilon]
    expect(len(radii) > 0, "at least one epsilon", epsilon=epsilon)
    if precision is not None:
        expect_precision(precision)
    examples = arrays.examples(model, x, y, bounds, class_names)
    # Whatever is wrong is said before the first attack.
    in_unit = [examples.pixels.epsilon_in_unit(r, norm) for r in radii]
    if not examples.classifier.has_gradient:
        names = _possible(_built(names, in_unit[0], norm, examples))
    built = [_built(names, r, norm, examples) for r in in_unit]
    if precision is not None:
        evaluate_run.expect_several(built[0])
    with _ledger_file(ledger) as path, arrays.quiet_traces():
        opened = arrays.opened(examples, in_unit[0], path, seed, batch_size)
        opened.attacker.expect_judgeable(opened.split.images)
        if any(map(_needs_gradient, built[0].values())):
            judging.expect_gradients(
                opened.attacker.logits_fn, opened.split.images
            )
        if not examples.classifier.has_gradient:
            judging.expect_scores_that_change(
                opened.attacker.logits,
                judging.in_unit(examples.images),
                max(in_unit),
            )
        points = [
            _judged(
                examples,
                opened,
                of_one,
                float(radius),
                norm,
                ledger,
                precision,
            )
            for of_one, radius in zip(built, radii, strict=True)
        ]
    return RobustnessCurve(tuple(points)) if several else points[0]


@with_checked_types
def attack(
    model: Any,
    x: ArrayLike,
    y: ArrayLike,
    name: str = "pgd20",
    *,
    epsilon: float = 8 / 255,
    bounds: Bounds = (0, 1),
    targets: ArrayLike | None = None,
    seed: int = 0,
    batch_size: int = 100,
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Returns adversarial images.

    Where an image breaks, its adversarial example; where it does not, the
    candidate that came closest, which may be the image. An image that is
    misclassified as it is is returned as it is.

    Example:
      >>> adversarial = atat.attack(model, x, y, "pgd5", epsilon=8 / 255)
      >>> bool(abs(adversarial - x).max() <= 8 / 255 + 1e-6)
      True

    Args:
      model, x, y, epsilon, bounds, seed, batch_size, class_names: as for
        `robust_accuracy`.
      name: of one attack, as there.
      targets: as y, the classes to reach, by "fgsm", "ifgsm20" or "pgd20": the
        end of a descent of the target's cross-entropy, also where it does not
        reach it. None for any wrong class.

    Returns:
      float32 [n, H, W, C] within the bounds, and within ε of x up to rounding.

    Raises:
      InputError: bad arguments, or a classifier that no attack can judge.
    """
    expect(
        np.ndim(epsilon) == 0,
        "one epsilon (robust_accuracy takes several)",
        epsilon=epsilon,
    )
    if targets is None:
        found = robust_accuracy(
            model,
            x,
            y,
            (name,),
            epsilon=epsilon,
            bounds=bounds,
            batch_size=batch_size,
            seed=seed,
            class_names=class_names,
        )
        (images,) = cast(Robustness, found).adversarial.values()
        return images
    arrays.expect_settings(batch_size, seed)
    examples = arrays.examples(model, x, y, bounds, class_names)
    aims = labels_of(
        targets,
        len(examples.images),
        examples.classifier.num_classes,
        class_names,
    )
    expect(
        examples.classifier.has_gradient,
        "a classifier with a gradient for an attack with targets",
        targets=name,
    )
    attacker = Attacker(examples.classifier.network, batch_size, xla=False)
    with arrays.quiet_traces():
        attacker.expect_judgeable(examples.images)
    judging.expect_gradients(attacker.logits_fn, examples.images)
    radius = examples.pixels.epsilon_in_unit(epsilon)
    expect(
        name.rstrip("0123456789") in _TARGETED,
        "fgsm, ifgsm20 or pgd20 (any number of steps) with targets",
        attack=name,
    )
    towards = dataclasses.replace(
        linf.from_name(name, radius, arrays.STEP_SHARE * radius),
        loss_fn=_towards,
    )
    pixels = _targeted(examples, towards, aims, seed, batch_size)
    return examples.in_bounds(pixels, radius)


def _towards(targets, logits):
    """Returns −L_ce of the classes to reach, which the attack climbs."""
    return -losses.cross_entropy(targets, logits)


def _targeted(examples, attack, targets, seed, batch_size):
    """Returns where a targeted attack ends, float32 [n, H, W, C] in [0, 1]."""

    @tf.function(reduce_retracing=True)
    def run(images, targets, indices):
        seeds = randomness.example_seeds(seed, 0, indices)
        return attack(examples.classifier.network, images, targets, seeds)

    images = judging.in_unit(examples.images)
    ended = []
    for first in range(0, len(images), batch_size):
        part = slice(first, first + batch_size)
        indices = np.arange(len(images))[part]
        ended.append(run(images[part], targets[part], indices).numpy())
    return np.concatenate(ended)


def _needs_gradient(attacks):
    """Returns whether some attack of a column follows gradients."""
    return any(map(stepped.needs_gradient, attacks))


def _possible(built):
    """Returns the names of what a classifier without gradient leaves.

    Args:
      built: {name: stepped attacks}.
    """
    left: dict[str, None] = {}
    for name, attacks in built.items():
        if not _needs_gradient(attacks):
            left[name] = None
        elif name in columns.AUTOATTACK:
            left[_WITHOUT_GRADIENT] = None
    if [*left] != [*built]:
        warnings.warn(
            "The scores have no gradient to the images: of "
            f"{', '.join(built)} there is {', '.join(left) or 'nothing'} left, "
            "Square being the part of AutoAttack that needs none.",
            stacklevel=3,
        )
    expect(
        left,
        "clean, square or autoattack for scores without a gradient",
        attacks=[*built],
    )
    return [*left]


def _built(names, radius, norm, examples):
    """Returns {name: stepped attacks} in the unit of [0, 1]."""
    step, classes = arrays.STEP_SHARE * radius, examples.classifier.num_classes
    built = {}
    for name in names:
        expect(
            "@" not in name,
            "an attack without a radius of its own (epsilon takes several)",
            attack=name,
        )
        if norm == "l2" and name != "clean":
            if name.rstrip("0123456789") not in _IN_L2:
                raise unknown("an attack in ℓ2", name, ("clean", *_IN_L2))
            built[name] = columns.column(f"{name}_l2", radius, step, classes)
        else:
            built[name] = columns.column(name, radius, step, classes)
    return built


@contextlib.contextmanager
def _ledger_file(path: str | pathlib.Path | None) -> Iterator[pathlib.Path]:
    """Yields the ledger's file, one that goes at the end where none is."""
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder) / "ledger.jsonl"
        return
    path = pathlib.Path(path)
    is_writable = False
    with contextlib.suppress(OSError):
        is_new = not path.exists()
        if is_new or path.is_file():
            open(path, "ab").close()
            is_writable = True
        if is_new:
            path.resolve().unlink()  # a link to it stays
    expect(
        is_writable,
        "a ledger's file that can be written, in an existing folder",
        ledger=str(path),
    )
    yield path


def _judged(examples, opened, built, epsilon, norm, ledger, precision):
    """Returns the Robustness at one radius."""
    estimates: dict[str, Estimate] = {}
    stands: dict[str, np.ndarray] = {}
    images: dict[str, np.ndarray] = {}
    for name, attacks in built.items():
        keeps = not ledger
        if precision is not None and len(attacks) > 1:
            found = evaluate_run.estimated(opened, name, attacks, precision)
            if not found.is_whole:
                estimates[name] = found
                continue
            keeps = False  # all images have met these attacks
        pixels = judging.in_unit(examples.images)

        def keep(description, indices, outcome, pixels=pixels):
            del description
            held = ~outcome.refuted
            pixels[indices[held]] = outcome.adversarial[held]

        stands |= evaluate_run.standing(
            opened, {name: attacks}, "attacking", keep if keeps else None
        )
        if keeps:
            radius = math.inf
            if norm == "linf" and attacks:
                radius = attacks[0].epsilon
            images[name] = examples.in_bounds(pixels, radius)
    # Columns may share an attack, whose candidates count once.
    refuted = opened.ledger.refuted(columns.described(built), len(opened.split))
    return Robustness(
        stands,
        epsilon,
        norm,
        refuted,
        None if ledger else images,
        estimates,
    )
