"""Chooses test images to draw, by what networks make of them."""

from collections.abc import Sequence

import numpy as np

from atat_tf import grad_cam, losses
from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.errors import expect, expect_known
from atat_tf.evaluation.attention.networks import Network
from atat_tf.reports.figures import pictures
from atat_tf.reports.figures.scenes import Scene

# Which of the images that all networks classify right are shown.
SELECTIONS = ("first", "broken", "moved", "random")
POOL = 100  # images that are looked at for all but the first
_BATCH = 100


def selected(
    networks: Sequence[Network],
    dataset: datasets.Dataset,
    count: int,
    how: str = "first",
    attack: linf.LinfAttack | None = None,
    seed: int = 0,
) -> tuple[list[pictures.Picture], str]:
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
    asked = _asked(networks, dataset)
    pool = _right(asked, dataset, count if how == "first" else POOL)
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
    caption = f"{words}. "
    if asked:
        *others, last = (network.title for network in asked)
        names = f"{', '.join(others)} and {last}" if others else last
        caption = f"{words} that are classified right by {names}. "
    caption += pictures.told(dataset, chosen)
    return pictures.from_test(dataset, chosen), caption


def _attacked(network, dataset, indices, attack, seed):
    """Returns which images an attack breaks, and how far attention moves."""
    scene = Scene(network, pictures.from_test(dataset, indices), seed)
    steps = attack.num_steps
    clean = scene.view()
    attacked = scene.view(scene.attacked(attack, [steps])[steps])
    moved = grad_cam.cosine_distance(clean.maps, attacked.maps)
    return attacked.predictions != scene.labels, moved


def _asked(networks, dataset):
    """Returns the networks of the data set's classes and size."""
    shape = tuple(dataset.spec.image_shape)
    return [
        network
        for network in networks
        if network.class_names == tuple(dataset.class_names)
        and network.image_shape == shape
    ]


def _right(asked, dataset, count):
    """Returns the first indices that all networks classify right."""
    indices: list[int] = []
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
