"""Where networks look, on clean images and on attacked ones."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from atat_tf import grad_cam, losses
from atat_tf.attacks import linf, randomness
from atat_tf.errors import expect
from atat_tf.evaluation import accuracy as robustness
from atat_tf.models import classifiers, compilation, graphs

# Whose class score an attention map explains: the true class, as Eq. 3 has
# it, or the class that is predicted on the image at hand.
FOLLOWED = ("label", "predicted")


@dataclasses.dataclass(frozen=True)
class View:
    """What a network makes of n images.

    Attributes:
      images: float32 [n, H, W, C].
      predictions: int [n], classes; where labels are known, those of
        `losses.predicted`.
      confidences: float32 [n] in [0, 1], the probabilities of these classes.
      maps: float32 [n, h, w], Eq. 3, as they are.
      logits: float32 [n, k].
    """

    images: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    maps: np.ndarray
    logits: np.ndarray


def verdict(
    view: View, i: int, label: int, class_names: Sequence[str]
) -> tuple[str, bool]:
    """Returns the prediction on an image in words, and whether it is right.

    Args:
      view: of several images.
      i: position of the image.
      label: its true class.
      class_names: k strings.
    """
    is_right = bool(view.predictions[i] == label)
    name = class_names[view.predictions[i]]
    share = f"{100 * view.confidences[i]:.0f} %"
    return f"{'✓' if is_right else '✗'} {name} {share}", is_right


@dataclasses.dataclass(frozen=True)
class Attended:
    """What a network makes of n images before and after an attack."""

    clean: View
    attacked: View

    @property
    def shift(self) -> np.ndarray:
        """1 − cosine of the two maps of each image, float64 [n]."""
        return grad_cam.cosine_distance(self.clean.maps, self.attacked.maps)


class Viewer:
    """Attacks images and looks where a classifier looks; traced once.

    It reads the classifier's weights at each call.

    Args:
      classifier: functional keras.Model, float32 [b, H, W, C] in [0, 1] ->
        logits.
      layer: whose map is looked at.
      seed: of the random starts; image i has the start (seed, 0, i).
      batch_size: images at a time.
      logits_fn: what is attacked; None for the classifier in inference mode.
      score: of `grad_cam.SCORES`, the class score that maps explain.
    """

    def __init__(
        self,
        classifier: keras.Model,
        layer: str,
        seed: int = 0,
        batch_size: int = 100,
        logits_fn: Callable[[tf.Tensor], tf.Tensor] | None = None,
        score: str = "logit",
    ) -> None:
        self._seed, self._batch_size = seed, batch_size
        self._logits_fn = logits_fn or robustness.logits_function(classifier)
        self._options = {
            # It would wrap the sentence of a refusal in its own error.
            "autograph": False,
            "reduce_retracing": True,
            "jit_compile": compilation.by_xla(),
        }
        self._look = tf.function(
            functools.partial(
                grad_cam.explanation,
                graphs.with_taps(classifier, [layer]),
                pooled_head=classifiers.pooled_head(classifier, layer),
                score=score,
            ),
            **self._options,
        )
        self._attacks: dict[Any, Callable] = {}

    def view(
        self, images: np.ndarray, labels: np.ndarray | None = None
    ) -> View:
        """Returns the View of images.

        Args:
          images: float32 [n, H, W, C] in [0, 1].
          labels: int32 [n], the classes that are followed; None for those
            predicted.
        """
        if labels is None:
            logits, maps = self._in_batches(self._look, images)
            predictions = np.argmax(logits, -1)
        else:
            logits, maps = self._in_batches(self._look, images, labels)
            predictions = losses.predicted(labels, logits).numpy()
        probabilities = tf.nn.softmax(logits).numpy()
        confidences = probabilities[np.arange(len(images)), predictions]
        return View(np.asarray(images), predictions, confidences, maps, logits)

    def attacked_at(
        self,
        attack: linf.LinfAttack,
        images: np.ndarray,
        labels: np.ndarray,
        radii: Sequence[float],
        indices: np.ndarray,
    ) -> list[View]:
        """Returns the View of images at each of several radii of an attack.

        All radii take part in one batch, step by step, so that the network is
        traced once.

        Args:
          attack: its radius is not read; without restarts.
          images, labels, indices: as for `attended`.
          radii: ε of each View; 0 gives the clean images.
        """
        expect(attack.restarts == 1, "an attack of one start", attack=attack)
        low, high = attack.bounds
        # The ball around every image that holds all images.
        widest = dataclasses.replace(attack, epsilon=high - low)
        step = tf.function(
            lambda point, images, labels: widest.next_point(
                self._logits_fn, point, images, labels
            )[0],
            **self._options,
        )
        seeds = randomness.example_seeds(self._seed, 0, indices)
        starts = [
            dataclasses.replace(attack, epsilon=radius).first_point(
                tf.constant(images), seeds
            )
            if radius
            else tf.constant(images)
            for radius in radii
        ]
        clean = tf.tile(images, (len(radii), 1, 1, 1))
        classes = tf.tile(labels, (len(radii),))
        room = np.repeat(np.array(radii, np.float32), len(images))
        room = room[:, None, None, None]
        # As an attack of that radius projects: clipping to the box first
        # changes nothing, since the ball is clipped to it too.
        lower = tf.maximum(clean - room, low)
        upper = tf.minimum(clean + room, high)
        point = tf.concat(starts, 0)
        for _ in range(attack.num_steps):
            moved = step(point, clean, classes)
            point = tf.clip_by_value(moved, lower, upper)
        return [self.view(part, labels) for part in np.split(point, len(radii))]

    def attended(
        self,
        attack: linf.LinfAttack,
        images: np.ndarray,
        labels: np.ndarray,
        indices: np.ndarray | None = None,
    ) -> Attended:
        """Returns the views of images and of where an attack on them ends.

        Args:
          attack: LinfAttack; the end counts, whether or not it fools.
          images: float32 [n, H, W, C] in [0, 1].
          labels: int32 [n], true classes, which are followed too.
          indices: int [n], positions in the data set; None for 0, 1, ...
        """
        indices = np.arange(len(images)) if indices is None else indices
        if attack not in self._attacks:
            self._attacks[attack] = tf.function(
                lambda images, labels, indices: attack(
                    self._logits_fn,
                    images,
                    labels,
                    randomness.example_seeds(self._seed, 0, indices),
                ),
                **self._options,
            )
        (adversarial,) = self._in_batches(
            self._attacks[attack], images, labels, indices
        )
        return Attended(
            self.view(images, labels), self.view(adversarial, labels)
        )

    def _in_batches(self, function, *arrays):
        parts = []
        for first in range(0, max(1, len(arrays[0])), self._batch_size):
            part = slice(first, first + self._batch_size)
            found = function(*(tf.constant(array[part]) for array in arrays))
            parts.append(found if isinstance(found, tuple) else (found,))
        return [np.concatenate(of_one) for of_one in zip(*parts, strict=True)]
