"""Draws the loss around images, and accuracy against steps: Fig. 7 and 8."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from atat_tf import losses
from atat_tf.attacks import ascent, columns, linf, radii, randomness
from atat_tf.errors import expect
from atat_tf.evaluation import accuracy as robustness
from atat_tf.evaluation import evaluate_run, opening
from atat_tf.evaluation.attention.networks import Network
from atat_tf.evaluation.ledger import CLEAN
from atat_tf.evaluation.run import Run
from atat_tf.reports.figures import drawing
from atat_tf.reports.figures.pictures import Picture
from atat_tf.reports.figures.scenes import Scene
from atat_tf.runs import terminal

# §4.3: the ball and the step are fixed, the number of steps varies.
EPSILON = 8 / 255
STEP_SIZE = 2 / 255
_BATCH = 256  # points of a surface at a time


def surface(
    networks: Sequence[Network],
    pictures: Sequence[Picture],
    epsilon: float,
    extent: float,
    resolution: int,
    seed: int,
    caption: str,
) -> tuple[Figure, list[dict[str, Any]]]:
    """Returns loss surfaces of networks around pictures (Fig. 7).

    Args:
      networks: side by side; the raw one first.
      pictures: one below the other.
      epsilon: ε, the unit of both axes.
      extent: how far both axes go, in units of ε.
      resolution: points along an axis, odd.
      seed: of the Rademacher directions.
      caption: the text at the foot.

    Returns:
      Figure, and a dictionary for each point.

    Raises:
      InputError: a bad radius, extent or resolution.
    """
    linf.expect_ball(epsilon, (0.0, 1.0))
    expect(extent > 0, "extent > 0", extent=extent)
    expect(
        resolution >= 3 and resolution % 2,
        "an odd resolution >= 3",
        resolution=resolution,
    )
    grid = np.linspace(-extent, extent, resolution)  # the image in the middle
    surfaces, rows = [], []
    for network in networks:
        terminal.stage(f"measuring the loss of {network.title}")
        scene = Scene(network, pictures)
        surfaces.append(_surfaces(scene, grid, epsilon, seed))
        rows += _rows(scene, grid, surfaces[-1])
    figure = drawing.loss_surfaces(
        surfaces,
        grid,
        (
            [network.title for network in networks],
            [f"{picture.name} ({picture.class_name})" for picture in pictures],
        ),
        f"The loss around an image, ε = {radii.written(epsilon)}",
        caption,
    )
    return figure, rows


def steps(
    workdirs: Mapping[str, str | pathlib.Path],
    num_steps: int,
    zoom: int,
    num_images: int | None,
    **arguments: Any,
) -> tuple[Figure, list[dict[str, Any]]]:
    """Returns accuracy against PGD steps of several runs (Fig. 8).

    Args:
      workdirs: {title: run folder}.
      num_steps: the most steps.
      zoom: the last step of the right-hand side.
      num_images: the first so many test images; None for all.
      **arguments: as for `opening.open_run`.

    Returns:
      Figure, and a dictionary for each run and number of steps.
    """
    named = {Run(workdir).config.dataset for workdir in workdirs.values()}
    expect(
        len(named) == 1 or arguments.get("dataset_name"),
        "runs on one data set, or --dataset",
        datasets=sorted(named),
    )
    curves, rows, runs = {}, [], []
    for title, workdir in workdirs.items():
        shares, run = curve(
            workdir, num_steps, num_images=num_images, **arguments
        )
        curves[title] = shares
        runs.append(run)
        rows += [
            {"model": title, "steps": n, "accuracy": float(share)}
            for n, share in enumerate(shares)
        ]
    count, data = len(runs[0].split), runs[0].dataset.provenance
    figure = drawing.accuracy_curves(
        curves,
        zoom,
        f"Accuracy under PGD, ε = {radii.written(EPSILON)}, step "
        f"{radii.written(STEP_SIZE)}",
        f"The first {count:,} test images of {data}.",
    )
    return figure, rows


def _surfaces(scene, grid, epsilon, seed):
    """Returns a network's surfaces, one for each picture."""
    logits_fn = robustness.logits_function(scene.network.classifier)
    surfaces = []
    for i, picture in enumerate(scene.pictures):
        image, label = scene.images[i], scene.labels[i]
        directions = (
            sign_gradient(logits_fn, image, label),
            rademacher(image.shape, seed, picture.index),
        )
        surfaces.append(
            loss_surface(logits_fn, image, label, directions, grid, epsilon)
        )
    return surfaces


def _rows(scene, grid, surfaces):
    return [
        {
            "model": scene.network.title,
            "image": picture.name,
            "sign_gradient": float(grid[a]),
            "rademacher": float(grid[r]),
            "cross_entropy": float(values[r, a]),
        }
        for picture, values in zip(scene.pictures, surfaces, strict=True)
        for r in range(len(grid))
        for a in range(len(grid))
    ]


