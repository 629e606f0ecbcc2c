"""`evaluate --model`: a saved model becomes a run that every command takes."""

import re

import keras
import numpy as np
import pytest
from keras import layers

from atat_tf.data import datasets
from atat_tf.evaluation.run import Run
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


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "--dataset with --model"),
        (("--dataset=digits",), "model_range.*0,255 for a model of bytes"),
        (("--dataset=digits", "--model_range=1"), "as --model_range=0,255"),
        (("--dataset=digits", "--workdirs=a,b"), "one --workdir with --model"),
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
