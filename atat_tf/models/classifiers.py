"""Questions to any Keras classifier: its attention layer, logits, weights."""

import hashlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from atat_tf.errors import InputError, expect
from atat_tf.models import functional, graphs

_HALF = ("float16", "bfloat16")


def attention_layer(classifier: keras.Model, name: str | None = None) -> str:
    """Returns the name of the layer whose attention is shown.

    Args:
      classifier: functional keras.Model, images -> logits.
      name: a layer, which must have a spatial map; None or
        `graphs.DEEPEST` for the last one that has.

    Raises:
      InputError: the layer, or any, has no spatial map.
    """
    spatial = graphs.spatial_layers(classifier)
    expect(
        spatial,
        "a classifier with spatial maps, [height, width, channels] as of a "
        "convolution, channels last, whose attention can be shown (attacks, "
        "evaluation and the defense 'at' need no map, nor does Keras' own "
        "model.export, which serves predictions)",
        model=classifier.name,
    )
    if name in (None, graphs.DEEPEST):
        return list(spatial)[-1]
    graphs.with_taps(classifier, [name])  # which refuses others
    return name


def pooled_head(classifier: keras.Model, name: str) -> keras.Variable | None:
    """Returns W of a head "mean over space, then one dense layer", or None.

    For such a head the attention at the layer has a closed form, see
    `grad_cam.explanation`.

    Args:
      classifier: functional keras.Model, images -> logits.
      name: the layer of the maps.

    Returns:
      The dense layer's kernel [c, k], or None where the maps of the layer go
      another way to the logits.
    """
    graph = graphs.of_functional(classifier)
    dense, pooled = _made_by(graph, graph.outputs[0])
    # A subclass may compute something else.
    if type(dense) is not layers.Dense or _ends_in(dense) != "linear":
        return None
    if dense.quantization_mode:  # scales of its own
        return None
    pool, maps = _made_by(graph, pooled)
    pools = type(pool) is layers.GlobalAveragePooling2D
    if not pools or pool.data_format != "channels_last" or pool.keepdims:
        return None
    return dense.kernel if _is_of(graph, maps, name) else None


def logits_model(classifier: keras.Model) -> keras.Model:
    """Returns a classifier of the same weights that answers logits.

    A last softmax is taken off, exactly: the dense layer before it is read
    without it. The weights are the classifier's own, so that to train one is
    to train the other. Anything else is left as it is, in one graph
    (`functional`). Logits of 16 bits are answered as float32.

    Args:
      classifier: keras.Model, functional, sequential or subclassed, images
        -> logits or probabilities.

    Returns:
      Functional keras.Model, images -> logits.

    Raises:
      InputError: not one image input of floats and one output [b, k], k >= 2,
        or an activation other than softmax at the end.
    """
    classifier = functional.functional_model(classifier)
    inputs, outputs = classifier.inputs[0], classifier.outputs[0]
    expect(
        len(inputs.shape) == 4 and None not in inputs.shape[1:],
        "images of one size, [n, height, width, channels]",
        input_shape=inputs.shape,
    )
    expect(
        inputs.dtype.startswith(("float", "bfloat")),
        "a model of floating-point images (build it with keras.Input of dtype "
        "float32; a range of pixels, 0 to 255, says that it takes bytes' "
        "values)",
        dtype=inputs.dtype,
    )
    expect(
        len(outputs.shape) == 2 and (outputs.shape[1] or 0) >= 2,
        "one score a class, [n, classes >= 2] (a sigmoid of one score is a "
        "softmax of two: (0, score))",
        output_shape=outputs.shape,
    )
    _expect_kernels(classifier)
    return with_float32_logits(_without_softmax(classifier), _HALF)


def _expect_kernels(classifier):
    """Raises InputError where TensorFlow cannot run channels that come first.

    It has such convolutions on GPUs, and on CPUs among oneDNN's kernels.
    """
    flat = classifier._flatten_layers(include_self=False)
    formats = {getattr(layer, "data_format", None) for layer in flat}
    if "channels_first" not in formats:
        return
    try:
        classifier(tf.zeros((1, *classifier.input_shape[1:])))
    except tf.errors.UnimplementedError as error:
        raise InputError(
            "Expected layers with data_format='channels_last': TensorFlow has "
            "no others on this CPU (with TF_ENABLE_ONEDNN_OPTS=1 in the "
            f"environment it may). Received: {classifier.name!r} with "
            "data_format='channels_first'."
        ) from error


