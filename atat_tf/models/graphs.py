"""The graph of a functional Keras model: walked, tapped, counted.

Keras calls a model's layers in order for `keras.models.clone_model`; what it
calls is recorded once for a model, and then read or run again.
"""

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from atat_tf import grad_cam
from atat_tf.errors import InputError
from atat_tf.models import layers as model_layers

# In the place of a layer's name: the last with a spatial map (§3.2).
DEEPEST = "deepest"
# Layers that draw in training mode, and are the identity in inference mode.
RANDOM = (
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
)
# What the name of a classifier with taps ends in.
TAPPED = "_with_taps"


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

    def repeated(
        self, replaced: Mapping[int, keras.KerasTensor], layer: Any
    ) -> Any:
        """Returns the outputs of another layer, or for other inputs.

        Args:
          replaced: {id of a tensor: what is in its place}.
          layer: in the layer's place; where it is the same, and reads none of
            the tensors, the call is not repeated.
        """
        if layer is self.layer and replaced.keys().isdisjoint(
            map(id, self.inputs)
        ):
            return self.outputs
        args, kwargs = keras.tree.map_structure(
            lambda value: replaced.get(id(value), value),
            (self.args, self.kwargs),
        )
        return layer(*args, **kwargs)


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


# Beside each graph the layers that the model had: a Sequential can change.
_RECORDED: weakref.WeakKeyDictionary[
    keras.Model, tuple[list[keras.Layer], Graph | None]
] = weakref.WeakKeyDictionary()


def recorded(model: keras.Model) -> Graph | None:
    """Returns the graph of a functional or sequential model, None for others.

    It is recorded once for a model, on input tensors of its own, and again
    after layers have been added or taken off.
    """
    if getattr(model, "inputs", None) is None:
        return None  # subclassed, or a Sequential that is not built yet
    own = list(model.layers)
    known = _RECORDED.get(model)
    if known is None or known[0] != own:
        known = _RECORDED[model] = own, _recorded(model)
    return known[1]


def takes_and_answers_tensors(model: keras.Model) -> bool:
    """Returns whether a functional model has no list or dictionary of them."""
    return isinstance(model.input, keras.KerasTensor) and isinstance(
        model.output, keras.KerasTensor
    )


def in_structure_of(model: keras.Model, images: Any) -> Any:
    """Returns images as a model takes them: alone, in a list or dictionary.

    Keras takes others as well, and warns at each call.

    Args:
      model: keras.Model of one image input.
      images: anything that stands for the images.
    """
    if recorded(model) is None or isinstance(model, keras.Sequential):
        return images
    return keras.tree.pack_sequence_as(model.input, [images])


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
      images -> {"logits": [b, k], layer: [b, h, w, c], ...}, each of the
      latter by a `grad_cam.Tap`.

    Raises:
      InputError: a layer does not exist or has no spatial extent; those that
        can be named are listed.
    """
    spatial = spatial_layers(classifier)
    tapped_layers = tuple(tapped_layers)
    if tapped_layers and not spatial:
        raise InputError(
            "Expected a classifier with a spatial map, [height, width, "
            "channels] as of a convolution, channels last, for attention "
            "(adversarial training alone, the recipe at, needs none). "
            f"Received: {classifier.name!r} without any."
        )
    outputs = {}
    graph = of_functional(classifier)
    for name in tapped_layers:
        own = list(spatial)[-1] if name == DEEPEST else _before(graph, name)
        if own not in spatial:
            raise InputError(
                "Expected attention layers among those with a spatial map: "
                f"{', '.join(spatial)}. Received: {name!r}."
            )
        outputs[name] = spatial[own]
    lean = model_layers.by_fewer_operations
    tapped = {id(tensor): name for name, tensor in outputs.items()}
    replaced: dict[int, keras.KerasTensor] = {}
    for call in graph.calls:
        for tensor, again in zip(
            keras.tree.flatten(call.outputs),
            keras.tree.flatten(call.repeated(replaced, lean(call.layer))),
            strict=True,
        ):
            if id(tensor) in tapped:
                tap = grad_cam.Tap(f"{call.layer.name}_tap")
                outputs[tapped[id(tensor)]] = replaced[id(tensor)] = tap(again)
            elif again is not tensor:
                replaced[id(tensor)] = again
    (logits,) = graph.outputs
    return keras.Model(
        graph.input,
        {"logits": replaced.get(id(logits), logits), **outputs},
        name=classifier.name + TAPPED,
    )


def _before(graph, name):
    """Returns the layer whose map a layer of dropout has, else the name."""
    for call in graph.calls:
        if call.layer.name == name and isinstance(call.layer, RANDOM):
            before = graph.made_by(call.inputs[0])
            return _before(graph, before.layer.name) if before else name
    return name


def spatial_layers(classifier: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns {layer name: output [b, h, w, c]} where h · w > 1.

    In the order from the images to the logits, of a functional classifier;
    layers that the logits do not read are left out, and so is what has four
    axes and is no picture, as heads of tokens or channels that come first. A
    layer of dropout or noise has no map of its own: in inference mode it is
    that of the layer before, in training mode one at random.
    """
    graph = of_functional(classifier)
    layouts = _layouts(graph)
    needed = {id(graph.outputs[0])}
    spatial = []
    for call in reversed(graph.calls):
        outputs = keras.tree.flatten(call.outputs)
        if needed.isdisjoint(map(id, outputs)):
            continue
        needed.update(map(id, call.inputs))
        for tensor in () if isinstance(call.layer, RANDOM) else outputs:
            shape = tensor.shape
            is_picture = layouts.get(id(tensor)) == _PICTURE
            if is_picture and shape[1] * shape[2] > 1:
                spatial.append((call.layer.name, tensor))
    last: dict[str, keras.KerasTensor] = {}
    for name, tensor in reversed(spatial):
        last.pop(name, None)  # of a layer that is called twice the last place
        last[name] = tensor
    return last


