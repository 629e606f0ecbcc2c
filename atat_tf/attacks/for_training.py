"""Attacks that only training uses: in one step, or away from a prediction.

Each is called as `linf.LinfAttack` is. A config names one of them; what
validates and evaluates is never among them.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import linf, randomness, stepped
from atat_tf.errors import expect, with_checked_fields, with_checked_types

# Of the normal noise that TRADES' attack starts from.
_DEVIATION = 0.001


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class NoiseFGSM(linf.LinfAttack):
    """N-FGSM: one step from far noise, which is not projected back.

    x_adv = x + η + α · sgn(∇ L(f_θ(x + η), y)), η uniform in ±k · ε (de Jorge
    et al. 2022); x + η and x_adv are clipped to `bounds` only, so that x_adv
    lies within k · ε + α of the image and mostly outside its ball.

    Attributes:
      noise: k, >= 0.
    """

    noise: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        expect(
            0 <= self.noise < math.inf, "noise >= 0, finite", noise=self.noise
        )

    def first_point(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Returns x + η inside `bounds`."""
        noise = randomness.uniform_noise(
            seeds, images.shape[1:], self.noise * self.epsilon
        )
        return self._projected(images + tf.cast(noise, images.dtype), images)

    def _projected(self, points, images):
        return tf.clip_by_value(points, *self.bounds)


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class KLAttack(linf.LinfAttack):
    """PGD away from the clean prediction: the inner maximisation of TRADES.

    max KL(p(x) ‖ p(x')) over the ball, from x' = x + 0.001 · N(0, 1), where
    the divergence has a gradient, which at x it has not (Zhang et al. 2019).
    The clean logits are taken once, and the labels are not read.
    """

    loss_fn: Callable = losses.kl_divergence
    climbs_from_clean_logits: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        expect(self.restarts == 1, "restarts=1", restarts=self.restarts)

    def __call__(
        self,
        logits_fn: Callable,
        images: tf.Tensor,
        labels: tf.Tensor,
        seeds: tf.Tensor,
    ) -> tf.Tensor:
        """Returns adversarial images, as `LinfAttack` does."""
        stepped.expect_images(images, self.bounds)
        clean_logits = tf.stop_gradient(logits_fn(images))
        # Where PGD has labels its loss has the prediction.
        return super().__call__(logits_fn, images, clean_logits, seeds)

    def first_point(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Returns the images with a little normal noise."""
        noise = randomness.normal_noise(seeds, images.shape[1:], _DEVIATION)
        return self._projected(images + tf.cast(noise, images.dtype), images)


@with_checked_types
def fgsm_rs(epsilon: float) -> linf.LinfAttack:
    """Returns FGSM from a uniform start, α = 1.25 ε (Wong et al. 2020)."""
    return linf.LinfAttack(epsilon, 1.25 * epsilon, 1)


def n_fgsm(epsilon: float, noise: float = 2.0) -> NoiseFGSM:
    """Returns N-FGSM, α = ε (de Jorge et al. 2022)."""
    return NoiseFGSM(epsilon, epsilon, 1, noise=noise)


def trades(epsilon: float, step_size: float, num_steps: int) -> KLAttack:
    """Returns the attack of TRADES (Zhang et al. 2019)."""
    return KLAttack(epsilon, step_size, num_steps)


TRAINING_ATTACKS = {
    "pgd": linf.LinfAttack,
    "trades": trades,
    "fgsm_rs": fgsm_rs,
    "n_fgsm": n_fgsm,
}
ONE_STEP = ("fgsm_rs", "n_fgsm")
