"""Saved Keras classifiers: from a .keras file to logits of images in [0, 1]."""

import hashlib
import pathlib
import zipfile
from typing import Any

import keras
import numpy as np
from keras import layers

from atat_tf.errors import InputError, expect, summary
from atat_tf.models import checks, classifiers, functional, graphs

# Of Keras' reasons, which for a layer of one's own are long.
_REASON = 600


def load(
    path: str | pathlib.Path, pixel_range: tuple[float, float] = (0.0, 1.0)
) -> keras.Model:
    """Returns a saved classifier as a functional one of images in [0, 1].

    Args:
      path: a .keras file, loaded in Keras' safe mode: a functional,
        sequential or registered subclassed model, images of one size ->
        logits, or softmax, which is taken off.
      pixel_range: what the saved model takes for black and for white.

    Raises:
      InputError: no such file, or not such a model.
    """
    path = pathlib.Path(path)
    low, high = pixel_range
    expect(low < high, "a range of pixels (low, high)", range=pixel_range)
    expect(path.is_file(), "an existing .keras file", model=str(path))
    expect(
        path.suffix != ".keras" or zipfile.is_zipfile(path),
        "a .keras file as model.save('my.keras') writes it",
        model=str(path),
    )
    try:
        loaded = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds
        reason = " ".join(str(error).split())
        own = "register_keras_serializable" in reason
        advice = " (--plugin=MODULE imports layers of your own)" if own else ""
        raise InputError(
            f"Expected a saved Keras model{advice}. Received: {str(path)!r} "
            f"({type(error).__name__}: {reason[:_REASON]})."
        ) from error
    classifier = classifiers.logits_model(loaded)
    checks.expect_range_used(classifier, high - low)
    if (low, high) == (0, 1):
        return classifier
    images = keras.Input(classifier.inputs[0].shape[1:], name="images")
    pixels = layers.Rescaling(high - low, low, name="from_unit_range")(images)
    logits = classifier(pixels)
    return functional.functional_model(keras.Model(images, logits))


def with_random_weights(classifier: keras.Model) -> keras.Model:
    """Returns a new model of the same layers, with weights drawn anew.

    Statistics that a Normalization layer was adapted to are kept: they belong
    to the data.

    Raises:
      InputError: a layer cannot be made anew.
    """
    try:
        fresh = keras.models.clone_model(
            classifier, clone_function=new_layer, recursive=True
        )
    except Exception as error:  # whatever a layer's own code raises
        raise InputError(
            "Expected layers that can be made anew, whose get_config() tells "
            "all that they are made of. Received: "
            f"{classifier.name!r} ({summary(error)})."
        ) from error
    for old, new in zip(classifier.layers, fresh.layers, strict=True):
        if isinstance(old, layers.Normalization) and old.weights:
            new.set_weights(old.get_weights())
    graphs.finalize_normalization(fresh)
    return fresh


def new_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Returns a new layer of the same kind, for `keras.models.clone_model`.

    A Lambda, which has no weights, is returned as it is: Keras reads one from a
    config only where it may run any code.
    """
    if isinstance(layer, layers.Lambda):
        return layer
    return type(layer).from_config(layer.get_config())


def digest(path: str | pathlib.Path, kind: str = "a .keras file") -> str:
    """Returns "sha256:..." of a file, which is of a `kind`.

    Raises:
      InputError: no such file.
    """
    path = pathlib.Path(path)
    expect(path.is_file(), kind, path=str(path))
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def expect_classes(
    shape: tuple[int | None, ...], outputs: int, spec: Any
) -> None:
    """Raises InputError unless a classifier fits a data set.

    Args:
      shape: (H, W, C) of the images that it takes.
      outputs: of the classifier.
      spec: datasets.Spec.
    """
    expect(
        shape == tuple(spec.image_shape),
        f"images of {shape}, the size that the model takes",
        image_shape=tuple(spec.image_shape),
    )
    expect(
        outputs == spec.num_classes,
        f"a data set of {outputs} classes, the outputs of the model",
        num_classes=spec.num_classes,
        class_names=spec.class_names[:20],
    )


def image_shape(
    path: str | pathlib.Path, pixel_range: tuple[float, float] = (0.0, 1.0)
) -> tuple[int, int, int]:
    """Returns the (H, W, C) that a saved model takes.

    Args:
      path, pixel_range: as for `load`.
    """
    shape = np.array(load(path, pixel_range).inputs[0].shape[1:])
    height, width, channels = (int(size) for size in shape)
    return height, width, channels
