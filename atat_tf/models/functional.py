"""Any Keras model as one functional model of the same layers and weights.

Nested and subclassed models are laid open, and the result is compared with the
model in both modes.
"""

import functools
import inspect
from collections.abc import Sequence

import keras
import numpy as np

from atat_tf.errors import InputError, expect, summary
from atat_tf.models import graphs

_AGREEMENT = 1e-5
_SAMPLE = 2


def functional_model(
    model: keras.Model, modes: Sequence[bool] = (False, True)
) -> keras.Model:
    """Returns the model as a functional one of the same layers and weights.

    It takes one tensor and answers one, where the model may have them in a list
    or a dictionary. A functional model of such tensors without models inside is
    returned as it is. Where two layers of nested models have one name, these
    models stay layers.

    Args:
      model: keras.Model of one image input; a subclassed one must have been
        called once, or built, and its `call` be made of Keras layers and
        keras.ops.
      modes: in which both must be one function; True is training.

    Raises:
      InputError: it is no such model, or its `call` does something else in
        one of the modes than its layers do.
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
    # Else laying nested models open would fail in Keras' words.
    expect(
        len(graph.inputs) == len(graph.outputs) == 1,
        "a Keras model of one input and one output",
        inputs=len(graph.inputs),
        outputs=len(graph.outputs),
    )
    flat = _flat(graph)
    if flat is not model and not _is_repeated(model):
        _expect_same(model, flat, modes)
    return flat


def _image_shape(model):
    """Returns (H, W, C) of what a subclassed model was called on."""
    config = model.get_build_config() or {}
    shape = tuple(config.get("input_shape") or ())
    expect(
        len(shape) == 4,
        "a subclassed model that was called once on images, or "
        "model.build((None, height, width, channels)), which tells their size",
        model=type(model).__name__,
        input_shape=shape,
    )
    return shape[1:]


def _graph(layer):
    """Returns a functional model of what a layer is, or None."""
    graph = graphs.recorded(layer) if isinstance(layer, keras.Model) else None
    if graph is None:
        return None
    if not isinstance(layer, keras.Sequential) and (
        graphs.takes_and_answers_tensors(layer) or len(graph.outputs) > 1
    ):
        return layer
    return keras.Model(graph.input, graph.outputs[0], name=layer.name)


def _called(model, inputs):
    """Returns the symbolic outputs of a subclassed model's own `call`."""
    try:
        outputs = model.call(inputs)
    except Exception as error:  # whatever the model's own code raises
        raise InputError(
            "Expected a subclassed model whose call(images) is made of Keras "
            "layers and keras.ops (tf functions: in a Layer of your own). "
            f"Received: {type(model).__name__} ({summary(error)})."
        ) from error
    tensors = keras.tree.flatten(outputs)
    expect(
        len(tensors) == 1 and isinstance(tensors[0], keras.KerasTensor),
        "a model that answers one tensor",
        outputs=type(outputs).__name__,
    )
    return tensors[0]


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
        (output,) = graphs.of_functional(model).run(inputs, _opened)
        one = inputs if len(inputs) > 1 else inputs[0]
        opened = keras.Model(one, output, name=model.name)
    except ValueError:  # names occur twice, or more outputs than one
        return model
    # A subclassed one brings the models that it calls; some stay closed.
    return opened if _num_models(opened) == nested else _flat(opened)


def _is_repeated(model):
    """Returns whether a graph laid open makes a model's own calls, no others.

    So it does where Keras itself runs the model and those inside by their
    graphs, and none is called in a mode of its own.
    """
    graph = graphs.recorded(model)
    if graph is None or not type(model).__module__.startswith("keras."):
        return False
    return all(
        _is_repeated(call.layer) and not {*call.kwargs.values()} - {None}
        for call in graph.calls
        if isinstance(call.layer, keras.Model)
    )


def _num_models(model):
    return sum(isinstance(layer, keras.Model) for layer in model.layers)


def _opened(layer):
    """Returns what is called in a layer's place while a graph is laid open."""
    if not isinstance(layer, keras.Model):
        return layer
    graph = graphs.recorded(layer)
    if graph is None:
        return functools.partial(_call_or_layer, layer)

    def run(*args, **_):
        outputs = graph.run(keras.tree.flatten(args), _opened)
        return outputs[0] if len(outputs) == 1 else outputs

    return run


def _call_or_layer(model, *args, **kwargs):
    """Returns the outputs of a nested model's own `call`, opened if it can."""
    without_mode = {k: v for k, v in kwargs.items() if k != "training"}
    try:
        return model.call(*args, **without_mode)
    except Exception:  # whatever the model's own code raises
        return model(*args, **kwargs)


def _expect_same(model, graph, modes):
    """Raises InputError unless both are one function in some modes."""
    shape = (_SAMPLE, *graph.inputs[0].shape[1:])
    expect(
        None not in shape,
        "images of one size, [n, height, width, channels]",
        input_shape=graph.inputs[0].shape,
    )
    images = np.random.default_rng(0).random(shape, np.float32)
    for training in modes:
        here, there = (_stateless(m, images, training) for m in (model, graph))
        # What is random in spite of its state cannot be compared.
        expect(
            _are_close(here, there)
            or not _are_close(here, _stateless(model, images, training)),
            "a subclassed model that leaves the mode to its layers (no "
            "`if training` of its own)",
            model=type(model).__name__,
            training=training,
        )


def _stateless(model, images, training):
    """Returns the outputs, of statistics and random seeds that do not move."""
    mode = {}
    if "training" in inspect.signature(model.call).parameters:
        mode["training"] = training
    outputs, _ = model.stateless_call(
        model.trainable_variables,
        model.non_trainable_variables,
        graphs.in_structure_of(model, images),
        **mode,
    )
    (outputs,) = keras.tree.flatten(outputs)
    return np.asarray(outputs, np.float32)


def _are_close(here, there):
    scale = np.abs(np.nan_to_num(here)).max()
    return here.shape == there.shape and np.allclose(
        here, there, _AGREEMENT, _AGREEMENT * scale, equal_nan=True
    )
