"""Square Attack for ℓ∞ and ℓ2: random squares, no gradient.

Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box
adversarial attack via random search". All choices of an image at a step come
from its seed and the step.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import linf, randomness, stepped
from atat_tf.attacks.randomness import coins, integers, random_words
from atat_tf.errors import expect, with_checked_fields

# The share p of an image that a square covers is halved after each of these
# iterations out of 10,000, as in the authors' code.
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
SCHEDULE = 10_000
# Keeps a rounded norm of ε inside the ball.
_INSIDE = 1 - 1e-6


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class Square:
    """Random search over squares as a stepped attack, see `stepped`.

    Step 0 takes stripes (ℓ∞) or tiles (ℓ2); every later one tries a square at
    a random place with random signs, and keeps it where it lowers the margin
    z_y − max_{j≠y} z_j. Each step is one forward pass, and with the clean
    image's there are num_steps + 1.

    Attributes:
      epsilon: ε, the radius.
      norm: "linf" or "l2".
      num_steps: queries, >= 1.
      p_init: the share of the image that the first squares cover, in (0, 1].
      bounds: the smallest and the largest pixel value.
      restart: each number has random choices of its own.
      schedule: queries, >= 1, over which the sizes go through HALVED_AFTER:
        SCHEDULE in AutoAttack, whatever its number of queries; `num_steps` for
        squares that become small within any number.
    """

    epsilon: float
    norm: str = "linf"
    num_steps: int = 5000
    p_init: float = 0.8
    bounds: tuple[float, float] = (0.0, 1.0)
    restart: int = 0
    schedule: int = SCHEDULE

    passes_a_step: ClassVar = 1

    def __post_init__(self):
        expect(
            self.norm in ("linf", "l2"), "norm of linf or l2", norm=self.norm
        )
        linf.settle_ball(self)
        expect(self.num_steps >= 1, "num_steps >= 1", num_steps=self.num_steps)
        expect(0 < self.p_init <= 1, "p_init in (0, 1]", p_init=self.p_init)
        expect(self.restart >= 0, "restart >= 0", restart=self.restart)
        expect(self.schedule >= 1, "schedule >= 1", schedule=self.schedule)

    def start(
        self,
        logits_fn: Callable,
        images: tf.Tensor,
        labels: tf.Tensor,
        seeds: tf.Tensor,
    ) -> stepped.State:
        """Returns the rows before any step; one forward pass."""
        stepped.expect_images(images, self.bounds)
        state = stepped.first_state(logits_fn, images, labels, seeds)
        return {
            **state,
            "point": images,
            # Stripes and tiles are kept even where they raise the margin.
            "point_margin": tf.fill(
                tf.shape(state["margin"]), state["margin"].dtype.max
            ),
        }

    def step(
        self, logits_fn: Callable, state: stepped.State, index: tf.Tensor
    ) -> stepped.State:
        """Returns the rows after step `index`, int32 [] from 0."""
        images, point = state["images"], state["point"]
        seeds = randomness.restart_seeds(state["seeds"], self.restart)
        first, later = {
            "linf": (self._striped, self._with_square),
            "l2": (self._tiled, self._with_moved_mass),
        }[self.norm]
        candidate = tf.cond(
            tf.equal(index, 0),
            lambda: first(images, seeds),
            lambda: later(images, point, seeds, index),
        )
        candidate = tf.ensure_shape(candidate, images.shape)
        logits = logits_fn(candidate)
        margin = losses.verdict_margin(state["labels"], logits)
        is_better = margin < state["point_margin"]
        state = stepped.judged(state, candidate, logits, index)
        return {
            **state,
            "point": tf.where(is_better[:, None, None, None], candidate, point),
            "point_margin": tf.where(is_better, margin, state["point_margin"]),
        }

    def _striped(self, images, seeds):
        """Returns images with ±ε on each column of each channel."""
        _, width, channels = images.shape[1:]
        words = random_words(seeds, 0, width * channels)
        signs = tf.reshape(coins(words), [-1, 1, width, channels])
        lower, upper = self._surface(images)
        return tf.where(signs, upper, lower)

    def _with_square(self, images, point, seeds, index):
        """Returns points moved by ±2 ε, a sign a channel, on a square.

        Projected into the ball that is ±ε, from wherever in it they were.
        """
        shape = images.shape
        side = self._of_stage(self.sides(shape, 1), index)
        words = random_words(seeds, index, 2 + shape[3])
        moved = mask(*offsets(words, side, shape), side)
        moved *= by_column(_signs(words[:, 2:]), shape)
        moved = tf.reshape(2 * self.epsilon * moved, tf.shape(images))
        return tf.clip_by_value(point + moved, *self._surface(images))

    def _surface(self, images):
        """Returns the lowest and the highest values in ball and box."""
        return (
            tf.maximum(images - self.epsilon, self.bounds[0]),
            tf.minimum(images + self.epsilon, self.bounds[1]),
        )

    def _tiled(self, images, seeds):
        """Returns images with ±η, a sign a channel, on each tile of a grid."""
        _, height, width, channels = images.shape
        side = max(1, min(height, width) // 5)
        rows, columns = height // side, width // side
        words = random_words(seeds, 0, rows * columns * (1 + channels))
        # From here on [b, tile row, tile column, C, row inside, column inside].
        words = tf.reshape(words, [-1, rows, columns, 1 + channels, 1, 1])
        shape = tf.constant(bump(side), images.dtype)
        tiles = tf.where(coins(words[:, :, :, :1]), tf.transpose(shape), shape)
        tiles *= _signs(words[:, :, :, 1:])
        tiles = tf.reshape(
            tf.transpose(tiles, [0, 1, 4, 2, 5, 3]),
            [-1, rows * side, columns * side, channels],
        )
        top, left = (height - rows * side) // 2, (width - columns * side) // 2
        delta = tf.image.pad_to_bounding_box(tiles, top, left, height, width)
        return self._at_radius(images, delta)

    def _with_moved_mass(self, images, point, seeds, index):
        """Returns points with what δ has on two squares put on the first."""
        shape = images.shape
        sides = self.sides(shape, 3)
        side = self._of_stage(sides, index)
        words = random_words(seeds, index, 5 + shape[3])
        row, column = offsets(words, side, shape)
        first = mask(row, column, side)
        second = mask(*offsets(words[:, 2:], side, shape), side)
        bump = self._of_stage(bumps(sides), index)
        bump = pattern(bump, coins(words[:, 4]), row, column)
        bump *= first * by_column(_signs(words[:, 5:]), shape)
        delta = tf.reshape(point - images, tf.shape(bump))
        delta = self._moved_mass(delta, first, second, bump, shape[3])
        return self._at_radius(images, tf.reshape(delta, tf.shape(images)))

    def _moved_mass(self, delta, first, second, bump, channels):
        """Returns δ with the mass of two squares W and V on the first, W.

        Algorithm 3, with ± η the signed `bump`: for each channel
          ν = ± η + δ_W / ‖δ_W‖,
          δ_V ← 0,  δ_W ← ν / ‖ν‖ · √(‖δ_{W ∪ V}‖² + (ε² − ‖δ‖²) / C).
        """
        on_either = delta * tf.maximum(first, second)
        unused = tf.maximum(self.epsilon**2 - _squared_norm(delta), 0.0)
        mass = unused / channels + _squared_norms(on_either, channels)
        old = delta * first
        new = bump + old * _inverse_root(_squared_norms(old, channels))
        new *= _inverse_root(_squared_norms(new, channels)) * tf.sqrt(mass)
        return delta - on_either + new

    def _at_radius(self, images, delta):
        """Returns images + ε δ / ‖δ‖, clipped to the box: nearer at most."""
        size = self.epsilon * _INSIDE * _inverse_root(_squared_norm(delta))
        return tf.clip_by_value(images + size * delta, *self.bounds)

    def sides(self, shape: Sequence[int], smallest: int) -> list[int]:
        """Returns the side of the squares for every stage of the schedule.

        Args:
          shape: (b, H, W, C).
          smallest: 1, or 3 for odd sides only, where the image has room.
        """
        sides = []
        for stage in range(len(HALVED_AFTER) + 1):
            share = self.p_init / 2**stage
            side = round(math.sqrt(share * shape[1] * shape[2]))
            side = max(side, smallest)
            side += smallest == 3 and side % 2 == 0
            sides.append(min(side, shape[1], shape[2]))
        return sides

    def _of_stage(self, values, index):
        """Returns the value for the stage that step `index` is in."""
        # Step 1 is the first iteration after the start, number 0.
        iteration = (tf.cast(index, tf.int64) - 1) * SCHEDULE
        iteration //= self.schedule
        passed = iteration > tf.constant(HALVED_AFTER, tf.int64)
        stage = tf.reduce_sum(tf.cast(passed, tf.int32))
        return tf.constant(values)[stage]


def _squared_norm(x):
    axes = list(range(1, x.shape.rank))
    return tf.reduce_sum(tf.square(x), axis=axes, keepdims=True)


def _squared_norms(lines, channels):
    return channel_sums(tf.square(lines), channels)


def _inverse_root(squared):
    """Returns 1 / √, and 0 of what is as good as 0."""
    is_zero = squared <= 1e-24
    roots = tf.sqrt(tf.where(is_zero, tf.ones_like(squared), squared))
    return tf.where(is_zero, tf.zeros_like(squared), 1 / roots)


def _signs(words):
    return 2 * tf.cast(coins(words), tf.float32) - 1


def bump(side: int) -> np.ndarray:
    """Returns η, two opposite peaks above each other, of norm 1.

    Each half is η(r, s) = Σ_{j=d}^{m} 1 / (j + 1)², where d is the larger of
    the two distances from the half's centre and m that of its far edge.

    Args:
      side: of the square, >= 1.

    Returns:
      NumPy [side, side].
    """
    halves = []
    for height, sign in ((side // 2, 1.0), (side - side // 2, -1.0)):
        if height == 0:
            continue
        from_row = np.abs(np.arange(height) - height // 2)[:, None]
        from_column = np.abs(np.arange(side) - side // 2)[None]
        distance = np.maximum(from_row, from_column)
        farthest = max(height // 2, side // 2)
        # What lies within each distance, from the far edge inwards.
        terms = 1.0 / np.arange(farthest + 1, 0, -1) ** 2.0
        half = np.cumsum(terms)[farthest - distance]
        halves.append(sign * half / np.linalg.norm(half))
    both = np.concatenate(halves)
    return both / np.linalg.norm(both)


def bumps(sides: Sequence[int]) -> np.ndarray:
    """Returns float32 [len(sides), n, n], n the largest, zero beyond each."""
    stacked = np.zeros((len(sides), max(sides), max(sides)), np.float32)
    for stage, side in enumerate(sides):
        stacked[stage, :side, :side] = bump(side)
    return stacked


def offsets(
    words: tf.Tensor, side: tf.Tensor, shape: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns each pixel's offset from the corner of a random square.

    Args:
      words: [b, >= 2].
      side: int32 [].
      shape: (b, H, W, C).

    Returns:
      int32 [b, H, 1] rows and [b, 1, W·C] columns, from the square's corner;
      outside it < 0 or >= side.
    """
    top = integers(words[:, :1], shape[1] - side + 1)
    left = integers(words[:, 1:2], shape[2] - side + 1)
    row = tf.range(shape[1])[None] - top
    column = tf.repeat(tf.range(shape[2]), shape[3])[None] - left
    return row[:, :, None], column[:, None, :]


