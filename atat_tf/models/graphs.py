"""Any Keras model as one functional graph over the same weights.

A subclassed, sequential or nested model enters; a functional model without
models inside leaves, so that every layer can be named and tapped.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from atat_tf.errors import InputError, expect

# In the place of a layer's name: the last with a spatial map (§3.2).
DEEPEST = "deepest"


def with_taps(classifier, tapped_layers):
    """Returns a model over the same weights that also answers activations.

    Args:
      classifier: functional keras.Model, images -> logits.
      tapped_layers: names of layers whose output is [b, h, w, c], or DEEPEST.

    Returns:
      keras.Model, images -> {"logits": [b, k], layer: [b, h, w, c], ...}.

    Raises:
      InputError: a layer does not exist or has no spatial extent; those that
        can be named are listed.
    """
    spatial = spatial_layers(classifier)
    outputs = {}
    for name in tapped_layers:
        if spatial and name == DEEPEST:
            outputs[name] = list(spatial.values())[-1]
        elif name not in spatial:
            raise InputError(
                "Expected attention layers among those with a spatial map: "
                f"{', '.join(spatial)}. Received: {name!r}."
            )
        else:
            outputs[name] = spatial[name]
    return keras.Model(
        classifier.inputs,
        {"logits": classifier.outputs[0], **outputs},
        name=f"{classifier.name}_with_taps",
    )


def spatial_layers(classifier):
    """Returns {layer name: output [b, h, w, c]} where h · w > 1.

    In the order from the images to the logits. A layer's own `output` will
    not do: that of a loaded Sequential lies on another graph.
    """
    spatial, seen = {}, set()
    # Depth first, without recursion: some backbones are a thousand layers deep.
    waiting = [(classifier.outputs[0], False)]
    while waiting:
        tensor, is_done = waiting.pop()
        layer, inputs = made_by(tensor)
        shape = tensor.shape
        if is_done:
            if inputs and len(shape) == 4 and shape[1] * shape[2] > 1:
                spatial[layer.name] = tensor
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            waiting.append((tensor, True))
            waiting.extend((earlier, False) for earlier in reversed(inputs))
    return spatial


def made_by(tensor):
    """Returns the layer that makes a symbolic tensor, and what it makes it of.

    Args:
      tensor: an output of a functional model, or met on the way there.

    Returns:
      The layer and its list of input tensors, empty for the model's inputs.
    """
    history = tensor._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return history.operation, list(node.input_tensors)


def flops_per_image(classifier):
    """Returns the floating-point operations of one forward pass on one image.

    Counts 2 operations for each multiplication with a kernel (convolutions
    and dense layers); normalisation and activations, about 1 %, are left out.
    """
    flops = 0
    for layer in classifier.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            positions = layer.output.shape[1] * layer.output.shape[2]
            flops += 2 * positions * int(tf.size(layer.kernel))
        elif isinstance(layer, layers.Dense):
            flops += 2 * int(tf.size(layer.kernel))
    return flops


_AGREEMENT = 1e-5
_SAMPLE = 2


def functional_model(model):
    """Returns the model as a functional one of the same layers and weights.

    A functional model without models inside is returned as it is. Where two
    layers of nested models have one name, these models stay layers.

    Args:
      model: keras.Model of one image input; a subclassed one must have been
        called once, or built, and its `call` be made of Keras layers and
        keras.ops.

    Raises:
      InputError: it is no such model, or its `call` does something else in
        training or inference mode than its layers do.
    """
    expect(
        isinstance(model, keras.Model),
        "a Keras model",
        model=type(model).__name__,
    )
    graph = _graph(model)
    if graph is None:
        outputs = _called(model, inputs := keras.Input(_image_shape(model)))
        graph = keras.Model(inputs, outputs, name=model.name)
    flat = _flat(graph)
    if flat is not model:
        _expect_same(model, flat)
    return flat


def image_shape(model):
    """Returns the (H, W, C) of a model's one image input.

    Raises:
      InputError: it has no one such input.
    """
    if getattr(model, "inputs", None) is not None:
        expect(
            len(model.inputs) == 1,
            "a model of one input",
            inputs=[tensor.name for tensor in model.inputs],
        )
        return tuple(model.inputs[0].shape[1:])
    return _image_shape(model)


def _image_shape(model):
    """Returns (H, W, C) of what a subclassed model was called on."""
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    shape = tuple(shapes[0]) if shapes and shapes[0] else ()
    expect(
        len(shape) == 4,
        "a subclassed model that was called once on images, or "
        "model.build((None, height, width, channels)), which tells their size",
        model=type(model).__name__,
        input_shape=shape,
    )
    return shape[1:]


def _graph(layer):
    """Returns the functional model that a layer is, or None."""
    if isinstance(layer, keras.Sequential):
        return layer._functional
    is_graph = isinstance(layer, keras.Model) and hasattr(
        layer, "_run_through_graph"
    )
    return layer if is_graph else None


def _called(model, inputs):
    """Returns the symbolic outputs of a subclassed model's own `call`."""
    try:
        outputs = model.call(inputs)
    except Exception as error:  # whatever the model's own code raises
        reason = str(error).strip().split("\n")[0][:200]
        raise InputError(
            "Expected a subclassed model whose call(images) is made of Keras "
            "layers and keras.ops (tf functions: in a Layer of your own). "
            f"Received: {type(model).__name__} ({type(error).__name__}: "
            f"{reason})."
        ) from error
    expect(
        isinstance(outputs, keras.KerasTensor),
        "a model that answers one tensor",
        outputs=type(outputs).__name__,
    )
    return outputs


