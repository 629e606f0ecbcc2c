"""Finds images to draw: test images of a data set, image files, folders."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from atat_tf import grad_cam, losses
from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.data import images as image_files
from atat_tf.errors import expect, expect_known
from atat_tf.evaluation.views import Scene
from atat_tf.reports.figures.networks import Network
from atat_tf.runs import build

# Which of the images that all networks classify right are shown.
SELECTIONS = ("first", "broken", "moved", "random")
POOL = 100  # images that are looked at for all but the first
_BATCH = 100


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image that networks are shown.

    Attributes:
      name: "test image 3", or the file's name.
      index: draws its random start.
      class_name: its true class; None where nobody has said it.
      pixels: uint8 [H, W, C]; None for a file.
      path: of the file.
    """

    name: str
    index: int
    class_name: str | None
    pixels: np.ndarray | None = None
    path: pathlib.Path | None = None

    def at(self, image_shape: Sequence[int]) -> np.ndarray:
        """Returns the picture as uint8 [H, W, C] of a network's size."""
        if self.path is not None:
            return image_files.load(self.path, image_shape)
        return image_files.resized(self.pixels, *image_shape)

    def preview(self) -> np.ndarray:
        """Returns the picture as uint8 [H, W, 3], files at 224 pixels."""
        if self.path is not None:
            return self.at((224, 224, 3))
        return self.pixels


def from_test(
    dataset: datasets.Dataset, indices: Iterable[int]
) -> list[Picture]:
    """Returns Pictures of test images.

    Args:
      dataset: whose test split it is.
      indices: positions in the test split.

    Raises:
      InputError: an index is beyond the split.
    """
    count = len(dataset.test)
    for index in indices:
        expect(
            0 <= index < count,
            f"indices of test images from 0 to {count - 1}",
            index=index,
        )
    names = dataset.class_names
    return [
        Picture(
            f"test image {index}",
            int(index),
            names[dataset.test.labels[index]],
            dataset.test.images[index],
        )
        for index in indices
    ]


def from_files(paths: Iterable[str | pathlib.Path]) -> list[Picture]:
    """Returns Pictures of image files and of the files in folders."""
    return [
        Picture(path.name, number, None, path=path)
        for number, path in enumerate(image_files.find(paths))
    ]


def selected(
    networks: Sequence[Network],
    dataset: datasets.Dataset,
    count: int,
    how: str = "first",
    attack: linf.LinfAttack | None = None,
    seed: int = 0,
) -> tuple[list[Picture], str]:
    """Returns test images that all networks classify right, and a caption.

    Args:
      networks: those of other classes or sizes than the data set's are not
        asked. The attack is on the first.
      dataset: whose test split it is.
      count: how many.
      how: one of SELECTIONS. Among the first POOL images that all classify
        right: the first, the first that the attack breaks, those where it
        moves attention most, or a draw.
      attack: for "broken" and "moved".
      seed: of the attack's starts, and of the draw.

    Returns:
      The pictures, and a sentence that says how they were chosen.

    Raises:
      InputError: there is no such image, or no such way.
    """
    expect_known("--select", how, SELECTIONS)
    pool = _right(networks, dataset, count if how == "first" else POOL)
    expect(pool, "a test image that all networks classify right", found=pool)
    title, among = networks[0].title, f"the first {len(pool)} test images"
    order = np.arange(len(pool))
    words = "The first test images"
    if how == "random":
        order = np.random.default_rng(seed).permutation(order)
        words = f"Drawn (seed {seed}) from {among}"
    elif how == "broken":
        order = order[_attacked(networks[0], dataset, pool, attack, seed)[0]]
        words = f"The first that the attack breaks in {title}, of {among}"
    elif how == "moved":
        moved = _attacked(networks[0], dataset, pool, attack, seed)[1]
        order = np.argsort(-moved, kind="stable")
        words = f"Those where attention moves most in {title}, of {among}"
    chosen = [pool[place] for place in order[:count]]
    expect(chosen, "a test image that the attack breaks", select=how)
    *others, last = (network.title for network in networks)
    names = f"{', '.join(others)} and {last}" if others else last
    caption = f"{words} that are classified right by {names}. "
    return from_test(dataset, chosen), caption + told(dataset, chosen)


def told(dataset: datasets.Dataset, indices: Sequence[int]) -> str:
    """Returns a sentence on which test images are shown, in their order."""
    what = "Test images" if len(indices) > 1 else "Test image"
    return f"{what} {', '.join(map(str, indices))} of {dataset.provenance}."


def _attacked(network, dataset, indices, attack, seed):
    """Returns which images an attack breaks, and how far attention moves."""
    scene = Scene(network, from_test(dataset, indices), seed)
    steps = attack.num_steps
    clean = scene.view()
    attacked = scene.view(scene.attacked(attack, [steps])[steps])
    moved = grad_cam.cosine_distance(clean.maps, attacked.maps)
    return attacked.predictions != scene.labels, moved


def _right(networks, dataset, count):
    """Returns the first indices that all networks classify right."""
    indices: list[int] = []
    shape = tuple(dataset.spec.image_shape)
    asked = [
        network
        for network in networks
        if network.class_names == tuple(dataset.class_names)
        and network.image_shape == shape
    ]
    for first in range(0, len(dataset.test), _BATCH):
        images = dataset.test.images[first : first + _BATCH] / np.float32(255)
        right = np.ones(len(images), bool)
        for network in asked:
            logits = network.classifier(images, training=False)
            labels = dataset.test.labels[first : first + _BATCH]
            right &= losses.is_right(labels, logits).numpy()
        indices += (first + np.flatnonzero(right)).tolist()
        if len(indices) >= count:
            break
    return indices[:count]


def load_dataset(
    network: Network, name: str | None = None, data_dir: str | None = None
) -> datasets.Dataset:
    """Returns the Dataset whose test images are shown.

    Args:
      network: its run's data set is taken where `name` is None.
      name: a data set.
      data_dir: of tensorflow-datasets.

    Raises:
      InputError: neither a name nor a run.
    """
    if name is not None:
        size = network.image_shape
        return datasets.load(name, data_dir, image_size=size)
    expect(
        network.config is not None,
        "--images, --dataset or a run folder to take images from",
        model=network.title,
    )
    return build.load_dataset(network.config, data_dir)
