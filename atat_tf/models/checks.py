"""What must hold of classifiers before they are trained."""

import re
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from atat_tf.errors import InputError, expect
from atat_tf.models import graphs, judging

_SAMPLE = 2
# Keras' layers of data augmentation. Dropout and noise are no such layers.
_RANDOM = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if re.fullmatch("Random[A-Z].*|RandAugment|AugMix|CutMix|MixUp", name)
)


def expect_trainable(
    tapped: keras.Model, bounds: tuple[float, float] = (0.0, 1.0)
) -> None:
    """Raises InputError unless a classifier can be trained against attacks.

    It is tried in inference mode on two random images.

    Args:
      tapped: a model from `graphs.with_taps`.
      bounds: the smallest and the largest pixel value.
    """
    name = tapped.name.removesuffix(graphs.TAPPED)
    draw = np.random.default_rng(0)
    shape = (_SAMPLE, *tapped.inputs[0].shape[1:])
    images = tf.constant(draw.uniform(*bounds, shape), keras.config.floatx())
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        logits = tf.convert_to_tensor(tapped(images, training=False)["logits"])
        # Not their sum, which some classifiers hold constant.
        mix = tf.cast(draw.normal(size=logits.shape[-1]), logits.dtype)
        score = tf.reduce_sum(logits * mix)
    gradient = tape.gradient(score, images)
    values = logits.numpy().astype(np.float64)
    again = np.asarray(tapped(images, training=False)["logits"], np.float64)
    difference = judging.relative_difference(again, values)
    sentence = judging.not_logits(values)
    if sentence:
        raise InputError(f"{name}: {sentence}")
    expect(
        difference <= judging.AGREEMENT,
        f"of {name} the same logits for the same image in inference mode (a "
        "random layer is active)",
        relative_difference=difference,
    )
    # A new classifier may end in zeros: then nothing differs either.
    differ = (
        judging.relative_difference(values[0], values[1]) > judging.AGREEMENT
    )
    expect(
        gradient is not None
        and np.all(np.isfinite(gradient))
        and (np.any(gradient) or not differ),
        f"a gradient from the logits of {name} to the image, which every "
        "attack follows (a rounding, a cast to integers or a stop_gradient "
        "cuts it)",
        gradient=None if gradient is None else float(np.abs(gradient).max()),
    )


# Of images after a first layer; of [0, 1] through 1/255 is left 0.004.
_NARROWEST = 0.05


def expect_range_used(classifier: keras.Model, width: float) -> None:
    """Raises InputError if a first layer shrinks the pixels to next to nothing.

    As Rescaling(1/255) does with pixels from 0 to 1: all images are alike then,
    and so is every answer.

    Args:
      classifier: functional keras.Model.
      width: largest pixel value less the smallest.
    """
    graph = graphs.of_functional(classifier)
    for call in graph.calls:
        if not any(tensor is graph.inputs[0] for tensor in call.inputs):
            continue
        scale = 1.0
        if isinstance(call.layer, keras.layers.Rescaling):
            scale = float(np.max(np.abs(call.layer.scale)))
        if isinstance(call.layer, keras.layers.Normalization):
            variance = np.asarray(call.layer.variance)
            scale = float(1 / np.sqrt(max(np.min(variance), 1e-12)))
        expect(
            scale * width >= _NARROWEST,
            f"a range of pixels that {classifier.name}'s first layer "
            f"{call.layer.name!r} does not shrink to nothing: it multiplies "
            f"by {scale:.3g} (of a model of bytes' values bounds=(0, 255), "
            "--model_range=0,255 in commands)",
            width=width,
        )


def expect_weights_to_train(classifier: keras.Model) -> tuple[int, int]:
    """Returns how many weights are trained, and how many are frozen.

    Batch statistics, which no gradient moves, are neither.

    Raises:
      InputError: all are frozen.
    """
    sizes = {True: 0, False: 0}
    for layer in classifier.layers:
        moved = {id(v) for v in layer.trainable_variables}
        layer_trains = layer.trainable
        for variable in layer.weights:
            if id(variable) in moved or not layer_trains:
                sizes[id(variable) in moved] += int(np.prod(variable.shape))
    expect(
        sizes[True],
        f"weights to train in {classifier.name} (--unfreeze, or "
        "trainable=True before it is saved)",
        trained=0,
        frozen=sizes[False],
    )
    return sizes[True], sizes[False]


def expect_one_image(classifier: keras.Model) -> None:
    """Raises InputError if layers of a student change images at random.

    Two of its answers, or its and its teacher's, would be of different images.

    Args:
      classifier: functional keras.Model.
    """
    flat = classifier._flatten_layers(include_self=False)
    turned = [layer.name for layer in flat if isinstance(layer, _RANDOM)]
    expect(
        not turned,
        f"{classifier.name} without layers that change images at random: "
        "what the defense compares must be of one image (put them into the "
        "input pipeline; config.flip and config.augmentation do it in "
        "commands)",
        layers=turned,
    )


def expect_pair(
    student: keras.Model, teacher: keras.Model, layers: Sequence[str]
) -> None:
    """Raises InputError unless a teacher's maps can be a student's target.

    Args:
      student, teacher: models from `graphs.with_taps`.
      layers: whose maps are compared.
    """
    shared = {id(v) for v in student.variables} & {
        id(v) for v in teacher.variables
    }
    expect(
        not shared,
        "a teacher with weights of its own (load the model a second time), "
        "since the student's are trained and the teacher's are not",
        shared_variables=len(shared),
    )
    for name in ("logits", *layers):
        # Channels may differ: a map has none.
        end = None if name == "logits" else 3
        here = tuple(student.output[name].shape[1:end])
        there = tuple(teacher.output[name].shape[1:end])
        expect(
            here == there,
            f"a student and a teacher of one shape at {name!r}",
            student=here,
            teacher=there,
        )
    here, there = (m.inputs[0].shape[1:] for m in (student, teacher))
    expect(
        here == there,
        "a student and a teacher of one image size",
        student=here,
        teacher=there,
    )
