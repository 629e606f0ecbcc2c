"""Adversarial training of a Keras classifier in one call.

The examples have `model`, `x` and `y` of `robustness`.
"""

import inspect
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from atat_tf.api import classifier as classifiers
from atat_tf.api.arrays import STEP_SHARE
from atat_tf.api.pixels import Bounds, PixelRange, pixel_range, targets_of
from atat_tf.attacks import for_training, linf
from atat_tf.data import splits, training_data
from atat_tf.defenses import atat, objective
from atat_tf.defenses.objective import Defense
from atat_tf.errors import (
    InputError,
    expect,
    expect_known,
    registered,
    summary,
    with_checked_types,
)
from atat_tf.models import files as model_files
from atat_tf.models import functional, graphs, judging
from atat_tf.training.trainer import AdversarialTrainer

# §4.1: seven steps of ε/4.
_NUM_STEPS = 7
# That of the saved models' own training, since the student starts trained.
_LEARNING_RATE, _MOMENTUM = 0.01, 0.9
# The largest norm of an update's gradient. An undefended start has adversarial
# losses so large that TRADES' first steps would leave one constant answer.
_CLIP_NORM = 1.0
# Images on which a copy is compared with its model.
_SAMPLE = 2


@with_checked_types
def harden(
    model: keras.Model,
    x: ArrayLike,
    y: ArrayLike,
    *,
    defense: str | Defense = "atat",
    epsilon: float = 8 / 255,
    bounds: Bounds = (0, 1),
    epochs: int = 10,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    optimizer: str | keras.optimizers.Optimizer | None = None,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    **fit: Any,
) -> keras.Model:
    """Returns a copy of a classifier that is trained to withstand attacks.

    The copy starts from the model's weights and is trained on images that
    PGD-7 within ε has moved (§4.1), by ATAT (Eq. 7) to keep the attention of
    the model, its teacher. The model itself is left as it is.

    Example:
      >>> hardened = atat.harden(
      ...     model, x, y, epsilon=8 / 255, epochs=1, verbose=0
      ... )
      >>> hardened.output_shape == model.output_shape
      True
      >>> hardened.save("hardened.keras")

    Args:
      model: keras.Model, functional, sequential or subclassed, images ->
        logits or softmax.
      x: images [n, H, W, C], floats within `bounds`, or uint8, which are
        scaled to them.
      y: integers [n], one-hot or shares of the classes [n, k] (mixup), or
        strings [n].
      defense: a name, "atat", "at", "alp", "tla", "trades" or "standard", or
        a defense, as `atat.ATAT(attention_weight=2.0)`.
      epsilon: ε, as for `robust_accuracy`.
      bounds: what the model takes for black and for white, as there.
      epochs: passes over the images.
      validation: (x, y) of other images. The copy then has the weights of the
        epoch that withstands PGD on most of them; without, those of the last.
      optimizer: Keras'; None for SGD(0.01, momentum=0.9), the norm of its
        gradient at most 1.
      seed: of the random starts.
      class_names: as for `robust_accuracy`.
      **fit: of `keras.Model.fit`, as batch_size=32, verbose=2, callbacks,
        sample_weight, class_weight. ModelCheckpoint saves the copy. The
        `model` of a callback is the trainer, of pixels in [0, 1] and logits.

    Returns:
      keras.Model of the same class, layers, pixel range and output, not
      compiled. To `save`, `export` and `predict` it is as the model.

    Raises:
      InputError: bad arguments, or a model that cannot be copied or trained.
    """
    expect(epochs >= 1, "epochs >= 1", epochs=epochs)
    _expect_fit(fit)
    pixels = pixel_range(bounds)
    radius = pixels.epsilon_in_unit(epsilon)
    images = pixels.in_unit(x)
    chosen = _defense(defense)
    student_copy, student = _copy(model, pixels, images.shape[1:])
    num_classes = student.outputs[0].shape[-1]
    targets = targets_of(y, len(images), num_classes, class_names)
    splits.expect_several_classes(targets, "x and y")
    callbacks = [*(fit.pop("callbacks", None) or ())]
    if validation is not None:
        expect(
            len(validation) == 2,
            "validation=(images, labels)",
            validation=type(validation),
        )
        held_out = pixels.in_unit(validation[0])
        validation = (
            held_out,
            targets_of(validation[1], len(held_out), num_classes, class_names),
        )
        callbacks.append(_keeper_of_the_best(epochs))
    teacher = None
    if chosen.needs_teacher:
        _, teacher = _copy(model, pixels, images.shape[1:])
    batch_size = fit.get("batch_size") or 32
    trainer = AdversarialTrainer(
        student,
        chosen,
        _attack(chosen, radius),
        teacher,
        seed=seed,
        num_steps=(epochs - (fit.get("initial_epoch") or 0))
        * (fit.get("steps_per_epoch") or -(-len(images) // batch_size)),
    )
    trainer.saves(student_copy)
    trainer.compile(
        optimizer
        or keras.optimizers.SGD(
            _LEARNING_RATE, momentum=_MOMENTUM, global_clipnorm=_CLIP_NORM
        )
    )
    trainer.fit(
        images,
        targets,
        epochs=epochs,
        validation_data=validation,
        callbacks=callbacks,
        **fit,
    )
    return student_copy


def _expect_fit(arguments):
    """Raises InputError unless harden can hand arguments on to fit."""
    for name in ("validation_data", "validation_split"):
        expect(
            name not in arguments,
            "validation=(images, labels), which keeps the best epoch's weights",
            **{name: type(arguments.get(name))},
        )
    known = [*inspect.signature(keras.Model.fit).parameters]
    for name in arguments:
        expect_known("an argument of harden or of fit", name, known)
    training_data.expect_batch_size(arguments.get("batch_size"))
    callbacks = arguments.get("callbacks") or []
    expect(
        isinstance(callbacks, list | tuple),
        "a list of callbacks",
        callbacks=type(callbacks),
    )


def _keeper_of_the_best(epochs):
    # It stops nothing: it is here for the weights of the best epoch.
    return keras.callbacks.EarlyStopping(
        "val_adversarial_accuracy",
        mode="max",
        patience=epochs,
        restore_best_weights=True,
    )


def _defense(given):
    """Returns the defense of a name, or the one given."""
    if not isinstance(given, str):
        objective.expect_defense(given)
        return given
    return registered("a defense", given, atat.DEFENSES)()


def _attack(defense, radius):
    """Returns PGD, or what a defense needs in its place."""
    step = STEP_SHARE * radius
    if getattr(defense, "attack_loss", None) is not None:
        return for_training.trades(radius, step, _NUM_STEPS)
    return linf.pgd(radius, step, _NUM_STEPS)


def _copy(
    model: keras.Model, pixels: PixelRange, image_shape: tuple[int, ...]
) -> tuple[keras.Model, keras.Model]:
    """Returns a copy, and images in [0, 1] -> logits on the copy's layers.

    Raises:
      InputError: the model cannot be copied, or is no graph of layers.
    """
    height, width, channels = image_shape
    shape = height, width, channels
    classifiers.call_once(model, pixels, shape)
    try:
        if graphs.recorded(model) is not None:
            copy = keras.models.clone_model(
                model, clone_function=model_files.new_layer
            )
            copy.set_weights(model.get_weights())
            graphs.finalize_normalization(copy)
        else:
            copy = _saved_and_loaded(model)
    except Exception as error:  # whatever the model's own code raises
        raise InputError(
            "Expected a model that can be copied, as one that Keras can save "
            "and load (atat.AdversarialTrainer trains the model itself). "
            f"Received: {model.name} ({summary(error)})."
        ) from error
    student = classifiers.functional_logits(
        copy, pixels, shape, modes=(False, True)
    )
    if student is None:
        # Which says why.
        student = functional.functional_model(copy)
    _expect_same(model, copy, pixels, shape)
    return copy, student


def _expect_same(model, copy, pixels, shape):
    """Raises InputError where a copy lacks what no configuration told it."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (_SAMPLE, *shape)).astype(np.uint8)
    images = graphs.in_structure_of(model, pixels.from_unit(images))
    here, again, there = (
        np.asarray(keras.tree.flatten(one(images, training=False))[0])
        for one in (model, model, copy)
    )
    difference = judging.relative_difference(there, here)
    expect(
        difference <= judging.AGREEMENT
        # What is random even so cannot be compared.
        or judging.relative_difference(again, here) > judging.AGREEMENT,
        "a model whose copy is the same function: get_config() of each of its "
        "layers tells all that it computes with, or weights hold it "
        "(atat.AdversarialTrainer trains the model itself)",
        model=model.name,
        relative_difference=difference,
    )


def _saved_and_loaded(model):
    """Returns a copy of a subclassed model, which has no layers to clone."""
    kind = type(model)
    with (
        tempfile.TemporaryDirectory() as folder,
        keras.saving.custom_object_scope({kind.__name__: kind}),
    ):
        path = pathlib.Path(folder) / "copy.keras"
        model.save(path)
        return keras.saving.load_model(path, compile=False)
