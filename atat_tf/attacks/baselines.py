"""Attacks that do not use the attacked classifier's gradient.

Random noise, and another classifier's adversarial images: white-box attacks
that are not stronger than these are blocked by something.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import tensorflow as tf

from atat_tf.attacks import linf, randomness, stepped
from atat_tf.errors import expect, with_checked_fields


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class Noise:
    """Random corners of the ball, each step a new one; see `stepped`.

    x' = x + ε · s with every s_i = ±1 at random: the noise of the largest
    effect inside the ball.

    Attributes:
      epsilon: ε, the radius, in the unit of the pixels.
      num_steps: number of tries, >= 1.
      bounds: the smallest and the largest pixel value.
    """

    epsilon: float
    num_steps: int
    bounds: tuple[float, float] = (0.0, 1.0)

    passes_a_step: ClassVar = 1

    def __post_init__(self):
        linf.settle_ball(self)
        expect(self.num_steps >= 1, "num_steps >= 1", num_steps=self.num_steps)

    def start(
        self,
        logits_fn: Callable,
        images: tf.Tensor,
        labels: tf.Tensor,
        seeds: tf.Tensor,
    ) -> stepped.State:
        """Returns the rows before any try."""
        stepped.expect_images(images, self.bounds)
        return stepped.first_state(logits_fn, images, labels, seeds)

    def step(
        self, logits_fn: Callable, state: stepped.State, index: tf.Tensor
    ) -> stepped.State:
        """Returns the rows after try `index`, int32 [] from 0."""
        images = state["images"]
        words = randomness.random_words(
            state["seeds"], index, images.shape[1:].num_elements()
        )
        is_up = tf.reshape(randomness.coins(words), tf.shape(images))
        noise = tf.where(is_up, self.epsilon, -self.epsilon)
        noise = tf.cast(noise, images.dtype)
        candidates = tf.clip_by_value(images + noise, *self.bounds)
        return stepped.judged(state, candidates, logits_fn(candidates), index)


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class Transfer:
    """PGD on another classifier, judged by the attacked one; see `stepped`.

    Every point that the other's gradient leads to is tried.

    Attributes:
      epsilon: ε, the radius, in the unit of the pixels.
      step_size: α, in the same unit.
      num_steps: number of gradients, >= 1.
      source: images -> logits of the other classifier, in inference mode; its
        name is part of the attack's description.
      bounds: the smallest and the largest pixel value.
    """

    epsilon: float
    step_size: float
    num_steps: int
    source: Callable
    bounds: tuple[float, float] = (0.0, 1.0)

    # The other's gradient, and the attacked classifier's verdict.
    passes_a_step: ClassVar = 3

    def __post_init__(self):
        linf.settle_ball(self)
        self._ascent()  # which checks what it shares with PGD

    def start(
        self,
        logits_fn: Callable,
        images: tf.Tensor,
        labels: tf.Tensor,
        seeds: tf.Tensor,
    ) -> stepped.State:
        """Returns the rows before any step."""
        stepped.expect_images(images, self.bounds)
        state = stepped.first_state(logits_fn, images, labels, seeds)
        return {**state, "point": self._ascent().first_point(images, seeds)}

    def step(
        self, logits_fn: Callable, state: stepped.State, index: tf.Tensor
    ) -> stepped.State:
        """Returns the rows after step `index`, int32 [] from 0."""
        after, _ = self._ascent().next_point(
            self.source, state["point"], state["images"], state["labels"]
        )
        state = stepped.judged(state, after, logits_fn(after), index)
        return {**state, "point": after}

    def _ascent(self):
        return linf.LinfAttack(
            self.epsilon, self.step_size, self.num_steps, bounds=self.bounds
        )
