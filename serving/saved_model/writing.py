"""Writes a run's classifier or a .keras file as a version for TF Serving.

A version appears in its folder at once and whole, with warm-up requests and a
model card, after it was loaded again and its answers were compared.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import uuid

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from atat_tf.errors import InputError, expect
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers
from atat_tf.models import files as model_files
from atat_tf.runs import build, naming, terminal
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder

from .. import tensors
from ..server import servable
from . import signatures

MODEL_CARD = "model_card.json"
_LAST_VERSION = 2**63 - 1  # a server's numbers are int64
_TEMPORARY = ".export-"  # no server takes such a name for a version
_WARM_UP = "assets.extra/tf_serving_warmup_requests"
_COMPARED_BATCHES = (1, 5)
_REFERENCE_BATCH = 100
_TOLERANCE = 1e-4


def export_run(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path,
    version: int | None = None,
    layer: str | None = None,
    weights: str | None = None,
    data_dir: str | None = None,
    reference_images: int = 0,
    score: str | None = None,
) -> pathlib.Path:
    """Writes a run's classifier as a new version, and returns its folder.

    Args:
      workdir: the run folder.
      output: folder of the versions, named as the model.
      version: number from 1 to 2**63 - 1; None for the next free one.
      layer: whose attention is answered; None for the run's own.
      weights: "best", "last" or "ema"; None for the config's own.
      data_dir: of tensorflow-datasets.
      reference_images: the first so many test images, on which attention is
        compared with the teacher's for the card; 0: none.
      score: of `grad_cam.SCORES`, that attention explains; None for the run's
        own.

    Raises:
      InputError: no run or no weights there, a version that exists, an
        unknown layer, images to compare attention on without a teacher, an
        output folder that cannot be written or where
        another export is at work, or a full disk.
    """
    _place(output, version)  # refused before anything is computed
    run = Run(workdir, data_dir)
    config, names = run.config, run.class_names
    weights = weights or run.config.evaluation.weights
    classifier = run.classifier(weights)
    layers = build.defense_layers(config)
    served = signatures.ExportedClassifier(
        classifier,
        classifiers.shown_layer(classifier, layers, layer),
        _teacher(run),
        score or run_config.score(config),
        names,
    )
    reference = {}
    if reference_images:
        split = run.dataset.test.take(reference_images)
        terminal.stage(f"comparing attention on {len(split):,} images")
        shifts = shift_reference(served, split.images[:])
        reference = {"attention_shift": shifts}
    card = {
        **reference,
        "dataset": config.dataset,
        "class_names": list(names),
        "method": naming.method(config),
        **(
            {"model": pathlib.Path(config.model).name}
            if config.model
            else {"backbone": config.backbone.to_dict()}
        ),
        "threat_model": {"norm": "linf", "epsilon": config.attack.epsilon},
        "seed": config.seed,
        "weights": weights,
        **_measured(run, weights, classifiers.weights_digest(classifier)),
    }
    return _export(served, classifier, output, version, card)


def export_model(
    path: str | pathlib.Path,
    output: str | pathlib.Path,
    version: int | None = None,
    layer: str | None = None,
    pixel_range: tuple[float, float] = (0.0, 1.0),
    score: str | None = None,
) -> pathlib.Path:
    """Writes a saved Keras model as a new version, and returns its folder.

    Args:
      path: a .keras file, see `model_files.load`.
      output, version, layer, score: as for `export_run`.
      pixel_range: what the saved model takes for black and for white; the
        version takes images in [0, 1].

    Raises:
      InputError: as `export_run`, or not such a model.
    """
    _place(output, version)  # refused before anything is computed
    path = pathlib.Path(path)
    classifier = model_files.load(path, pixel_range)
    served = signatures.ExportedClassifier(
        classifier, layer, score=score or "logit"
    )
    card = {
        "dataset": None,
        "class_names": list(served.class_names),
        "method": None,
        "model": path.name,
        "accuracy": "not run",
    }
    return _export(served, classifier, output, version, card)


def shift_reference(
    served: signatures.ExportedClassifier, images: np.ndarray
) -> dict:
    """Returns how attention shifts are distributed over clean images.

    Args:
      served: with a teacher.
      images: uint8 [n, H, W, C].

    Returns:
      "images" n, "quantiles" {share: shift}, and a histogram: "edges" [11] and
      "counts" [10].

    Raises:
      InputError: there is no teacher.
    """
    parts = np.array_split(images, -(-len(images) // _REFERENCE_BATCH))
    pixels = (tf.constant(part / 255.0, tf.float32) for part in parts)
    shifts = np.concatenate(
        [served.monitor(part)["attention_shift"] for part in pixels]
    )
    counts, edges = np.histogram(shifts, 10)
    quantiles = {
        str(share): float(np.quantile(shifts, share))
        for share in (0.5, 0.9, 0.95, 0.99)
    }
    return {
        "images": len(images),
        "quantiles": quantiles,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def _teacher(run):
    """Returns the run's teacher, or None where it has none (any more).

    A teacher that moved is gone with the training; the folder has the one that
    it began as.
    """
    if not run_config.needs_teacher(run.config) or run.config.teacher_momentum:
        return None
    teacher = run.teacher
    if not teacher or not teacher.has_weights():
        return None
    return teacher.classifier()


def _measured(run, weights, digest):
    """Returns what results.json says of these very weights."""
    results = run.results or {}
    own = results.get("weights"), results.get("weights_digest", digest)
    if own != (weights, digest):
        return {"accuracy": "not run"}
    kept = ("accuracy", "attacks", "data", "num_images", "bn_eval")
    card = {name: results.get(name) for name in kept}
    return {**card, "evaluated_at_commit": results.get("commit")}


def _place(output, version):
    """Returns the folder that a new version will have.

    Raises:
      InputError: it is there already, or can be none.
    """
    output = pathlib.Path(output).absolute()
    expect(
        output.is_dir() or not output.exists(),
        "a folder of versions",
        output=str(output),
    )
    number = max(_versions(output)) + 1 if version is None else version
    expect(
        1 <= number <= _LAST_VERSION,
        f"version >= 1 and <= {_LAST_VERSION}",
        version=number,
    )
    if number in _versions(output):
        raise InputError(
            f"Expected a version that {str(output)!r} does not hold (the next "
            f"free one is {max(_versions(output)) + 1}). Received: "
            f"version={version}."
        )
    return output / str(number)


def _export(served, classifier, output, version, card):
    output = _place(output, version).parent
    try:
        with run_folder.held(output):
            # Another export may have taken the number in the meantime.
            place = _place(output, version)
            return _written(served, classifier, place, card)
    except (OSError, tf.errors.OpError) as error:
        text = getattr(error, "strerror", None) or str(error)
        # TensorFlow's ends in "PATH; REASON [Op:NAME]".
        reason = text.rpartition("; ")[2].partition(" [Op:")[0]
        raise InputError(
            "Expected a folder with room for the version, which can be "
            f"written. Received: {str(output)!r} ({reason})."
        ) from error


def _written(served, classifier, folder, card):
    """Returns a version's folder, which appears at once and whole."""
    # Nobody else writes here: a killed export has left them.
    for abandoned in folder.parent.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(abandoned)
    card = {
        **card,
        "image_shape": list(served.image_shape),
        "pixels": "float32 in [0, 1]",
        "attention_layer": served.layer,
        "attention_score": served.score,
        "attention_method": "closed form" if served.closed_form else "gradient",
        "weights_digest": classifiers.weights_digest(classifier),
        "exported_at_commit": run_folder.commit(),
    }
    temporary = folder.with_name(f"{_TEMPORARY}{uuid.uuid4().hex[:8]}")
    try:
        terminal.stage("tracing and saving the signatures")
        functions = served.signatures()
        tf.saved_model.save(served, str(temporary), functions)
        card["signatures"] = sorted(functions)
        run_folder.write_json(temporary / MODEL_CARD, card)
        _write_warm_up(
            temporary / _WARM_UP, folder.parent.name, served, functions
        )
        terminal.stage("loading the version again, to compare its answers")
        _expect_same_answers(temporary, served, functions)
        _flush(temporary)
        os.rename(temporary, folder)
        return folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _versions(output):
    """Returns the numbers of the versions in a folder, and 0."""
    if not output.is_dir():
        return {0}
    names = (entry.name for entry in output.iterdir())
    numbers = {int(name) for name in names if re.fullmatch("[0-9]+", name)}
    return {0, *(n for n in numbers if n <= _LAST_VERSION)}


