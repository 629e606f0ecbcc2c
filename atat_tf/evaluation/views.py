"""Where networks look, on clean images and along an attack.

A network, pictures and an attack enter; images, predictions and attention
maps leave, as arrays.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from atat_tf import attention
from atat_tf.attacks import randomness
from atat_tf.evaluation import accuracy as robustness
from atat_tf.models import graphs

# Whose class score an attention map explains: the true class, as Eq. 3 has
# it, or the class that is predicted on the image at hand.
FOLLOWED = ("label", "predicted")


@dataclasses.dataclass(frozen=True)
class View:
    """What a network makes of n images.

    Attributes:
      images: float32 [n, H, W, C].
      predictions: int [n], classes.
      maps: float32 [n, h, w], Eq. 3, as they are.
    """

    images: np.ndarray
    predictions: np.ndarray
    maps: np.ndarray


class Scene:
    """A network and the pictures it is shown.

    Args:
      source: Source, see `networks`.
      shown: list of Picture, see `pictures`.
      seed: of the random starts.
      followed: one of FOLLOWED.

    Attributes:
      source, pictures: as given.
      images: float32 [n, H, W, C], clean.
      labels: int32 [n], the pictures' classes; where they are not known, or
        none of the network's, its predictions.
    """

    def __init__(self, source, shown, seed=0, followed="label"):
        self.source, self.pictures = source, shown
        pixels = [picture.at(source.image_shape) for picture in shown]
        self.images = np.stack(pixels) / np.float32(255)
        self._tapped = graphs.with_taps(source.classifier, [source.layer])
        self._followed = followed
        self._seeds = randomness.example_seeds(
            seed, 0, [picture.index for picture in shown]
        )
        self.labels = self._labels()

    def view(self, images=None):
        """Returns the View of images, of the clean ones where it is None."""
        images = self.images if images is None else images
        logits, maps = attention.logits_and_attention(
            self._tapped,
            tf.constant(images),
            self.labels if self._followed == "label" else None,
        )
        (maps,) = maps.values()
        predictions = np.argmax(logits, -1)
        return View(np.asarray(images), predictions, maps.numpy())

    def attacked(self, attack, rounds):
        """Returns the images after some numbers of steps of one attack.

        Args:
          attack: LinfAttack.
          rounds: numbers of steps, >= 0; after 0 the image is clean, without
            the random start.

        Returns:
          {number: float32 [n, H, W, C]}.
        """
        logits_fn = robustness.logits_function(self.source.classifier)
        images = tf.constant(self.images)

        @tf.function
        def next_point(point):
            return attack.next_point(logits_fn, point, images, self.labels)[0]

        point = attack.first_point(images, self._seeds)
        found = {0: self.images}
        for step in range(1, max(rounds) + 1):
            point = next_point(point)
            found[step] = point.numpy()
        return {number: found[number] for number in rounds}

    def class_name(self, number):
        """Returns the name of a class of the network."""
        return self.source.class_names[number]

    def _labels(self):
        logits = self.source.classifier(self.images, training=False)
        predicted = np.argmax(logits, -1)
        names = list(self.source.class_names)
        return np.array(
            [
                names.index(picture.class_name)
                if picture.class_name in names
                else predicted[i]
                for i, picture in enumerate(self.pictures)
            ],
            np.int32,
        )
