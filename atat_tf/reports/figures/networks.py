"""Loads networks to draw: run folders, .keras files or keras.applications.

Each is a classifier of pixels in [0, 1], with the layer whose attention is
shown and the names of its classes.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
from keras.applications import imagenet_utils

from atat_tf import grad_cam
from atat_tf.data import datasets
from atat_tf.errors import InputError, expect, expect_known, summary, unknown
from atat_tf.evaluation.attention import networks
from atat_tf.evaluation.attention.networks import Network
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers
from atat_tf.runs import folder as run_folder
from atat_tf.runs import naming

# Module of keras.applications, and the layer where the last is not the one
# meant: VGG16 ends in a pooling, Grad-CAM looks at the convolution before.
APPLICATIONS = {
    "VGG16": ("vgg16", "block5_conv3"),
    "VGG19": ("vgg19", "block5_conv4"),
    "ResNet50": ("resnet50", None),
    "ResNet101": ("resnet", None),
    "DenseNet121": ("densenet", None),
    "DenseNet169": ("densenet", None),
    "MobileNetV2": ("mobilenet_v2", None),
    "InceptionV3": ("inception_v3", None),
    "Xception": ("xception", None),
}
_IMAGENET_CLASSES = 1000


def load(
    name: str,
    weights: str | None = None,
    layer: str | None = None,
    data_dir: str | None = None,
    pixel_range: tuple[float, float] = (0.0, 1.0),
) -> Network:
    """Returns the Network that a name stands for.

    Args:
      name: a run folder, a .keras file, or one of APPLICATIONS.
      weights: "best", "last" or "ema" of a run; "imagenet", "none" (random) or
        a file for an application. None for the run's own, and "imagenet".
      layer: as for `classifiers.attention_layer`.
      data_dir: of tensorflow-datasets.
      pixel_range: what a .keras file takes for black and for white.

    Raises:
      InputError: it is none of these, or its weights or layer are not there.
    """
    of_run = weights in run_folder.WEIGHTS
    if name in APPLICATIONS:
        return _application(name, None if of_run else weights, layer)
    if str(name).endswith(".keras"):
        return networks.of_file(name, pixel_range, layer)
    if not pathlib.Path(name).is_dir():
        raise unknown(
            "a run folder, a .keras file or an application", name, APPLICATIONS
        )
    return _run(name, weights if of_run else None, layer, data_dir)


def load_all(
    names: Sequence[str],
    weights: str | None = None,
    layer: str | None = None,
    data_dir: str | None = None,
    pixel_range: tuple[float, float] = (0.0, 1.0),
    score: str | None = None,
) -> list[Network]:
    """Returns the networks of names, no two with the same title.

    Args:
      names, weights, layer, data_dir, pixel_range: as for `load`.
      score: that all their maps explain; None for each network's own.
    """
    if score is not None:
        expect_known("score", score, grad_cam.SCORES)
    expect(names, "at least one network", models=names)
    if not APPLICATIONS.keys() & set(names) and weights is not None:
        expect_known("weights", weights, run_folder.WEIGHTS)
    loaded = [
        load(name, weights, layer, data_dir, pixel_range) for name in names
    ]
    networks.expect_drawable(loaded)
    if score is not None:
        loaded = [
            dataclasses.replace(
                network, score=score, title=f"{network.title}, {score} score"
            )
            for network in loaded
        ]
    titles = [network.title for network in loaded]
    return [
        dataclasses.replace(network, title=f"{network.title} ({name})")
        if titles.count(network.title) > 1
        else network
        for network, name in zip(loaded, names, strict=True)
    ]


def with_raw(workdirs: Sequence[str]) -> list[str]:
    """Returns run folders with the undefended (Standard) one first.

    Args:
      workdirs: run folders, the Standard one among them or not: then it is
        the teacher of the first that has one.

    Raises:
      InputError: there is no Standard run.
    """
    expect(workdirs, "at least one run folder", workdirs=workdirs)
    runs = {name: Run(name) for name in workdirs}
    for name, run in runs.items():
        if run.config.defense.name == "standard":
            return [name, *(other for other in workdirs if other != name)]
    for run in runs.values():
        if run.teacher:
            return [str(run.teacher.folder), *workdirs]
    raise InputError(
        "Expected a Standard run among the run folders, or the teacher of one "
        f"of them, as the raw network. Received: {', '.join(workdirs)}."
    )


def with_classes(
    loaded: Sequence[Network], dataset: datasets.Dataset
) -> list[Network]:
    """Returns networks; those that only number their classes get the data's.

    Args:
      loaded: any.
      dataset: its names are taken where their number is the same.
    """
    names = tuple(dataset.class_names)
    return [
        dataclasses.replace(network, class_names=names)
        if network.class_names == networks.numbered(len(names))
        else network
        for network in loaded
    ]


def origins(drawn: Sequence[Network], seed: int) -> str:
    """Returns what a figure was made of, for its files' metadata.

    Args:
      drawn: networks.
      seed: of what was drawn at random.
    """
    lines = [f"{network.title}: {network.origin}" for network in drawn]
    return "\n".join([*lines, f"seed {seed}, commit {run_folder.commit()}"])


def _run(workdir, weights, layer, data_dir):
    network = networks.of_run(Run(workdir, data_dir), weights, layer)
    return dataclasses.replace(network, title=_title(network.run.config))


def _title(config):
    defense = config.defense
    title = naming.called(config)
    weights = defense.get("attention_weight"), defense.get("logit_weight")
    if defense.name == "atat" and weights != (1, 1):
        title += " λ1={:g} λ2={:g}".format(*weights)
    if config.backbone.name not in ("wide_resnet", title):
        title += f" {config.backbone.name}"
    return title


def _application(name, weights, layer):
    """Returns the Network of a network of keras.applications."""
    weights = weights or "imagenet"
    module_name, usual = APPLICATIONS[name]
    module = getattr(keras.applications, module_name)
    inputs = keras.Input((224, 224, 3), name="images")
    # Its own preprocessing, of pixels in 0..255, becomes part of the graph.
    x = module.preprocess_input(255.0 * inputs)
    try:
        classifier = getattr(module, name)(
            weights=None if weights == "none" else weights,
            input_tensor=x,
            classifier_activation=None,
        )
    except Exception as error:  # Keras' are many: of files and of networks
        raise InputError(
            f"Expected weights of {name}: a network to fetch ImageNet's from, "
            "--weights=FILE, or --weights=none for an untrained one. "
            f"Received: weights={weights!r} ({summary(error)})."
        ) from error
    # One input, not a list of one, at which Keras would warn each time.
    classifier = keras.Model(inputs, classifier.outputs[0], name=name)
    return Network(
        name,
        classifier,
        classifiers.attention_layer(classifier, layer or usual),
        _imagenet_names(classifier.output_shape[-1], weights),
        f"keras.applications {name} {weights} {networks.digest(classifier)}",
        watermark="untrained" if weights == "none" else "",
    )


def _imagenet_names(count, weights):
    if count != _IMAGENET_CLASSES or weights == "none":
        return networks.numbered(count)
    # Keras fetches the names; without a network there are numbers.
    with contextlib.suppress(Exception):
        found = imagenet_utils.decode_predictions(np.eye(count), top=1)
        return tuple(name.replace("_", " ") for ((_, name, _),) in found)
    return networks.numbered(count)
