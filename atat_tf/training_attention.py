"""Attention on a few fixed images, clean and attacked, while training.

A student and validation images enter; at any moment a picture of both maps of
every image and their mean distance leave.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from atat_tf import (
    attacks,
    attention,
    attention_shift,
    classifiers,
    heat_maps,
    models,
)

_READABLE_SIDE = 96  # pixels of an enlarged image, at least
_GAP = 4  # pixels between the tiles of a panel


@dataclasses.dataclass(frozen=True)
class Attended:
    """What a classifier looks at, clean and attacked.

    Attributes:
      adversarial: float32 [n, H, W, C] in [0, 1].
      clean_maps, adversarial_maps: float32 [n, h, w], Eq. 3.
      shift: float64 [n], see `attention_shift.cosine_distance`.
    """

    adversarial: np.ndarray
    clean_maps: np.ndarray
    adversarial_maps: np.ndarray
    shift: np.ndarray


class AttentionPanels:
    """Looks at the same images again and again; it is traced once.

    Args:
      student: functional keras.Model, float32 images -> logits.
      attack: LinfAttack.
      layers: where the defense acts; the last of them is drawn, or, where
        there is none, the last layer with a spatial map.
      split: datasets.Split of at least one image, uint8.
      seed: of the random starts; image i has the start (seed, 0, i).
    """

    def __init__(self, student, attack, layers, split, seed):
        layer = shown_layer(student, layers)
        tapped = models.with_taps(student, [layer])
        self._split = split

        def attended():
            labels = tf.constant(split.labels)
            images = tf.cast(split.images, tf.float32) / 255.0
            seeds = attacks.example_seeds(seed, 0, tf.range(len(split)))
            adversarial = attack(
                lambda points: student(points, training=False),
                images,
                labels,
                seeds,
            )
            maps = [
                attention.logits_and_attention(tapped, at, labels)[1][layer]
                for at in (images, adversarial)
            ]
            return adversarial, *maps

        on_gpu = bool(tf.config.list_physical_devices("GPU"))
        self._attended = tf.function(attended, jit_compile=on_gpu)

    def attended(self):
        """Returns the Attended of the student's weights as they are now."""
        adversarial, *maps = (part.numpy() for part in self._attended())
        shift = attention_shift.cosine_distance(*maps)
        return Attended(adversarial, *maps, shift)

    def picture(self, attended):
        """Returns a row an image: clean, its map, attacked, its map.

        Args:
          attended: Attended.

        Returns:
          uint8 [height, width, 3].
        """
        images = self._split.images
        adversarial = heat_maps.as_uint8(attended.adversarial)
        maps = (attended.clean_maps, attended.adversarial_maps)
        clean_heat, adversarial_heat = (
            attention.scaled_for_reading(of_one).numpy() for of_one in maps
        )
        rows = [
            _beside(
                (
                    _rgb(images[i]),
                    heat_maps.overlaid(images[i], clean_heat[i]),
                    _rgb(adversarial[i]),
                    heat_maps.overlaid(adversarial[i], adversarial_heat[i]),
                )
            )
            for i in range(len(images))
        ]
        return np.concatenate(rows)


def shown_layer(classifier, layers):
    """Returns the layer whose attention is drawn.

    Args:
      classifier: functional keras.Model.
      layers: where its defense acts, () for none.

    Raises:
      InputError: the layer, or any, has no spatial map.
    """
    name = layers[-1] if layers else None
    return classifiers.attention_layer(classifier, name)


def _rgb(image):
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _beside(tiles):
    """Returns the tiles enlarged, in a row, with white between and below."""
    times = -(-_READABLE_SIDE // max(tiles[0].shape[:2]))
    padded = [
        np.pad(
            tile.repeat(times, 0).repeat(times, 1),
            ((0, _GAP), (0, _GAP), (0, 0)),
            constant_values=255,
        )
        for tile in tiles
    ]
    return np.concatenate(padded, axis=1)
