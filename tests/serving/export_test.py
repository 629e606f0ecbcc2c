"""Exported versions: the same answers, whole or not at all, loadable by C."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from PIL import Image

from atat_tf import attention, losses
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.evaluation import evaluate_run
from atat_tf.models import graphs
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


def _png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _files(*contents):
    array = np.empty(len(contents), object)
    array[:] = contents
    return array


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
        tapped = graphs.with_taps(self.student, ["features"])
        _, maps = attention.logits_and_attention(
            tapped, tf.constant(self.images), tf.constant(classes)
        )
        raw = maps["features"].numpy()
        self.assertGreater(raw.max(), 1e-3)
        np.testing.assert_allclose(answer["attention_raw"], raw, 1e-5, 1e-5)
        np.testing.assert_allclose(
            answer["attention"],
            raw / raw.max(axis=(1, 2), keepdims=True),
            1e-4,
            1e-5,
        )

    def test_explain_follows_the_class_that_is_named(self):
        labels = np.array([3, 1, 4, 1, 5])
        answer = _answer(
            self.loaded, "explain", images=self.images, labels=labels
        )
        tapped = graphs.with_taps(self.student, ["features"])
        _, maps = attention.logits_and_attention(
            tapped, tf.constant(self.images), tf.constant(labels)
        )
        np.testing.assert_allclose(
            answer["attention_raw"], maps["features"], 1e-5, 1e-5
        )
        self.assertEqual(set(answer), {"logits", "attention", "attention_raw"})

    def test_monitor_measures_eq_4_against_the_teacher(self):
        answer = _answer(self.loaded, "monitor", images=self.images)
        classes = tf.constant(answer["classes"])
        maps = [
            attention.logits_and_attention(
                graphs.with_taps(model, ["features"]),
                tf.constant(self.images),
                classes,
            )[1]
            for model in (self.teacher, self.student)
        ]
        np.testing.assert_allclose(
            answer["attention_shift"],
            losses.attention_distance(*maps),
            1e-4,
            1e-5,
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
        files = _files(*(_png(image) for image in pixels))
        answer = _answer(self.loaded, "decode_predict", image_bytes=files)
        there = _answer(self.loaded, "serving_default", images=self.images)
        for name, value in there.items():
            np.testing.assert_allclose(answer[name], value, 1e-5, 1e-5)

    @parameterized.parameters(
        (b"", "bytes of a PNG or JPEG file"),
        (b"GIF89a" + bytes(50), "bytes of a PNG or JPEG file"),
        (b"\x89PNG\r\n\x1a\n", "bytes of a PNG or JPEG file"),
        (b"\xff\xd8\xff" + bytes(9), "Invalid JPEG"),
        (_png(np.zeros((9, 9, 3), np.uint8))[:50], "Invalid PNG"),
        (
            # A header of 50,000 × 50,000 pixels.
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + 2 * b"\0\0\xc3\x50" + bytes(99),
            "at most 67108864 pixels",
        ),
    )
    def test_broken_files_are_refused(self, data, pattern):
        good = _png(np.zeros((9, 9, 3), np.uint8))
        with self.assertRaisesRegex(StatusError, pattern) as caught:
            _answer(
                self.loaded, "decode_predict", image_bytes=_files(good, data)
            )
        self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")


class LoadersTest(absltest.TestCase):
    def test_a_session_of_tensorflow_1_runs_it(self):
        folder = serving_runs.exported()  # made eagerly, where it is the first
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            meta_graph = tf.compat.v1.saved_model.load(
                session, ["serve"], str(folder)
            )
            signature = meta_graph.signature_def["serving_default"]
            classes = session.run(
                signature.outputs["classes"].name,
                {signature.inputs["images"].name: serving_runs.test_images(3)},
            )
        self.assertEqual(classes.shape, (3,))

    def test_the_c_library_runs_it_without_python(self):
        """A process of its own: Python's TensorFlow must not be in it."""
        folder = serving_runs.exported()
        loaded = servable.Servable(folder)
        signature = loaded.signatures["serving_default"]
        names = (
            signature.inputs["images"].name,
            signature.outputs["logits"].name,
        )
        done = subprocess.run(
            [sys.executable, "-c", _C_PROGRAM, str(folder), *names],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        images = np.full((2, 32, 32, 3), 0.5, np.float32)
        there = _answer(loaded, "serving_default", images=images)["logits"]
        np.testing.assert_allclose(
            json.loads(done.stdout), there.ravel(), 1e-5, 1e-5
        )

    def test_there_is_no_python_function_in_it(self):
        path = serving_runs.exported() / "saved_model.pb"
        content = path.read_bytes()
        for name in (b"PyFunc", b"EagerPyFunc"):
            self.assertNotIn(name, content)
        self.assertIn(b"EnsureShape", content)


class ExportTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = serving_runs.temporary_folder(self)

    def _export(self, **kwargs):
        return writing.export_run(
            serving_runs.RUN, self.folder / "atat", **kwargs
        )

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

    def test_versions_count_up_and_are_never_replaced(self):
        self.assertEqual(self._export(layer="group1_0_add").name, "1")
        (self.folder / "atat" / "00000007").mkdir()
        self.assertEqual(self._export().name, "8")
        card = writing.read_card(self.folder / "atat" / "1")
        self.assertEqual(card["attention_method"], "gradient")
        with self.assertRaisesRegex(
            InputError, "next free one is 9.*version=8"
        ):
            self._export(version=8)
        with self.assertRaisesRegex(InputError, "version >= 1"):
            self._export(version=0)
        names = {entry.name for entry in (self.folder / "atat").iterdir()}
        self.assertEqual(names, {"1", "00000007", "8"})

    def test_a_version_that_answers_otherwise_is_not_published(self):
        original = servable.Servable.run

        def wrong(loaded, *args, **kwargs):
            outputs = original(loaded, *args, **kwargs)
            return [outputs[0] + 1, *outputs[1:]]

        servable.Servable.run = wrong
        try:
            with self.assertRaisesRegex(RuntimeError, "nothing was exported"):
                self._export()
        finally:
            servable.Servable.run = original
        self.assertEmpty(list((self.folder / "atat").iterdir()))

    @parameterized.parameters(
        ({"layer": "nope"}, "Expected attention layers among"),
        ({"weights": "worst"}, "weights among best, ema, last"),
        ({"weights": "last"}, "Expected the weights .*last.weights.h5"),
    )
    def test_refusals_make_no_folder(self, kwargs, pattern):
        with self.assertRaisesRegex(InputError, pattern):
            self._export(**kwargs)
        self.assertFalse((self.folder / "atat").exists())

    @parameterized.parameters("softmax", "linear")
    def test_any_keras_file(self, ending):
        model = toys.randomise(serving_runs.keras_classifier(ending))
        path = self.folder / "mine.keras"
        model.save(path)
        folder = writing.export_model(path, self.folder / "mine")
        self.assertEqual(
            writing.read_card(folder)["attention_method"], "gradient"
        )
        images = serving_runs.test_images(4, (12, 10, 1))
        answer = _answer(
            servable.Servable(folder), "serving_default", images=images
        )
        outputs = model(images).numpy()
        name = "probabilities" if ending == "softmax" else "logits"
        np.testing.assert_allclose(answer[name], outputs, 1e-5, 1e-6)
        self.assertEqual(answer["attention"].shape, (4, 10, 8))

    def test_pixels_of_another_range(self):
        model = toys.randomise(serving_runs.keras_classifier("softmax"))
        model.save(path := self.folder / "bytes.keras")
        folder = writing.export_model(
            path, self.folder / "bytes", pixel_range=(0.0, 255.0)
        )
        images = serving_runs.test_images(4, (12, 10, 1))
        answer = _answer(servable.Servable(folder), "predict", images=images)
        np.testing.assert_allclose(
            answer["probabilities"], model(255 * images), 1e-4, 1e-6
        )

    def test_what_is_no_model_is_refused(self):
        path = self.folder / "broken.keras"
        path.write_bytes(b"no archive")
        with self.assertRaisesRegex(InputError, "saved Keras model.*broken"):
            writing.export_model(path, self.folder / "m")
        with self.assertRaisesRegex(InputError, "a .keras file"):
            writing.export_model(self.folder / "none", self.folder / "m")


class CommandTest(absltest.TestCase):
    def _run(self, *words):
        done = subprocess.run(
            [sys.executable, "-m", "serving.export", *words],
            cwd=serving_runs.ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def test_exports_quietly(self):
        output = serving_runs.temporary_folder(self) / "atat"
        status, out, errors = self._run(
            f"--workdir={serving_runs.RUN}", f"--output={output}"
        )
        self.assertEqual((status, errors), (0, ""))
        self.assertIn(f"Exported {output}/1", out)

    def test_refuses_in_one_sentence(self):
        for words, pattern in (
            ([], "--output=MODELS/NAME"),
            (["--output=x", "--workdir=/nowhere"], "config.json.*/nowhere"),
            (["--output=x", "--workdir=y", "--model=z"], "Received: both"),
            (["--output=x"], "--workdir=RUN_FOLDER"),
            (["--output=x", "--wrokdir=y"], "Did you mean: workdir"),
        ):
            status, _, errors = self._run(*words)
            self.assertEqual(status, 1, words)
            self.assertRegex(errors, f"^error: .*{pattern}")
            self.assertLen(errors.strip().splitlines(), 1)


# The same as a C program would do, through ctypes: TF_Buffer, TF_Output and
# the calls of c_api.h.
_C_PROGRAM = """
import ctypes, glob, importlib.util, json, sys
folder = importlib.util.find_spec("tensorflow").submodule_search_locations[0]
(path,) = glob.glob(folder + "/libtensorflow_cc.so.2")
(framework,) = glob.glob(folder + "/libtensorflow_framework.so.2")
ctypes.CDLL(framework)
tf = ctypes.CDLL(path)
class Output(ctypes.Structure):
    _fields_ = [("oper", ctypes.c_void_p), ("index", ctypes.c_int)]
for name in ("NewGraph", "NewSessionOptions", "NewStatus", "NewBuffer",
             "LoadSessionFromSavedModel", "GraphOperationByName",
             "AllocateTensor", "TensorData"):
    getattr(tf, "TF_" + name).restype = ctypes.c_void_p
tf.TF_Message.restype = ctypes.c_char_p
P, C, I = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
tf.TF_GetCode.argtypes = tf.TF_Message.argtypes = [P]
tf.TF_LoadSessionFromSavedModel.argtypes = [P, P, C, P, I, P, P, P]
tf.TF_GraphOperationByName.argtypes = [P, C]
tf.TF_AllocateTensor.argtypes = [I, P, I, ctypes.c_size_t]
tf.TF_TensorData.argtypes = [P]
tf.TF_SessionRun.argtypes = [P, P, P, P, I, P, P, I, P, I, P, P]
status = tf.TF_NewStatus()
def check():
    if tf.TF_GetCode(status):
        sys.exit(tf.TF_Message(status).decode())
graph = tf.TF_NewGraph()
tags = (C * 1)(b"serve")
session = tf.TF_LoadSessionFromSavedModel(
    tf.TF_NewSessionOptions(), None, sys.argv[1].encode(), tags, 1, graph,
    None, status)
check()
def output(name, index):
    return Output(tf.TF_GraphOperationByName(graph, name.encode()), int(index))
count = 2 * 32 * 32 * 3
dims = (ctypes.c_int64 * 4)(2, 32, 32, 3)
images = tf.TF_AllocateTensor(1, dims, 4, 4 * count)
ctypes.memmove(
    tf.TF_TensorData(images), (ctypes.c_float * count)(*[0.5] * count),
    4 * count)
inputs = (Output * 1)(output(*sys.argv[2].split(":")))
outputs = (Output * 1)(output(*sys.argv[3].split(":")))
results = (P * 1)()
tf.TF_SessionRun(
    session, None, inputs, (P * 1)(images), 1, outputs, results, 1, None, 0,
    None, status)
check()
values = ctypes.cast(
    tf.TF_TensorData(results[0]), ctypes.POINTER(ctypes.c_float))
print(json.dumps([values[i] for i in range(20)]))
"""


if __name__ == "__main__":
    absltest.main()
