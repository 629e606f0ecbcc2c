"""What a defense returns, and the parts that several defenses share."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import keras
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
    terms: Mapping[str, tf.Tensor]
    clean_logits: tf.Tensor | None
    adversarial_logits: tf.Tensor | None


class Defense(Protocol):
    """What a training step asks of a defense, a frozen dataclass.

    Attributes:
      needs_attack: whether adversarial images are read.
      needs_teacher: whether the teacher is called.
      layers: whose outputs are tapped.
      terms: the names of the losses, in the order in which they are shown.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    needs_attack: ClassVar[bool]
    needs_teacher: ClassVar[bool]

    @property
    def layers(self) -> str | tuple[str, ...]: ...

    @property
    def terms(self) -> tuple[str, ...]: ...

    def __call__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        images: tf.Tensor,
        adversarial: tf.Tensor | None,
        labels: tf.Tensor,
    ) -> Objective: ...


def mixture_cross_entropy(
    weight: float,
    labels: tf.Tensor,
    clean_logits: tf.Tensor,
    adversarial_logits: tf.Tensor,
    smoothing: float = 0.0,
) -> tf.Tensor:
    """Returns w · L_ce(x_ori) + (1 − w) · L_ce(x_adv) for each example.

    Args:
      weight: w, in [0, 1]; ½ is the mean over the mixture (§3.3).
      labels: as for `losses.cross_entropy`.
      clean_logits: float [b, k].
      adversarial_logits: float [b, k].
      smoothing: of the labels, as for `losses.cross_entropy`.

    Returns:
      [b], in nats.
    """
    clean = losses.cross_entropy(labels, clean_logits, smoothing)
    adversarial = losses.cross_entropy(labels, adversarial_logits, smoothing)
    return weight * clean + (1.0 - weight) * adversarial


def ramp(
    progress: tf.Tensor | float, schedule: tuple[float, float]
) -> tf.Tensor | float:
    """Returns what a weight of a loss is multiplied by, in [0, 1].

    It rises linearly from 0 over the first share of the training, and falls
    linearly to 0 over the last: a pure function of the step.

    Args:
      progress: the share of the training's steps that are done, in [0, 1). In
        steps beyond the training a decay stays at 0.
      schedule: (warm-up, decay), the two shares; (0, 0) is 1 all along.
    """
    warm_up, decay = schedule
    factor = 1.0
    if warm_up:
        factor = tf.minimum(factor, progress / warm_up)
    if decay:
        left = tf.maximum(1.0 - progress, 0.0)
        factor = tf.minimum(factor, left / decay)
    return factor


def mixture_outputs(
    student: keras.Model, images: tf.Tensor, adversarial: tf.Tensor
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
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


def as_layers(layers: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of layers of which one may be given as it is."""
    return (layers,) if isinstance(layers, str) else tuple(layers)


def expect_weight(name: str, value: float) -> None:
    """Raises InputError unless a weight of a loss is finite and >= 0."""
    expect(0 <= value < math.inf, f"{name} >= 0, finite", **{name: value})


def expect_clean_weight(value: float) -> None:
    """Raises InputError unless a share of clean images is in [0, 1]."""
    expect(0 <= value <= 1, "clean_weight in [0, 1]", clean_weight=value)


def expect_smoothing(value: float) -> None:
    """Raises InputError unless labels can be smoothed by a value."""
    expect(0 <= value < 1, "label_smoothing in [0, 1)", label_smoothing=value)


def expect_schedule(name: str, schedule: tuple[float, float]) -> None:
    """Raises InputError unless a schedule is one for `ramp`."""
    expect(
        len(schedule) == 2
        and all(share >= 0 for share in schedule)
        and sum(schedule) <= 1,
        f"{name} of two shares of the training, (warm-up, decay), that do not "
        "overlap",
        **{name: schedule},
    )


def compares_images(defense: Defense) -> bool:
    """Returns whether a loss may hold the outputs of two images together.

    Any may but the cross-entropy: a distance of maps, of logits, to a teacher.
    """
    return {*defense.terms} != {"cross_entropy"}


def expect_defense(given: Any) -> None:
    """Raises InputError unless it is a defense."""
    expect(
        callable(given) and hasattr(given, "needs_teacher"),
        "a defense, as atat.ATAT()",
        defense=given,
    )


def expect_fitting_attack(
    defense: Callable[..., Objective], attack: Callable[..., tf.Tensor] | None
) -> None:
    """Raises InputError unless an attack maximises what a defense needs.

    Some, as TRADES, name a loss that their attack must climb.
    """
    needed = getattr(defense, "attack_loss", None)
    if needed is None:
        return
    kind = type(defense).__name__
    expect(
        getattr(attack, "loss_fn", None) is needed,
        f"an attack that maximises {getattr(needed, '__name__', needed)} for "
        f"{kind}",
        attack=attack,
    )
    # It is of two distributions, where others are of labels and logits.
    expect(
        needed is not losses.kl_divergence
        or getattr(attack, "climbs_from_clean_logits", False),
        "an attack that takes the clean logits for labels, as atat.trades, for "
        f"{kind} (with climbs_from_clean_logits = True)",
        attack=attack,
    )
