"""What each network makes of a picture, clean and attacked, as JSON."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from atat_tf import grad_cam
from atat_tf.attacks import linf
from atat_tf.data import images as image_files
from atat_tf.evaluation.attention.networks import Network
from atat_tf.evaluation.attention.views import Attended, View, Viewer

from .samples import Sample

# The radii of the slider, in 255ths of the range from black to white.
EPSILONS = (0, 1, 2, 4, 8, 16)
# α in parts of ε; 2/255 for 8/255, as in §4.1.
_STEP_SHARE = 0.25
_RANKED = 4


class Demo:
    """Networks that are attacked on demand, each for itself.

    An attack is traced at its first use, once for each radius and network.
    To be called by one thread at a time.

    Args:
      networks: those of the page.
      num_steps: of PGD.

    Attributes:
      networks: as given.
      num_steps: as given.
      class_names: of all networks, each name once.
    """

    def __init__(self, networks: Sequence[Network], num_steps: int) -> None:
        self.networks = tuple(networks)
        self.num_steps = num_steps
        names = [name for network in networks for name in network.class_names]
        self.class_names = tuple(dict.fromkeys(names))
        self._viewers = [
            Viewer(network.classifier, network.layer, score=network.score)
            for network in networks
        ]

    def first(self, samples: Sequence[Sample]) -> int:
        """Returns the place of the first picture that all networks have right.

        Where there is none, or no class is known, the place of the first.

        Args:
          samples: pictures.
        """
        for place, sample in enumerate(samples):
            kinds = {network["kind"] for network in self.answer(sample, 0)}
            if kinds == {"stands"}:
                return place
        return 0

    def answer(
        self, sample: Sample, epsilon: int, explained: str | None = None
    ) -> list[dict[str, Any]]:
        """Returns for each network what the page shows of it.

        The attack leads away from the true class, or, where nobody has said
        it, from the one that the network predicts on the clean picture.

        Args:
          sample: the picture; it is stretched to each network's size.
          epsilon: one of EPSILONS.
          explained: the class whose attention is shown; None, or a class that
            a network does not know, for the one that the attack leads from.

        Returns:
          A dictionary of texts, numbers and data URIs for each network.
        """
        return [
            self._of_network(network, viewer, sample, epsilon, explained)
            for network, viewer in zip(
                self.networks, self._viewers, strict=True
            )
        ]

    def _of_network(self, network, viewer, sample, epsilon, explained):
        names = network.class_names
        height, width, channels = network.image_shape
        pixels = image_files.resized(sample.pixels, height, width, channels)
        images = pixels[np.newaxis] / np.float32(255)
        is_labelled = sample.class_name in names
        if is_labelled:
            label = names.index(sample.class_name)
        else:
            label = int(viewer.view(images).predictions[0])
        shown = names.index(explained) if explained in names else label
        seen = _attended(
            viewer, images, label, shown, epsilon / 255, self.num_steps
        )
        added = seen.attacked.images[0] - seen.clean.images[0]
        kind, words = verdict(
            names[label],
            names[int(seen.clean.predictions[0])],
            names[int(seen.attacked.predictions[0])],
        )
        return {
            "explained": names[shown],
            "kind": kind,
            "words": words,
            "shift": float(seen.shift[0]),
            "clean": _look(seen.clean, names),
            "attacked": {
                **_look(seen.attacked, names),
                "added": _magnified(added, epsilon / 255),
            },
        }


def _attended(viewer, images, label, shown, epsilon, num_steps) -> Attended:
    """Returns the views of one image and of where PGD ends; ε 0 moves none."""
    labels, followed = (np.array([c], np.int32) for c in (label, shown))
    if epsilon == 0:
        clean = viewer.view(images, followed)
        return Attended(clean, clean)
    attack = linf.pgd(epsilon, _STEP_SHARE * epsilon, num_steps)
    seen = viewer.attended(attack, images, labels)
    if shown == label:
        return seen
    return Attended(
        viewer.view(images, followed),
        viewer.view(seen.attacked.images, followed),
    )


def verdict(label: str, before: str, after: str) -> tuple[str, str]:
    """Returns what an attack has done: a kind, and words for it.

    Args:
      label: the class that the attack leads from.
      before: the prediction on the clean picture.
      after: that on the attacked one.

    Returns:
      "wrong" (before any attack), "broken" or "stands"; a few words.
    """
    if before != label:
        return "wrong", f"wrong before the attack: {before}"
    if after != before:
        return "broken", f"{before} became {after}"
    return "stands", f"still {before}"


def _look(view: View, names: Sequence[str]) -> dict[str, Any]:
    """Returns picture, map and the likeliest classes of the first image."""
    shares = np.asarray(keras.ops.softmax(view.logits[0]))
    ranked = np.argsort(-shares, kind="stable")[:_RANKED]
    return {
        "image": image_files.data_uri(image_files.as_uint8(view.images[0])),
        "map": _tinted(view.maps),
        "map_is_empty": not view.maps.any(),
        "classes": [[names[c], round(float(shares[c]), 4)] for c in ranked],
    }


def _tinted(maps):
    """Returns the first map as a data URI, clear where it is 0."""
    shares = grad_cam.scaled_for_reading(maps).numpy()[0]
    return image_files.data_uri(image_files.tinted(shares))


def _magnified(added, epsilon):
    """Returns what was added as a data URI: gray is nothing, ε the most."""
    if epsilon:
        added = added / (2 * epsilon)
    return image_files.data_uri(image_files.as_uint8(0.5 + added))
