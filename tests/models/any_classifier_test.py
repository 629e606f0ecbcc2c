"""Anybody's Keras classifier in the trainer, with the habits of Keras."""

import pathlib
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from keras import layers

from atat_tf.attacks import for_training, linf
from atat_tf.defenses import atat
from atat_tf.errors import InputError
from atat_tf.models import graphs
from atat_tf.training import trainer
from tests.support import toys
from tests.support.any_model import (
    NUM_CLASSES,
    SHAPE,
    arrays,
    sequential,
    subclassed,
)

_PGD = linf.pgd(8 / 255, 4 / 255, 2)
_ANY_LAYER = atat.ATAT(layers=(graphs.DEEPEST,))


def _trainer(student, teacher=None, attack=_PGD, defense=_ANY_LAYER):
    built = trainer.AdversarialTrainer(student, defense, attack, teacher)
    built.compile(keras.optimizers.SGD(0.1))
    return built


def _batches(images, labels):
    """Returns {name: the same batches, as people feed them}."""

    class Sequence(keras.utils.PyDataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, number):
            return images[number], labels[number]

    def generator():
        yield from zip(images, labels, strict=True)

    signature = (
        tf.TensorSpec([None, *SHAPE], tf.float32),
        tf.TensorSpec([None], labels[0].dtype),
    )
    return {
        "arrays": (np.concatenate(images), np.concatenate(labels)),
        "generator": (generator(), None),
        "sequence": (Sequence(), None),
        "dataset": (
            tf.data.Dataset.from_generator(
                generator, output_signature=signature
            ),
            None,
        ),
    }


class EveryBatchTest(parameterized.TestCase, tf.test.TestCase):
    """Each mistake, in the second of two batches, on every path."""

    @parameterized.parameters(
        ("range", "arrays"),
        ("range", "generator"),
        ("range", "sequence"),
        ("range", "dataset"),
        ("nan", "generator"),
        ("label", "dataset"),
        ("unlabelled", "sequence"),
        ("fraction", "generator"),
    )
    def test_a_later_batch_is_refused_in_a_sentence(self, mistake, how):
        images, labels = arrays(8)
        images, labels = [images[:4], images[4:]], [labels[:4], labels[4:]]
        labels = [part.astype("float32") for part in labels]
        pattern = "whole labels from 0 to 3"
        if mistake == "range":
            images[1], pattern = images[1] * 255, "pixels from 0 to 1"
        elif mistake == "nan":
            images[1] = np.where(images[1] > 0.9, np.nan, images[1])
            pattern = "pixels from 0 to 1"
        else:
            wrong = {"label": 4.0, "unlabelled": -1.0, "fraction": 0.5}
            labels[1] = np.full(4, wrong[mistake], np.float32)
        images = [part.astype("float32") for part in images]
        built = _trainer(sequential(), defense=atat.AdversarialTraining())
        for method in (built.fit, built.evaluate):
            x, y = _batches(images, labels)[how]
            with self.assertRaisesRegex(InputError, pattern):
                given = {"batch_size": 4} if how == "arrays" else {}
                method(x, y, verbose=0, **given)


class GeneratorTest(tf.test.TestCase):
    def test_images_of_another_size_are_refused(self):
        images, labels = (np.asarray(part) for part in arrays(8))
        small = images[:, ::2, ::2].astype("float32")
        built = _trainer(sequential(), defense=atat.AdversarialTraining())
        with self.assertRaisesRegex(InputError, "size that the student takes"):
            built.fit((batch for batch in [(small, labels)]), verbose=0)

    def test_so_are_those_of_a_later_batch(self):
        images, labels = (np.asarray(part) for part in arrays(8))
        batches = [(images, labels), (images[:, ::2], labels)]
        built = _trainer(sequential(), defense=atat.AdversarialTraining())
        with self.assertRaisesRegex(InputError, "Expected batches of .*shape="):
            built.fit((batch for batch in batches), verbose=0)


class FormsTest(parameterized.TestCase, tf.test.TestCase):
    """Data in the forms that people have them."""

    def setUp(self):
        super().setUp()
        self.built = _trainer(sequential(), defense=atat.Standard())

    def test_forms_of_one_set_give_one_figure(self):
        images, labels = (np.asarray(part) for part in arrays(8))
        named = {"image": images, "label": labels}
        dictionaries = tf.data.Dataset.from_tensor_slices(named).batch(8)
        expected = self.built.evaluate(images, labels, verbose=0)
        for x, y in (
            ([images], labels),
            (list(images), list(labels)),
            (dictionaries, None),
        ):
            found = self.built.evaluate(x, y, verbose=0)
            self.assertAllClose(found, expected, 1e-5)

    @parameterized.parameters(
        (lambda x, y: (x, y.astype(str)), "labels as numbers"),
        (lambda x, y: ({"image": x}, y), "images as one array"),
        (lambda x, y: ([x[0], x[1][::2]], y[:2]), "images of one size"),
        (
            lambda x, y: (tf.data.Dataset.from_tensor_slices((x, y)), None),
            r"batches of images \(dataset.batch",
        ),
        (
            lambda x, y: (
                tf.data.Dataset.from_tensors({"image": x, "kind": y}),
                None,
            ),
            'dictionaries of "image" and "label".*kind',
        ),
    )
    def test_others_are_refused(self, form, message):
        images, labels = (np.asarray(part) for part in arrays(8))
        with self.assertRaisesRegex(InputError, message):
            self.built.fit(*form(images, labels), verbose=0)


class RandomImagesTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.2),
        layers.RandomContrast(0.1),
        layers.Pipeline([layers.RandomTranslation(0.3, 0.3)]),
    )
    def test_layers_that_change_images_are_refused_by_name(self, layer):
        """The student would see another image than teacher and attack."""
        nested = keras.Sequential([keras.Input(SHAPE), layer], name="augment")
        student = keras.Sequential([keras.Input(SHAPE), nested, sequential()])
        with self.assertRaisesRegex(
            InputError, getattr(layer, "layers", [layer])[0].name
        ):
            _trainer(student, sequential())

    @parameterized.parameters(*atat.DEFENSES)
    def test_every_defense_that_compares_refuses_them(self, name):
        flip = layers.RandomFlip("horizontal")
        student = keras.Sequential([keras.Input(SHAPE), flip, sequential()])
        make = for_training.trades if name == "trades" else linf.pgd
        given = student, sequential(), make(8 / 255, 4 / 255, 2)
        defense = atat.DEFENSES[name]()
        if name in ("standard", "at"):  # of one image each
            self.assertIs(_trainer(*given, defense).defense, defense)
            return
        with self.assertRaisesRegex(InputError, flip.name):
            _trainer(*given, defense)


@pytest.mark.long
class ApplicationTest(tf.test.TestCase):
    def test_an_application(self):
        """keras.applications, nested as transfer learning has it."""

        def build():
            base = keras.applications.MobileNetV2(
                (32, 32, 3), alpha=0.35, include_top=False, weights=None
            )
            inputs = keras.Input((32, 32, 3))
            x = layers.GlobalAveragePooling2D()(base(inputs * 2.0 - 1.0))
            return keras.Model(inputs, layers.Dense(3)(x))

        student, teacher = build(), build()
        teacher.set_weights(student.get_weights())
        defense = atat.ATAT(layers=("block_12_add",))
        with self.assertRaisesRegex(InputError, "block_12_add.*'nowhere'"):
            _trainer(student, teacher, defense=atat.ATAT(layers=("nowhere",)))
        built = _trainer(student, teacher, defense=defense)
        images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
        labels = np.array([[0, 0, 1]] * 2 + [[1, 0, 0]] * 2)  # one-hot
        history = built.fit(images, labels, verbose=0)
        self.assertTrue(np.isfinite(history.history["loss"][0]))


class BoundsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(((0, 255),), ((-1, 1),))
    def test_another_range_is_the_same_training(self, bounds):
        """A model of [low, high] behind its own rescaling, ε scaled with it,

        takes the steps of the model of [0, 1]; uint8 images meet both.
        """
        low, high = bounds
        width = high - low

        def build(scaled):
            inputs = keras.Input(SHAPE)
            x = inputs
            if scaled:
                x = layers.Rescaling(1 / width, -low / width)(x)
            x = layers.Conv2D(6, 3, activation="relu", name="maps")(x)
            x = layers.GlobalAveragePooling2D()(x)
            return toys.randomise(
                keras.Model(inputs, layers.Dense(NUM_CLASSES)(x))
            )

        images = np.random.default_rng(0).integers(
            0, 256, (8, *SHAPE), np.uint8
        )
        labels = arrays()[1]
        floats = (images / 255 * width + low).astype(np.float32)
        # FGSM: no random start, whose draws scale with rounding.
        runs = (
            (False, linf.fgsm(8 / 255), images),
            (True, linf.fgsm(8 / 255 * width, bounds=bounds), images),
            (True, linf.fgsm(8 / 255 * width, bounds=bounds), floats),
        )
        kernels = []
        for scaled, attack, pixels in runs:
            built = _trainer(
                build(scaled), None, attack, atat.AdversarialTraining()
            )
            built.fit(pixels, labels, verbose=0, shuffle=False)
            kernels.append(built.student.get_weights()[0])
        self.assertAllClose(kernels[0], kernels[1], 1e-4, 1e-5)
        self.assertAllClose(kernels[1], kernels[2], 1e-4, 1e-5)

    def test_an_epsilon_of_another_unit_is_warned_of(self):
        with self.assertWarnsRegex(UserWarning, "tenth of a gray level"):
            _trainer(
                sequential(),
                None,
                linf.pgd(8 / 255, 2 / 255, 1, bounds=(0, 255)),
                atat.AdversarialTraining(),
            )


