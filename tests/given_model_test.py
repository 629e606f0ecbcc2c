"""`evaluate --model`: a saved model becomes a run that every command takes."""

import re
import shutil

import keras
import numpy as np
import pytest
from keras import layers

from atat_tf.data import datasets
from atat_tf.evaluation.run import Run
from atat_tf.reports import model_card
from atat_tf.reports.page import page as report
from tests.support import commands, toys


def _write(path, *first, classes=10, ending=None):
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            *first,
            layers.Conv2D(8, 3, 2, activation="relu", name="maps"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes, activation=ending),
        ]
    )
    toys.randomise(model).save(path)
    return model


def _evaluate(*flags):
    return commands.run("atat_tf.evaluate", *flags)


def test_a_saved_model_is_evaluated_as_a_run(tmp_path):
    model = _write(tmp_path / "my.keras", layers.Rescaling(1 / 255))
    given = (
        f"--model={tmp_path / 'my.keras'}",
        "--model_range=0,255",
        "--dataset=digits",
        f"--workdir={tmp_path / 'run'}",
        "--num_images=50",
    )
    status, text = _evaluate(*given, "--attacks=clean")
    assert status == 0, text
    status, text = _evaluate(*given, "--attacks=pgd2")
    assert status == 0, text
    run = Run(tmp_path / "run")
    split = datasets.load("digits").test.take(50)
    right = np.argmax(model(split.images.astype("float32")), -1) == split.labels
    # Both columns: the second evaluation has not put out the first.
    assert run.results["accuracy"]["clean"] == np.mean(right)
    assert {*run.results["accuracy"]} == {"clean", "pgd2"}
    assert run.config.backbone.name == "my.keras"
    assert run.config.backbone.depth is None
    # It is called by its own name, and no training of ours is spoken of.
    pages = report.page(run.folder, num_images=0), model_card.text(run.folder)
    for page in (text, *pages):
        assert "my.keras" in page and "Standard" not in page
    for page in pages:
        assert "not trained here" in page


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "--dataset with --model"),
        (("--dataset=digits",), "of a model of bytes.*--model_range=0,255"),
        (("--dataset=digits", "--model_range=1"), "two ascending numbers"),
        (("--dataset=digits", "--num_images=0"), "num_images=0"),
        (("--dataset=digits", "--attacks=pgd5@0/255"), "radius above 0"),
        (("--dataset=digits", "--config.attack.epsilon=2"), "epsilon in"),
        (
            ("--dataset=digits", "--config.evaluation.batch_size=0"),
            "batch_size >= 1",
        ),
        (("--dataset=digits", "--workdirs=a,b"), "one --workdir with --model "),
    ],
)
def test_what_is_refused_leaves_no_folder(
    tmp_path, monkeypatch, flags, message
):
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "my.keras", layers.Rescaling(1 / 255))
    status, text = _evaluate("--model=my.keras", *flags)
    assert status == 1
    assert re.search(message, text), text
    assert [path.name for path in tmp_path.iterdir()] == ["my.keras"]


def test_another_model_does_not_go_on_in_its_folder(tmp_path):
    for name in ("one", "two"):
        _write(tmp_path / f"{name}.keras")
    given = ("--dataset=digits", f"--workdir={tmp_path / 'run'}")
    given += ("--attacks=clean", "--num_images=20")
    status, text = _evaluate(f"--model={tmp_path / 'one.keras'}", *given)
    assert status == 0, text
    status, text = _evaluate(f"--model={tmp_path / 'two.keras'}", *given)
    assert status == 1 and "another --workdir" in text


def _photos(folder):
    """Writes images of two classes, not of the size that models take."""
    for name, shade in (("dark", 60), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            noise = np.random.default_rng(number).integers(-40, 40, (20, 24, 3))
            image = np.clip(shade + noise, 0, 255).astype(np.uint8)
            keras.utils.save_img(folder / name / f"{number}.png", image)


_DRAWN = ("--dataset=folder:photos", "--output=drawn/it")
_TAKING_A_MODEL = {
    "atat_tf.evaluate": ("--dataset=folder:photos", "--attacks=clean"),
    "atat_tf.inspect_attention": (
        *_DRAWN,
        "--num_images=1",
        "--num_steps=1",
        "--score=margin",
    ),
    "atat_tf.landscape": (*_DRAWN, "--resolution=3"),
    "serving.export": ("--output=drawn/it",),
}


@pytest.mark.parametrize("command", _TAKING_A_MODEL)
def test_every_command_takes_a_model_of_any_range_and_a_folder(
    tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    _photos(tmp_path / "photos")
    model = _write(tmp_path / "my.keras", layers.Rescaling(1 / 255), classes=2)
    # Right about most images: its one feature is how light they are.
    *_, maps, _, head = model.layers
    maps.kernel.assign(np.abs(maps.kernel))
    head.kernel.assign(np.tile([-1, 1], (8, 1)))
    shades = np.full((2, 32, 32, 3), [[[[60]]], [[[200]]]], "float32")
    head.bias.assign_sub(np.mean(model(shades), 0))
    model.save(tmp_path / "my.keras")
    given = "--model=my.keras", *_TAKING_A_MODEL[command]
    status, text = commands.run(command, *given)
    assert status == 1 and re.search("model_range.*0,255", text), text
    assert {path.name for path in tmp_path.iterdir()} == {"my.keras", "photos"}
    status, text = commands.run(command, *given, "--model_range=0,255")
    assert status == 0, text
    if command != "atat_tf.evaluate":
        return
    # The run that it has become needs no --model, and no range.
    for drawing in ("atat_tf.inspect_attention", "atat_tf.landscape"):
        words = [w for w in _TAKING_A_MODEL[drawing] if "dataset" not in w]
        run = "--workdir=runs/evaluated/my"
        status, text = commands.run(drawing, run, *words)
        assert status == 0, text


@pytest.mark.parametrize("kind", ["folder:photos", "own.npz"])
def test_a_run_is_shown_where_its_images_are_not(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    _photos(tmp_path / "photos")
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (12, 32, 32, 3), np.uint8)
    arrays = {"x_train": images, "x_test": images}
    arrays |= dict.fromkeys(("y_train", "y_test"), np.arange(12) % 2)
    np.savez("own.npz", **arrays)
    _write(tmp_path / "my.keras", classes=2)
    status, text = _evaluate(
        "--model=my.keras", f"--dataset={kind}", "--attacks=clean,pgd1"
    )
    assert status == 0, text
    shutil.rmtree("photos")
    (tmp_path / "own.npz").unlink()
    run = Run("runs/evaluated/my")
    assert len(run.class_names) == run.classifier().output_shape[-1] == 2
    given = f"--workdir={run.folder}"
    status, text = commands.run("atat_tf.report", given, "--num_images=0")
    assert status == 0, text
    status, text = commands.run("atat_tf.report", given)
    assert status == 1 and "Expected a" in text, text
