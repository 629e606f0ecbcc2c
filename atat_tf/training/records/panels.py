"""Draws a network's attention on a few images, clean and attacked."""

from collections.abc import Sequence

import keras
import numpy as np

from atat_tf import grad_cam
from atat_tf.attacks import linf, radii
from atat_tf.data import datasets
from atat_tf.data import images as image_files
from atat_tf.evaluation.attention.views import Attended, Viewer, verdict
from atat_tf.models import classifiers

_READABLE_SIDE = 128  # pixels of an enlarged image, at least
_GAP = 4  # pixels between the tiles of a panel
_RIGHT, _WRONG, _PLAIN = "#17663d", "#a3261c", "#555b64"


class AttentionPanels:
    """Looks at the same images again and again; it is traced once.

    Args:
      student: functional, float32 images -> logits.
      attack: how the second image of a row is made.
      layers: where the defense acts; the last of them is drawn, or, where
        there is none, the last layer with a spatial map.
      split: at least one image, uint8.
      class_names: k strings.
      seed: of the random starts; image i has the start (seed, 0, i).
      score: of `grad_cam.SCORES`.
    """

    def __init__(
        self,
        student: keras.Model,
        attack: linf.LinfAttack,
        layers: Sequence[str],
        split: datasets.Split,
        class_names: Sequence[str],
        seed: int,
        score: str = "logit",
    ):
        layer = classifiers.shown_layer(student, layers)
        self._viewer = Viewer(student, layer, seed, len(split), score=score)
        self._attack, self._split = attack, split
        self._class_names = class_names

    def attended(self) -> Attended:
        """Returns the Attended of the student's weights as they are now."""
        images = self._split.images[:] / np.float32(255)
        return self._viewer.attended(self._attack, images, self._split.labels)

    def picture(self, attended: Attended) -> np.ndarray:
        """Returns heads, and a row an image: clean, its map, attacked, its map.

        Below an image stand ✓ or ✗, the predicted class and its confidence;
        below the second map how far attention has moved.

        Args:
          attended: from `attended`.

        Returns:
          uint8 [height, width, 3].
        """
        images, labels = self._split.images[:], self._split.labels
        clean, attacked = (
            self._tiles(view) for view in (attended.clean, attended.attacked)
        )
        moved = [f"1 − cos = {shift:.2f}" for shift in attended.shift]
        epsilon = radii.written(self._attack.epsilon)
        heads = ("image", "attention", f"attacked, ε = {epsilon}", "now")
        width = clean[0][0].shape[1]
        rows = [[image_files.line(head, width) for head in heads]]
        for i in range(len(images)):
            words = [
                verdict(view, i, labels[i], self._class_names)
                for view in (attended.clean, attended.attacked)
            ]
            lines = ((words[0]), ("", None), (words[1]), (moved[i], None))
            tiles = (*clean[i], *attacked[i])
            rows.append(
                [
                    np.concatenate([tile, _written(*text, width)])
                    for tile, text in zip(tiles, lines, strict=True)
                ]
            )
        return np.concatenate([_beside(row) for row in rows])

    def _tiles(self, view):
        """Returns (image, image under its map) of each image, enlarged."""
        images = image_files.as_uint8(view.images)
        heat = grad_cam.scaled_for_reading(view.maps).numpy()
        return [
            (_enlarged(image), _enlarged(image_files.overlaid(image, of_one)))
            for image, of_one in zip(images, heat, strict=True)
        ]


def _enlarged(image):
    times = -(-_READABLE_SIDE // max(image.shape[:2]))
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    return image.repeat(times, 0).repeat(times, 1)


def _written(text, is_right, width):
    colour = {True: _RIGHT, False: _WRONG, None: _PLAIN}[is_right]
    return image_files.line(text, width, colour)


def _beside(tiles):
    """Returns the tiles in a row, with white between and below."""
    gaps = ((0, _GAP), (0, _GAP), (0, 0))
    return np.concatenate(
        [np.pad(tile, gaps, constant_values=255) for tile in tiles], axis=1
    )
