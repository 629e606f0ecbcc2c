"""Exported versions: the same answers, whole or not at all."""

import io
import json
import resource
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from absl.testing import absltest, flagsaver, parameterized
from keras import layers
from PIL import Image

from atat_tf import attention, losses
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.evaluation import evaluate_run
from atat_tf.models import graphs
from atat_tf.runs import folder as run_folder
from serving import export
from serving.saved_model import writing
from serving.server import servable
from serving.status import StatusError
from tests.serving import exports as serving_runs
from tests.support import toys

_SPEC = datasets.SPECS["cifar10"]


def _answer(loaded, signature_name, **inputs):
    signature = loaded.signatures[signature_name]
    outputs = sorted(signature.outputs)
    values = loaded.run(
        {signature.inputs[k].name: v for k, v in inputs.items()},
        [signature.outputs[o].name for o in outputs],
    )
    return dict(zip(outputs, values, strict=True))


def _file(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _served_attention(model, images, classes):
    """Returns the model's maps for classes, by the training's tape."""
    _, maps = attention.logits_and_attention(
        graphs.with_taps(model, ["features"]),
        tf.constant(images),
        tf.constant(classes),
    )
    return maps


class SignaturesTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.loaded = servable.Servable(serving_runs.exported())
        cls.student = evaluate_run.load_classifier(serving_runs.RUN, _SPEC)
        cls.teacher = evaluate_run.load_classifier(serving_runs.TEACHER, _SPEC)
        cls.images = serving_runs.test_images(5)

    def test_names_types_and_shapes(self):
        expected = {
            "serving_default": (
                {"images"},
                {
                    "logits": (1, [-1, 10]),
                    "probabilities": (1, [-1, 10]),
                    "classes": (9, [-1]),
                    "attention": (1, [-1, 8, 8]),
                    "attention_raw": (1, [-1, 8, 8]),
                },
            ),
            "explain": ({"images", "labels"}, None),
            "predict": ({"images"}, None),
            "decode_predict": ({"image_bytes"}, None),
            "monitor": ({"images"}, None),
        }
        for name, (inputs, outputs) in expected.items():
            signature = self.loaded.signatures[name]
            self.assertEqual(set(signature.inputs), inputs, name)
            for alias, (dtype, shape) in (outputs or {}).items():
                info = signature.outputs[alias]
                self.assertEqual(info.dtype, dtype, alias)
                sizes = [d.size for d in info.tensor_shape.dim]
                self.assertEqual(sizes, shape, alias)
        self.assertEqual(
            set(self.loaded.signatures["predict"].outputs),
            {"logits", "probabilities", "classes"},
        )

    def test_default_equals_the_model_and_the_training_tape(self):
        answer = _answer(self.loaded, "serving_default", images=self.images)
        logits = self.student(self.images, training=False).numpy()
        classes = logits.argmax(-1)
        np.testing.assert_allclose(answer["logits"], logits, 1e-5, 1e-5)
        np.testing.assert_array_equal(answer["classes"], classes)
        np.testing.assert_allclose(
            answer["probabilities"], tf.nn.softmax(logits), 1e-5, 1e-6
        )
        maps = _served_attention(self.student, self.images, classes)
        raw = maps["features"].numpy()
        self.assertGreater(raw.max(), 1e-3)
        np.testing.assert_allclose(answer["attention_raw"], raw, 1e-5, 1e-5)
        largest = raw.max(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(
            answer["attention"], raw / largest, 1e-4, 1e-5
        )

    def test_explain_follows_the_class_that_is_named(self):
        labels = np.array([3, 1, 4, 1, 5])
        answer = _answer(
            self.loaded, "explain", images=self.images, labels=labels
        )
        maps = _served_attention(self.student, self.images, labels)
        np.testing.assert_allclose(
            answer["attention_raw"], maps["features"], 1e-5, 1e-5
        )
        self.assertEqual(set(answer), {"logits", "attention", "attention_raw"})

    def test_monitor_measures_eq_4_against_the_teacher(self):
        answer = _answer(self.loaded, "monitor", images=self.images)
        distance = losses.attention_distance(
            *(
                _served_attention(model, self.images, answer["classes"])
                for model in (self.teacher, self.student)
            )
        )
        np.testing.assert_allclose(
            answer["attention_shift"], distance, 1e-4, 1e-5
        )

    @parameterized.parameters(
        "serving_default", "predict", "monitor", "explain"
    )
    def test_an_answer_does_not_depend_on_the_batch(self, name):
        images = serving_runs.test_images(17, seed=1)
        more = {"labels": np.arange(17) % 10} if name == "explain" else {}
        together = _answer(self.loaded, name, images=images, **more)
        for i in (0, 7, 16):
            one = {k: v[i : i + 1] for k, v in more.items()}
            alone = _answer(self.loaded, name, images=images[i : i + 1], **one)
            for output, value in alone.items():
                np.testing.assert_allclose(
                    value, together[output][i : i + 1], 1e-5, 1e-5
                )

    def test_no_images_give_no_answers(self):
        answer = _answer(self.loaded, "monitor", images=self.images[:0])
        self.assertEqual({len(value) for value in answer.values()}, {0})

    @parameterized.parameters(
        (lambda x: x[0], r"\[32,32,3\] is not compatible with.*\[\?,32,32,3\]"),
        (lambda x: x[:, :31], r"\[5,31,32,3\] is not compatible"),
        (lambda x: x * 255.0, "divide 0-255 images by 255"),
        (lambda x: -x, "finite pixels from 0 to 1"),
        (lambda x: x * np.nan, r"\[nan\] \[to\] \[nan\]"),
        (lambda x: x / np.float32(0.0), "finite pixels"),
        (lambda x: x.astype(np.float64), "to be float but double is provided"),
    )
    def test_wrong_images_are_refused_by_the_graph(self, wrong, pattern):
        with np.errstate(all="ignore"):
            images = wrong(self.images)
        for name in ("serving_default", "predict", "monitor"):
            with self.assertRaisesRegex(StatusError, pattern) as caught:
                _answer(self.loaded, name, images=images)
            self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")

    @parameterized.parameters(
        ([0, 1, 2, 3, 10], "labels from 0 to 9"),
        ([0, 1, 2, 3, -1], "labels from 0 to 9"),
        ([0], "one label an image"),
        ([[0]], "is not compatible with expected shape"),
    )
    def test_wrong_labels_are_refused_by_the_graph(self, labels, pattern):
        with self.assertRaisesRegex(StatusError, pattern) as caught:
            _answer(
                self.loaded,
                "explain",
                images=self.images,
                labels=np.array(labels),
            )
        self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")

    def test_files_are_decoded(self):
        pixels = np.round(self.images * 255).astype(np.uint8)
        files = np.array([_file(image) for image in pixels], object)
        answer = _answer(self.loaded, "decode_predict", image_bytes=files)
        there = _answer(self.loaded, "serving_default", images=self.images)
        for name, value in there.items():
            np.testing.assert_allclose(answer[name], value, 1e-5, 1e-5)

    @parameterized.parameters(
        (b"", "bytes of a PNG or JPEG file"),
        (b"GIF89a" + bytes(50), "bytes of a PNG or JPEG file"),
        (b"\x89PNG\r\n\x1a\n", "bytes of a PNG or JPEG file"),
        (b"\xff\xd8\xff" + bytes(9), "Invalid JPEG"),
        (_file(np.zeros((9, 9, 3), np.uint8))[:50], "Invalid PNG"),
        (
            # A header of 50,000 × 50,000 pixels.
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + 2 * b"\0\0\xc3\x50" + bytes(99),
            "at most 67108864 pixels",
        ),
    )
    def test_broken_files_are_refused(self, data, pattern):
        good = _file(np.zeros((9, 9, 3), np.uint8))
        files = np.array([good, data], object)
        with self.assertRaisesRegex(StatusError, pattern) as caught:
            _answer(self.loaded, "decode_predict", image_bytes=files)
        self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")

    def test_there_is_no_python_function_in_it(self):
        """The loader is TensorFlow's C library; it has no Python either."""
        content = (serving_runs.exported() / "saved_model.pb").read_bytes()
        self.assertNotIn(b"PyFunc", content)
        self.assertIn(b"EnsureShape", content)


class RunTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = serving_runs.temporary_folder(self)

    def test_the_card_says_what_is_served(self):
        card = writing.read_card(serving_runs.exported())
        results = json.loads((serving_runs.RUN / "results.json").read_text())
        self.assertEqual(card["accuracy"], results["accuracy"])
        self.assertEqual(card["dataset"], "cifar10")
        self.assertEqual(card["class_names"][0], "airplane")
        self.assertLen(card["class_names"], 10)
        self.assertEqual(card["image_shape"], [32, 32, 3])
        self.assertAlmostEqual(card["threat_model"]["epsilon"], 8 / 255)
        self.assertRegex(card["weights_digest"], "^sha256:")
        self.assertEqual(card["attention_layer"], "features")
        self.assertEqual(card["attention_method"], "closed form")
        self.assertIn("monitor", card["signatures"])

    def test_other_weights_have_no_accuracy(self):
        run = self.folder / "run"
        run.mkdir()
        for name in ("config.json", "results.json"):
            text = (serving_runs.RUN / name).read_text()
            (run / name).write_text(text.replace("standard/seed0", "nowhere"))
        best = (serving_runs.RUN / "best.weights.h5").read_bytes()
        (run / "last.weights.h5").write_bytes(best)
        folder = writing.export_run(run, self.folder / "m", weights="last")
        card = writing.read_card(folder)
        self.assertEqual(card["accuracy"], "not run")
        # Its teacher is not where the config says.
        self.assertNotIn("monitor", card["signatures"])

    @parameterized.parameters(
        ({"layer": "nope"}, "Expected attention layers among"),
        ({"weights": "worst"}, "weights among best, ema, last"),
        ({"weights": "last"}, "Expected the weights .*last.weights.h5"),
    )
    def test_refusals_make_no_folder(self, kwargs, pattern):
        with self.assertRaisesRegex(InputError, pattern):
            writing.export_run(serving_runs.RUN, self.folder / "m", **kwargs)
        self.assertFalse((self.folder / "m").exists())


class KerasFileTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = serving_runs.temporary_folder(self)
        self.output = self.folder / "mine"

    def _exported(self, model=None, **kwargs):
        path = self.folder / "mine.keras"
        if model or not path.exists():
            (model or _classifier((8, 8, 2))).save(path)
        return writing.export_model(path, self.output, **kwargs)

    def _assert_no_version(self):
        names = {entry.name for entry in self.output.iterdir()}
        self.assertEqual(names, {run_folder.LOCK})

    @parameterized.parameters(("softmax", 1.0), ("linear", 255.0))
    def test_answers_are_the_models(self, ending, white):
        model = toys.randomise(serving_runs.keras_classifier(ending))
        folder = self._exported(model, pixel_range=(0.0, white))
        card = writing.read_card(folder)
        self.assertEqual(card["attention_method"], "gradient")
        images = serving_runs.test_images(4, (12, 10, 1))
        answer = _answer(
            servable.Servable(folder), "serving_default", images=images
        )
        name = "probabilities" if ending == "softmax" else "logits"
        np.testing.assert_allclose(
            answer[name], model(white * images), 1e-4, 1e-5
        )
        self.assertEqual(answer["attention"].shape, (4, 10, 8))

    @parameterized.parameters(2, 4, 13)
    def test_channels_that_no_file_has(self, channels):
        folder = self._exported(_classifier((8, 8, channels)))
        loaded = servable.Servable(folder)
        self.assertNotIn("decode_predict", loaded.signatures)
        images = serving_runs.test_images(2, (8, 8, channels))
        answer = _answer(loaded, "serving_default", images=images)
        self.assertEqual(answer["attention"].shape, (2, 6, 6))

    def test_versions_count_up_and_are_never_replaced(self):
        for name in ("00000007", "9" * 19, "٩", "9a", ".export-killed"):
            (self.output / name).mkdir(parents=True)
        self.assertEqual(self._exported().name, "8")
        self.assertFalse((self.output / ".export-killed").exists())
        with self.assertRaisesRegex(InputError, "free one is 9.*version=8"):
            self._exported(version=8)
        for version in (0, 2**63):
            with self.assertRaisesRegex(InputError, f"version={version}"):
                self._exported(version=version)
        last = self._exported(version=2**63 - 1)
        self.assertEqual(last.name, str(2**63 - 1))
        with self.assertRaisesRegex(InputError, f"version={2**63}"):
            self._exported()

    def test_a_version_that_answers_otherwise_is_not_published(self):
        original = servable.Servable.run

        def wrong(loaded, *args, **kwargs):
            outputs = original(loaded, *args, **kwargs)
            return [outputs[0] + 1, *outputs[1:]]

        with (
            mock.patch.object(servable.Servable, "run", wrong),
            self.assertRaisesRegex(RuntimeError, "nothing was exported"),
        ):
            self._exported()
        self._assert_no_version()

    @parameterized.parameters(100, 10_000)
    def test_full_disk_is_one_sentence(self, most_bytes_in_a_file):
        path = self.folder / "mine.keras"
        _classifier((8, 8, 2)).save(path)
        # The system refuses to write more, as on a full disk.
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)
        limits = most_bytes_in_a_file, before[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        with self.assertRaisesRegex(
            InputError, r"^Expected a folder with room.*\(File too large\)"
        ):
            self._exported()
        self._assert_no_version()

    def test_what_is_no_model_or_no_folder_is_refused(self):
        with self.assertRaisesRegex(InputError, "floating-point.*uint8"):
            self._exported(_classifier((8, 8, 3), dtype="uint8"))
        path = self.folder / "broken.keras"
        path.write_bytes(b"no archive")
        with self.assertRaisesRegex(InputError, "saved Keras model.*broken"):
            writing.export_model(path, self.output)
        with self.assertRaisesRegex(InputError, "a .keras file"):
            writing.export_model(self.folder / "none", self.output)
        self.output.touch()
        with self.assertRaisesRegex(InputError, "folder of versions.*output="):
            self._exported(_classifier((8, 8, 3)))


def _classifier(image_shape, dtype="float32"):
    return keras.Sequential(
        [
            keras.Input(image_shape, dtype=dtype),
            layers.Rescaling(1.0),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )


class CommandTest(parameterized.TestCase):
    def test_exports_quietly(self):
        output = serving_runs.temporary_folder(self) / "atat"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "serving.export"),
                *(f"--workdir={serving_runs.RUN}", f"--output={output}"),
            ],
            cwd=serving_runs.ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(f"Exported {output}/1", done.stdout)

    @parameterized.parameters(
        ([], "--output=MODELS/NAME"),
        (["--output=x"], "--workdir=RUN_FOLDER"),
        (["--output=x", "--workdir=/nowhere"], "config.json.*/nowhere"),
        (["--output=x", "--workdir=y", "--model=z"], "Received: both"),
        (["--output=x", "--model=z", "--model_range=0"], "two numbers"),
    )
    def test_refuses(self, words, pattern):
        with flagsaver.flagsaver(), self.assertRaisesRegex(InputError, pattern):
            export.main(flags.FLAGS(["serving.export", *words]))


if __name__ == "__main__":
    absltest.main()
