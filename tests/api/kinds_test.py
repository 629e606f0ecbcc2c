"""Models as people have them: a right figure, a trained copy, or a sentence."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import atat_tf as atat
from atat_tf.errors import InputError
from atat_tf.models import graphs
from serving.saved_model import writing

SHAPE = (8, 8, 3)
X = np.random.default_rng(0).random((10, *SHAPE), np.float32)
Y = np.arange(10)


def _head(maps):
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(maps))


def _network(first=None, **input_options):
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE, **input_options)
    maps = layers.Conv2D(8, 3, activation="relu")(
        first(image) if first else image
    )
    return keras.Model(image, _head(maps))


def _unbuilt():
    return keras.Sequential(
        [layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(10)]
    )


def _adapted():
    scale = layers.Normalization(axis=-1)
    scale.adapt(X)
    return _network(scale)


def _structured(outputs):
    def build():
        image = keras.Input(SHAPE, name="image")
        logits = _head(layers.Conv2D(8, 3)(image))
        if outputs:
            return keras.Model(image, {"logits": logits})
        return keras.Model({"image": image}, logits)

    return build


def _quantised():
    model = _network()
    model(X)
    model.quantize("int8")
    return model


def _augmented():
    augment = keras.Sequential(
        [layers.RandomFlip(), layers.RandomRotation(0.2)]
    )
    return _network(augment)


KINDS = {
    "fixed batch": lambda: _network(batch_size=4),
    "unbuilt": _unbuilt,
    "of float64": lambda: _network(dtype="float64"),
    "of bfloat16": lambda: _network(dtype="bfloat16"),
    "adapted": _adapted,
    "lambda": lambda: _network(layers.Lambda(lambda t: 2 * t - 1)),
    "resized": lambda: _network(layers.Resizing(12, 12)),
    "dictionary in": _structured(False),
    "dictionary out": _structured(True),
    "augmented": _augmented,
}


@pytest.mark.parametrize("build", KINDS.values(), ids=KINDS)
def test_kinds_are_judged_and_copied(build):
    model = build()
    found = atat.robust_accuracy(model, X, Y, ("clean", "pgd2"))
    outputs = model(graphs.in_structure_of(model, X), training=False)
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs
    right = np.argmax(logits, -1) == Y
    np.testing.assert_array_equal(found.stands["clean"], right)
    hardened = atat.harden(
        model, X, Y, defense="at", epochs=1, batch_size=5, verbose=0
    )
    old, new = model.trainable_variables[0], hardened.trainable_variables[0]
    assert np.any(old.numpy() != new.numpy())


def test_quantised_models_are_judged():
    model = _quantised()
    found = atat.robust_accuracy(model, X, Y, ("clean", "pgd2"))
    right = np.argmax(model(X, training=False), -1) == Y
    np.testing.assert_array_equal(found.stands["clean"], right)


def _two(inputs):
    image, other = keras.Input(SHAPE), keras.Input(SHAPE)
    logits = _head(layers.Conv2D(8, 3)(image))
    if inputs:
        return keras.Model([image, other], logits + _head(other))
    return keras.Model(image, [logits, _head(image)])


def _sigmoid():
    image = keras.Input(SHAPE)
    scores = layers.Dense(10, activation="sigmoid")(layers.Flatten()(image))
    return keras.Model(image, scores)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: _two(True), "one input and one output"),
        (lambda: _two(False), "one input and one output"),
        (_sigmoid, "logits or in softmax"),
    ],
)
def test_kinds_that_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        atat.robust_accuracy(build(), X, Y, "clean")


def test_nothing_to_train_is_refused():
    model = _network()
    model.trainable = False
    with pytest.raises(InputError, match="a trainable layer"):
        atat.harden(model, X, Y, epochs=1, verbose=0)


def _dense():
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(16, activation="relu")
    return keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), hidden, layers.Dense(10)]
    )


def _channels_first(*hidden):
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE)
    maps = layers.Permute((3, 1, 2))(image)
    for layer in hidden:
        maps = layer(maps)
    pooled = layers.GlobalAveragePooling2D("channels_first")(maps)
    return keras.Model(image, layers.Dense(10)(pooled))


def test_channels_first_that_no_kernel_takes_are_refused():
    """As on a CPU without oneDNN's kernels, which the tests switch off."""
    first = layers.Conv2D(8, 3, data_format="channels_first")
    model = _channels_first(first)
    for use in (
        lambda: atat.robust_accuracy(model, X, Y, "clean"),
        lambda: atat.harden(model, X, Y, defense="at", epochs=1),
        lambda: atat.AdversarialTrainer(model, atat.Standard()),
    ):
        with pytest.raises(InputError, match="data_format='channels_last'"):
            use()


@pytest.mark.parametrize("build", [_dense, _channels_first])
def test_without_a_map_all_works_that_the_sentence_names(build, tmp_path):
    model = build()
    model.save(tmp_path / "model.keras")
    said = "attacks, evaluation and the defense 'at'.*model.export"
    with pytest.raises(InputError, match=said):
        atat.attention(model, X)
    with pytest.raises(InputError, match=said):
        writing.export_model(tmp_path / "model.keras", tmp_path / "ours")
    with pytest.raises(InputError, match="the recipe at, needs none"):
        atat.harden(model, X, Y, epochs=1, verbose=0)
    atat.robust_accuracy(model, X, Y, ("clean", "pgd2"))
    atat.harden(model, X, Y, defense="at", epochs=1, verbose=0)
    model.export(tmp_path / "keras", verbose=False)
    served = tf.saved_model.load(tmp_path / "keras")
    np.testing.assert_allclose(
        served.serve(X), model.predict(X, verbose=0), rtol=1e-4, atol=1e-5
    )
