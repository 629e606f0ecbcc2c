"""Exported versions: the same answers, whole or not at all."""

import io
import json
import resource
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from keras import layers
from PIL import Image

from atat_tf import grad_cam, losses
from atat_tf.errors import InputError
from atat_tf.evaluation.run import Run
from atat_tf.models import graphs
from atat_tf.runs import folder as run_folder
from serving import export
from serving.saved_model import signatures, writing
from serving.server import servable
from serving.status import StatusError
from tests.serving import exports as serving_runs
from tests.support import toys

_IMAGES = serving_runs.test_images(5)


@pytest.fixture(scope="module")
def loaded():
    """The export of a trained run, as the server loads it."""
    return servable.Servable(serving_runs.exported())


@pytest.fixture(scope="module")
def student():
    """The run's own network."""
    return Run(serving_runs.RUN).classifier()


def _answer(loaded, signature_name, **inputs):
    signature = loaded.signatures[signature_name]
    outputs = sorted(signature.outputs)
    values = loaded.run(
        {signature.inputs[k].name: v for k, v in inputs.items()},
        [signature.outputs[o].name for o in outputs],
    )
    return dict(zip(outputs, values, strict=True))


def _assert_refused(loaded, signature_name, pattern, **inputs):
    with pytest.raises(StatusError, match=pattern) as caught:
        _answer(loaded, signature_name, **inputs)
    assert caught.value.code == "INVALID_ARGUMENT"


def _png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


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
    answer = _answer(loaded, "serving_default", images=_IMAGES)
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
    answer = _answer(loaded, "explain", images=_IMAGES, labels=labels)
    raw = _attention(student, labels)["features"]
    np.testing.assert_allclose(answer["attention_raw"], raw, 1e-5, 1e-5)
    assert set(answer) == {"logits", "attention", "attention_raw"}


@pytest.mark.parametrize("score", grad_cam.SCORES)
def test_maps_explain_the_score_that_was_trained(score):
    model = toys.small_classifier()
    served = signatures.ServedClassifier(model, "features", score=score)
    images, labels = toys.random_images(4), tf.constant([0, 1, 2, 3], tf.int64)
    _, maps = grad_cam.logits_and_attention(
        graphs.with_taps(model, ["features"]), images, labels, score=score
    )
    answer = served.explain(images, labels)["attention_raw"]
    np.testing.assert_allclose(answer, maps["features"], 1e-5, 1e-6)


def test_monitor_measures_eq_4_against_the_teacher(loaded, student):
    teacher = Run(serving_runs.TEACHER).classifier()
    answer = _answer(loaded, "monitor", images=_IMAGES)
    distance = losses.attention_distance(
        _attention(teacher, answer["classes"]),
        _attention(student, answer["classes"]),
    )
    np.testing.assert_allclose(answer["attention_shift"], distance, 1e-4, 1e-5)


def test_reference_of_clean_images():
    first, second = toys.small_classifier(0), toys.small_classifier(1)
    served = signatures.ServedClassifier(first, "features", second)
    images = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 3), "u1")
    shifts = served.monitor(tf.constant(images / 255, tf.float32))
    shifts = shifts["attention_shift"].numpy()
    reference = writing.shift_reference(served, images)
    assert reference["images"] == sum(reference["counts"]) == 130
    assert reference["edges"][0] == pytest.approx(shifts.min(), rel=1e-4)
    above = (shifts > reference["quantiles"]["0.9"]).sum()
    assert above == 13
    with pytest.raises(InputError, match="a teacher"):
        writing.shift_reference(signatures.ServedClassifier(first), images)


@pytest.mark.parametrize(
    "name", ["serving_default", "predict", "monitor", "explain"]
)
def test_an_answer_does_not_depend_on_the_batch(loaded, name):
    inputs = {"images": serving_runs.test_images(17, seed=1)}
    if name == "explain":
        inputs["labels"] = np.arange(17) % 10
    together = _answer(loaded, name, **inputs)
    for i in (0, 7, 16):
        one = {k: v[i : i + 1] for k, v in inputs.items()}
        for output, value in _answer(loaded, name, **one).items():
            row = together[output][i : i + 1]
            np.testing.assert_allclose(value, row, 1e-5, 1e-5)


