"""What the signatures of an export answer, and refuse in the graph."""

import numpy as np
import pytest
import tensorflow as tf

from atat_tf import grad_cam, losses
from atat_tf.evaluation.run import Run
from atat_tf.models import graphs
from serving.saved_model import signatures
from serving.server import servable
from serving.status import StatusError
from tests.serving import exports as serving_runs
from tests.support import pictures, toys

_IMAGES = serving_runs.test_images(5)


@pytest.fixture(scope="module")
def loaded():
    """The export of a trained run, as the server loads it."""
    return servable.Servable(serving_runs.exported())


@pytest.fixture(scope="module")
def student():
    """The run's own network."""
    return Run(serving_runs.RUN).classifier()


def _assert_refused(loaded, signature_name, pattern, **inputs):
    with pytest.raises(StatusError, match=pattern) as caught:
        serving_runs.answer(loaded, signature_name, **inputs)
    assert caught.value.code == "INVALID_ARGUMENT"


def _attention(model, classes):
    """Returns the maps of _IMAGES for classes, by the training's tape."""
    _, maps = grad_cam.logits_and_attention(
        graphs.with_taps(model, ["features"]),
        tf.constant(_IMAGES),
        tf.constant(classes),
    )
    return maps


def test_names_types_and_shapes(loaded):
    assert {
        name: set(signature.inputs)
        for name, signature in loaded.signatures.items()
        if not name.startswith("__")
    } == {
        "serving_default": {"images"},
        "explain": {"images", "labels"},
        "predict": {"images"},
        "decode_predict": {"image_bytes"},
        "about": {"labels"},
        "monitor": {"images"},
    }
    outputs = {
        name: (info.dtype, [d.size for d in info.tensor_shape.dim])
        for name, info in loaded.signatures["serving_default"].outputs.items()
    }
    predictions = {
        "logits": (1, [-1, 10]),
        "probabilities": (1, [-1, 10]),
        "classes": (9, [-1]),
    }
    assert outputs == {
        **predictions,
        "attention": (1, [-1, 8, 8]),
        "attention_raw": (1, [-1, 8, 8]),
    }
    assert set(loaded.signatures["predict"].outputs) == set(predictions)


def test_default_equals_the_model_and_the_training_tape(loaded, student):
    answer = serving_runs.answer(loaded, "serving_default", images=_IMAGES)
    logits = student(_IMAGES, training=False).numpy()
    classes = logits.argmax(-1)
    np.testing.assert_allclose(answer["logits"], logits, 1e-5, 1e-5)
    np.testing.assert_array_equal(answer["classes"], classes)
    np.testing.assert_allclose(
        answer["probabilities"], tf.nn.softmax(logits), 1e-5, 1e-6
    )
    raw = _attention(student, classes)["features"].numpy()
    assert raw.max() > 1e-3
    np.testing.assert_allclose(answer["attention_raw"], raw, 1e-5, 1e-5)
    largest = raw.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(answer["attention"], raw / largest, 1e-4, 1e-5)


def test_explain_follows_the_class_that_is_named(loaded, student):
    labels = np.array([3, 1, 4, 1, 5])
    answer = serving_runs.answer(
        loaded, "explain", images=_IMAGES, labels=labels
    )
    raw = _attention(student, labels)["features"]
    np.testing.assert_allclose(answer["attention_raw"], raw, 1e-5, 1e-5)
    assert set(answer) == {"logits", "attention", "attention_raw"}


@pytest.mark.parametrize("score", grad_cam.SCORES)
def test_maps_explain_the_score_that_was_trained(score):
    model = toys.small_classifier()
    served = signatures.ExportedClassifier(model, "features", score=score)
    images, labels = toys.random_images(4), tf.constant([0, 1, 2, 3], tf.int64)
    _, maps = grad_cam.logits_and_attention(
        graphs.with_taps(model, ["features"]), images, labels, score=score
    )
    answer = served.explain(images, labels)["attention_raw"]
    np.testing.assert_allclose(answer, maps["features"], 1e-5, 1e-6)


def test_monitor_measures_eq_4_against_the_teacher(loaded, student):
    teacher = Run(serving_runs.TEACHER).classifier()
    answer = serving_runs.answer(loaded, "monitor", images=_IMAGES)
    distance = losses.attention_distance(
        _attention(teacher, answer["classes"]),
        _attention(student, answer["classes"]),
    )
    np.testing.assert_allclose(answer["attention_shift"], distance, 1e-4, 1e-5)


