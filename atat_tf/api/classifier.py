"""Any classifier as the function of pixels in [0, 1] that attacks take.

A Keras model is rebuilt as one graph that answers logits; any other function
of images is called as it is, and without its gradient where it has none.
"""

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from atat_tf.api.pixels import PixelRange
from atat_tf.errors import InputError, expect, summary
from atat_tf.models import checks, classifiers, functional, graphs, judging

_SAMPLE = 2
_DIGESTED_IMAGES = 32
_SMALLEST = np.finfo(np.float32).tiny


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A classifier of pixels in [0, 1].

    Attributes:
      network: what `Attacker` takes: (float32 [b, H, W, C] in [0, 1],
        training) -> float32 logits [b, k], with `input_shape`.
      num_classes: k.
      has_gradient: whether the logits can be differentiated by the images.
    """

    network: Any
    num_classes: int
    has_gradient: bool

    @property
    def is_keras(self) -> bool:
        """Whether it is a functional Keras model."""
        return isinstance(self.network, keras.Model)

    def digest(self, images: np.ndarray) -> str:
        """Returns what tells this classifier from others in a ledger.

        Of a Keras model its weights, and the calls of its layers, with the
        source of those that are not Keras' own. Of a function, and of a model
        with a function or class of somebody's own in it, what it answers to
        the first images, as they are and with noise, and the gradients there:
        the text of a decorated function, or of one that reads a global value,
        does not say what it does.

        Args:
          images: uint8 or float32 in [0, 1], [n, H, W, C].
        """
        if not self.is_keras:
            return self._answers(images)
        graph = graphs.of_functional(self.network)
        text = json.dumps(_written(graph), default=_in_json)
        # Names are counted up in a process; all else is the layer's own.
        text = re.sub(r'"name": "[^"]*"', '"name": ""', text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        weights = classifiers.weights_digest(self.network)
        found = f"{weights}, layers {digest[:16]}"
        if not _is_told_by(text):
            found += f", {self._answers(images)}"
        return found

    def _answers(self, images):
        images = images[:_DIGESTED_IMAGES]
        digest = hashlib.sha256()
        for pixels in (judging.in_unit(images), judging.beside(images)):
            for part in judging.logits_and_gradient(self.network, pixels):
                digest.update(part.tobytes())
        return f"answers sha256:{digest.hexdigest()}"


def _written(graph):
    """Returns the calls of a graph, each a list for JSON."""
    numbers: dict[int, str] = {}

    def of(values):
        return [
            numbers[id(value)] if id(value) in numbers else value
            for value in keras.tree.flatten(values)
        ]

    def number(tensors):
        for tensor in keras.tree.flatten(tensors):
            numbers[id(tensor)] = f"tensor {len(numbers)}"

    number(graph.inputs)
    calls = []
    for call in graph.calls:
        kind, given = type(call.layer), of((call.args, call.kwargs))
        try:
            config = call.layer.get_config()
        except NotImplementedError:
            config = {"module": None}  # nothing says what it is
        # "module" as Keras' configs have it.
        about = {"module": kind.__module__, "class": kind.__name__}
        calls.append([about, config, _source(kind), given])
        number(call.outputs)
    return [*calls, of(graph.outputs)]


def _is_told_by(calls):
    """Returns whether a text of the calls says all that they compute.

    What a config holds has its module beside it, null where it is registered;
    the code of a lambda does not say what it reads.
    """
    modules = re.findall(r'"module": "?([^",}]*)', calls)
    own = {module.partition(".")[0] for module in modules}
    return own <= {"keras", "atat_tf"} and '"__lambda__"' not in calls


def _in_json(value):
    """Returns what stands for an array, or another object, in JSON."""
    if hasattr(value, "shape"):
        array = np.asarray(value)
        return [str(array.dtype), array.shape, array.tobytes().hex()]
    return str(value)


def _source(kind):
    """Returns the code of a class that is not Keras' own, "" of others."""
    if kind.__module__.partition(".")[0] == "keras":
        return ""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed into an interpreter
        functions = {
            name: _compiled(value.__code__)
            for name, value in vars(kind).items()
            if inspect.isfunction(value)
        }
        return json.dumps(functions, default=str)


def _compiled(code):
    """Returns what there is of a function without its text."""
    constants = [
        _compiled(each) if inspect.iscode(each) else each
        for each in code.co_consts
    ]
    return code.co_code.hex(), code.co_names, constants


def as_classifier(
    model: Any, pixels: PixelRange, image_shape: tuple[int, int, int]
) -> Classifier:
    """Returns what is attacked in a model's place.

    Args:
      model: keras.Model of one image input, functional, sequential or
        subclassed, images -> logits or softmax (which is taken off); or a
        function of float32 images [b, H, W, C] within the bounds that answers
        scores [b, k] as a TensorFlow tensor or as an array.
      pixels: what the model takes for black and for white.
      image_shape: (H, W, C) of the images that it is called with.

    Raises:
      InputError: it is neither, takes other images, or answers something
        else than one score for each class.
    """
    expect(callable(model), "a Keras model or a function", model=type(model))
    if isinstance(model, keras.Model):
        logits_model = functional_logits(model, pixels, image_shape)
        if logits_model is not None:
            network: Any = classifiers.with_float32_logits(logits_model)
            num_classes = network.outputs[0].shape[-1]
            return Classifier(
                network, num_classes, judging.has_gradient(network, image_shape)
            )

    if isinstance(model, keras.Model):
        return _of_function(
            lambda images: model(images, training=False), pixels, image_shape
        )
    return _of_function(model, pixels, image_shape)


