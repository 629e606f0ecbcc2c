"""Exported versions: whole or not at all, with a card; the command."""

import json
import resource
import shutil
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from keras import layers

from atat_tf.errors import InputError
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers
from atat_tf.runs import folder as run_folder
from serving import export
from serving.saved_model import signatures, writing
from serving.server import servable
from tests.serving import exports as serving_runs
from tests.support import commands, toys


def test_reference_of_clean_images():
    first, second = toys.small_classifier(0), toys.small_classifier(1)
    served = signatures.ExportedClassifier(first, "features", second)
    images = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 3), "u1")
    shifts = served.monitor(tf.constant(images / 255, tf.float32))
    shifts = shifts["attention_shift"].numpy()
    reference = writing.shift_reference(served, images)
    assert reference["images"] == sum(reference["counts"]) == 130
    assert reference["edges"][0] == pytest.approx(shifts.min(), rel=1e-4)
    above = (shifts > reference["quantiles"]["0.9"]).sum()
    assert above == 13
    with pytest.raises(InputError, match="a teacher"):
        writing.shift_reference(signatures.ExportedClassifier(first), images)


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


def test_the_layer_served_is_the_layer_drawn(tmp_path):
    """Of a defense at two layers, the last; the report and the page too."""
    folder = serving_runs.ROOT / "results/small/cifar10/atat_both_layers/seed0"
    version = writing.export_run(folder, tmp_path)
    classifier = Run(folder).classifier("best")
    acts_at = Run(folder).config.defense.layers
    assert tuple(acts_at) == ("group2_0_act1", "features")
    drawn = classifiers.shown_layer(classifier, acts_at)
    assert writing.read_card(version)["attention_layer"] == drawn == "features"


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


def test_another_score_and_a_teacher_that_moved(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(serving_runs.RUN / "best.weights.h5", run)
    config = json.loads((serving_runs.RUN / "config.json").read_text())
    (run / "config.json").write_text(
        json.dumps(config | {"teacher_momentum": 0.5})
    )
    folder = writing.export_run(run, tmp_path / "m", score="centred")
    card = writing.read_card(folder)
    assert card["attention_score"] == "centred"
    # Its folder has the one that it began as.
    assert "monitor" not in card["signatures"]


@pytest.mark.parametrize(
    ("kwargs", "pattern"),
    [
        ({"layer": "nope"}, "Expected attention layers among"),
        ({"score": "centered"}, "Did you mean 'centred'"),
        ({"weights": "worst"}, "weights among best, ema, last"),
        ({"weights": "last"}, "Expected the weights .*last.weights.h5"),
    ],
)
def test_refusals_make_no_folder(tmp_path, kwargs, pattern):
    with pytest.raises(InputError, match=pattern):
        writing.export_run(serving_runs.RUN, tmp_path / "m", **kwargs)
    assert not (tmp_path / "m").exists()


def test_a_version_that_is_there_is_refused_before_any_work(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    with (
        mock.patch.object(writing, "Run", side_effect=AssertionError),
        pytest.raises(InputError, match="version that .* does not hold"),
    ):
        writing.export_run(serving_runs.RUN, tmp_path / "m", version=1)


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
    answer = serving_runs.answer(
        servable.Servable(folder), "serving_default", images=images
    )
    name = "probabilities" if ending == "softmax" else "logits"
    np.testing.assert_allclose(answer[name], model(white * images), 1e-4, 1e-5)
    assert answer["attention"].shape == (4, 10, 8)


@pytest.mark.parametrize("channels", [2, 13])
def test_channels_that_no_file_has(tmp_path, channels):
    _classifier((8, 8, channels)).save(path := tmp_path / "mine.keras")
    folder = writing.export_model(path, tmp_path / "m")
    loaded = servable.Servable(folder)
    assert "decode_predict" not in loaded.signatures
    images = serving_runs.test_images(2, (8, 8, channels))
    answer = serving_runs.answer(loaded, "serving_default", images=images)
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
        (tmp_path / "none", tmp_path / "m", "existing .keras file"),
        (broken, tmp_path / "m", "model.save.*broken"),
        (whole, tmp_path / "m", "floating-point.*uint8"),
        (saved, file, "folder of versions.*output="),
    ):
        with pytest.raises(InputError, match=pattern):
            writing.export_model(path, output)


def test_the_command_tells_its_stages_alone(tmp_path):
    words = f"--workdir={serving_runs.RUN}", f"--output={tmp_path}/atat"
    status, output = commands.run("serving.export", *words)
    assert status == 0, output
    *stages, last = output.splitlines()
    assert all(line.endswith(" ...") for line in stages)
    assert f"Exported {tmp_path}/atat/1" in last


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ([], "--output=MODELS/NAME"),
        (["--output=x"], "--workdir=RUN_FOLDER"),
        (["--output=x", "--workdir=/nowhere"], "config.json.*/nowhere"),
        (["--output=x", "--workdir=y", "--model=z"], "Received: both"),
        (["--output=x", "--model=z.keras", "--model_range=0"], "two ascending"),
        (
            ["--output=x", "--model=z", "--weights=last"],
            "--weights with",
        ),
        (
            ["--output=x", "--model=z", "--reference_images=9"],
            "--reference_images with --workdir alone",
        ),
    ],
)
def test_command_refuses(words, pattern):
    with flagsaver.flagsaver(), pytest.raises(InputError, match=pattern):
        export.main(flags.FLAGS(["serving.export", *words]))


@pytest.mark.parametrize("kind", ["int8", "float16"])
def test_number_types_of_a_pooled_head(tmp_path, kind):
    """The closed form of their attention would be of other numbers."""
    image = keras.Input((8, 8, 3), name="image")
    dtype = "float16" if kind == "float16" else None
    maps = layers.Conv2D(8, 3, dtype=dtype)(image)
    pooled = layers.GlobalAveragePooling2D(dtype=dtype)(maps)
    model = keras.Model({"image": image}, layers.Dense(5, dtype=dtype)(pooled))
    if kind == "int8":
        model.layers[-1].quantize("int8")
    model.save(path := tmp_path / "mine.keras")
    folder = writing.export_model(path, tmp_path / "mine")
    images = serving_runs.test_images(2, (8, 8, 3))
    loaded = tf.saved_model.load(str(folder))
    answer = loaded.signatures["serving_default"](tf.constant(images))
    expected = model({"image": images})
    np.testing.assert_allclose(answer["logits"], expected, 1e-2, 1e-2)
    assert answer["attention"].dtype == tf.float32
