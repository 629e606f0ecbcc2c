"""What people expect of a Keras model holds of the trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from atat_tf.attacks import for_training, linf
from atat_tf.defenses import atat
from atat_tf.errors import InputError
from atat_tf.training.trainer import AdversarialTrainer
from tests.support import digits, toys

X, Y = digits.training_images(64)
PGD = linf.pgd(8 / 255, 4 / 255, 2)
SHARES = np.float32(0.9) * np.eye(10, dtype=np.float32)[Y] + np.float32(0.01)


def _trainer(student, defense, attack=PGD, teacher=None, **compiled):
    built = AdversarialTrainer(student, defense, attack, teacher)
    built.compile(**{"optimizer": keras.optimizers.SGD(0.05), **compiled})
    return built


def _defenses():
    for name, kind in atat.DEFENSES.items():
        defense = kind()
        attack = PGD
        if getattr(defense, "attack_loss", None):
            attack = for_training.trades(8 / 255, 4 / 255, 2)
        yield pytest.param(defense, attack, id=name)


@pytest.mark.parametrize("defense, attack", [*_defenses()])
def test_every_defense_takes_any_model_metrics_and_shares(defense, attack):
    """By its own defaults, on a foreign model; `evaluate` is under attack.

    All kernels of the student move, and nothing of the teacher.
    """
    student = digits.classifier()
    teacher = digits.classifier() if defense.needs_teacher else None
    top = keras.metrics.TopKCategoricalAccuracy(2, name="top2")
    built = _trainer(
        student, defense, attack, teacher, metrics=["accuracy", top]
    )
    assert (built.teacher is not None) == defense.needs_teacher
    before = student.get_weights()
    history = built.fit(
        X,
        SHARES,
        batch_size=32,
        verbose=0,
        validation_data=(X, SHARES),
        callbacks=[keras.callbacks.EarlyStopping("val_adversarial_accuracy")],
    ).history
    assert np.all(np.isfinite([*history.values()]))
    assert {*defense.terms} <= {*history}
    for old, new in zip(before, student.get_weights(), strict=True):
        # Batch norm takes a bias before it out again.
        assert old.ndim == 1 or np.any(old != new)
    if teacher:
        for old, new in zip(before, teacher.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    scores = built.evaluate(X, SHARES, verbose=0, return_dict=True)
    assert {"clean_accuracy", "adversarial_accuracy", "accuracy", "top2"} <= {
        *scores
    }
    assert scores["accuracy"] == scores["clean_accuracy"] <= scores["top2"]
    assert scores["adversarial_accuracy"] <= scores["clean_accuracy"]


def test_the_given_softmax_model_is_trained_whole():
    model = digits.classifier()
    built = _trainer(model, atat.AdversarialTraining())
    built.fit(X, Y, verbose=0)
    logits = built.student.predict(X, verbose=0)
    np.testing.assert_allclose(
        tf.nn.softmax(logits), model.predict(X, verbose=0), 1e-4, 1e-6
    )


def test_shares_are_the_target():
    """Of one linear layer at zero: dL/db = p − y."""
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)]
    )
    model.layers[-1].set_weights([np.zeros((64, 10)), np.zeros(10)])
    built = _trainer(
        model, atat.Standard(), None, optimizer=keras.optimizers.SGD(1.0)
    )
    shares = np.random.default_rng(0).dirichlet(np.ones(10), len(X))
    built.fit(X, shares, batch_size=len(X), verbose=0)
    np.testing.assert_allclose(
        model.layers[-1].bias.numpy(), shares.mean(0) - 0.1, atol=1e-6
    )


class _Added(layers.Layer):
    def call(self, x):
        self.add_loss(0.1 * keras.ops.mean(x))
        return x


def test_activity_regularizers_and_add_loss_are_minimised():
    """λ · mean over the batch of Σ a², and 0.1 · mean a, as Keras has them."""

    def build(strength):
        image = keras.Input((8, 8, 1))
        regularizer = keras.regularizers.L2(strength) if strength else None
        x = layers.Conv2D(4, 3, activity_regularizer=regularizer)(image)
        x = _Added()(x) if strength else x
        x = layers.GlobalAveragePooling2D()(x)
        return toys.randomise(keras.Model(image, layers.Dense(10)(x)))

    gradients = []
    for strength in (0.0, 1e-2):
        model = build(strength)
        built = _trainer(
            model, atat.Standard(), None, optimizer=keras.optimizers.SGD(1.0)
        )
        before = model.layers[1].bias.numpy()
        maps = keras.Model(model.inputs[0], model.layers[1].output)(X).numpy()
        built.fit(X, Y, batch_size=len(X), verbose=0)
        gradients.append(before - model.layers[1].bias.numpy())
    expected = 2 * 1e-2 * maps.sum((1, 2)).mean(0) + 0.1 / 4
    np.testing.assert_allclose(
        gradients[1] - gradients[0], expected, 1e-3, 1e-5
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_moves_weights_as_float32_does(policy):
    moved = []
    for name in ("float32", policy):
        with toys.precision(name):
            student, teacher = digits.classifier(), digits.classifier()
        before = student.get_weights()
        built = _trainer(
            student,
            atat.ATAT(),
            teacher=teacher,
            optimizer=keras.optimizers.SGD(1e-2),
        )
        # The scale of the loss begins too high, and the first steps skip.
        history = built.fit(
            X, Y, batch_size=len(X), epochs=12, verbose=0, shuffle=False
        ).history
        assert np.all(np.isfinite(history["loss"]))
        moved.append(
            [
                np.abs(a - b).max()
                for a, b in zip(before, student.get_weights(), strict=True)
            ]
        )
    assert built.student.outputs[0].dtype == "float32"
    ratio = np.array(moved[1]) / moved[0]
    assert np.all((ratio > 0.1) & (ratio < 10)), ratio
    is_scaled = isinstance(built.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (policy == "mixed_float16")


_WEIGHTS = {"NaN": np.nan, "infinite": np.inf, "negative": -1.0}


def _weighed(odd):
    """Yields what `fit` is given, with one odd weight in it."""
    weights = np.ones(len(X), np.float32)
    weights[40] = odd
    batches = tf.data.Dataset.from_tensor_slices((X, Y, weights)).batch(32)
    yield {"x": X, "y": Y, "sample_weight": weights}
    yield {"x": X, "y": Y, "sample_weight": weights.tolist()}
    yield {"x": X, "y": Y, "class_weight": {0: 1.0, 3: odd}}
    yield {"x": X, "y": Y, "validation_data": (X, Y, weights)}
    yield {"x": batches}
    yield {"x": (batch for batch in batches), "steps_per_epoch": 2}


@pytest.mark.parametrize("odd", _WEIGHTS.values(), ids=_WEIGHTS)
def test_weights_that_are_no_weights_are_refused(odd):
    student = digits.classifier()
    built = _trainer(student, atat.Standard(), None)
    for given in _weighed(odd):
        with pytest.raises(InputError, match="_weight|sample weight") as raised:
            built.fit(**given, verbose=0)
        assert "\n" not in str(raised.value)
        assert np.all(np.isfinite(built.student.predict(X, verbose=0)))
    if np.isnan(odd):
        with pytest.raises(InputError, match="sample_weight of finite"):
            built.evaluate(X, Y, sample_weight=np.full(64, odd), verbose=0)


@pytest.mark.parametrize(
    "weights", [np.ones((64, 10)), np.zeros(64)], ids=["[n, k]", "zeros"]
)
def test_weights_of_no_image_are_refused(weights):
    built = _trainer(digits.classifier(), atat.Standard(), None)
    with pytest.raises(InputError, match="one number for each|not all of them"):
        built.fit(X, Y, sample_weight=weights, verbose=0)


def test_too_few_weights_of_a_batch_are_refused():
    built = _trainer(digits.classifier(), atat.Standard(), None)
    batches = tf.data.Dataset.from_tensors((X, Y, np.ones(1)))
    with pytest.raises(InputError, match="weight >= 0 for each image"):
        built.fit(batches, verbose=0)


def test_layers_may_be_one_name():
    assert atat.ATAT(layers="maps") == atat.ATAT(layers=("maps",))
    assert atat.ATAT(layers=["maps"]).layers == ("maps",)


def test_a_trainer_has_no_config():
    built = _trainer(digits.classifier(), atat.Standard(), None)
    with pytest.raises(InputError, match="Expected the student"):
        built.get_config()
