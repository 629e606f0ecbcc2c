"""Attacks for evaluation in steps, so that broken images can leave in between.

A stepped attack is a frozen dataclass with `num_steps` and two methods,

    start(logits_fn, images, labels, seeds) -> state
    step(logits_fn, state, index) -> state

of tensors that all have one row an image, whatever else they hold. Rows of
several batches at the same step may be put together, and an image's rows never
depend on its neighbours'. `judged` keeps what a verdict is made of. Where a
step costs another number of passes than two, a gradient's, the attack says so
in `passes_a_step`. A field `target`, the rank of a class to reach, is read by
`start` alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from atat_tf import losses
from atat_tf.data import training_data
from atat_tf.errors import expect

State = dict[str, tf.Tensor]

# The rows that every state has: the image, its label and seed, the candidate
# closest to success (lowest margin) with that margin, and the step at which
# the image first was not classified right (NEVER before). The margin is
# `losses.verdict_margin`: ties, and scores that are no numbers, are wrong.
ROWS = ("images", "labels", "seeds", "adversarial", "margin", "broke_at")
NEVER = -1


def passes(attack: Any) -> int:
    """Returns what all steps cost for an image, in forward passes, at most.

    A backward pass to the images counts as one.
    """
    return attack.num_steps * passes_a_step(attack)


def needs_gradient(attack: Any) -> bool:
    """Returns whether an attack follows gradients, and not scores alone.

    A step of one pass, which is forward, has none to follow.
    """
    return passes_a_step(attack) > 1


def passes_a_step(attack: Any) -> int:
    """Returns the same for one step."""
    return getattr(attack, "passes_a_step", 2)


def expect_images(images: tf.Tensor, bounds: tuple[float, float]) -> None:
    """Raises InputError unless an attack can start from images.

    In a graph that is traced the pixels are not known: who traces it looks at
    them before.

    Args:
      images: floats [b, H, W, C] within the bounds.
      bounds: the smallest and the largest pixel value.
    """
    low, high = bounds
    dtype = tf.as_dtype(images.dtype)
    expect(
        dtype.is_floating and len(images.shape) == 4,
        f"float images [b, height, width, channels] from {low:g} to {high:g}",
        dtype=dtype.name,
        shape=tuple(images.shape),
    )
    if not tf.executing_eagerly() or not len(images):
        return
    smallest, largest = float(np.min(images)), float(np.max(images))
    slack = training_data.TOLERANCE * (high - low)
    # False for NaN too.
    expect(
        low - slack <= smallest and largest <= high + slack,
        f"pixels from {low:g} to {high:g}, the attack's bounds",
        smallest=smallest,
        largest=largest,
    )


def first_state(
    logits_fn: Callable,
    images: tf.Tensor,
    labels: tf.Tensor,
    seeds: tf.Tensor,
) -> State:
    """Returns the rows of a state before any step: the image itself.

    Args:
      logits_fn: images -> logits [b, k], in inference mode.
      images: float32 [b, H, W, C].
      labels: int32 [b].
      seeds: int64 [b, 2], see `randomness.example_seeds`.
    """
    margin = losses.verdict_margin(labels, logits_fn(images))
    return {
        "images": images,
        "labels": labels,
        "seeds": seeds,
        "adversarial": images,
        "margin": margin,
        "broke_at": tf.where(margin <= 0, 0, NEVER),
    }


def judged(
    state: State, candidates: tf.Tensor, logits: tf.Tensor, index: tf.Tensor
) -> State:
    """Returns the state with better candidates taken over.

    Once an image is broken its candidate stays.

    Args:
      state: as from `first_state`, with the attack's own rows.
      candidates: float32 [b, H, W, C] inside the ball and the box.
      logits: float [b, k], the classifier's at the candidates.
      index: int32 [], the step that made them, from 0.
    """
    margin = losses.verdict_margin(state["labels"], logits)
    was_broken = state["broke_at"] != NEVER
    better = (margin < state["margin"]) & ~was_broken
    return {
        **state,
        "adversarial": tf.where(
            better[:, None, None, None], candidates, state["adversarial"]
        ),
        "margin": tf.where(better, margin, state["margin"]),
        "broke_at": tf.where(
            ~was_broken & (margin <= 0), index + 1, state["broke_at"]
        ),
    }


def advanced(
    attack: Any,
    logits_fn: Callable,
    state: State,
    first: tf.Tensor,
    last: tf.Tensor,
) -> State:
    """Returns the state after steps `first` to `last` - 1, as one loop.

    Args:
      attack: a stepped attack.
      logits_fn: images -> logits, differentiable.
      state: after step `first` - 1.
      first: int32 [].
      last: int32 [].
    """
    names = sorted(state)

    def body(index, *rows):
        after = attack.step(
            logits_fn, dict(zip(names, rows, strict=True)), index
        )
        return index + 1, *(after[name] for name in names)

    _, *rows = tf.while_loop(
        lambda index, *_: index < last,
        body,
        (first, *(state[name] for name in names)),
        parallel_iterations=1,
    )
    return {
        name: tf.stop_gradient(row)
        for name, row in zip(names, rows, strict=True)
    }