def sign_gradient(
    logits_fn: Callable[[tf.Tensor], tf.Tensor], image: np.ndarray, label: int
) -> np.ndarray:
    """Returns d_a = sgn(∇_x L(f(x), y)), float32 [H, W, C]."""
    images = tf.constant(image[None], tf.float32)
    _, _, gradient = ascent.ascent(
        logits_fn,
        lambda logits: losses.cross_entropy(tf.constant([label]), logits),
        images,
    )
    return tf.sign(gradient)[0].numpy()


def rademacher(shape: Sequence[int], seed: int, index: int) -> np.ndarray:
    """Returns d_r of ±1, each with probability ½, float32 of a shape.

    Args:
      shape: of an image.
      seed: integer.
      index: the image's position in the data set; every network is looked at
        along the same direction.
    """
    seeds = randomness.example_seeds(seed, 0, [index])
    noise = randomness.uniform_noise(seeds, shape, 1.0)[0].numpy()
    return np.where(noise < 0, -1, 1).astype(np.float32)


def loss_surface(
    logits_fn: Callable[[tf.Tensor], tf.Tensor],
    image: np.ndarray,
    label: int,
    directions: tuple[np.ndarray, np.ndarray],
    grid: np.ndarray,
    epsilon: float,
) -> np.ndarray:
    """Returns L(f(clip(x + ε (a d_a + r d_r))), y) over the grid.

    What leaves [0, 1] is clipped: beyond there are no images.

    Args:
      logits_fn: images -> logits.
      image: x, float32 [H, W, C] in [0, 1].
      label: y.
      directions: d_a and d_r, float32 [H, W, C] each.
      grid: float [n], the values of a and of r, in units of ε.
      epsilon: ε.

    Returns:
      float32 [n, n]; rows are r, columns are a.
    """

    @tf.function(reduce_retracing=True)
    def values(images):
        labels = tf.fill(tf.shape(images)[:1], label)
        return losses.cross_entropy(labels, logits_fn(images))

    along, across = (epsilon * d.astype(np.float32) for d in directions)
    factors = np.meshgrid(*[np.asarray(grid, np.float32)] * 2, indexing="ij")
    r, a = (factor.reshape(-1, 1, 1, 1) for factor in factors)
    parts = []
    for first in range(0, len(a), _BATCH):
        part = slice(first, first + _BATCH)
        moved = image + a[part] * along + r[part] * across
        parts.append(values(np.clip(moved, 0, 1, dtype=np.float32)).numpy())
    return np.concatenate(parts).reshape(len(grid), len(grid))


def curve(
    workdir: str | pathlib.Path, num_steps: int = 100, **arguments: Any
) -> tuple[np.ndarray, opening.OpenRun]:
    """Returns the accuracy of a run after each number of PGD steps.

    Verdicts are taken from the run's ledger, and what is missing is run and
    added to it; a killed call goes on where it was.

    Args:
      workdir: the run folder.
      num_steps: the most steps.
      **arguments: as for `opening.open_run`.

    Returns:
      float [num_steps + 1]: shares of the images that are right when clean,
      and after 1, 2, ... steps; and the OpenRun that they come from.

    Raises:
      InputError: no run there, or one that cannot be judged.
    """
    expect(num_steps >= 1, "num_steps >= 1", num_steps=num_steps)
    opened = opening.open_run(workdir, **arguments)
    opened.attacker.expect_judgeable(opened.split.images)
    attack = linf.Steps(linf.pgd(EPSILON, STEP_SIZE, num_steps))
    evaluate_run.standing(opened, {f"pgd{num_steps}": (attack,)}, "attacking")
    clean = opened.ledger.verdicts(CLEAN)
    survived = [
        _survived(
            clean[i],
            opened.ledger.deciding([columns.description(attack)], i),
            num_steps,
        )
        for i in range(len(opened.split))
    ]
    return accuracies(survived, num_steps), opened


def accuracies(survived: Sequence[int], num_steps: int) -> np.ndarray:
    """Returns the share of images that stand after 0, 1, ..., n steps.

    Args:
      survived: integers [n], the most steps that each image withstands; -1
        where it is wrong when clean.
      num_steps: n.
    """
    steps = np.arange(num_steps + 1)
    return (np.asarray(survived)[:, np.newaxis] >= steps).mean(0)


def _survived(clean, attacked, num_steps):
    if clean["broken"]:
        return -1
    if not attacked["broken"]:
        return num_steps
    # Broken at the random start: PGD of one step already comes by it.
    return max(attacked["step"], 1) - 1