def test_about_names_the_classes(loaded):
    answer = _answer(loaded, "about", labels=np.array([9, 0]))
    assert answer["class_names"].tolist() == [b"truck", b"airplane"]
    assert answer["attention_layer"].tolist() == [b"features"] * 2


def test_no_images_give_no_answers(loaded):
    answer = _answer(loaded, "monitor", images=_IMAGES[:0])
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
    files = np.array([_png(image) for image in pixels], object)
    answer = _answer(loaded, "decode_predict", image_bytes=files)
    there = _answer(loaded, "serving_default", images=_IMAGES)
    for name, value in there.items():
        np.testing.assert_allclose(answer[name], value, 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
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
    ],
)
def test_broken_files_are_refused(loaded, data, pattern):
    good = _png(np.zeros((9, 9, 3), np.uint8))
    files = np.array([good, data], object)
    _assert_refused(loaded, "decode_predict", pattern, image_bytes=files)


def test_there_is_no_python_function_in_it():
    """The loader is TensorFlow's C library; it has no Python either."""
    content = (serving_runs.exported() / "saved_model.pb").read_bytes()
    assert b"PyFunc" not in content
    assert b"EnsureShape" in content


def test_the_card_says_what_is_served():
    card = writing.read_card(serving_runs.exported())
    results = json.loads((serving_runs.RUN / "results.json").read_text())
    assert card["accuracy"] == results["accuracy"]
    assert card["dataset"] == "cifar10"
    assert card["class_names"][0] == "airplane"
    assert len(card["class_names"]) == 10
    assert card["image_shape"] == [32, 32, 3]
    assert card["threat_model"]["epsilon"] == pytest.approx(8 / 255)
    assert card["weights_digest"].startswith("sha256:")
    assert card["attention_layer"] == "features"
    assert card["attention_method"] == "closed form"
    assert card["attention_score"] == "logit"
    assert "monitor" in card["signatures"]


def test_other_weights_have_no_accuracy(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "results.json"):
        text = (serving_runs.RUN / name).read_text()
        (run / name).write_text(text.replace("standard/seed0", "nowhere"))
    best = (serving_runs.RUN / "best.weights.h5").read_bytes()
    (run / "last.weights.h5").write_bytes(best)
    folder = writing.export_run(run, tmp_path / "m", weights="last")
    card = writing.read_card(folder)
    assert card["accuracy"] == "not run"
    # Its teacher is not where the config says.
    assert "monitor" not in card["signatures"]


@pytest.mark.parametrize(
    ("kwargs", "pattern"),
    [
        ({"layer": "nope"}, "Expected attention layers among"),
        ({"weights": "worst"}, "weights among best, ema, last"),
        ({"weights": "last"}, "Expected the weights .*last.weights.h5"),
    ],
)
def test_refusals_make_no_folder(tmp_path, kwargs, pattern):
    with pytest.raises(InputError, match=pattern):
        writing.export_run(serving_runs.RUN, tmp_path / "m", **kwargs)
    assert not (tmp_path / "m").exists()