def finalize_normalization(model: keras.Model) -> None:
    """Has adapted Normalization layers compute with the weights of now.

    Keras lets them read their weights when they are loaded from a file, and
    not when these are set.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            finalize_normalization(layer)
        elif isinstance(layer, layers.Normalization) and layer.weights:
            layer.finalize_state()


# What the axes of a tensor are: [b, h, w, c], [b, c, h, w], [b, h · w, c].
_PICTURE, _CHANNELS_FIRST, _TOKENS = "picture", "channels first", "tokens"
_RANKS = {_PICTURE: 4, _CHANNELS_FIRST: 4, _TOKENS: 3}
# Operations after which nobody knows which place an axis tells.
_MIXING = ("Dot", "Einsum", "Matmul", "Moveaxis", "Swapaxes", "Tensordot")


def _layouts(graph):
    """Returns {id of a symbolic tensor: what its axes are}, of those known."""
    known = {id(graph.inputs[0]): _PICTURE}
    for call in graph.calls:
        layout = _layout(call, known)
        for tensor in keras.tree.flatten(call.outputs):
            if layout and len(tensor.shape) == _RANKS[layout]:
                known[id(tensor)] = layout
    return known


def _layout(call, known):
    """Returns what the axes of a call's output are, or None."""
    shape = keras.tree.flatten(call.outputs)[0].shape
    declared = getattr(call.layer, "data_format", None)
    if declared and len(shape) == 4:
        return {"channels_last": _PICTURE, "channels_first": _CHANNELS_FIRST}[
            declared
        ]
    of_known = [tensor for tensor in call.inputs if id(tensor) in known]
    if not of_known:
        return None
    before, layout = of_known[0].shape, known[id(of_known[0])]
    kind = type(call.layer).__name__
    if kind == "Reshape":
        return _reshaped(layout, before, shape)
    if kind in ("Permute", "Transpose"):
        order = getattr(call.layer, "dims", None) or call.layer.axes[1:]
        return {
            (_PICTURE, (3, 1, 2)): _CHANNELS_FIRST,
            (_CHANNELS_FIRST, (2, 3, 1)): _PICTURE,
        }.get((layout, tuple(order)))
    return None if kind in _MIXING else layout


def _reshaped(layout, before, after):
    if before[1:] == after[1:]:
        return layout
    if layout == _PICTURE and after[1:] == (before[1] * before[2], before[3]):
        return _TOKENS
    is_grid = (
        layout == _TOKENS
        and len(after) == 4
        and (after[1] * after[2], after[3]) == before[1:]
    )
    return _PICTURE if is_grid else None


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
