"""APGD: projected gradient ascent that chooses its own step sizes.

Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an
ensemble of diverse parameter-free attacks", Algorithm 1, as a stepped attack
(see `stepped`). Where the paper leaves a choice (start, integer checkpoints,
order of projections) it is that of the authors' implementation.
"""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import ascent, linf, randomness, stepped
from atat_tf.errors import expect, expect_known, with_checked_fields

NORMS = ("linf", "l2")
# The fewest classes that each loss is defined for.
LOSSES = {"cross_entropy": 2, "dlr": 3, "targeted_dlr": 4, "margin": 2}
_UNTARGETED = {
    "cross_entropy": losses.cross_entropy,
    "dlr": losses.dlr,
    "margin": lambda labels, logits: -losses.margin(labels, logits),
}
_TARGETED = {
    "targeted_dlr": losses.targeted_dlr,
    "margin": lambda *given: -losses.targeted_margin(*given),
}
# The weight α of the new step beside the last one's direction.
_STEP_WEIGHT = 0.75
# Each pair of restart and target has its own random numbers.
_MOST_RESTARTS = 2**10
_MOST_TARGETS = 2**13


def checkpoints(num_steps: int) -> list[int]:
    """Returns after how many steps the step size is looked at.

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06), in
    parts of `num_steps`; as in the authors' implementation 0.22, 0.03 and
    0.06 are whole numbers of steps, rounded down and at least 1.

    Args:
      num_steps: >= 1.

    Returns:
      Integers in [1, num_steps], ascending.
    """
    period, decrement, shortest = (
        max(int(part * num_steps), 1) for part in (0.22, 0.03, 0.06)
    )
    after = []
    done = period
    while done <= num_steps:
        after.append(done)
        period = max(period - decrement, shortest)
        done += period
    return after