def _flat(model):
    """Returns a functional model with the graphs of nested ones laid open."""
    nested = _num_models(model)
    if not nested:
        return model
    inputs = [
        keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    try:
        outputs = model._run_through_graph(inputs, operation_fn=_opened)
        (output,) = keras.tree.flatten(outputs)
        opened = keras.Model(inputs, output, name=model.name)
    except ValueError:  # names occur twice, or more outputs than one
        return model
    # A subclassed one brings the models that it calls; some stay closed.
    return opened if _num_models(opened) == nested else _flat(opened)


def _num_models(model):
    return sum(isinstance(layer, keras.Model) for layer in model.layers)


def _opened(layer):
    """Returns what is called in a layer's place while a graph is laid open."""
    graph = _graph(layer)
    if graph is not None:
        return lambda *args, **_: graph._run_through_graph(
            args, operation_fn=_opened
        )
    if isinstance(layer, keras.Model):
        return functools.partial(_call_or_layer, layer)
    return layer


def _call_or_layer(model, *args, **kwargs):
    """Returns the outputs of a nested model's own `call`, opened if it can."""
    without_mode = {k: v for k, v in kwargs.items() if k != "training"}
    try:
        return model.call(*args, **without_mode)
    except Exception:  # whatever the model's own code raises
        return model(*args, **kwargs)


def _expect_same(model, graph):
    """Raises InputError unless both are one function, in either mode."""
    shape = (_SAMPLE, *graph.inputs[0].shape[1:])
    expect(
        None not in shape,
        "images of one size, [n, height, width, channels]",
        input_shape=graph.inputs[0].shape,
    )
    images = np.random.default_rng(0).random(shape, np.float32)
    for training in (False, True):
        here, again, there = (
            _stateless(m, images, training) for m in (model, model, graph)
        )
        # What is random in spite of its state cannot be compared.
        expect(
            _are_close(here, there) or not _are_close(here, again),
            "a subclassed model that leaves the mode to its layers (no "
            "`if training` of its own)",
            model=type(model).__name__,
            training=training,
        )


def _stateless(model, images, training):
    """Returns the outputs, of statistics and random seeds that do not move."""
    outputs, _ = model.stateless_call(
        model.trainable_variables,
        model.non_trainable_variables,
        images,
        training=training,
    )
    return np.asarray(outputs, np.float32)


def _are_close(here, there):
    scale = np.abs(np.nan_to_num(here)).max()
    return here.shape == there.shape and np.allclose(
        here, there, _AGREEMENT, _AGREEMENT * scale, equal_nan=True
    )
