"""Points of the checklist that are decided before any attack.

Whether the outputs are logits and depend on one image alone, whether there are
gradients, and whether an attention map depends on the class.
"""

import numpy as np
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import ascent, linf, randomness
from atat_tf.errors import InputError
from atat_tf.evaluation.attacker import as_pixels
from atat_tf.evaluation.attention import explanations
from atat_tf.evaluation.checklist.points import (
    Point,
    compared,
    held,
    not_run,
    share_error,
)
from atat_tf.evaluation.opening import OpenRun
from atat_tf.models import classifiers, judging
from atat_tf.runs import build, terminal
from atat_tf.runs import config as run_config

_GATE_IMAGES = 32
_EXPLAINED_IMAGES = 200


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
            opened.classifier, build.defense_layers(config)
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


def output_points(opened: OpenRun) -> dict[str, Point]:
    """Returns the points of what the model puts out, {name: Point}."""
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


def gradients_point(opened: OpenRun) -> Point:
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
    _, _, gradient = ascent.ascent(
        opened.attacker.logits_fn,
        lambda logits: losses.cross_entropy(labels, logits),
        images,
    )
    total = tf.reduce_sum(tf.abs(gradient), axis=(1, 2, 3))
    return (total == 0) | ~tf.math.is_finite(total)
