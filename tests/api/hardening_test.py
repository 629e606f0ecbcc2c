"""`harden` gives a model that is used as the one given, which is left alone."""

from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import atat_tf as atat
from atat_tf.api import hardening
from atat_tf.defenses.atat import DEFENSES
from atat_tf.errors import InputError
from tests.support import digits

X, Y = digits.training_images(96)
# What hardens beside TRADES; the released CIFAR-10 code at more epochs only.
OTHERS = sorted({*DEFENSES} - {"standard", "trades", "released_cifar10"})
FIT = {"epochs": 1, "batch_size": 32, "verbose": 0, "epsilon": 8 / 255}


@keras.saving.register_keras_serializable("tests")
class Own(keras.Model):
    """Subclassed, with a mode and an adapted normalisation of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = layers.Normalization(axis=-1)
        self.convolution = layers.Conv2D(8, 3, activation="relu")
        self.drop = layers.Dropout(0.1)
        self.head = layers.Dense(10, activation="softmax")

    def call(self, images, training=False):
        maps = self.convolution(self.scale(images))
        pooled = keras.ops.mean(maps, (1, 2))
        return self.head(self.drop(pooled, training=training))


def _subclassed():
    model = Own()
    model.scale.adapt(X)
    model(X[:1])
    return model


GIVEN = {
    "softmax": digits.classifier,
    "logits": lambda: digits.classifier(activation=None),
    "nested": lambda: keras.Sequential(
        [keras.Input((8, 8, 1)), digits.classifier()]
    ),
    "subclassed": _subclassed,
}


@pytest.mark.parametrize("build", GIVEN.values(), ids=GIVEN)
def test_the_copy_is_trained_whole_and_the_model_left_alone(build, tmp_path):
    model = build()
    before = model.predict(X[:8], verbose=0)
    flags = [layer.trainable for layer in model.layers]
    hardened = atat.harden(model, X, Y, **FIT)
    np.testing.assert_array_equal(model.predict(X[:8], verbose=0), before)
    assert [layer.trainable for layer in model.layers] == flags
    assert type(hardened) is type(model)
    for old, new in zip(
        model.trainable_variables, hardened.trainable_variables, strict=True
    ):
        assert np.any(np.asarray(old) != np.asarray(new)), old.path
    after = hardened.predict(X[:8], verbose=0)
    sums_to_one = np.allclose(after.sum(1), 1, atol=1e-5)
    assert sums_to_one == np.allclose(before.sum(1), 1, atol=1e-5)
    hardened.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(X[:8], verbose=0), after, 1e-5)
    hardened.export(tmp_path / "m", verbose=False)
    served = tf.saved_model.load(tmp_path / "m")
    np.testing.assert_allclose(served.serve(X[:8]), after, 1e-4, 1e-6)


def test_another_range_is_the_same_training():
    """By FGSM-like steps that no rounding turns around."""
    low, high = [-1.5], [3.5]
    ways = [
        (digits.classifier(), X, {}),
        (
            digits.classifier(layers.Rescaling(0.2, 0.3)),
            X * 5 - 1.5,
            {"bounds": (low, high)},
        ),
        (
            digits.classifier(layers.Rescaling(1 / 255)),
            X * 255,
            {"bounds": (0, 255), "epsilon": 8},
        ),
    ]
    trained = [
        atat.harden(model, x, Y, defense="at", shuffle=False, **{**FIT, **more})
        for model, x, more in ways
    ]
    first = trained[0].get_weights()
    for other in trained[1:]:
        for a, b in zip(first, other.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=5e-3)


def test_labels_of_all_kinds_and_the_best_epoch():
    names = Y.astype(str)
    options = {**FIT, "epochs": 2, "shuffle": False, "defense": "at"}
    weights = []
    for labels in (Y, np.eye(10)[Y], names):
        hardened = atat.harden(
            digits.classifier(), X, labels, validation=(X, labels), **options
        )
        weights.append(hardened.get_weights())
    for other in weights[1:]:
        for a, b in zip(weights[0], other, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-3)


@pytest.mark.parametrize(
    "defense",
    ["trades", *(pytest.param(n, marks=pytest.mark.long) for n in OTHERS)],
)
def test_it_withstands_more(defense):
    """TRADES' first steps are the largest: it once ended in one answer."""
    x, y = digits.training_images(700)
    model = digits.classifier()
    hardened = atat.harden(
        model, x, y, defense=defense, epsilon=16 / 255, epochs=6, verbose=0
    )
    before, after = (
        atat.robust_accuracy(m, x[:200], y[:200], "pgd10", epsilon=16 / 255)
        for m in (model, hardened)
    )
    assert after.accuracy["pgd10"] > before.accuracy["pgd10"] + 0.1


