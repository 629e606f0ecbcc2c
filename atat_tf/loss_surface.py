"""The loss around an image, in the plane of two directions (Fig. 7).

A classifier, an image and its label enter, losses on a square grid leave.
"""

import numpy as np
import tensorflow as tf

from atat_tf import attacks, losses

_BATCH = 256


def positions(extent, resolution):
    """Returns the grid's places along a direction, in units of ε.

    Args:
      extent: the largest, > 0.
      resolution: how many, odd, so that the image itself is one.

    Returns:
      float64 [resolution], from -extent to extent.
    """
    return np.linspace(-extent, extent, resolution)


def sign_gradient(logits_fn, image, label):
    """Returns d_a = sgn(∇_x L(f(x), y)), float32 [H, W, C]."""
    images = tf.constant(image[None], tf.float32)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        loss = losses.cross_entropy(tf.constant([label]), logits_fn(images))
    return tf.sign(tape.gradient(loss, images))[0].numpy()


def rademacher(shape, seed, index):
    """Returns d_r of ±1, each with probability ½, float32 of a shape.

    Args:
      shape: of an image.
      seed: integer.
      index: the image's position in the data set; every network is looked at
        along the same direction.
    """
    seeds = attacks.example_seeds(seed, 0, [index])
    noise = attacks.uniform_noise(seeds, shape, 1.0)[0].numpy()
    return np.where(noise < 0, -1, 1).astype(np.float32)


def surface(logits_fn, image, label, directions, places, epsilon):
    """Returns L(f(clip(x + ε (a d_a + r d_r))), y) over the grid.

    What leaves [0, 1] is clipped: beyond there are no images.

    Args:
      logits_fn: images -> logits.
      image: x, float32 [H, W, C] in [0, 1].
      label: y.
      directions: d_a and d_r, float32 [H, W, C] each.
      places: float [n], the values of a and of r, in units of ε.
      epsilon: ε.

    Returns:
      float32 [n, n]; rows are r, columns are a.
    """

    @tf.function(reduce_retracing=True)
    def values(images):
        labels = tf.fill(tf.shape(images)[:1], label)
        return losses.cross_entropy(labels, logits_fn(images))

    along, across = (epsilon * d.astype(np.float32) for d in directions)
    steps = np.asarray(places, np.float32)
    r, a = (grid.reshape(-1, 1, 1, 1) for grid in _grid(steps))
    found = []
    for first in range(0, len(a), _BATCH):
        part = slice(first, first + _BATCH)
        moved = image + a[part] * along + r[part] * across
        found.append(values(np.clip(moved, 0, 1, dtype=np.float32)).numpy())
    return np.concatenate(found).reshape(len(steps), len(steps))


def _grid(steps):
    return np.meshgrid(steps, steps, indexing="ij")