def _without_softmax(classifier):
    """Returns a functional model without its softmax, itself without one."""
    graph = graphs.of_functional(classifier)
    last, before = _made_by(graph, graph.outputs[0])
    if isinstance(last, keras.Model) and graphs.recorded(last) is not None:
        inner = _without_softmax(last)
        if inner is last:
            return classifier
        return keras.Model(graph.input, inner(before), name=classifier.name)
    ending = _ends_in(last)
    if ending == "linear":
        return classifier
    expect(
        ending == "softmax",
        "a classifier that ends in logits or in softmax",
        activation=ending,
    )
    if type(last) is layers.Dense:
        logits = _linear_twin(last)(before)
    else:
        expect(
            not isinstance(last, layers.Layer)
            or type(last) in (layers.Softmax, layers.Activation),
            "the softmax in a layers.Dense or in a layer of its own, "
            "layers.Softmax(), which can be taken off",
            layer=type(last).__name__,
        )
        logits = before
    return keras.Model(graph.input, logits, name=classifier.name)


def _linear_twin(dense):
    """Returns a dense layer of the same weights without an activation."""
    config = {**dense.get_config(), "activation": None}
    twin = layers.Dense.from_config(config)
    if dense.quantization_mode or dense.lora_enabled:
        twin.build(dense.input_spec.axes and (None, dense.input_spec.axes[-1]))
        twin.set_weights(dense.get_weights())
        return twin
    # Where `build` would make variables, it is given those that there are.
    twin.add_weight = lambda name, **_: getattr(dense, name)
    twin.build((None, dense.kernel.shape[0]))
    del twin.add_weight
    return twin


def with_float32_logits(
    classifier: keras.Model, instead_of: Sequence[str] = (*_HALF, "float64")
) -> keras.Model:
    """Returns a model whose logits are of no such type, itself where so."""
    if classifier.outputs[0].dtype not in instead_of:
        return classifier
    graph = graphs.of_functional(classifier)
    as_float = layers.Activation("linear", dtype="float32", name="as_float32")
    return keras.Model(
        graph.input, as_float(graph.outputs[0]), name=classifier.name
    )


def weights_digest(classifier: keras.Model) -> str:
    """Returns "sha256:..." of every weight's shape and bytes, in order."""
    digest = hashlib.sha256()
    for weight in classifier.weights:
        value = np.ascontiguousarray(weight)
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.tobytes())
    return f"sha256:{digest.hexdigest()}"


def _made_by(graph, tensor):
    """Returns the layer that made a tensor and the layer's first input.

    Dropout is seen through, which in inference mode is the identity, and so is
    a change of the number type.
    """
    call = graph.made_by(tensor)
    if call is None:
        return None, None
    if _is_seen_through(call.layer):
        return _made_by(graph, call.inputs[0])
    return call.layer, call.inputs[0]


def _is_of(graph, tensor, name):
    """Returns whether a tensor is a layer's, or was until it was seen through.

    The layer itself may be one of those: a name for what another has made.
    """
    call = graph.made_by(tensor)
    if call is None or call.layer.name == name:
        return call is not None
    return _is_seen_through(call.layer) and _is_of(graph, call.inputs[0], name)


def _is_seen_through(layer):
    if type(layer) in graphs.RANDOM:
        return True
    return type(layer) is layers.Activation and (
        layer.activation is keras.activations.linear
    )


def _ends_in(layer):
    """Returns "linear", "softmax" where it is Keras' own, or another name."""
    # keras.ops.softmax is an operation of this name and no layer.
    kind = type(layer)
    if kind.__name__ == "Softmax" and kind.__module__.startswith("keras."):
        return "softmax"
    activation = getattr(layer, "activation", None)
    if activation is None or activation is keras.activations.linear:
        return "linear"
    name = getattr(activation, "__name__", str(activation))
    is_of_keras = getattr(activation, "__module__", "").startswith("keras.")
    return name if name != "softmax" or is_of_keras else "softmax, not of Keras"


def shown_layer(
    classifier: keras.Model, layers: Sequence[str], asked: str | None = None
) -> str:
    """Returns the layer whose attention is drawn and served.

    Args:
      classifier: functional keras.Model.
      layers: where its defense acts, () for none; the last of them is shown.
      asked: another layer; None for that one.

    Raises:
      InputError: the layer, or any, has no spatial map.
    """
    return attention_layer(
        classifier, asked or (layers[-1] if layers else None)
    )