class _Unclonable(keras.Model):
    def __init__(self, number):
        super().__init__()
        self.inner = digits.classifier()
        self.inner.name = f"inner_{number}"

    def call(self, images):
        return self.inner(images)


REFUSED = {
    "defense": ({"defense": "atta"}, "Did you mean 'atat'"),
    "no defense": ({"defense": 3}, "a defense, as atat.ATAT"),
    "epochs": ({"epochs": 0}, "epochs >= 1"),
    "shares": ({"y": np.full((96, 10), 0.2)}, "sum to 1"),
    "validation": ({"validation": X}, "validation of the type tuple or None"),
    "function": ({"model": lambda images: images}, "model of the type Model"),
    "validation data": ({"validation_data": (X, Y)}, "validation=.images, lab"),
    "validation split": ({"validation_split": 0.5}, "validation=.images, lab"),
    "callbacks": ({"callbacks": 3}, "a list of callbacks"),
    "no map": (
        {
            "model": keras.Sequential(
                [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)]
            )
        },
        "spatial map",
    ),
}


@pytest.mark.parametrize("arguments, message", REFUSED.values(), ids=REFUSED)
def test_refusals(arguments, message):
    given = {"model": digits.classifier(), "x": X, "y": Y, **FIT, **arguments}
    with pytest.raises(InputError, match=message):
        atat.harden(given.pop("model"), given.pop("x"), given.pop("y"), **given)


class _Shifted(layers.Layer):
    """Its configuration forgets what it adds."""

    offset = 0.0

    def call(self, images):
        return images + self.offset


def test_a_copy_that_is_another_function_is_refused():
    shifted = _Shifted()
    shifted.offset = 3.0
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), shifted, digits.classifier()]
    )
    with pytest.raises(InputError, match="get_config.. of each of its layers"):
        atat.harden(model, X, Y, **FIT)


def test_a_checkpoint_is_the_model_that_is_returned(tmp_path):
    path = tmp_path / "saved.keras"
    keeper = keras.callbacks.ModelCheckpoint(path)
    hardened = atat.harden(
        digits.classifier(),
        255 * X,
        Y,
        **{**FIT, "epsilon": 8},
        bounds=(0, 255),
        callbacks=[keeper],
    )
    np.testing.assert_array_equal(
        keras.saving.load_model(path).predict(255 * X, verbose=0),
        hardened.predict(255 * X, verbose=0),
    )


@pytest.mark.parametrize(
    "steps, fit",
    [(6, {}), (4, {"steps_per_epoch": 2}), (3, {"initial_epoch": 1})],
)
def test_a_schedule_ends_with_the_training(steps, fit):
    with mock.patch.object(
        hardening, "AdversarialTrainer", wraps=hardening.AdversarialTrainer
    ) as built:
        atat.harden(
            digits.classifier(),
            X,
            Y,
            defense=atat.ATAT(attention_schedule=(0.5, 0.0)),
            **{**FIT, "epochs": 2},
            **fit,
        )
    assert built.call_args.kwargs["num_steps"] == steps


def test_a_model_that_cannot_be_copied_is_refused():
    with pytest.raises(InputError, match="can be copied"):
        atat.harden(_Unclonable(3), X, Y, **FIT)
