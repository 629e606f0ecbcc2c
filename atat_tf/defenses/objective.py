"""What a defense returns, and the parts that several defenses share.

Logits of clean and adversarial images enter, per-example losses leave.
"""

from typing import NamedTuple

import tensorflow as tf

from atat_tf import losses
from atat_tf.errors import expect


class Objective(NamedTuple):
    """One training step's losses, before any mean.

    Attributes:
      loss: [b], what is minimised.
      terms: {name: [b]}, its parts before their weights.
      clean_logits: [b, k], or None where clean images were not seen.
      adversarial_logits: [b, k], or None.
    """

    loss: tf.Tensor
    terms: dict
    clean_logits: tf.Tensor | None
    adversarial_logits: tf.Tensor | None


def mixture_cross_entropy(weight, labels, clean_logits, adversarial_logits):
    """Returns w · L_ce(x_ori) + (1 − w) · L_ce(x_adv) for each example.

    Args:
      weight: w, in [0, 1]; ½ is the mean over the mixture (§3.3).
      labels: integers [b].
      clean_logits: float [b, k].
      adversarial_logits: float [b, k].
    """
    clean = losses.cross_entropy(labels, clean_logits)
    adversarial = losses.cross_entropy(labels, adversarial_logits)
    return weight * clean + (1.0 - weight) * adversarial


def mixture_outputs(student, images, adversarial):
    """Returns the student's outputs on clean and on adversarial images.

    One pass in training mode over clean ++ adversarial: batch norm sees both
    at once.

    Args:
      student: model from `graphs.with_taps`.
      images: float32 [b, H, W, C].
      adversarial: the same shape.

    Returns:
      Two dictionaries {"logits": [b, k], layer: [b, h, w, c], ...}.
    """
    mixture = tf.concat([images, adversarial], axis=0)
    outputs = student(mixture, training=True)
    halves = {name: tf.split(x, 2) for name, x in outputs.items()}
    return (
        {name: half[0] for name, half in halves.items()},
        {name: half[1] for name, half in halves.items()},
    )


def expect_weight(name, value):
    """Raises InputError unless a weight of a loss is >= 0."""
    expect(value >= 0, f"{name} >= 0", **{name: value})


def expect_fitting_attack(defense, attack):
    """Raises InputError where a defense names a loss that its attack must

    maximise, as TRADES does, and the attack maximises another.
    """
    needed = getattr(defense, "attack_loss", None)
    expect(
        needed is None or getattr(attack, "loss_fn", None) is needed,
        f"an attack that maximises {getattr(needed, '__name__', needed)} for "
        f"{type(defense).__name__}",
        attack=attack,
    )
