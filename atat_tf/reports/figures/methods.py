"""Draws our attention beside that of other methods, from tf-keras-vis."""

import contextlib
import functools
import io
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from tf_keras_vis import (
    gradcam,
    gradcam_plus_plus,
    layercam,
    saliency,
    scorecam,
)

from atat_tf import grad_cam
from atat_tf.data import images as image_files
from atat_tf.errors import expect_known
from atat_tf.evaluation.attention.networks import Network
from atat_tf.reports.figures import attention as attention_figures
from atat_tf.reports.figures import drawing
from atat_tf.reports.figures.pictures import Picture
from atat_tf.runs import terminal


def methods(
    network: Network,
    pictures: Sequence[Picture],
    setting: attention_figures.Setting,
    names: Sequence[str],
) -> tuple[Figure, list[dict[str, Any]]]:
    """Returns our attention beside other methods', clean and attacked.

    Args:
      network: that is looked at.
      pictures, setting: as for `attention.shift`.
      names: keys of METHODS.

    Returns:
      Figure, and a dictionary for each picture, clean and attacked: 1 − cos of
      our map and each method's where both are of one size, and with Grad-CAM
      the largest difference of the maps as they are, over our largest value.

    Raises:
      InputError: no such method.
    """
    for name in names:
        expect_known("a method", name, METHODS)
    scene, steps = setting.scene(network, pictures), setting.num_steps
    attacked = scene.attacked(setting.attack, [steps])[steps]
    drawn, numbers = {}, []
    states = {"clean": scene.images, "attacked": attacked}
    for state, images in states.items():
        drawn[state], rows = _by_methods(scene, images, names, setting.followed)
        numbers += [{"state": state, **row} for row in rows]
    # Of each picture the clean row, and below it the attacked one.
    lines = [drawn[state][i] for i in range(len(pictures)) for state in states]
    row_titles = [
        f"{picture.name}, {state}" for picture in pictures for state in states
    ]
    labels = [METHODS[name] for name in names]
    figure = drawing.picture_grid(
        lines,
        ["image", "ours (Eq. 3)", *labels],
        f"{network.title}: our map and others', {setting.attack_name}",
        setting.caption,
        row_titles,
    )
    return figure, numbers


def _by_methods(scene, images, names, followed):
    """Returns lines of Panels and dictionaries of numbers, one a picture."""
    view, network = scene.view(images), scene.network
    terminal.stage(f"drawing the maps of {', '.join(names)}")
    labels = scene.labels if followed == "label" else view.predictions
    maps = {
        name: attention_map(
            name,
            network.classifier,
            network.layer,
            images,
            labels,
            network.score,
        )
        for name in names
    }
    lines, rows = [], []
    for i, picture in enumerate(scene.pictures):
        ours, mark = view.maps[i], network.watermark
        pixels = image_files.as_uint8(images[i])
        line = [attention_figures.plain(scene, view, i)]
        line.append(attention_figures.attended(scene, view, i))
        row = {"image": picture.name}
        for name in names:
            theirs = maps[name][i]
            row |= _compared(name, ours, theirs)
            distance = f"{name}_cosine_distance"
            text = attention_figures.distance_text(row, distance)
            line.append(drawing.Panel(pixels, theirs, text, watermark=mark))
        lines.append(line)
        rows.append(row)
    return lines, rows


def _compared(name, ours, theirs):
    """Returns numbers of our map and a method's; none where sizes differ."""
    if ours.shape != theirs.shape:
        return {}
    distance = grad_cam.cosine_distance(ours[None], theirs[None])[0]
    row = {f"{name}_cosine_distance": float(distance)}
    if name == "gradcam":
        largest = max(float(ours.max()), np.finfo(np.float32).tiny)
        row["gradcam_difference"] = float(abs(ours - theirs).max() / largest)
    return row


METHODS = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "scorecam": "Score-CAM",
    "layercam": "LayerCAM",
    "saliency": "saliency",
}
_CLASSES = {
    "gradcam": gradcam.Gradcam,
    "gradcam++": gradcam_plus_plus.GradcamPlusPlus,
    "scorecam": scorecam.Scorecam,
    "layercam": layercam.Layercam,
}


def attention_map(
    method: str,
    classifier: keras.Model,
    layer: str,
    images: np.ndarray,
    labels: np.ndarray,
    score: str = "logit",
) -> np.ndarray:
    """Returns a method's map of the labelled classes.

    Args:
      method: a key of METHODS.
      classifier: functional, images -> logits.
      layer: the name of a layer with a spatial map; "saliency" reads none.
      images: float32 [b, H, W, C].
      labels: integers [b].
      score: of `grad_cam.SCORES`, the score y^c that is explained.

    Returns:
      float [b, h, w], >= 0; [b, H, W] for "saliency", the largest |∂y^c/∂x|
      over the colours.
    """
    of_class = functools.partial(grad_cam.SCORES[score], tf.constant(labels))
    images = np.asarray(images, np.float32)
    with _quiet():
        if method == "saliency":
            of = saliency.Saliency(classifier)
            return np.asarray(of(of_class, images, normalize_map=False))
        maps = _CLASSES[method](classifier)(
            of_class,
            images,
            penultimate_layer=layer,
            seek_penultimate_conv_layer=False,
            expand_cam=False,
            normalize_cam=False,
        )
    return np.asarray(maps)


@contextlib.contextmanager
def _quiet():
    """Keeps back Score-CAM's progress bars and Keras' remark on lists."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", "The structure of `inputs`")
        yield
