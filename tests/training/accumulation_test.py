"""Gradient accumulation: the weights of the whole batch, in less memory."""

import pathlib
import types

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.defenses import atat
from atat_tf.errors import InputError
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.training import trainer
from atat_tf.training.machines import workers
from atat_tf.training.records import files
from tests.support import runs, toys

# Without random starts, which depend on the part of the batch.
_ATTACK = linf.LinfAttack(8 / 255, 4 / 255, 2, random_start=False)


def _compiled(defense, attack, parts, norm=False):
    student, teacher = (toys.small_classifier(n, norm) for n in (1, 2))
    for variable in student.trainable_variables:
        variable.regularizer = keras.regularizers.L2(0.01)
    built = trainer.AdversarialTrainer(student, defense, attack, teacher)
    built.compile(
        keras.optimizers.SGD(
            0.1, momentum=0.9, gradient_accumulation_steps=parts
        )
    )
    built.make_train_function()
    return built


class AccumulationTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        (atat.Standard(), None),
        (atat.AdversarialTraining(clean_weight=0), _ATTACK),
        (atat.ATAT(), _ATTACK),
    )
    def test_without_batch_norm_the_weights_of_the_whole_batch(
        self, defense, attack
    ):
        """Two updates of 6 images, at once or 2 at a time, with L2."""
        images = toys.random_images(12, dtype="float64")
        labels = toys.random_labels(12)
        after = {}
        for parts in (None, 3):
            with toys.precision("float64", "float64"):
                built = _compiled(defense, attack, parts)
                size = 6 // (parts or 1)
                for start in range(0, 12, size):
                    rows = slice(start, start + size)
                    batch = images[rows], labels[rows]
                    built.train_function(iter([batch]))
                logs = {m.name: float(m.result()) for m in built.metrics}
                weights = toys.values(built.student.variables)
                after[parts] = weights, logs
        for here, there in zip(after[3][0], after[None][0], strict=True):
            self.assertAllClose(here, there, 1e-12, 1e-12)
        self.assertAllClose(after[3][1], after[None][1], 1e-9)

    def test_random_starts_do_not_repeat_within_a_batch(self):
        """The same images twice: what is added up differs."""
        attack = linf.LinfAttack(8 / 255, 1e-6, 1)
        built = _compiled(atat.AdversarialTraining(), attack, 3)
        batch = toys.random_images(4), toys.random_labels(4)

        def added_up():
            built.train_function(iter([batch]))
            variables = built.optimizer.variables
            return np.concatenate(
                [
                    np.ravel(variable)
                    for variable in variables
                    if variable.name.endswith("gradient_accumulator")
                ]
            )

        first = added_up()
        second = added_up() - first
        self.assertGreater(np.max(np.abs(first)), 0)
        self.assertNotAllClose(first, second, 1e-4, 1e-6)
        self.assertEqual(int(built.optimizer.iterations), 0)
        self.assertEqual(int(built.steps_taken), 2)

    def test_a_resumed_training_has_the_same_bits(self):
        """A checkpoint holds what is added up, and where random starts are."""
        attack = linf.LinfAttack(8 / 255, 4 / 255, 2)
        batch = toys.random_images(4), toys.random_labels(4)
        folder = pathlib.Path(self.get_temp_dir())
        group = workers.WorkerGroup(tf.distribute.get_strategy())

        def start():
            built = _compiled(atat.AdversarialTraining(), attack, 2, norm=True)
            saved = files.TrainingFiles(folder, runs.config("at"), built, group)
            return built, saved

        def go_on(built, steps):
            for _ in range(steps):
                built.train_function(iter([batch]))

        whole, _ = start()
        go_on(whole, 6)
        killed, saved = start()
        go_on(killed, 3)
        saved.save(files.Progress(step=1))
        resumed, saved = start()
        self.assertEqual(saved.restore().step, 1)
        go_on(resumed, 3)
        for here, there in zip(whole.variables, resumed.variables, strict=True):
            self.assertAllEqual(here, there)

    def test_a_mirrored_strategy_is_refused(self):
        with (
            tf.distribute.MirroredStrategy(["CPU:0"]).scope(),
            self.assertRaisesRegex(InputError, "in a mirrored strategy"),
        ):
            _compiled(atat.Standard(), None, 2)


class ConfigTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"gradient_accumulation_steps": 1}, "steps.*from 2.*=1"),
        ({"gradient_accumulation_steps": -2}, "steps.*from 2.*=-2"),
        ({"gradient_accumulation_steps": 3}, "divisor of batch_size=64.*=3"),
        ({"gradient_accumulation_steps": 2, "optimizer__ema": 0.9}, "ema=0"),
    )
    def test_what_is_refused(self, overrides, message):
        config = run_config.resolve(runs.config(**overrides))
        with self.assertRaisesRegex(InputError, f"Expected .*{message}"):
            run_checks.validate(config)

    def test_several_devices_are_refused(self):
        config = run_config.resolve(runs.config(gradient_accumulation_steps=2))
        dataset = datasets.load("digits")
        one, two = (
            types.SimpleNamespace(num_replicas_in_sync=n) for n in (1, 2)
        )
        run_checks.expect_a_batch(config, dataset, one)
        with self.assertRaisesRegex(InputError, "several devices"):
            run_checks.expect_a_batch(config, dataset, two)

    def test_configs_from_before(self):
        """Archived runs have the fields of other ways, all of them off."""
        values = run_config.to_dict(run_config.resolve(runs.config()))
        del values["gradient_accumulation_steps"]
        off = {"micro_batch_size": 0, "attack_batch_size": 0, "remat": False}
        read = run_config.from_dict({**values, **off})
        self.assertEqual(read.gradient_accumulation_steps, 0)
        self.assertNotIn("remat", read)
        for field in off:
            with self.assertRaisesRegex(InputError, f"Received: {field}=8"):
                run_config.from_dict({**values, **off, field: 8})
