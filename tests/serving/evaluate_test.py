"""`evaluate --server`: a served model becomes a run, attacked by its scores."""

import json
import re

import keras
import pytest
from keras import layers

from atat_tf.data import training_data
from atat_tf.errors import InputError
from atat_tf.evaluation.run import Run
from atat_tf.models import served
from serving.saved_model import writing
from tests.serving import exports as serving_runs
from tests.support import commands, toys

_NUM_IMAGES = "--num_images=40"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved model, and a server that has it under the name "mine"."""
    folder = tmp_path_factory.mktemp("model")
    network = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(8, 3, 2, activation="relu", name="maps"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )
    path = folder / "my.keras"
    toys.randomise(network).save(path)
    base = writing.export_model(path, folder / "mine").parent
    words = f"--model_base_path={base}", "--model_name=mine"
    with serving_runs.serving(*words) as server:
        yield path, f"127.0.0.1:{server.port}"


def _evaluate(*flags):
    return commands.run("atat_tf.evaluate", "--dataset=digits", *flags)


def _verdicts(folder):
    lines = map(json.loads, (folder / "ledger.jsonl").read_text().splitlines())
    return {
        (line["attack"], line["index"]): (line["broken"], line["step"])
        for line in lines
    }


def test_a_served_model_is_evaluated_as_the_one_that_was_exported(
    model, tmp_path
):
    path, server = model
    folder = tmp_path / "served"
    asked = f"--server={server}", "--model_name=mine", f"--workdir={folder}"
    common = _NUM_IMAGES, "--attacks=clean,square20"
    status, text = _evaluate(*asked, *common)
    assert status == 0, text
    status, text = _evaluate(
        f"--model={path}", f"--workdir={tmp_path / 'local'}", *common
    )
    assert status == 0, text
    assert _verdicts(folder) == _verdicts(tmp_path / "local")
    results = Run(folder).results["accuracy"]
    assert 0 < results["square20"] <= results["clean"] < 1
    # The folder alone, without the flags; no gradient is asked of a server.
    status, text = commands.run(
        "atat_tf.evaluate", f"--workdir={folder}", "--attacks=pgd5"
    )
    assert status == 1 and "clean or square" in text, text
    status, text = commands.run(
        "atat_tf.evaluate",
        f"--workdir={folder}",
        "--checklist",
        "--num_images=30",
    )
    assert status == 0, text
    points = {p["name"]: p["verdict"] for p in Run(folder).checklist["points"]}
    assert points["batch_independence"] == points["worst_case"] == "PASS"
    assert points["gradients"] == "NOT RUN"
    status, text = commands.run("atat_tf.report", f"--workdir={folder}")
    assert status == 0, text
    page = (folder / "report.html").read_text()
    assert f"A served model, {server}/mine" in page and "Standard" not in page


@pytest.mark.parametrize(
    "command",
    [
        ("serving.export", "--output=models"),
        ("atat_tf.inspect_attention",),
        ("atat_tf.landscape",),
        ("atat_tf.archive", "--output=archive"),
    ],
)
def test_what_needs_the_weights_is_refused(
    model, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    _, server = model
    asked = f"--server={server}", "--model_name=mine", "--workdir=served"
    status, text = _evaluate(*asked, _NUM_IMAGES, "--attacks=clean")
    assert status == 0, text
    name, *flags = command
    status, text = commands.run(name, "--workdir=served", *flags)
    assert status == 1 and "Expected" in text, text
    assert {path.name for path in tmp_path.iterdir()} == {"served"}


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--model_name=mine",), "--server=HOST:PORT and --model_name"),
        (("--server={}", "--model_name=yours"), "an answer of .*yours"),
        (("--server={}", "--model_name=mine", "--model=x"), "one of --model"),
        (("--server={}", "--model_name=mine", "--bn_eval=batch"), "frozen"),
    ],
)
def test_refused_before_work(model, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    words = [flag.format(model[1]) for flag in flags]
    status, text = _evaluate(*words, "--attacks=clean", _NUM_IMAGES)
    assert status == 1
    assert re.search(message, text), text


def test_a_server_that_ends_is_told_in_one_sentence(model):
    classifier = served.ServedClassifier(f"{model[1]}/mine")
    classifier._client.close()
    with pytest.raises(InputError, match="Expected an answer of .*closed"):
        with training_data.sentences():
            classifier(toys.random_images(2, (32, 32, 3)))