class KerasHabitsTest(tf.test.TestCase):
    def test_callbacks_and_what_they_save(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        built = _trainer(sequential(seed=1), sequential(seed=2))
        rates = keras.callbacks.LearningRateScheduler(lambda e, r: r / (e + 1))
        callbacks = [
            keras.callbacks.ModelCheckpoint(folder / "{epoch}.keras"),
            keras.callbacks.ModelCheckpoint(
                folder / "best.weights.h5",
                save_weights_only=True,
                save_best_only=True,
            ),
            keras.callbacks.EarlyStopping(
                patience=1, restore_best_weights=True
            ),
            keras.callbacks.ReduceLROnPlateau(),
            rates,
        ]
        data = tf.data.Dataset.from_tensor_slices(arrays()).batch(4)
        history = built.fit(
            data.repeat(),
            steps_per_epoch=2,
            epochs=2,
            validation_data=data,
            callbacks=callbacks,
            verbose=0,
        ).history
        self.assertAllClose(history["learning_rate"], [0.1, 0.05])
        # Cross-entropy under attack, not a zero that nothing can fall below.
        self.assertGreater(min(history["val_loss"]), 0.1)
        self.assertNotIn("val_attention_transfer", history)
        saved = keras.saving.load_model(folder / "2.keras", safe_mode=True)
        images, _ = arrays()
        self.assertEqual(saved(images).shape, (8, NUM_CLASSES))
        built.load_weights(folder / "best.weights.h5")
        best = np.argmin(history["val_loss"])
        loss = built.evaluate(data, verbose=0, return_dict=True)["loss"]
        self.assertAllClose(loss, history["val_loss"][best], 1e-5)

    def test_save_export_and_load(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        built = _trainer(subclassed(seed=1), subclassed(seed=2))
        built.save(folder / "student.keras")
        built.export(folder / "student", verbose=False)
        images, _ = arrays()
        expected = built.student(images, training=False)
        loaded = keras.saving.load_model(folder / "student.keras")
        self.assertAllClose(loaded(images, training=False), expected, 1e-6)
        served = tf.saved_model.load(folder / "student")
        self.assertAllClose(served.serve(images), expected, 1e-5, 1e-6)

    def test_a_loss_in_compile_is_refused(self):
        built = _trainer(sequential(), sequential(seed=2))
        for name in ("loss", "loss_weights"):
            with self.assertRaisesRegex(InputError, f"no {name} in compile"):
                built.compile("sgd", **{name: ["mse"]})


class RefusedTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        (lambda x: tf.round(255 * x) / 255, None, "a gradient from the logits"),
        (toys.RandomLayer(), None, "random layer is active"),
        (None, tf.nn.softmax, "after a softmax"),
    )
    def test_before_training_starts(self, first, last, pattern):
        """Of layers that say nothing about what they do."""
        x = inputs = keras.Input(SHAPE)
        if first:
            x = layers.Lambda(first)(x)
        x = layers.Conv2D(4, 3, name="maps")(x)
        x = layers.Dense(NUM_CLASSES)(layers.GlobalAveragePooling2D()(x))
        if last:
            x = layers.Lambda(last)(x)
        with self.assertRaisesRegex(InputError, pattern):
            _trainer(keras.Model(inputs, x), None, _PGD, atat.Standard())

    def test_labels_that_are_no_classes(self):
        images, labels = arrays()
        built = _trainer(sequential(), None, None, atat.Standard())
        with self.assertRaisesRegex(InputError, "0 to 3.*largest=4"):
            built.fit(images, labels + 1, verbose=0)
        with self.assertRaisesRegex(InputError, "one-hot labels of 4"):
            built.fit(images, np.eye(5)[labels], verbose=0)
        with self.assertRaisesRegex(InputError, r"images of \(10, 8, 3\)"):
            built.fit(images[:, :8], labels, verbose=0)
        with self.assertRaisesRegex(InputError, "0 to 3.*largest=4"):
            built.fit(
                images, labels, validation_data=(images, labels + 1), verbose=0
            )

    def test_a_teacher_that_is_the_student(self):
        model = sequential()
        with self.assertRaisesRegex(InputError, "weights of its own"):
            _trainer(model, model)

    def test_a_teacher_of_other_maps(self):
        inputs = keras.Input(SHAPE)
        x = layers.Conv2D(4, 3, strides=2)(inputs)
        x = layers.Dense(NUM_CLASSES)(layers.GlobalAveragePooling2D()(x))
        with self.assertRaisesRegex(InputError, "one shape at 'deepest'"):
            _trainer(sequential(), keras.Model(inputs, x))
