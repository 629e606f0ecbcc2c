"""A saved model hardened by the command's own function, and what follows."""

import contextlib
import io
import json
import pathlib
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from keras import layers

from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.evaluation import evaluate_run
from atat_tf.evaluation.run import Run
from atat_tf.models import applications, graphs
from atat_tf.models import files as model_files
from atat_tf.runs import build
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.training import run as training_run
from serving.saved_model import writing
from tests.support import runs, toys

_SHAPE = (12, 8, 3)


def _photos(count=24):
    """A folder of two classes: brighter on the left, or on the right."""
    root = pathlib.Path(tempfile.mkdtemp()) / "photos"
    draw = np.random.default_rng(0)
    for name in ("left", "right"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = draw.integers(0, 100, (24, 16, 3), np.uint8)
            side = slice(0, 8) if name == "left" else slice(8, 16)
            pixels[:, side] += 100
            data = tf.io.encode_png(pixels).numpy()
            (root / name / f"{i}.png").write_bytes(data)
    return f"folder:{root}"


def _saved_model(*first, classes=2, ending="softmax"):
    """A .keras file: images of 12 × 8 that are not square -> softmax."""
    model = keras.Sequential(
        [
            keras.Input(_SHAPE),
            *first,
            layers.Conv2D(4, 3, activation="relu", name="maps"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes, activation=ending),
        ]
    )
    path = pathlib.Path(tempfile.mkdtemp()) / "my.keras"
    toys.randomise(model).save(path)
    return path, model


def _config(method="atat", **overrides):
    return runs.config(
        method,
        batch_size=8,
        num_epochs=1,
        num_validation=8,
        evaluation__attacks=("clean", "pgd2"),
        **overrides,
    )


class FrozenTest(tf.test.TestCase):
    def _frozen(self, *names):
        path, model = _saved_model()
        for name in names:
            model.get_layer(name).trainable = False
        model.save(path)
        return str(path), model

    def _train(self, path, capture, **overrides):
        config = _config(
            "at",
            model=path,
            dataset=_photos(),
            student_start="teacher",
            **overrides,
        )
        workdir = pathlib.Path(tempfile.mkdtemp()) / "run"
        with contextlib.redirect_stdout(capture):
            training_run.train_and_evaluate(config, workdir)
        return Run(workdir)

    @pytest.mark.long
    def test_what_is_frozen_is_told_and_stays_unless_unfrozen(self):
        path, model = self._frozen("maps")
        for unfreeze in (False, True):
            printed = io.StringIO()
            run = self._train(path, printed, unfreeze=unfreeze)
            told = "has frozen the others" in printed.getvalue()
            self.assertEqual(told, not unfreeze)
            kernel = run.classifier("last").get_layer("maps").kernel
            before = model.get_layer("maps").kernel
            moved = np.abs(np.array(kernel) - np.array(before)).max()
            self.assertEqual(moved > 0, unfreeze)

    def test_frozen_layers_do_not_start_at_random(self):
        path, _ = self._frozen("maps")
        config = _config("at", model=path, dataset=_photos())
        self.assertEqual(config.student_start, "random")
        workdir = pathlib.Path(tempfile.mkdtemp()) / "run"
        with self.assertRaisesRegex(InputError, "student_start=teacher"):
            training_run.train_and_evaluate(config, workdir)
        self.assertFalse(workdir.exists())

    def test_nothing_to_train_is_refused_before_a_folder_is_made(self):
        path, model = self._frozen()
        model.trainable = False
        model.save(path)
        config = _config("at", model=path, dataset=_photos())
        workdir = pathlib.Path(tempfile.mkdtemp()) / "run"
        with self.assertRaisesRegex(InputError, "weights to train.*unfreeze"):
            training_run.train_and_evaluate(config, workdir)
        self.assertFalse(workdir.exists())


@pytest.mark.early
class HardenTest(tf.test.TestCase):
    @pytest.mark.long
    def test_a_run_is_kept_whole(self):
        """Trained, evaluated again and exported without the file it was."""
        path, model = _saved_model(layers.Rescaling(1 / 255))
        workdir = pathlib.Path(tempfile.mkdtemp()) / "run"
        config = _config(
            dataset=_photos(), model=str(path), model_range=(0.0, 255.0)
        )
        results = training_run.train_and_evaluate(config, workdir)
        self.assertEqual(set(results["accuracy"]), {"clean", "pgd2"})
        path.unlink()
        kept = json.loads((workdir / "config.json").read_text())
        self.assertEqual(kept["image_shape"], list(_SHAPE))
        self.assertEqual(kept["class_names"], ["left", "right"])
        self.assertEqual(kept["defense"]["layers"], [graphs.DEEPEST])

        again = evaluate_run.evaluate_run(workdir, attacks=["clean"])
        self.assertEqual(
            again["accuracy"]["clean"], results["accuracy"]["clean"]
        )
        student = Run(workdir).classifier()
        teacher = Run(workdir).teacher.classifier()
        images = toys.random_images(4, _SHAPE)
        # The teacher is the file's model: its logits, of pixels in [0, 1].
        self.assertAllClose(
            tf.nn.softmax(teacher(images)), model(255 * images), 1e-5, 1e-6
        )
        self.assertNotAllClose(student(images), teacher(images))

        folder = writing.export_run(workdir, workdir / "models" / "mine")
        card = writing.read_card(folder)
        self.assertEqual(card["class_names"], ["left", "right"])
        self.assertEqual(card["attention_layer"], "maps")
        self.assertIn("monitor", card["signatures"])

    def test_another_file_does_not_go_on_in_the_run(self):
        path, _ = _saved_model()
        workdir = pathlib.Path(tempfile.mkdtemp()) / "run"
        config = _config("standard", dataset=_photos(), model=str(path))
        training_run.train_and_evaluate(config, workdir)
        training_run.train_and_evaluate(config, workdir)  # is done already
        toys.randomise(keras.saving.load_model(path), seed=3).save(path)
        with self.assertRaisesRegex(InputError, "model_digest="):
            training_run.train_and_evaluate(config, workdir)

    def test_random_weights_keep_adapted_statistics(self):
        path, model = _saved_model(norm := layers.Normalization())
        norm.adapt(np.asarray(toys.random_images(16, _SHAPE)) * 9 + 5)
        model.save(path)
        given = model_files.load(path)
        fresh = model_files.with_random_weights(given)
        self.assertNotAllClose(
            fresh.get_layer("maps").kernel, given.get_layer("maps").kernel
        )
        images = toys.random_images(2, _SHAPE)
        name = next(w.name for w in fresh.layers if "normal" in w.name)
        self.assertAllClose(
            fresh.get_layer(name)(images), given.get_layer(name)(images)
        )

    def test_random_weights_of_a_model_with_functions_inside(self):
        """Of its own code, which Keras reads from no file."""
        inner = keras.Sequential(
            [
                keras.Input(_SHAPE),
                layers.Lambda(lambda images: 1 - images),
                layers.Dense(3),
            ]
        )
        images = keras.Input(_SHAPE)
        given = keras.Model(images, keras.ops.tanh(inner(images)))
        fresh = model_files.with_random_weights(given)
        pixels = toys.random_images(2, _SHAPE)
        self.assertNotAllClose(fresh(pixels), given(pixels))
        fresh.set_weights(given.get_weights())
        self.assertAllClose(fresh(pixels), given(pixels))

    def test_another_range_is_a_layer_in_front(self):
        path, model = _saved_model(ending=None)
        loaded = model_files.load(path, (-1.0, 1.0))
        images = toys.random_images(3, _SHAPE)
        self.assertAllClose(loaded(images), model(2 * images - 1), 1e-5, 1e-6)
        self.assertIn("maps", graphs.spatial_layers(loaded))


class BadModelTest(tf.test.TestCase):
    def test_is_refused_before_a_folder_is_made(self):
        path, _ = _saved_model()
        three, _ = _saved_model(classes=3)
        damaged = path.with_name("damaged.keras")
        damaged.write_bytes(path.read_bytes()[:500])
        noisy, _ = _saved_model(_Noise())
        photos = _photos(4)
        for model, overrides, message in (
            (path.with_name("none.keras"), {}, "a .keras file"),
            (damaged, {}, "as model.save"),
            (three, {}, "of 3 classes.*num_classes=2"),
            (path, {"image_size": 16}, r"images of \(12, 8, 3\)"),
            (path, {"dataset": "digits"}, r"images of \(12"),
            (noisy, {}, "random layer is active"),
            (path, {"defense__layers": ("nowhere",)}, "maps.*'nowhere'"),
            (path, {"precision": "mixed_bfloat16"}, "float32"),
            (path, {"model_range": (1.0, 0.0)}, "low, high"),
        ):
            workdir = pathlib.Path(tempfile.mkdtemp()) / "run"
            values = {"dataset": photos, "model": str(model), **overrides}
            with self.subTest(message):
                with self.assertRaisesRegex(InputError, message):
                    training_run.train_and_evaluate(_config(**values), workdir)
                self.assertFalse(workdir.exists())


@keras.saving.register_keras_serializable("tests")
class _Noise(layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


class KerasBackboneTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters("ResNet50", "MobileNetV3Small", "EfficientNetB0")
    def test_is_a_backbone_as_ours(self, name):
        network = applications.factory(f"keras:{name}")(
            (64, 64, 3), 5, depth=1, width=1, l2=0.5
        )
        self.assertEqual(network.output_shape, (None, 5))
        self.assertEqual(list(graphs.spatial_layers(network))[-1], "features")
        kernel = network.get_layer("logits").kernel
        self.assertAllClose(
            kernel.regularizer(kernel), 0.5 * np.sum(np.square(kernel)), 1e-5
        )

    def test_by_its_name_in_a_config(self):
        config = _config(dataset="digits", backbone__name="keras:MobileNet")
        resolved = run_config.resolve(config)
        run_checks.validate(resolved)
        self.assertEqual(run_config.network_name(resolved), "keras:MobileNet")
        spec = datasets.SPECS["digits"]
        network = build.build_classifier(resolved, spec)
        self.assertEqual(network.output_shape, (None, 10))

    def test_unknown_names_and_small_images(self):
        with self.assertRaisesRegex(InputError, "Did you mean 'ResNet50'"):
            applications.factory("keras:Resnet50")
        build = applications.factory("keras:ResNet50")
        with self.assertRaisesRegex(InputError, "that keras:ResNet50 takes"):
            build((16, 16, 3), 5, 1, 1)