def functional_logits(
    model: keras.Model,
    pixels: PixelRange,
    image_shape: tuple[int, int, int],
    modes: Sequence[bool] = (False,),
) -> keras.Model | None:
    """Returns a functional model of pixels in [0, 1] that answers logits.

    The layers, and so the weights, are the model's own.

    Args:
      model, pixels, image_shape: as for `as_classifier`.
      modes: as for `functional.functional_model`, of a subclassed model.

    Returns:
      keras.Model, float32 [b, H, W, C] in [0, 1] -> logits [b, k]; None for a
      subclassed model that is no graph of layers.

    Raises:
      InputError: it is no classifier of these images.
    """
    call_once(model, pixels, image_shape)
    if getattr(model, "inputs", None) is None:
        try:
            model = functional.functional_model(model, modes)
        except InputError:
            return None
    graph = graphs.of_functional(model)
    expect(
        len(graph.inputs) == len(graph.outputs) == 1,
        "a Keras model of one input and one output",
        inputs=len(graph.inputs),
        outputs=len(graph.outputs),
    )
    (given,) = graph.inputs
    declared = tuple(given.shape[1:])
    expect(
        len(declared) == 3
        and all(
            size in (None, given_size)
            for size, given_size in zip(declared, image_shape, strict=True)
        ),
        f"images of {declared}, the size that the model takes",
        images=tuple(image_shape),
    )
    if (
        not (given.dtype == "float32" and pixels.is_unit)
        or given.shape[0] is not None
        or None in declared
    ):
        images = keras.Input(image_shape, name="images")
        values = images if pixels.is_unit else pixels.layer()(images)
        outputs = graph.run([values], lambda layer: layer)
        rebuilt = keras.Model(images, outputs[0], name=model.name)
        if not given.dtype.startswith(("float", "bfloat")):
            _expect_same_on_whole_numbers(model, rebuilt, pixels, image_shape)
        model = rebuilt
    answered = classifiers.logits_model(model)
    if pixels.is_unit:
        checks.expect_range_used(answered, 1.0)
    return answered


def call_once(
    model: keras.Model, pixels: PixelRange, image_shape: tuple[int, int, int]
) -> None:
    """Calls a model without a graph, which tells it the images' size.

    Args:
      model, pixels, image_shape: as for `as_classifier`.

    Raises:
      InputError: it takes other images.
    """
    if getattr(model, "inputs", None) is not None:
        return
    images = pixels.from_unit(np.zeros((1, *image_shape), np.float32))
    try:
        model(images)
    except Exception as error:  # whatever the model's own code raises
        raise InputError(
            f"Expected a model of images {tuple(image_shape)}. Received: "
            f"{model.name} ({summary(error)})."
        ) from error


def _expect_same_on_whole_numbers(model, rebuilt, pixels, image_shape):
    """Raises InputError unless floats mean to a model what its type does.

    A model of integers cannot be differentiated by them; its layers, called
    with floats, are the same function where none of them counts bits.
    """
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (_SAMPLE, *image_shape)).astype(np.uint8)
    values = pixels.from_unit(images)
    given = model(graphs.in_structure_of(model, np.rint(values)))
    (given,) = (np.asarray(v, np.float64) for v in keras.tree.flatten(given))
    as_floats = np.asarray(rebuilt(images / np.float32(255)), np.float64)
    difference = judging.relative_difference(as_floats, given)
    expect(
        difference <= judging.AGREEMENT,
        f"a model that takes floats for {model.inputs[0].dtype}, with bounds "
        "in whole numbers as (0, 255)",
        relative_difference=difference,
    )


class _Function:
    """A function of images in the place of a model."""

    def __init__(self, logits, image_shape):
        self._logits = logits
        self.input_shape = (None, *image_shape)

    def __call__(self, images, training=False):
        return self._logits(images)


def _of_function(model, pixels, image_shape):
    """Returns the Classifier of a function, tried on two gray images."""
    low = tf.constant(pixels.low, tf.float32)
    width = tf.constant(pixels.width, tf.float32)

    def logits(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(low + images * width), tf.float32)

    images = tf.fill((_SAMPLE, *image_shape), 0.5)
    gradient = None
    try:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            answered = logits(images)
        gradient = tape.gradient(answered, images)
    except Exception:  # it takes no tensors
        gradient = None
    if gradient is None:
        return _of_black_box(model, pixels, image_shape)
    num_classes = _num_classes(answered.numpy())
    return Classifier(_Function(logits, image_shape), num_classes, True)


def _of_black_box(model, pixels, image_shape):
    """Returns the Classifier of a function that has no gradient."""

    def answer(images: np.ndarray) -> np.ndarray:
        return np.asarray(model(pixels.from_unit(images)), np.float32)

    sample = np.random.default_rng(0).random(
        (_SAMPLE, *image_shape), np.float32
    )
    try:
        answered = answer(sample)
    except Exception as error:  # whatever the function raises
        raise InputError(
            f"Expected a function of images {tuple(image_shape)}. Received: "
            f"{summary(error)}."
        ) from error
    num_classes = _num_classes(answered)
    are_shares = judging.are_probabilities(answered)

    def logits(images: tf.Tensor) -> tf.Tensor:
        outputs = tf.numpy_function(answer, [images], tf.float32)
        outputs.set_shape([None, num_classes])
        # Probabilities near 1 differ in their logarithms alone.
        return tf.math.log(outputs + _SMALLEST) if are_shares else outputs

    return Classifier(_Function(logits, image_shape), num_classes, False)


def _num_classes(outputs):
    expect(
        outputs.ndim == 2 and len(outputs) == _SAMPLE and outputs.shape[1] >= 2,
        f"one score a class, [{_SAMPLE}, classes >= 2], for {_SAMPLE} images",
        output_shape=outputs.shape,
    )
    return outputs.shape[1]
