"""A network in front of pictures: what figures are drawn of."""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from atat_tf.attacks import linf, randomness
from atat_tf.evaluation import accuracy as robustness
from atat_tf.evaluation.attention.networks import Network
from atat_tf.evaluation.attention.views import View, Viewer
from atat_tf.reports.figures.pictures import Picture
from atat_tf.runs import terminal


class Scene:
    """A network and the pictures it is shown.

    Args:
      network: whose answers are drawn.
      shown: pictures.
      seed: of the random starts.
      followed: one of `views.FOLLOWED`.

    Attributes:
      network, pictures: as given.
      images: float32 [n, H, W, C], clean.
      labels: int32 [n], the pictures' classes; where they are not known, or
        none of the network's, its predictions.
    """

    def __init__(
        self,
        network: Network,
        shown: Sequence[Picture],
        seed: int = 0,
        followed: str = "label",
    ) -> None:
        self.network, self.pictures = network, shown
        pixels = [picture.at(network.image_shape) for picture in shown]
        self.images = np.stack(pixels) / np.float32(255)
        self._viewer = Viewer(
            network.classifier, network.layer, score=network.score
        )
        self._followed = followed
        self._seeds = randomness.example_seeds(
            seed, 0, [picture.index for picture in shown]
        )
        self.labels = self._labels()

    def view(self, images: np.ndarray | None = None) -> View:
        """Returns the View of images, of the clean ones where it is None."""
        images = self.images if images is None else images
        labels = self.labels if self._followed == "label" else None
        return self._viewer.view(images, labels)

    def attacked(
        self, attack: linf.LinfAttack, rounds: Iterable[int]
    ) -> dict[int, np.ndarray]:
        """Returns the images after some numbers of steps of one attack.

        Args:
          attack: LinfAttack.
          rounds: numbers of steps, >= 0; after 0 the image is clean, without
            the random start.

        Returns:
          {number: float32 [n, H, W, C]}.
        """
        title, count = self.network.title, len(self.images)
        terminal.stage(f"attacking {count} pictures of {title}")
        logits_fn = robustness.logits_function(self.network.classifier)
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

    def class_name(self, number: int) -> str:
        """Returns the name of a class of the network."""
        return self.network.class_names[number]

    def _labels(self):
        logits = self.network.classifier(self.images, training=False)
        predicted = np.argmax(logits, -1)
        names = list(self.network.class_names)
        return np.array(
            [
                names.index(picture.class_name)
                if picture.class_name in names
                else predicted[i]
                for i, picture in enumerate(self.pictures)
            ],
            np.int32,
        )
