"""FAB-T for ℓ∞: the nearest point across one boundary of the classifier.

Croce & Hein 2020, "Minimally distorted adversarial examples with a fast
adaptive boundary attack", in the targeted version of AutoAttack.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import apgd, linf, randomness, stepped
from atat_tf.errors import expect, with_checked_fields

# The last steps look between the image and the nearest point found.
SEARCH_STEPS = 3


def linf_projection(
    points: tf.Tensor,
    values: tf.Tensor,
    gradients: tf.Tensor,
    lower: tf.Tensor | float,
    upper: tf.Tensor | float,
) -> tf.Tensor:
    """Returns the shortest way in ℓ∞ to a plane, inside a box.

    The d of least ‖d‖_∞ with v + ⟨g, d⟩ = 0 and lower <= x + d <= upper; where
    the box does not reach the plane, the d that comes nearest to it.

    Every coordinate goes λ towards the plane, or as far as it has room:
    Σ_i |g_i| min(λ, room_i) = |v|. The left side is concave and piecewise
    linear in λ, so that Newton's method from 0 climbs to the root from below
    and is exact after finitely many steps (few, and none of them sorts).

    Args:
      points: float [b, m], x, inside the box.
      values: float [b], v.
      gradients: float [b, m], g.
      lower: [b, m], or what broadcasts to it.
      upper: as `lower`.

    Returns:
      [b, m], finite wherever the arguments are.
    """
    # The plane is the same at any scale; at this one no sum overflows.
    scale = tf.reduce_max(tf.abs(gradients), axis=1, keepdims=True)
    tiny = np.finfo(scale.dtype.as_numpy_dtype).tiny
    scale = tf.where(scale > tiny, scale, tf.ones_like(scale))
    slopes = tf.abs(gradients) / scale
    wanted = tf.abs(values)[:, None] / scale
    direction = -tf.sign(values)[:, None] * tf.sign(gradients)
    room = tf.where(direction > 0, upper - points, points - lower)
    weighted = slopes * room

    def climb(length, _):
        has_room = room > length
        zeros = tf.zeros_like(room)
        used = tf.where(has_room, zeros, weighted)
        free = tf.where(has_room, slopes, zeros)
        used = tf.reduce_sum(used, axis=1, keepdims=True)
        free = tf.reduce_sum(free, axis=1, keepdims=True)
        # Nothing free: all of them are at the box's edge already.
        root = tf.where(
            free > 0,
            (wanted - used) / tf.where(free > 0, free, tf.ones_like(free)),
            length,
        )
        return tf.maximum(root, length), root > length

    length, _ = tf.while_loop(
        lambda _, climbs: tf.reduce_any(climbs),
        climb,
        (tf.zeros_like(wanted), tf.ones_like(wanted, tf.bool)),
        # Each step but the last leaves a coordinate without room.
        maximum_iterations=points.shape[1] + 1,
        parallel_iterations=1,
    )
    return direction * tf.minimum(length, room)


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class FAB:
    """FAB-T as a stepped attack, see `stepped`.

    With x the image, x_i the point, and the boundary to class t linearised at
    x_i, z_t − z_y + ⟨∇(z_t − z_y), · − x_i⟩ = 0, the ways d_i and d to it from
    x_i and from x are found, and (§3)
      x_{i+1} = (1 − α) (x_i + η d_i) + α (x + η d), clipped to the box,
      α = min(‖d_i‖ / (‖d_i‖ + ‖d‖), α_max).
    Where x_{i+1} is misclassified, β (x_{i+1} − x) + x is gone on from.

    The radius is not used on this path, only by random starts: the nearest
    misclassified point is looked for, and an image counts as broken once one
    is within ε. Farther ones are kept in the rows `closest` and `distance`.

    The paper ends with three steps of search between the image and the nearest
    point, which AutoAttack's version leaves out. They can change a verdict,
    for points that overshoot by η end up about 0.5 % too far, so the last
    `SEARCH_STEPS` steps are such a search, one forward pass each. The others
    take two forward passes and one backward, as in AutoAttack's version; the
    first also judges the point that the step starts from.

    Attributes:
      epsilon: ε, the radius, in the unit of the pixels.
      num_steps: steps, > 3, those of the search among them.
      target: rank of t by the clean logits among the wrong classes, from 1;
        ranks beyond the last class mean the last.
      alpha_max: α_max in [0, 1], the most that x draws.
      eta: η >= 1, the overshoot.
      beta: β in (0, 1), how much of the way from x is kept.
      bounds: the smallest and the largest pixel value.
      restart: 0 starts at the image, others at random within ε / 2.
    """

    epsilon: float
    num_steps: int = 100
    target: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    bounds: tuple[float, float] = (0.0, 1.0)
    restart: int = 0

    passes_a_step: ClassVar = 3

    def __post_init__(self):
        linf.settle_ball(self)
        expect(
            self.num_steps > SEARCH_STEPS,
            f"num_steps > {SEARCH_STEPS}, the steps of the last search",
            num_steps=self.num_steps,
        )
        expect(self.target >= 1, "target >= 1", target=self.target)
        expect(
            0 <= self.alpha_max <= 1,
            "alpha_max in [0, 1]",
            alpha_max=self.alpha_max,
        )
        expect(1 <= self.eta < np.inf, "eta >= 1, finite", eta=self.eta)
        expect(0 < self.beta < 1, "beta in (0, 1)", beta=self.beta)
        expect(self.restart >= 0, "restart >= 0", restart=self.restart)

    def start(
        self,
        logits_fn: Callable,
        images: tf.Tensor,
        labels: tf.Tensor,
        seeds: tf.Tensor,
    ) -> stepped.State:
        """Returns the rows before any step; one forward pass."""
        stepped.expect_images(images, self.bounds)
        logits = logits_fn(images)
        state = stepped.first_state(lambda _: logits, images, labels, seeds)
        return {
            **state,
            "target": apgd.ranked_wrong_class(labels, logits, self.target),
            "point": self._first_point(images, seeds),
            # The nearest misclassified point, its distance and its margin.
            "closest": images,
            "distance": tf.fill(tf.shape(state["margin"]), images.dtype.max),
            "closest_margin": tf.zeros_like(state["margin"]),
            # The farthest that the search knows to be still right: its
            # distance from the image, and the margin there.
            "right_distance": tf.zeros_like(state["margin"]),
            "right_margin": state["margin"],
        }

    def step(
        self, logits_fn: Callable, state: stepped.State, index: tf.Tensor
    ) -> stepped.State:
        """Returns the rows after step `index`, int32 [] from 0."""
        return tf.cond(
            index < self.num_steps - SEARCH_STEPS,
            lambda: self._moved(logits_fn, state, index),
            lambda: self._searched(logits_fn, state, index),
        )

    def _first_point(self, images, seeds):
        if self.restart == 0:
            return images
        seeds = randomness.restart_seeds(seeds, self.restart)
        noise = randomness.uniform_noise(seeds, images.shape[1:], 1.0)
        noise = tf.cast(noise, images.dtype)
        largest = tf.reduce_max(tf.abs(noise), axis=(1, 2, 3), keepdims=True)
        noise = tf.math.divide_no_nan(noise, largest)
        return tf.clip_by_value(
            images + 0.5 * self.epsilon * noise, *self.bounds
        )

    def _moved(self, logits_fn, state, index):
        images, labels, point = state["images"], state["labels"], state["point"]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            logits = logits_fn(point)
            difference = _logit(logits, state["target"]) - _logit(
                logits, labels
            )
        gradient = tape.gradient(
            difference, point, unconnected_gradients="zero"
        )
        # The step before made this point.
        state = self._recorded(state, point, logits, index - 1)
        candidate = self._next_point(images, point, difference, gradient)
        logits = logits_fn(candidate)
        state = self._recorded(state, candidate, logits, index)
        is_wrong = ~losses.is_right(labels, logits)
        back = images + self.beta * (candidate - images)
        return {
            **state,
            "point": tf.where(is_wrong[:, None, None, None], back, candidate),
        }

    def _next_point(self, images, point, difference, gradient):
        x, x_i = _flat(images), _flat(point)
        g, value = _finite(_flat(gradient)), _finite(difference)
        of_image = _finite(value + tf.reduce_sum(g * (x - x_i), axis=1))
        d_i = linf_projection(x_i, value, g, *self.bounds)
        d = linf_projection(x, of_image, g, *self.bounds)
        # The floor keeps 0 / 0 out where both ways are nothing.
        length_i, length = (
            tf.maximum(tf.reduce_max(tf.abs(way), axis=1, keepdims=True), 1e-8)
            for way in (d_i, d)
        )
        alpha = tf.minimum(length_i / (length_i + length), self.alpha_max)
        moved = (1 - alpha) * (x_i + self.eta * d_i) + alpha * (
            x + self.eta * d
        )
        moved = tf.clip_by_value(moved, *self.bounds)
        return tf.reshape(moved, tf.shape(images))

    def _searched(self, logits_fn, state, index):
        """Returns the state after one try nearer than the closest point.

        The closest point is x + δ. Since in ℓ∞ only the longest coordinates
        count, tried is x + δ / β with every coordinate cut off at some length:
        the division undoes what the backward step took from the short ones.
        Aimed at is where a straight line between two known margins would be
        zero (the Illinois variant of regula falsi), and beyond it by η.
        """
        images, distance = state["images"], state["distance"]
        right, right_margin = state["right_distance"], state["right_margin"]
        share = tf.math.divide_no_nan(
            right_margin, right_margin - state["closest_margin"]
        )
        share = tf.clip_by_value(_finite(share), 0.0, 1.0)
        share = 1 - (1 - share) * max(0.0, 2 - self.eta)
        aimed = right + share * (distance - right)
        length = aimed[:, None, None, None]
        way = (state["closest"] - images) / self.beta
        way = tf.clip_by_value(way, -length, length)
        candidate = tf.clip_by_value(images + way, *self.bounds)
        logits = logits_fn(candidate)
        margin = losses.verdict_margin(state["labels"], logits)
        state = self._recorded(state, candidate, logits, index)
        is_right = margin > 0
        return {
            **state,
            "right_distance": tf.where(is_right, aimed, right),
            # Halved, so that next is aimed nearer: else this end might stay.
            "right_margin": tf.where(is_right, margin, 0.5 * right_margin),
        }

    def _recorded(self, state, points, logits, index):
        """Returns the state with what is closer, and judged inside the ball."""
        margin = losses.verdict_margin(state["labels"], logits)
        away = _flat(points - state["images"])
        distance = tf.reduce_max(tf.abs(away), axis=1)
        closer = (margin <= 0) & (distance < state["distance"])
        state = {
            **state,
            "closest": tf.where(
                closer[:, None, None, None], points, state["closest"]
            ),
            "distance": tf.where(closer, distance, state["distance"]),
            "closest_margin": tf.where(closer, margin, state["closest_margin"]),
        }
        # No margin is larger than that of these logits: never taken over.
        hopeless = tf.one_hot(
            state["labels"],
            logits.shape[1],
            logits.dtype.max,
            0.0,
            dtype=logits.dtype,
        )
        is_inside = distance <= self.epsilon
        logits = tf.where(is_inside[:, None], logits, hopeless)
        return stepped.judged(state, points, logits, index)


def _logit(logits, classes):
    return tf.gather(logits, classes, axis=1, batch_dims=1)


def _flat(images):
    return tf.reshape(images, [-1, images.shape[1:].num_elements()])


def _finite(numbers):
    return tf.where(tf.math.is_finite(numbers), numbers, 0.0)