@pytest.mark.parametrize(
    "name", ["serving_default", "predict", "monitor", "explain"]
)
def test_an_answer_does_not_depend_on_the_batch(loaded, name):
    inputs = {"images": serving_runs.test_images(17, seed=1)}
    if name == "explain":
        inputs["labels"] = np.arange(17) % 10
    together = serving_runs.answer(loaded, name, **inputs)
    for i in (0, 7, 16):
        one = {k: v[i : i + 1] for k, v in inputs.items()}
        for output, value in serving_runs.answer(loaded, name, **one).items():
            row = together[output][i : i + 1]
            np.testing.assert_allclose(value, row, 1e-5, 1e-5)


def test_about_names_the_classes(loaded):
    answer = serving_runs.answer(loaded, "about", labels=np.array([9, 0]))
    assert answer["class_names"].tolist() == [b"truck", b"airplane"]
    assert answer["attention_layer"].tolist() == [b"features"] * 2


def test_no_images_give_no_answers(loaded):
    answer = serving_runs.answer(loaded, "monitor", images=_IMAGES[:0])
    assert {len(value) for value in answer.values()} == {0}


@pytest.mark.parametrize(
    ("images", "pattern"),
    [
        (_IMAGES[0], r"\[32,32,3\] is not compatible with.*\[\?,32,32,3\]"),
        (_IMAGES[:, :31], r"\[5,31,32,3\] is not compatible"),
        (_IMAGES * np.float32(255), "divide 0-255 images by 255"),
        (-_IMAGES, "finite pixels from 0 to 1"),
        (_IMAGES * np.float32(np.nan), r"\[nan\] \[to\] \[nan\]"),
        (_IMAGES + np.float32(np.inf), "finite pixels"),
        (_IMAGES.astype(np.float64), "to be float but double is provided"),
    ],
)
@pytest.mark.parametrize("name", ["serving_default", "predict", "monitor"])
def test_wrong_images_are_refused_by_the_graph(loaded, name, images, pattern):
    _assert_refused(loaded, name, pattern, images=images)


@pytest.mark.parametrize(
    ("labels", "pattern"),
    [
        ([0, 1, 2, 3, 10], "labels from 0 to 9"),
        ([0, 1, 2, 3, -1], "labels from 0 to 9"),
        ([0], "one label an image"),
        ([[0]], "is not compatible with expected shape"),
    ],
)
def test_wrong_labels_are_refused_by_the_graph(loaded, labels, pattern):
    inputs = {"images": _IMAGES, "labels": np.array(labels)}
    _assert_refused(loaded, "explain", pattern, **inputs)
    if "image" not in pattern:
        _assert_refused(loaded, "about", pattern, labels=inputs["labels"])


def test_files_are_decoded(loaded):
    pixels = np.round(_IMAGES * 255).astype(np.uint8)
    files = np.array([pictures.file(image) for image in pixels], object)
    answer = serving_runs.answer(loaded, "decode_predict", image_bytes=files)
    there = serving_runs.answer(loaded, "serving_default", images=_IMAGES)
    for name, value in there.items():
        np.testing.assert_allclose(answer[name], value, 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        (b"", "bytes of a PNG or JPEG file"),
        (b"GIF89a" + bytes(50), "bytes of a PNG or JPEG file"),
        (b"\x89PNG\r\n\x1a\n", "bytes of a PNG or JPEG file"),
        (b"\xff\xd8\xff" + bytes(9), "Invalid JPEG"),
        (pictures.file(np.zeros((9, 9, 3), np.uint8))[:50], "Invalid PNG"),
        (
            # A header of 50,000 × 50,000 pixels.
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + 2 * b"\0\0\xc3\x50" + bytes(99),
            "at most 67108864 pixels",
        ),
    ],
)
def test_broken_files_are_refused(loaded, data, pattern):
    good = pictures.file(np.zeros((9, 9, 3), np.uint8))
    files = np.array([good, data], object)
    _assert_refused(loaded, "decode_predict", pattern, image_bytes=files)


def test_there_is_no_python_function_in_it():
    """The loader is TensorFlow's C library; it has no Python either."""
    content = (serving_runs.exported() / "saved_model.pb").read_bytes()
    assert b"PyFunc" not in content
    assert b"EnsureShape" in content
