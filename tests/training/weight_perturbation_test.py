"""Adversarial weight perturbation: one step by hand, what is left alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from atat_tf.attacks import linf
from atat_tf.defenses import atat
from atat_tf.errors import InputError
from atat_tf.training import trainer, weight_perturbation

_IMAGES = np.array([[0.2, 0.6], [0.7, 0.1]]).reshape(2, 1, 1, 2)
_LABELS = np.array([0, 1])


def _classifier(normalised=False):
    inputs = keras.Input((1, 1, 2))
    x = inputs
    if normalised:
        x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Flatten()(x)
    dense = keras.layers.Dense(2, name="dense")
    model = keras.Model(inputs, dense(x))
    dense.set_weights([np.array([[0.5, -0.2], [0.1, 0.3]]), np.array([0.1, 0])])
    return model


def _stepped(student, size, defense=None, attack=None):
    built = trainer.AdversarialTrainer(
        student,
        defense or atat.Standard(),
        attack,
        weight_perturbation=size,
    )
    built.compile(keras.optimizers.SGD(0.5))
    built.make_train_function()
    data = tf.constant(_IMAGES, tf.float32), tf.constant(_LABELS)
    built.train_function(iter([data]))
    return student


def _gradients(kernel, bias):
    """Returns dL/dW and dL/db of the mean cross-entropy, in NumPy."""
    x = _IMAGES.reshape(2, 2)
    z = x @ kernel + bias
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    error = (p - np.eye(2)[_LABELS]) / 2
    return x.T @ error, error.sum(0)


def test_a_step_by_hand():
    """The gradient is that at W + γ‖W‖ g/‖g‖, and W is what moves by it."""
    kernel, bias = np.array([[0.5, -0.2], [0.1, 0.3]]), np.array([0.1, 0])
    g, _ = _gradients(kernel, bias)
    worse = kernel + 0.3 * np.linalg.norm(kernel) * g / np.linalg.norm(g)
    g_kernel, g_bias = _gradients(worse, bias)
    found = _stepped(_classifier(), 0.3).get_layer("dense").get_weights()
    np.testing.assert_allclose(found[0], kernel - 0.5 * g_kernel, atol=1e-6)
    np.testing.assert_allclose(found[1], bias - 0.5 * g_bias, atol=1e-6)


def test_statistics_see_the_batch_once():
    moved = _stepped(_classifier(normalised=True), 1e-12)
    plain = _stepped(_classifier(normalised=True), 0.0)
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_array_equal(
            getattr(moved.get_layer("norm"), name),
            getattr(plain.get_layer("norm"), name),
        )


def test_the_loss_is_higher_there():
    """For a defense with an attack and both halves of the batch too."""
    attack = linf.pgd(0.1, 0.05, 2)
    defense = atat.AdversarialTraining()
    far = _stepped(_classifier(), 0.5, defense, attack)
    near = _stepped(_classifier(), 0.0, defense, attack)
    # Steeper where the loss is higher, for a convex loss.
    start = _classifier().get_layer("dense").get_weights()[0]
    moved = [
        np.linalg.norm(m.get_layer("dense").get_weights()[0] - start)
        for m in (far, near)
    ]
    assert moved[0] > moved[1]


def test_where_there_is_no_gradient_nothing_moves():
    zero, none = weight_perturbation.steps(
        [tf.ones([2, 2]), tf.ones([2])], [tf.zeros([2, 2]), None], 0.1
    )
    np.testing.assert_array_equal(zero, 0)
    np.testing.assert_array_equal(none, 0)


def test_refuses_several_devices_and_odd_sizes():
    with pytest.raises(InputError, match=r"weight_perturbation in \[0, 1\)"):
        _stepped(_classifier(), 1.0)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        with pytest.raises(InputError, match="mirrored"):
            _stepped(_classifier(), 0.1)