def _flush(folder):
    """Has the disk hold all files before the version appears."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def _example_inputs(served, count):
    """Returns {input name: array} of random images, the same every time."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (count, *served.image_shape), np.uint8)
    examples = {
        "images": (pixels / 255.0).astype(np.float32),
        "labels": (np.arange(count) % served.num_classes).astype(np.int64),
    }
    if served.reads_files:
        files = [tf.io.encode_png(image).numpy() for image in pixels]
        examples["image_bytes"] = np.array(files, object)
    return examples


def _inputs_of(function):
    return list(function.structured_input_signature[1]) or [
        spec.name for spec in function.structured_input_signature[0]
    ]


def _write_warm_up(path, model_name, served, functions):
    """Writes a request of one image for each signature.

    A server runs them while it loads the version, so that nobody's first
    request pays for it.
    """
    path.parent.mkdir()
    examples = _example_inputs(served, 1)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, function in functions.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = name
            for alias in _inputs_of(function):
                tensors.to_proto(examples[alias], request.inputs[alias])
            writer.write(log.SerializeToString())


def _expect_same_answers(folder, served, functions):
    """Loads what was written and compares it with the model in memory.

    Raises:
      RuntimeError: an answer differs; the version is not published.
    """
    with contextlib.closing(servable.Servable(folder)) as loaded:
        for count in _COMPARED_BATCHES:
            examples = _example_inputs(served, count)
            for name, function in functions.items():
                aliases = _inputs_of(function)
                here = function(
                    **{a: tf.constant(examples[a]) for a in aliases}
                )
                signature = loaded.signatures[name]
                feeds = {signature.inputs[a].name: examples[a] for a in aliases}
                outputs = sorted(signature.outputs)
                there = loaded.run(
                    feeds, [signature.outputs[o].name for o in outputs]
                )
                for output, value in zip(outputs, there, strict=True):
                    _expect_close(name, output, here[output].numpy(), value)


def _expect_close(signature, output, here, there):
    same = here.shape == there.shape and (
        np.array_equal(here, there)
        if here.dtype == object
        else np.allclose(here, there, _TOLERANCE, _TOLERANCE)
    )
    if not same:
        raise RuntimeError(
            f"the saved {signature!r} answers another {output!r} than the "
            "model that was saved; nothing was exported"
        )


def read_card(folder: str | pathlib.Path) -> dict:
    """Returns a version's model card."""
    return json.loads((pathlib.Path(folder) / MODEL_CARD).read_text())
