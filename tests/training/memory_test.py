"""Micro-batches, small attack batches, recomputed activations: same weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.attacks import linf
from atat_tf.defenses import atat
from atat_tf.errors import InputError
from atat_tf.models import graphs, wide_resnet
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.training import micro_batches, recomputation, trainer
from tests.support import runs, toys

_ATTACK = linf.pgd(8 / 255, 4 / 255, 2)
_MADRY = atat.AdversarialTraining(clean_weight=0)


def _classifier(seed, norm=True):
    return toys.small_classifier(seed, norm)


def _wide(seed):
    return toys.small_wide_resnet(seed)


def _after_a_step(make, defense, rows=6, penalty=True, **memory):
    """Returns every variable after a step in float64, and the step's logs."""
    with toys.precision("float64", "float64"):
        student, teacher = make(1), make(2)
        if penalty:
            for variable in student.trainable_variables:
                variable.regularizer = keras.regularizers.L2(0.01)
        attack = _ATTACK if defense.needs_attack else None
        built = trainer.AdversarialTrainer(
            student, defense, attack, teacher, seed=5, **memory
        )
        built.compile(keras.optimizers.SGD(0.1, momentum=0.9))
        data = (
            toys.random_images(rows, dtype="float64"),
            toys.random_labels(rows),
        )
        built.make_train_function()
        logs = built.train_function(iter([data]))
        variables = [*student.variables, *built.optimizer.variables]
        logs = {name: float(value) for name, value in logs.items()}
        return toys.values(variables), logs


class InPiecesTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.product(size=(0, 1, 2, 3, 6, 9), static=(True, False))
    def test_rows_in_order_and_pieces_one_after_another(self, size, static):
        rows = tf.reshape(tf.range(12.0), (6, 2))

        def step(pieces, carried):
            (piece,) = pieces
            # What is carried tells how many pieces came before.
            return carried + 1, piece + 100.0 * carried

        @tf.function(
            input_signature=[tf.TensorSpec([6 if static else None, 2])]
        )
        def run(rows):
            return micro_batches.in_pieces(
                step, (rows,), size, (2,), tf.constant(0.0)
            )

        carried, outputs = run(rows)
        size = min(size or 6, 6)
        self.assertEqual(carried, -(-6 // size))
        before = np.arange(6)[:, None] // size
        self.assertAllEqual(outputs, rows + 100.0 * before)


class MicroBatchesTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.product(
        defense=(atat.Standard(), _MADRY, atat.ATAT()),
        size=(2, 4),
    )
    def test_without_batch_norm_the_whole_batch_s_weights(self, defense, size):
        """Also in unequal pieces (4 and 2), with L2 counted once."""
        make = lambda seed: _classifier(seed, norm=False)  # noqa: E731
        whole, logs = _after_a_step(make, defense)
        pieces, pieces_logs = _after_a_step(
            make, defense, micro_batch_size=size
        )
        for here, there in zip(pieces, whole, strict=True):
            self.assertAllClose(here, there, 1e-12, 1e-12)
        self.assertEqual(logs.keys(), pieces_logs.keys())
        for name, value in logs.items():
            self.assertAllClose(pieces_logs[name], value, 1e-12, 1e-12)

    def test_batch_norm_statistics_are_those_of_each_micro_batch(self):
        """Three pairs: stored means move by 0.01 of each pair's, in turn."""
        defense = atat.Standard()
        after, _ = _after_a_step(_classifier, defense, micro_batch_size=2)
        with toys.precision("float64", "float64"):
            model = _classifier(1)
            names = [variable.path for variable in model.variables]
            place = names.index("hidden_norm/moving_mean")
            images = toys.random_images(6, dtype="float64")
            convolved = keras.Model(
                model.inputs, model.get_layer("hidden_conv").output
            )(images)
            expected = toys.values(model.variables)[place]
            momentum = model.get_layer("hidden_norm").momentum
            for pair in np.split(np.asarray(convolved), 3):
                mean = pair.mean(axis=(0, 1, 2))
                expected = momentum * expected + (1 - momentum) * mean
        self.assertAllClose(after[place], expected, 1e-12, 1e-12)

    def test_synchronized_batch_norm_is_refused(self):
        student = wide_resnet.wide_resnet(
            (8, 8, 3), 5, 10, 1, synchronized=True
        )
        with self.assertRaisesRegex(
            InputError, "sync_batch_norm=False with micro-batches"
        ):
            trainer.AdversarialTrainer(
                student, atat.Standard(), micro_batch_size=2
            )
        config = run_config.resolve(
            runs.config(sync_batch_norm=True, micro_batch_size=8)
        )
        with self.assertRaisesRegex(InputError, "sync_batch_norm=False"):
            run_checks.validate(config)

    @parameterized.parameters("micro_batch_size", "attack_batch_size")
    def test_sizes_are_not_negative(self, field):
        config = run_config.resolve(runs.config(**{field: -1}))
        with self.assertRaisesRegex(InputError, f"Expected {field} >= 0"):
            run_checks.validate(config)


class AttackBatchesTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(1, 3, 4)
    def test_equal_results(self, size):
        """Random starts and batch norm (in inference mode) included."""
        defense = atat.AdversarialTraining()
        whole, _ = _after_a_step(_classifier, defense)
        pieces, _ = _after_a_step(_classifier, defense, attack_batch_size=size)
        for here, there in zip(pieces, whole, strict=True):
            self.assertAllClose(here, there, 1e-12, 1e-12)


class RecomputationTest(parameterized.TestCase, tf.test.TestCase):
    def test_the_gradient_of_the_whole_objective_is_unchanged(self):
        """Eq. 7 with λ1 = λ2 = 1, in weights, momentum and statistics."""
        layers = ("group1_0_add", "features")
        self._assert_unchanged(atat.ATAT(layers=layers))

    @parameterized.parameters((atat.Standard(),), (atat.ATAT(),))
    @pytest.mark.long
    def test_the_gradient_of_other_objectives_is_unchanged(self, defense):
        self._assert_unchanged(defense)

    def _assert_unchanged(self, defense):
        kept, logs = _after_a_step(_wide, defense)
        again, again_logs = _after_a_step(_wide, defense, remat=True)
        for here, there in zip(again, kept, strict=True):
            self.assertAllClose(here, there, 1e-10, 1e-10)
        self.assertAllClose(again_logs, logs, 1e-12, 1e-12)

    @pytest.mark.long
    def test_together_with_micro_batches(self):
        sizes = {"micro_batch_size": 3, "attack_batch_size": 2}
        kept, _ = _after_a_step(_wide, atat.ATAT(), **sizes)
        again, _ = _after_a_step(_wide, atat.ATAT(), remat=True, **sizes)
        for here, there in zip(again, kept, strict=True):
            self.assertAllClose(here, there, 1e-10, 1e-10)

    def test_only_below_the_lowest_attention_layer(self):
        counts = {}
        for layer in ("features", "group1_0_add", "stem"):
            tapped = graphs.with_taps(_wide(1), [layer])
            recomputed = recomputation.Recomputed(tapped, [layer])
            counts[layer] = recomputed.num_segments
        self.assertGreater(counts["features"], 1)
        self.assertGreaterEqual(counts["features"], counts["group1_0_add"])
        self.assertLessEqual(counts["stem"], 1)

    def test_dropout_keeps_its_mask(self):
        """The gradient is that of the mask of the forward pass."""
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(8, 3, name="first")(inputs)
        x = keras.layers.Dropout(0.5, seed=1)(x)
        x = keras.layers.Conv2D(8, 3, name="second")(x)
        x = keras.layers.Conv2D(8, 3, name="third")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, keras.layers.Dense(5, name="logits")(x))
        tapped = graphs.with_taps(model, [])
        images = toys.random_images(4)
        found = []
        for call in (tapped, recomputation.Recomputed(tapped, [])):
            for variable in model.non_trainable_variables:
                variable.assign(tf.ones_like(variable))

            @tf.function
            def gradient(call=call):
                with tf.GradientTape() as tape:
                    logits = call(images, training=True)["logits"]
                    loss = tf.reduce_sum(tf.square(logits))
                return tape.gradient(loss, model.trainable_variables)

            found.append(gradient())
        for here, there in zip(*found, strict=True):
            self.assertAllClose(here, there, 1e-5, 1e-5)


if __name__ == "__main__":
    tf.test.main()
