"""White-box ℓ∞ attacks: FGSM, I-FGSM and PGD as settings of one loop (§2.3)."""

import dataclasses
import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import ascent, randomness, stepped
from atat_tf.errors import expect, unknown, with_checked_fields


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class LinfAttack:
    """Untargeted ℓ∞ attack by projected sign-gradient ascent.

    x^{t+1} = P_{S_∞(ε)}(x^t + α · sgn(∇_x L(f_θ(x^t), y)))   (§2.3),
    where P projects into the ε-ball around the image and into `bounds`.

    Attributes:
      epsilon: ε, the radius, in the unit of the pixels.
      step_size: α, in the same unit.
      num_steps: number of gradients, >= 1.
      random_start: whether x^0 is uniform in the ball, or the image itself.
      restarts: independent starts; the worst (lowest margin) is kept for each
        image, and an image once broken stays broken.
      bounds: the smallest and the largest pixel value.
      loss_fn: L, (labels [b], logits [b, k]) -> [b].
    """

    epsilon: float
    step_size: float
    num_steps: int
    random_start: bool = True
    restarts: int = 1
    bounds: tuple[float, float] = (0.0, 1.0)
    loss_fn: Callable = losses.cross_entropy

    def __post_init__(self):
        settle_ball(self)
        expect(
            0 < self.step_size < math.inf,
            "step_size > 0, finite",
            step_size=self.step_size,
        )
        expect(self.num_steps >= 1, "num_steps >= 1", num_steps=self.num_steps)
        expect(self.restarts >= 1, "restarts >= 1", restarts=self.restarts)
        expect(
            self.restarts == 1 or self.random_start,
            "restarts=1 without a random start: all would be the same",
            restarts=self.restarts,
        )

    def __call__(
        self,
        logits_fn: Callable,
        images: tf.Tensor,
        labels: tf.Tensor,
        seeds: tf.Tensor | None,
    ) -> tf.Tensor:
        """Returns adversarial images; no gradient flows back through them.

        Args:
          logits_fn: images [b, H, W, C] -> logits [b, k], differentiable. It
            must not talk to other replicas: it runs inside a loop.
          images: float32 [b, H, W, C] within `bounds`.
          labels: integers [b], the true classes.
          seeds: int64 [b, 2] from `example_seeds`; read by random starts only.

        Returns:
          float32 [b, H, W, C], within `bounds` and ε of the images.

        Raises:
          InputError: images of another range or type.
        """
        stepped.expect_images(images, self.bounds)
        best = self._ascend(logits_fn, images, labels, seeds)
        if self.restarts == 1:
            return tf.stop_gradient(best)

        def restart(index, best, margin):
            shifted = randomness.restart_seeds(seeds, index)
            candidate = self._ascend(logits_fn, images, labels, shifted)
            candidate_margin = losses.verdict_margin(
                labels, logits_fn(candidate)
            )
            better = candidate_margin < margin
            best = tf.where(better[:, None, None, None], candidate, best)
            return index + 1, best, tf.minimum(margin, candidate_margin)

        margin = losses.verdict_margin(labels, logits_fn(best))
        _, best, _ = tf.while_loop(
            lambda index, *_: index < self.restarts,
            restart,
            (tf.constant(1, tf.int64), best, margin),
            maximum_iterations=self.restarts - 1,
            parallel_iterations=1,
        )
        return tf.stop_gradient(best)

    def first_point(
        self, images: tf.Tensor, seeds: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns x^0: uniform in the ball, or the images themselves."""
        if not self.random_start:
            return images
        noise = randomness.uniform_noise(seeds, images.shape[1:], self.epsilon)
        return self._projected(images + tf.cast(noise, images.dtype), images)

    def next_point(
        self,
        logits_fn: Callable,
        point: tf.Tensor,
        images: tf.Tensor,
        labels: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns x^{t+1} after `point`, x^t, and the logits at x^t."""
        # A classifier that does not read its images moves none.
        logits, _, gradient = ascent.ascent(
            logits_fn, lambda logits: self.loss_fn(labels, logits), point
        )
        # Logits that overflow must not lead out of the numbers.
        is_number = ~tf.math.is_nan(gradient)
        gradient = tf.where(is_number, gradient, tf.zeros_like(gradient))
        moved = point + self.step_size * tf.sign(gradient)
        return self._projected(moved, images), logits

    def _projected(self, points, images):
        lower = tf.maximum(images - self.epsilon, self.bounds[0])
        upper = tf.minimum(images + self.epsilon, self.bounds[1])
        return tf.clip_by_value(points, lower, upper)

    def _ascend(self, logits_fn, images, labels, seeds):
        def ascend(step, point):
            point, _ = self.next_point(logits_fn, point, images, labels)
            return step + 1, point

        # An explicit loop: Keras runs train_step without autograph, and an
        # unrolled one would trace the network num_steps times.
        _, adversarial = tf.while_loop(
            lambda step, _: step < self.num_steps,
            ascend,
            (tf.constant(0), self.first_point(images, seeds)),
            maximum_iterations=self.num_steps,
            parallel_iterations=1,
        )
        return adversarial


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class Steps:
    """A LinfAttack as a stepped attack, see `stepped`.

    Every point on the attack's path is judged, not the last one alone, and an
    image that is broken takes part in no later restart.

    Attributes:
      attack: whose points are judged, from `first_point` and `next_point`.

    Raises:
      InputError: the attack does not go by these alone, and what it does
        instead would not be run.
    """

    attack: LinfAttack

    def __post_init__(self):
        kind = type(self.attack)
        own = [
            name
            for name in ("__call__", "_ascend")
            if getattr(kind, name) is not getattr(LinfAttack, name)
        ]
        expect(
            not own,
            "an attack whose steps are its first_point and next_point: it is "
            "judged step by step, without the methods that it has of its own",
            attack=kind.__name__,
            methods=own,
        )

    @property
    def epsilon(self) -> float:
        return self.attack.epsilon

    @property
    def bounds(self) -> tuple[float, float]:
        return self.attack.bounds

    @property
    def num_steps(self) -> int:
        return self.attack.num_steps * self.attack.restarts

    def start(
        self,
        logits_fn: Callable,
        images: tf.Tensor,
        labels: tf.Tensor,
        seeds: tf.Tensor,
    ) -> stepped.State:
        stepped.expect_images(images, self.bounds)
        state = stepped.first_state(logits_fn, images, labels, seeds)
        return {**state, "point": images}

    def step(
        self, logits_fn: Callable, state: stepped.State, index: tf.Tensor
    ) -> stepped.State:
        attack = self.attack
        images, labels = state["images"], state["labels"]
        restart = index // attack.num_steps
        is_first = index % attack.num_steps == 0
        point = tf.cond(
            is_first,
            lambda: attack.first_point(
                images, randomness.restart_seeds(state["seeds"], restart)
            ),
            lambda: state["point"],
        )
        after, logits = attack.next_point(logits_fn, point, images, labels)
        # The forward pass of the gradient judges the point it is taken at.
        state = stepped.judged(state, point, logits, index - 1)
        is_last = (index + 1) % attack.num_steps == 0
        state = tf.cond(
            is_last,
            lambda: stepped.judged(state, after, logits_fn(after), index),
            lambda: state,
        )
        return {**state, "point": after}


def fgsm(
    epsilon: float, bounds: tuple[float, float] = (0.0, 1.0)
) -> LinfAttack:
    """Returns FGSM: one step of ε from the image itself."""
    return LinfAttack(epsilon, epsilon, 1, random_start=False, bounds=bounds)


def ifgsm(
    epsilon: float,
    step_size: float,
    num_steps: int,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> LinfAttack:
    """Returns I-FGSM: PGD without the random start."""
    return LinfAttack(
        epsilon, step_size, num_steps, random_start=False, bounds=bounds
    )


def pgd(
    epsilon: float,
    step_size: float,
    num_steps: int,
    restarts: int = 1,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> LinfAttack:
    """Returns PGD with uniform random starts; ε in the unit of `bounds`."""
    return LinfAttack(
        epsilon, step_size, num_steps, restarts=restarts, bounds=bounds
    )


ATTACKS: dict[str, Callable[..., LinfAttack]] = {
    "fgsm": fgsm,
    "ifgsm": ifgsm,
    "pgd": pgd,
}


def from_name(name: str, epsilon: float, step_size: float) -> LinfAttack:
    """Returns the attack that a table's column names.

    Args:
      name: "fgsm", "ifgsm20", "pgd7", or "pgd20x10" (20 steps, 10 restarts).
      epsilon: ε of all of them.
      step_size: α of the iterated ones.

    Raises:
      InputError: the name is none of these; the known forms are listed.
    """
    match = re.fullmatch(r"([a-z_]+)(\d{1,6})?(?:x(\d{1,6}))?", name)
    if match and match[1] in ATTACKS:
        factory = ATTACKS[match[1]]
        parameters = inspect.signature(factory).parameters
        ball = {"epsilon": epsilon, "step_size": step_size}
        arguments = {n: v for n, v in ball.items() if n in parameters}
        for field, number in (("num_steps", match[2]), ("restarts", match[3])):
            if number:
                arguments[field] = int(number)
        required = {n for n, p in parameters.items() if p.default is p.empty}
        if required <= arguments.keys() <= parameters.keys():
            made = factory(**arguments)
            expect(
                isinstance(made, LinfAttack),
                f"a LinfAttack from what is registered as {match[1]!r}",
                received=type(made),
            )
            return made
    raise unknown(
        "an attack (any number of steps, and of restarts as in pgd20x10)",
        name,
        ("clean", "fgsm", "ifgsm20", "pgd7", "pgd10", "pgd20", "pgd20x10"),
    )


def settle_ball(attack: Any) -> None:
    """Makes an attack's bounds a tuple, and raises as `expect_ball`.

    A list is taken for one, and an attack is a key of dictionaries.

    Args:
      attack: a frozen dataclass with epsilon and bounds, and a norm unless its
        own is "linf".
    """
    object.__setattr__(attack, "bounds", tuple(attack.bounds))
    norm = getattr(attack, "norm", "linf")
    expect_ball(attack.epsilon, attack.bounds, norm)


def expect_ball(
    epsilon: float, bounds: tuple[float, float], norm: str = "linf"
) -> None:
    """Raises InputError if an attack cannot have this radius.

    Args:
      epsilon: ε, in the unit of the bounds.
      bounds: (low, high) of the pixels.
      norm: "linf", where ε is at most the range of the pixels, or "l2".
    """
    expect(len(bounds) == 2, "bounds (low, high)", bounds=bounds)
    expect(all(map(math.isfinite, bounds)), "finite bounds", bounds=bounds)
    width = bounds[1] - bounds[0]
    expect(width > 0, "bounds in ascending order", bounds=bounds)
    expect(np.ndim(epsilon) == 0, "one epsilon, a number", epsilon=epsilon)
    if norm == "linf":
        expect(
            0 < epsilon <= width,
            f"epsilon in (0, {width:g}], the range of the pixels",
            epsilon=epsilon,
        )
    expect(0 < epsilon < math.inf, "epsilon > 0, finite", epsilon=epsilon)
