"""The training step: one SGD step by hand, what moves and what must not."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import losses
from atat_tf.attacks import for_training, linf
from atat_tf.defenses import atat, compared
from atat_tf.errors import InputError
from atat_tf.models import graphs
from atat_tf.training import trainer
from tests.support import toys

_ATTACK = linf.pgd(8 / 255, 4 / 255, 2)
_KL_ATTACK = for_training.trades(8 / 255, 4 / 255, 2)


def _linear_classifier(kernel, l2=0.0):
    inputs = keras.Input((1, 1, 2))
    x = keras.layers.Flatten()(inputs)
    regularizer = keras.regularizers.L2(l2) if l2 else None
    dense = keras.layers.Dense(2, kernel_regularizer=regularizer)
    model = keras.Model(inputs, dense(x))
    dense.set_weights([np.array(kernel, np.float32), np.zeros(2, np.float32)])
    return model


def _step(built, images, labels, weights=None):
    data = (images, labels) if weights is None else (images, labels, weights)
    built.make_train_function()
    return built.train_function(iter([data]))


def _trainer(student, defense, attack=_ATTACK, teacher=None, **optimizer):
    built = trainer.AdversarialTrainer(student, defense, attack, teacher)
    built.compile(keras.optimizers.SGD(**(optimizer or {"learning_rate": 0.1})))
    return built


class ByHandTest(tf.test.TestCase):
    """One image x = (0.2, 0.6) of class 0, W = 0: both softmaxes are ½.

    dL/dlogits = p − onehot = (−½, ½); dL/dW = x ⊗ (−½, ½).
    """

    images = tf.constant([0.2, 0.6], shape=(1, 1, 1, 2))
    labels = tf.constant([0])

    def test_standard_step(self):
        student = _linear_classifier([[0, 0], [0, 0]])
        built = _trainer(student, atat.Standard(), None, learning_rate=1.0)
        logs = _step(built, self.images, self.labels)
        kernel, bias = student.get_weights()
        self.assertAllClose(kernel, [[0.1, -0.1], [0.3, -0.3]], 1e-6)
        self.assertAllClose(bias, [0.5, -0.5])
        self.assertAllClose(logs["loss"], np.log(2))

    def test_adversarial_step(self):
        """FGSM, ε = 0.1, on W = ((0, 1), (0, −1)), class 0.

        ∇_x L = W (p − onehot) = (1 − p_0) · (1, −1), so x_adv = (0.3, 0.5).
        Logits there (0, −0.2): p_0 = 1/(1 + e^−0.2); dL/dW = x_adv ⊗
        (p_0 − 1, 1 − p_0).
        """
        student = _linear_classifier([[0, 1], [0, -1]])
        defense = atat.AdversarialTraining(clean_weight=0)
        built = _trainer(student, defense, linf.fgsm(0.1), learning_rate=1.0)
        _step(built, self.images, self.labels)
        wrong = 1 - 1 / (1 + np.exp(-0.2))
        self.assertAllClose(
            student.get_weights()[0],
            [[0.3 * wrong, 1 - 0.3 * wrong], [0.5 * wrong, -1 - 0.5 * wrong]],
            1e-6,
        )

    def test_weight_decay_is_half_the_squared_norm(self):
        """2e-4 · ½‖w‖² has gradient 2e-4 · w, Keras' L2(1e-4) the same."""
        start = np.array([[3.0, -1.0], [0.5, 2.0]], np.float32)
        steps = []
        for l2 in (0.0, 1e-4):
            student = _linear_classifier(start, l2)
            built = _trainer(student, atat.Standard(), None, learning_rate=1.0)
            _step(built, self.images, self.labels)
            steps.append(student.get_weights()[0])
        self.assertAllClose(steps[0] - steps[1], 2e-4 * start, 1e-6, 1e-6)

    def test_sample_weights_scale_an_example(self):
        images = tf.repeat(self.images, 2, axis=0)
        kernels = []
        for weights in ([1.0, 1.0], [2.0, 0.0]):
            student = _linear_classifier([[0, 0], [0, 0]])
            built = _trainer(student, atat.Standard(), None)
            _step(built, images, tf.constant([0, 0]), tf.constant(weights))
            kernels.append(student.get_weights()[0])
        self.assertAllClose(*kernels)

    def test_an_even_score_is_wrong(self):
        """As in every evaluation; Keras' accuracy takes the first class."""
        student = _linear_classifier([[0, 0], [0, 0]])
        defense = atat.AdversarialTraining(clean_weight=0.5)
        built = _trainer(student, defense, linf.fgsm(0.1), learning_rate=0.0)
        logs = _step(built, self.images, self.labels)
        self.assertEqual(logs["clean_accuracy"], 0)
        self.assertEqual(logs["adversarial_accuracy"], 0)
        student.set_weights([np.eye(2)[[0, 0]], np.zeros(2)])
        built.reset_metrics()
        logs = _step(built, self.images, self.labels)
        self.assertEqual(logs["clean_accuracy"], 1)
        self.assertEqual(logs["adversarial_accuracy"], 1)


