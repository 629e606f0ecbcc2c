"""The networks of keras.applications as backbones, by "keras:NAME".

The networks have no trained weights, and the layers "features" and "logits"
of `wide_resnet`.
"""

import functools
import inspect
from collections.abc import Callable

import keras
from keras import layers

from atat_tf.errors import InputError, expect_known
from atat_tf.models import layers as model_layers

PREFIX = "keras:"


def is_one(name: str) -> bool:
    """Returns whether a backbone's name is `keras:NAME`."""
    return name.startswith(PREFIX)


def factory(name: str) -> Callable:
    """Returns the function that builds `keras:NAME`, as those of BACKBONES.

    Raises:
      InputError: keras.applications has no such network.
    """
    known = [n for n in dir(keras.applications) if n[0].isupper()]
    application = name.removeprefix(PREFIX)
    expect_known("a network of keras.applications", application, known)
    return functools.partial(_network, application)


def _network(
    name, image_shape, num_classes, depth, width, l2=0.0, synchronized=False
):
    """Returns a network of keras.applications with a top of its own.

    Args:
      name: of the function in keras.applications.
      image_shape: (H, W, C).
      num_classes: k >= 2.
      depth, width: not read: the name says both.
      l2: factor of ‖w‖² on every kernel.
      synchronized: whether batch norm averages over replicas in training.

    Returns:
      keras.Model, float32 [b, H, W, C] in [0, 1] -> float32 logits [b, k].

    Raises:
      InputError: the images are too small for it.
    """
    del depth, width
    build = getattr(keras.applications, name)
    options = {}
    if "include_preprocessing" in inspect.signature(build).parameters:
        options["include_preprocessing"] = False
    # Without trained weights one range is as good as another; EfficientNet
    # alone divides by 255 itself.
    inputs, x = model_layers.normalised(
        image_shape,
        *((255.0, 0.0) if name.startswith("EfficientNetB") else (4.0, -2.0)),
    )
    try:
        body = build(
            include_top=False,
            weights=None,
            input_tensor=x,
            input_shape=image_shape,
            **options,
        )
    except ValueError as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise InputError(
            f"Expected images that {PREFIX}{name} takes. Received: "
            f"image_shape={image_shape} ({reason})."
        ) from error
    features = layers.Activation("linear", name="features")(body.outputs[0])
    x = layers.GlobalAveragePooling2D(name="pool")(features)
    logits = layers.Dense(
        num_classes, dtype=keras.config.floatx(), name="logits"
    )(x)
    network = keras.Model(inputs, logits, name=name.lower())
    return with_settings(network, l2, synchronized)


def with_settings(
    network: keras.Model, l2: float, synchronized: bool
) -> keras.Model:
    """Returns the network, with weight decay and batch norm as configured.

    Its own regularizers give way: the config has the weight decay.
    """
    regularizer = keras.regularizers.L2(l2) if l2 else None
    for variable in network.trainable_variables:
        is_kernel = variable.name.endswith("kernel")
        variable.regularizer = regularizer if is_kernel else None
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = synchronized
    return network
