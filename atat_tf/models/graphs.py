"""Any Keras model as one graph of layers: walked, tapped, laid open.

Keras calls a model's layers in order for `keras.models.clone_model`; what it
calls is recorded once for a model, and then read or run again.
"""

import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from atat_tf.errors import InputError, expect

# In the place of a layer's name: the last with a spatial map (§3.2).
DEEPEST = "deepest"


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer in a functional model.

    Attributes:
      layer: a layer, a nested model, or an operation of keras.ops.
      args, kwargs: of the call, with symbolic tensors.
      outputs: symbolic tensors, or a structure of them.
    """

    layer: Any
    args: tuple
    kwargs: dict
    outputs: Any

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """The symbolic tensors among the arguments."""
        return [
            value
            for value in keras.tree.flatten((self.args, self.kwargs))
            if isinstance(value, keras.KerasTensor)
        ]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The calls of a functional model's layers, from its inputs to its outputs.

    Attributes:
      inputs, outputs: symbolic tensors.
      calls: in an order in which they can be run.
    """

    inputs: list[keras.KerasTensor]
    calls: list[Call]
    outputs: list[keras.KerasTensor]

    @property
    def input(self) -> keras.KerasTensor | list[keras.KerasTensor]:
        """The inputs as a model of them takes them: one without a list."""
        return self.inputs[0] if len(self.inputs) == 1 else self.inputs

    def made_by(self, tensor: keras.KerasTensor) -> Call | None:
        """Returns the call whose output a tensor is, None for an input."""
        for call in self.calls:
            if any(tensor is out for out in keras.tree.flatten(call.outputs)):
                return call
        return None

    def run(self, inputs: list, layer_fn: Callable) -> list:
        """Returns the outputs for other inputs, symbolic or not.

        Args:
          inputs: one tensor for each of `self.inputs`.
          layer_fn: what is called in the place of a layer: layer -> function.
        """
        values = {id(t): v for t, v in zip(self.inputs, inputs, strict=True)}

        def of(structure):
            return keras.tree.map_structure(
                lambda value: values.get(id(value), value), structure
            )

        for call in self.calls:
            outputs = layer_fn(call.layer)(*of(call.args), **of(call.kwargs))
            for tensor, value in zip(
                keras.tree.flatten(call.outputs),
                keras.tree.flatten(outputs),
                strict=True,
            ):
                values[id(tensor)] = value
        return [values[id(tensor)] for tensor in self.outputs]


_RECORDED: weakref.WeakKeyDictionary[keras.Model, Graph | None] = (
    weakref.WeakKeyDictionary()
)


def recorded(model: keras.Model) -> Graph | None:
    """Returns the graph of a functional or sequential model, None for others.

    It is recorded once for a model, on input tensors of its own.
    """
    if getattr(model, "inputs", None) is None:
        return None  # subclassed, or a Sequential that is not built yet
    if model not in _RECORDED:
        _RECORDED[model] = _recorded(model)
    return _RECORDED[model]


def of_functional(model: keras.Model) -> Graph:
    """Returns the graph of a functional or sequential model.

    Raises:
      InputError: a subclassed model, or a Sequential that is not built yet.
    """
    graph = recorded(model)
    if graph is None:
        raise InputError(
            "Expected a functional model. Received: "
            f"{type(model).__name__} without a graph of layers."
        )
    return graph


def _recorded(model):
    calls = []

    def call(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        calls.append(Call(layer, args, kwargs, outputs))
        return outputs

    if isinstance(model, keras.Sequential):
        (tensor,) = model.inputs
        inputs = x = keras.Input(
            batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name
        )
        for layer in model.layers:
            x = call(layer, x)
        return Graph([inputs], calls, keras.tree.flatten(x))
    # A model of the same graph that is not compiled: a loss is not cloned.
    bare = keras.Model(model.inputs, model.outputs)
    clone = keras.models.clone_model(
        bare, clone_function=lambda layer: layer, call_function=call
    )
    return Graph(clone.inputs, calls, clone.outputs)


def with_taps(
    classifier: keras.Model, tapped_layers: Iterable[str]
) -> keras.Model:
    """Returns a model over the same weights that also answers activations.

    Args:
      classifier: functional, images -> logits.
      tapped_layers: names of layers whose output is [b, h, w, c], or DEEPEST.

    Returns:
      images -> {"logits": [b, k], layer: [b, h, w, c], ...}.

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
    graph = of_functional(classifier)
    return keras.Model(
        graph.input,
        {"logits": graph.outputs[0], **outputs},
        name=f"{classifier.name}_with_taps",
    )


def spatial_layers(classifier: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns {layer name: output [b, h, w, c]} where h · w > 1.

    In the order from the images to the logits, of a functional classifier;
    layers that the logits do not read are left out.
    """
    graph = of_functional(classifier)
    needed = {id(graph.outputs[0])}
    spatial = []
    for call in reversed(graph.calls):
        outputs = keras.tree.flatten(call.outputs)
        if needed.isdisjoint(map(id, outputs)):
            continue
        needed.update(map(id, call.inputs))
        for tensor in outputs:
            shape = tensor.shape
            if len(shape) == 4 and shape[1] * shape[2] > 1:
                spatial.append((call.layer.name, tensor))
    return dict(reversed(spatial))


def flops_per_image(classifier: keras.Model) -> int:
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


def functional_model(model: keras.Model) -> keras.Model:
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


def image_shape(model: keras.Model) -> tuple[int, int, int]:
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
    graph = recorded(layer) if isinstance(layer, keras.Model) else None
    if graph is None:
        return None
    if isinstance(layer, keras.Sequential):
        return keras.Model(graph.input, graph.outputs[0], name=layer.name)
    return layer


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
        (output,) = of_functional(model).run(inputs, _opened)
        one = inputs if len(inputs) > 1 else inputs[0]
        opened = keras.Model(one, output, name=model.name)
    except ValueError:  # names occur twice, or more outputs than one
        return model
    # A subclassed one brings the models that it calls; some stay closed.
    return opened if _num_models(opened) == nested else _flat(opened)


def _num_models(model):
    return sum(isinstance(layer, keras.Model) for layer in model.layers)


def _opened(layer):
    """Returns what is called in a layer's place while a graph is laid open."""
    if not isinstance(layer, keras.Model):
        return layer
    graph = recorded(layer)
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