class StepTest(parameterized.TestCase, tf.test.TestCase):
    images = toys.random_images(6)
    labels = toys.random_labels(6)

    def test_uint8_images_are_divided_by_255(self):
        pixels = np.arange(6 * 192, dtype=np.uint8).reshape(6, 8, 8, 3)
        kernels = []
        for images in (pixels, pixels.astype(np.float32) / 255):
            student = toys.small_classifier(1)
            built = _trainer(student, atat.AdversarialTraining())
            _step(built, tf.constant(images), self.labels)
            kernels.append(student.get_weights()[0])
        self.assertAllClose(*kernels, 1e-6, 1e-6)

    @parameterized.parameters(*(set(atat.DEFENSES) - {"standard"}))
    @pytest.mark.long
    def test_mixed_precision_keeps_losses_and_weights_in_float32(self, name):
        defense = atat.DEFENSES[name]()
        with toys.precision("mixed_bfloat16"):
            student = toys.small_classifier(1)
            teacher = toys.small_classifier(2)
        convolution = student.get_layer("hidden_conv")
        self.assertEqual(convolution.compute_dtype, "bfloat16")
        objective = defense(
            graphs.with_taps(student, defense.layers),
            graphs.with_taps(teacher, defense.layers),
            self.images,
            self.images,
            self.labels,
        )
        for values in (objective.loss, *objective.terms.values()):
            self.assertEqual(values.dtype, tf.float32)
        attack = _KL_ATTACK if name == "trades" else _ATTACK
        built = _trainer(student, defense, attack, teacher)
        logs = _step(built, self.images, self.labels)
        self.assertTrue(np.isfinite(float(logs["loss"])))
        self.assertEqual({w.dtype for w in student.weights}, {"float32"})

    def test_average_of_weights(self):
        """After two steps the average is m · w1 + (1 − m) · w2."""
        student = toys.small_classifier(1)
        average = {"use_ema": True, "ema_momentum": 0.75}
        optimizer = {"learning_rate": 0.1, **average}
        built = _trainer(student, atat.Standard(), None, **optimizer)
        seen = []
        for _ in range(2):
            _step(built, self.images, self.labels)
            seen.append(student.trainable_variables[0].numpy())
        built.optimizer.finalize_variable_values(student.trainable_variables)
        self.assertAllClose(
            student.trainable_variables[0], 0.75 * seen[0] + 0.25 * seen[1]
        )

    def test_average_of_statistics(self):
        """After two steps m · s1 + (1 − m) · s2, as that of the weights."""
        student = toys.small_classifier(1)
        built = trainer.AdversarialTrainer(
            student, atat.Standard(), statistics_momentum=0.75
        )
        built.compile(keras.optimizers.SGD(0.1))
        statistics, averages = zip(*built.averaged_statistics, strict=True)
        self.assertCountEqual(
            [s.path for s in statistics],
            [v.path for v in student.non_trainable_variables],
        )
        seen = []
        for _ in range(2):
            _step(built, self.images, self.labels)
            seen.append(toys.values(statistics))
        for average, first, second in zip(averages, *seen, strict=True):
            self.assertNotAllClose(first, second)
            self.assertAllClose(average, 0.75 * first + 0.25 * second)

    def test_weights_of_losses_follow_the_step(self):
        """Warm-up over two of four steps: λ2 is 0, then half, then whole."""
        seen, pairings = [], []
        for defense in (
            atat.LogitPairing(2.0, logit_schedule=(0.5, 0.0)),
            atat.LogitPairing(0.0),
        ):
            built = trainer.AdversarialTrainer(
                toys.small_classifier(1), defense, _ATTACK, num_steps=4
            )
            built.compile(keras.optimizers.SGD(0.0))
            for _ in range(3):
                built.reset_metrics()
                logs = _step(built, self.images, self.labels)
                seen.append(float(logs["loss"]))
                pairings.append(float(logs["logit_pairing"]))
        added = np.array(seen[:3]) - seen[3:]
        expected = 2.0 * np.array([0.0, 0.5, 1.0]) * pairings[:3]
        self.assertAllClose(added, expected, 1e-4, 1e-5)


class RefusalTest(parameterized.TestCase):
    @parameterized.parameters(
        (atat.AdversarialTraining(), None, None, "attack for Adversarial"),
        (compared.TRADES(), _ATTACK, None, "kl_divergence for TRADES"),
        (
            compared.TRADES(),
            dataclasses.replace(_ATTACK, loss_fn=losses.kl_divergence),
            None,
            "the clean logits for labels, as atat.trades",
        ),
        (atat.ATAT(), _ATTACK, None, "a teacher for ATAT"),
        (atat.ATAT(layers=("nowhere",)), _ATTACK, 2, "features.*'nowhere'"),
        (
            atat.LogitPairing(logit_schedule=(0.5, 0.0)),
            _ATTACK,
            None,
            "num_steps for a defense",
        ),
    )
    def test_what_is_missing(self, defense, attack, teacher, message):
        student = toys.small_classifier()
        teacher = teacher and toys.small_classifier(teacher)
        with self.assertRaisesRegex(InputError, message):
            trainer.AdversarialTrainer(student, defense, attack, teacher)
