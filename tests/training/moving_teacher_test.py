"""A teacher that is the student's running average: by hand, and resumed."""

import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.defenses import atat
from atat_tf.errors import InputError
from atat_tf.models import wide_resnet
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.training import trainer
from atat_tf.training.machines import workers
from atat_tf.training.records import files
from tests.support import runs, toys

_ATTACK = linf.pgd(8 / 255, 4 / 255, 1)


def _built(momentum, defense=None):
    built = trainer.AdversarialTrainer(
        toys.small_classifier(1),
        defense or atat.ATAT(layers="deepest"),
        _ATTACK,
        toys.small_classifier(2),
        teacher_momentum=momentum,
    )
    built.compile(keras.optimizers.SGD(0.1))
    built.make_train_function()
    return built


def _step(built, count=1):
    batch = toys.random_images(4), toys.random_labels(4)
    for _ in range(count):
        built.train_function(iter([batch]))


class MovingTeacherTest(parameterized.TestCase, tf.test.TestCase):
    def test_weights_and_statistics_after_a_step(self):
        built = _built(0.75)
        before = toys.values(built.teacher.weights)
        _step(built)
        after = toys.values(built.student.weights)
        for was, student, teacher in zip(
            before, after, built.teacher.weights, strict=True
        ):
            self.assertAllClose(teacher, 0.75 * was + 0.25 * student)
            self.assertNotAllClose(teacher, was)

    def test_the_second_step_sees_the_moved_teacher(self):
        moving, still = _built(0.5), _built(0.0)
        for built in (moving, still):
            _step(built)
        self.assertAllEqual(moving.student.weights[0], still.student.weights[0])
        for built in (moving, still):
            _step(built)
        self.assertNotAllEqual(
            moving.student.weights[0], still.student.weights[0]
        )

    def test_a_resumed_training_has_the_same_bits(self):
        folder = pathlib.Path(self.get_temp_dir())
        group = workers.WorkerGroup(tf.distribute.get_strategy())
        config = runs.config(teacher_momentum=0.5)
        whole, killed, resumed = (_built(0.5) for _ in range(3))
        _step(whole, 4)
        _step(killed, 2)
        saved = files.TrainingFiles(folder, config, killed, group)
        saved.save(files.Progress(step=2))
        files.TrainingFiles(folder, config, resumed, group).restore()
        _step(resumed, 2)
        for model in ("student", "teacher"):
            for here, there in zip(
                getattr(whole, model).weights,
                getattr(resumed, model).weights,
                strict=True,
            ):
                np.testing.assert_array_equal(here, there)

    def test_refuses_what_it_cannot_do(self):
        accumulated = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        with self.assertRaisesRegex(InputError, "parts of a batch"):
            _built(0.5).compile(accumulated)
        with self.assertRaisesRegex(InputError, "of another network"):
            trainer.AdversarialTrainer(
                toys.small_wide_resnet(),
                atat.ATAT(),
                _ATTACK,
                wide_resnet.wide_resnet(
                    toys.IMAGE_SHAPE, toys.NUM_CLASSES, 16, 1
                ),
                teacher_momentum=0.5,
            )
        with self.assertRaisesRegex(InputError, "which has no teacher"):
            _built(0.5, atat.AdversarialTraining())
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            with self.assertRaisesRegex(InputError, "mirrored"):
                _built(0.5)
        config = run_config.resolve(runs.config("at", teacher_momentum=0.5))
        with self.assertRaisesRegex(InputError, "0 without a teacher"):
            run_checks.validate(config)
        config = run_config.resolve(runs.config(teacher_momentum=0.5))
        two = type("Two", (), {"num_replicas_in_sync": 2})()
        with self.assertRaisesRegex(InputError, "several devices"):
            run_checks.expect_a_batch(config, datasets.load("digits"), two)