def ranked_wrong_class(
    labels: tf.Tensor, logits: tf.Tensor, rank: int
) -> tf.Tensor:
    """Returns the wrong class with the rank-th largest logit.

    Args:
      labels: integers [b].
      logits: float [b, k].
      rank: from 1; beyond k − 1, the last wrong class.

    Returns:
      int32 [b].
    """
    num_classes = logits.shape[-1]
    is_label = tf.one_hot(labels, num_classes, True, False, dtype=bool)
    lowest = tf.constant(-math.inf, logits.dtype)
    wrong = tf.where(is_label, lowest, logits)
    ranked = tf.math.top_k(wrong, min(rank, num_classes - 1)).indices
    return ranked[:, -1]


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class APGD:
    """One run of APGD from one random start.

    z^{k+1} = P(x^k + η · d(∇f(x^k))), d the signs (linf) or the unit vector
    (l2), and x^{k+1} = P(x^k + α (z^{k+1} − x^k) + (1 − α)(x^k − x^{k−1})),
    α = 0.75 (1 in the first step). η begins with 2ε and is halved at a
    checkpoint, with a return to the point of the largest loss, where fewer
    than ρ of the steps since the last one increased f, or where neither η nor
    the largest loss changed since then.

    A step increases f when the loss is larger than at the point it left, which
    after a return is the point of the largest loss. The condition on η and the
    largest loss holds from the first checkpoint on. Both are as printed.

    The state has, beside `stepped.ROWS`, the walk's own rows. `broke_at` is 0
    for an image that its random start already broke.

    Attributes:
      epsilon: ε, the radius, in the unit of the pixels.
      norm: "linf" or "l2".
      num_steps: number of steps, one gradient each, beside that of the start.
      loss: f, one of LOSSES; see `loss_in_force` for few classes.
      target: None, or the rank of the class to reach: 1 for the most likely
        wrong class by the logits of the clean image. Needed by "targeted_dlr",
        possible for "margin".
      bounds: the smallest and the largest pixel value.
      rho: ρ.
      restart: index of the random start, from 0.
    """

    epsilon: float
    norm: str = "linf"
    num_steps: int = 100
    loss: str = "cross_entropy"
    target: int | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    rho: float = 0.75
    restart: int = 0

    def __post_init__(self):
        expect_known("a norm", self.norm, NORMS)
        expect_known("a loss", self.loss, LOSSES)
        linf.settle_ball(self)
        self._expect_target()
        expect(self.num_steps >= 1, "num_steps >= 1", num_steps=self.num_steps)
        expect(0 < self.rho <= 1, "rho in (0, 1]", rho=self.rho)
        expect(
            0 <= self.restart < _MOST_RESTARTS,
            f"restart in [0, {_MOST_RESTARTS})",
            restart=self.restart,
        )

    def loss_in_force(self, num_classes: int) -> str:
        """Returns the name of the loss that is used for a number of classes.

        The ratios of logits need 3 classes, targeted 4; below that the margin
        is climbed instead, targeted where a target is given.

        Raises:
          InputError: fewer than 2 classes, or none of the target's rank.
        """
        expect(num_classes >= 2, "at least 2 classes", num_classes=num_classes)
        expect(
            (self.target or 1) < num_classes,
            f"target in [1, {num_classes - 1}], a rank of wrong classes",
            target=self.target,
        )
        return self.loss if num_classes >= LOSSES[self.loss] else "margin"

    def start(
        self,
        logits_fn: Callable,
        images: tf.Tensor,
        labels: tf.Tensor,
        seeds: tf.Tensor,
    ) -> stepped.State:
        """Returns the state at the random start, see `stepped`.

        The start is drawn from the seeds of `randomness.restart_seeds` number
        restart + 1024 · target, with 0 for no target.

        Raises:
          InputError: the logits have too few classes for the target.
        """
        stepped.expect_images(images, self.bounds)
        clean_logits = logits_fn(images)
        state = stepped.first_state(
            lambda _: clean_logits, images, labels, seeds
        )
        if self.target:
            self.loss_in_force(clean_logits.shape[-1])
            state["targets"] = ranked_wrong_class(
                labels, clean_logits, self.target
            )
        position = self._random_start(images, seeds)
        logits, loss, gradient = self._ascent(logits_fn, state, position)
        return {
            **stepped.judged(state, position, logits, -1),
            "point": position,
            "previous": position,
            "loss": loss,
            "gradient": gradient,
            "best": position,
            "best_loss": loss,
            "best_gradient": gradient,
            "step_size": tf.fill(
                tf.shape(labels), tf.constant(2 * self.epsilon, images.dtype)
            ),
            "increases": tf.zeros_like(labels, tf.int32),
            "checked_loss": loss,
            "halved": tf.zeros_like(labels, tf.bool),
        }

    def step(
        self, logits_fn: Callable, state: stepped.State, index: tf.Tensor
    ) -> stepped.State:
        """Returns the state after step `index`, see `stepped`."""
        position = self._next_position(state, index)
        logits, loss, gradient = self._ascent(logits_fn, state, position)
        state = stepped.judged(state, position, logits, index)
        better = loss > state["best_loss"]
        increases = tf.cast(loss > state["loss"], tf.int32)
        moved = {
            **state,
            "point": position,
            "previous": state["point"],
            "loss": loss,
            "gradient": gradient,
            "best": _chosen(better, position, state["best"]),
            "best_loss": tf.where(better, loss, state["best_loss"]),
            "best_gradient": _chosen(better, gradient, state["best_gradient"]),
            "increases": state["increases"] + increases,
        }
        return self._checked(moved, index)

    def _next_position(self, state, index):
        images, position = state["images"], state["point"]
        direction = state["gradient"]
        direction = (
            tf.sign(direction) if self.norm == "linf" else _unit(direction)
        )
        size = _per_image(state["step_size"])
        ascended = self._projected(position + size * direction, images)
        weight = tf.where(index == 0, 1.0, _STEP_WEIGHT)
        weight = tf.cast(weight, position.dtype)
        inertia = (1 - weight) * (position - state["previous"])
        return self._projected(
            position + weight * (ascended - position) + inertia, images
        )

    def _checked(self, state, index):
        """Returns the state after the checkpoint, if step `index` has one."""
        needed = tf.constant(self._needed_increases())[index]
        is_checkpoint = needed > 0
        is_same = state["best_loss"] <= state["checked_loss"]
        halves = is_checkpoint & (
            (state["increases"] < needed) | (is_same & ~state["halved"])
        )
        size = state["step_size"]
        return {
            **state,
            "step_size": tf.where(halves, size / 2, size),
            "point": _chosen(halves, state["best"], state["point"]),
            "loss": tf.where(halves, state["best_loss"], state["loss"]),
            "gradient": _chosen(
                halves, state["best_gradient"], state["gradient"]
            ),
            "increases": tf.where(is_checkpoint, 0, state["increases"]),
            "checked_loss": tf.where(
                is_checkpoint, state["best_loss"], state["checked_loss"]
            ),
            "halved": tf.where(is_checkpoint, halves, state["halved"]),
        }

    def _needed_increases(self):
        """Returns, for each step, the increases that keep η; 0 where the step
        ends at no checkpoint."""
        needed = [0] * self.num_steps
        last = 0
        for after in checkpoints(self.num_steps):
            needed[after - 1] = math.ceil(self.rho * (after - last))
            last = after
        return needed

    def _ascent(self, logits_fn, state, points):
        """Returns logits, losses and the direction of ascent at points."""
        logits, loss, gradient = ascent.ascent(
            logits_fn, lambda logits: self._loss(state, logits), points
        )
        # Logits that overflow must not lead out of the numbers.
        loss = tf.where(tf.math.is_finite(loss), loss, loss.dtype.min)
        is_finite = tf.math.is_finite(gradient)
        return logits, loss, tf.where(is_finite, gradient, 0.0)

    def _loss(self, state, logits):
        name = self.loss_in_force(logits.shape[-1])
        if self.target:
            return _TARGETED[name](state["labels"], state["targets"], logits)
        return _UNTARGETED[name](state["labels"], logits)

    def _random_start(self, images, seeds):
        number = self.restart + _MOST_RESTARTS * (self.target or 0)
        seeds = randomness.restart_seeds(seeds, number)
        shape = images.shape[1:]
        if self.norm == "linf":
            noise = randomness.uniform_noise(seeds, shape, 1.0)
            noise = _largest_is_1(tf.cast(noise, images.dtype))
        else:
            noise = randomness.normal_noise(seeds, shape, 1.0)
            noise = _unit(tf.cast(noise, images.dtype))
        return self._projected(images + self.epsilon * noise, images)

    def _projected(self, points, images):
        """Returns the points moved into the ball, then into the box."""
        if self.norm == "linf":
            lower = tf.maximum(images - self.epsilon, self.bounds[0])
            upper = tf.minimum(images + self.epsilon, self.bounds[1])
            return tf.clip_by_value(points, lower, upper)
        moved = points - images
        length = _per_image(losses.safe_norm(moved))
        inside = images + moved * (
            self.epsilon / tf.maximum(length, self.epsilon)
        )
        return tf.clip_by_value(inside, *self.bounds)

    def _expect_target(self):
        if self.target is None:
            expect(
                self.loss in _UNTARGETED,
                f"a target (1, 2, ...) for {self.loss}",
                target=self.target,
            )
            return
        expect(
            self.loss in _TARGETED,
            f"no target for {self.loss}",
            target=self.target,
        )
        expect(
            1 <= self.target < _MOST_TARGETS,
            f"target in [1, {_MOST_TARGETS})",
            target=self.target,
        )


def _per_image(values):
    """Returns values [b] as [b, 1, 1, 1]."""
    return values[:, None, None, None]


def _chosen(is_first, first, second):
    """Returns the rows of `first` where `is_first` [b], else of `second`."""
    return tf.where(_per_image(is_first), first, second)


def _largest_is_1(vectors):
    """Returns each row over its largest |entry|; zero stays zero."""
    axes = list(range(1, vectors.shape.rank))
    largest = tf.reduce_max(tf.abs(vectors), axes, keepdims=True)
    return tf.math.divide_no_nan(vectors, largest)


def _unit(vectors):
    """Returns each row over its ℓ2 norm; zero stays zero."""
    # In two steps: squares of tiny or huge gradients leave float32's range.
    scaled = _largest_is_1(vectors)
    length = _per_image(losses.safe_norm(scaled))
    return tf.math.divide_no_nan(scaled, length)