def _classifier(image_shape=(8, 8, 2), dtype="float32"):
    return keras.Sequential(
        [
            keras.Input(image_shape, dtype=dtype),
            layers.Rescaling(1.0),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )


@pytest.fixture
def saved(tmp_path):
    """The path of a small saved model."""
    path = tmp_path / "mine.keras"
    _classifier().save(path)
    return path


@pytest.mark.parametrize(
    ("ending", "white"), [("softmax", 1.0), ("linear", 255.0)]
)
def test_keras_files_answer_as_the_model(tmp_path, ending, white):
    model = toys.randomise(serving_runs.keras_classifier(ending))
    model.save(path := tmp_path / "mine.keras")
    folder = writing.export_model(
        path, tmp_path / "m", pixel_range=(0.0, white)
    )
    assert writing.read_card(folder)["attention_method"] == "gradient"
    images = serving_runs.test_images(4, (12, 10, 1))
    answer = _answer(
        servable.Servable(folder), "serving_default", images=images
    )
    name = "probabilities" if ending == "softmax" else "logits"
    np.testing.assert_allclose(answer[name], model(white * images), 1e-4, 1e-5)
    assert answer["attention"].shape == (4, 10, 8)


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_channels_that_no_file_has(tmp_path, channels):
    _classifier((8, 8, channels)).save(path := tmp_path / "mine.keras")
    folder = writing.export_model(path, tmp_path / "m")
    loaded = servable.Servable(folder)
    assert "decode_predict" not in loaded.signatures
    images = serving_runs.test_images(2, (8, 8, channels))
    answer = _answer(loaded, "serving_default", images=images)
    assert answer["attention"].shape == (2, 6, 6)


def test_versions_count_up_and_are_never_replaced(saved, tmp_path):
    output = tmp_path / "m"
    for name in ("00000007", "9" * 19, "٩", "9a", ".export-killed"):
        (output / name).mkdir(parents=True)
    assert writing.export_model(saved, output).name == "8"
    assert not (output / ".export-killed").exists()
    with pytest.raises(InputError, match=r"free one is 9.*version=8"):
        writing.export_model(saved, output, version=8)
    for version in (0, 2**63):
        with pytest.raises(InputError, match=f"version={version}"):
            writing.export_model(saved, output, version=version)
    last = writing.export_model(saved, output, version=2**63 - 1)
    assert last.name == str(2**63 - 1)
    with pytest.raises(InputError, match=f"version={2**63}"):
        writing.export_model(saved, output)


def _assert_no_version(output):
    assert [entry.name for entry in output.iterdir()] == [run_folder.LOCK]


def test_a_version_that_answers_otherwise_is_not_published(saved, tmp_path):
    original = servable.Servable.run

    def wrong(loaded, *args, **kwargs):
        outputs = original(loaded, *args, **kwargs)
        return [outputs[0] + 1, *outputs[1:]]

    with (
        mock.patch.object(servable.Servable, "run", wrong),
        pytest.raises(RuntimeError, match="nothing was exported"),
    ):
        writing.export_model(saved, tmp_path / "m")
    _assert_no_version(tmp_path / "m")


@pytest.mark.parametrize("most_bytes_in_a_file", [100, 10_000])
def test_full_disk_is_one_sentence(saved, tmp_path, most_bytes_in_a_file):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses to write more, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes_in_a_file, before[1]))
    try:
        with pytest.raises(InputError, match=r"with room.*\(File too large\)"):
            writing.export_model(saved, tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _assert_no_version(tmp_path / "m")


def test_what_is_no_model_or_no_folder_is_refused(saved, tmp_path):
    broken, file = tmp_path / "broken.keras", tmp_path / "file"
    broken.write_bytes(b"no archive")
    file.touch()
    _classifier(dtype="uint8").save(whole := tmp_path / "whole.keras")
    for path, output, pattern in (
        (tmp_path / "none", tmp_path / "m", "a .keras file"),
        (broken, tmp_path / "m", "saved Keras model.*broken"),
        (whole, tmp_path / "m", "floating-point.*uint8"),
        (saved, file, "folder of versions.*output="),
    ):
        with pytest.raises(InputError, match=pattern):
            writing.export_model(path, output)


def test_command_exports_quietly(tmp_path):
    command = [sys.executable, "-m", "serving.export"]
    command += [f"--workdir={serving_runs.RUN}", f"--output={tmp_path}/atat"]
    done = subprocess.run(
        command, cwd=serving_runs.ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Exported {tmp_path}/atat/1" in done.stdout


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ([], "--output=MODELS/NAME"),
        (["--output=x"], "--workdir=RUN_FOLDER"),
        (["--output=x", "--workdir=/nowhere"], "config.json.*/nowhere"),
        (["--output=x", "--workdir=y", "--model=z"], "Received: both"),
        (["--output=x", "--model=z", "--model_range=0"], "two numbers"),
    ],
)
def test_command_refuses(words, pattern):
    with flagsaver.flagsaver(), pytest.raises(InputError, match=pattern):
        export.main(flags.FLAGS(["serving.export", *words]))