def mask(row: tf.Tensor, column: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Returns float32 [b, H, W·C], 1 in the square of `offsets`, 0 outside."""
    in_rows, in_columns = (
        tf.cast((place >= 0) & (place < side), tf.float32)
        for place in (row, column)
    )
    return in_rows * in_columns


def pattern(
    square: tf.Tensor, turned: tf.Tensor, row: tf.Tensor, column: tf.Tensor
) -> tf.Tensor:
    """Returns a square of numbers at its place, transposed or not.

    Args:
      square: [n, n].
      turned: bool [b], whether it is transposed.
      row: int32 [b, H, 1] from `offsets`.
      column: int32 [b, 1, W·C] from `offsets`.

    Returns:
      [b, H, W·C]; what is outside the square has no meaning.
    """
    size = square.shape[0]
    row = tf.clip_by_value(row, 0, size - 1)
    column = tf.clip_by_value(column, 0, size - 1)
    of_row = tf.where(turned, 1, size)[:, None, None]
    of_column = tf.where(turned, size, 1)[:, None, None]
    return tf.gather(
        tf.reshape(square, [-1]), row * of_row + column * of_column
    )


def by_column(by_channel: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Returns [b, 1, W·C] from [b, C]."""
    return tf.tile(by_channel, [1, shape[2]])[:, None]


def channel_sums(lines: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns [b, 1, W·C], for each channel its sum over [b, H, W·C]."""
    width = lines.shape[2] // channels
    of_columns = tf.reduce_sum(lines, axis=1)
    sums = tf.reduce_sum(tf.reshape(of_columns, [-1, width, channels]), axis=1)
    return tf.tile(sums, [1, width])[:, None]
