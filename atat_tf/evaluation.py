"""Evaluation of a run folder: accuracies under attack, table, results.json."""

import json
import math
import pathlib

import keras
import numpy as np

from atat_tf import (
    datasets,
    experiment,
    progress,
    robustness,
    run_folder,
)
from atat_tf.errors import InputError, expect, unknown

# Tables 1 and 2 of the paper: accuracy in percent by data set and method.
PAPER = {
    "cifar10": {
        "columns": ("clean", "fgsm", "ifgsm20", "pgd7", "pgd20"),
        "standard": (95.01, 13.35, 0.00, 0.00, 0.00),
        "at": (87.25, 56.22, 45.82, 49.70, 45.87),
        "alp": (86.52, 60.57, 46.17, 52.32, 46.28),
        "atat": (91.89, 76.74, 63.98, 70.15, 63.81),
    },
    "cifar100": {
        "columns": ("clean", "fgsm", "ifgsm20", "pgd10", "pgd20"),
        "standard": (78.68, 7.80, 0.00, 0.00, 0.00),
        "at": (61.14, 29.24, 24.03, 24.82, 24.09),
        "alp": (66.04, 31.83, 26.65, 27.50, 26.60),
        "atat": (76.22, 62.65, 28.84, 35.03, 28.72),
    },
}

METHODS = {
    "standard": "Standard",
    "at": "AT",
    "alp": "ALP",
    "atat": "ATAT",
}


def load_config(workdir):
    """Returns a run's config.

    Raises:
      InputError: the folder holds no run.
    """
    path = pathlib.Path(workdir) / run_folder.CONFIG
    return experiment.from_dict(run_folder.read_json(path))


def load_dataset(config, data_dir=None):
    """Returns the Dataset that a config names, with its splits."""
    return datasets.load(
        config.dataset,
        data_dir,
        config.split_seed,
        config.num_validation,
        config.image_size,
    )


def load_classifier(workdir, spec, weights="best"):
    """Returns a run's classifier, rebuilt from its config.json alone.

    Args:
      workdir: the run folder.
      spec: datasets.Spec of the images it will see.
      weights: "best", "last" or "ema".

    Raises:
      InputError: no run there, no such weights, or they do not fit.
    """
    config = load_config(workdir)
    classifier = experiment.build_classifier(config, spec)
    run_folder.load_weights(workdir, weights, classifier)
    return classifier


def evaluate_run(
    workdir,
    attacks=None,
    num_images=None,
    bn_eval="frozen",
    weights="best",
    dataset_name=None,
    data_dir=None,
    dataset=None,
    seed=None,
):
    """Evaluates a run on test images and writes results.json.

    Args:
      workdir: the run folder.
      attacks: names of columns; None for the data set's own.
      num_images: the first so many test images; None for all.
      bn_eval: "frozen" or "batch" statistics, see `robustness.Evaluator`.
      weights: "best", "last" or "ema".
      dataset_name: another data set with the same classes.
      data_dir: of tensorflow-datasets.
      dataset: the Dataset, where the caller has read it already.
      seed: of the attacks' random starts; None for the run's.

    Returns:
      The dictionary written to results.json.

    Raises:
      InputError: bad arguments, or no run there.
    """
    config = load_config(workdir)
    named = experiment.build_attacks(config, attacks)
    if weights not in run_folder.WEIGHTS:
        raise unknown("weights", weights, run_folder.WEIGHTS)
    if num_images is not None:
        expect(num_images >= 1, "num_images >= 1", num_images=num_images)
    if dataset is None:
        dataset = _dataset(config, dataset_name, data_dir)
    keras.utils.set_random_seed(config.seed)
    classifier = load_classifier(workdir, dataset.spec, weights)

    split = dataset.test.take(num_images)
    batch_size = config.evaluation.batch_size
    seed = config.seed if seed is None else seed
    evaluator = robustness.Evaluator(classifier, named, bn_eval, seed)
    batches = math.ceil(len(split) / batch_size)
    accuracy = {}
    with progress.bar(
        "evaluating", batches * len(named), batch_size
    ) as advance:
        for name in named:
            correct = evaluator.correct(
                name,
                split,
                batch_size,
                lambda name=name: advance(f"evaluating {name}", **accuracy),
            )
            accuracy[name] = float(np.mean(correct))

    results = {
        "dataset": dataset.name,
        "data": dataset.provenance,
        "method": config.defense.name,
        "num_images": len(split),
        "bn_eval": bn_eval,
        "seed": seed,
        "commit": run_folder.commit(),
        "accuracy": accuracy,
        "weights": weights,
        "batch_size": batch_size,
        "attacks": {
            name: "none" if attack is None else describe(attack)
            for name, attack in named.items()
        },
    }
    run_folder.write_json(pathlib.Path(workdir) / run_folder.RESULTS, results)
    return results


def describe(attack):
    """Returns an attack's parameters in one line, radii in 255ths."""
    return (
        f"linf epsilon={attack.epsilon * 255:.4g}/255 "
        f"step_size={attack.step_size * 255:.4g}/255 "
        f"num_steps={attack.num_steps} random_start={attack.random_start} "
        f"restarts={attack.restarts}"
    )


def print_table(all_results):
    """Prints results side by side, each above the paper's row if it has one.

    Args:
      all_results: list of what `evaluate_run` returns, or results.json holds.
    """
    columns = []
    for results in all_results:
        for name in results["accuracy"]:
            if name not in columns:
                columns.append(name)
    rows = []
    for results in all_results:
        accuracy = results["accuracy"]
        cells = [
            f"{100 * accuracy[c]:.2f}" if c in accuracy else "not run"
            for c in columns
        ]
        rows.append([METHODS.get(results["method"], results["method"]), *cells])
        paper = paper_row(results["dataset"], results["method"])
        if paper:
            cells = [f"{paper[c]:.2f}" if c in paper else "" for c in columns]
            rows.append(["  the paper's, WRN on all images", *cells])
    progress.table(_title(all_results), ["accuracy, %", *columns], rows)
    for note in _footnotes(all_results):
        progress.console().print(note)


def paper_row(dataset, method):
    """Returns {column: percent} of the paper's table, or None."""
    table = PAPER.get(dataset, {})
    if method not in table:
        return None
    return dict(zip(table["columns"], table[method], strict=True))


def differences(here, there, prefix=""):
    """Returns a line for each field that differs between two nested dicts."""
    lines = []
    for name in sorted({*here, *there}):
        mine, other = here.get(name), there.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            lines += differences(mine, other, f"{prefix}{name}.")
        elif mine != other:
            lines.append(
                f"{prefix}{name}={json.dumps(mine)} here, "
                f"{json.dumps(other)} there"
            )
    return lines


def _dataset(config, name, data_dir):
    dataset = load_dataset(config, data_dir)
    if name is None or name == config.dataset:
        return dataset
    other = datasets.load(name, data_dir, image_size=config.image_size)
    same = (
        other.class_names == dataset.class_names
        and other.spec.image_shape == dataset.spec.image_shape
    )
    if not same:
        raise InputError(
            f"Expected a data set with the classes of {config.dataset!r}, "
            f"which the run was trained on. Received: dataset={name!r}."
        )
    return other


def _title(all_results):
    first = all_results[0]
    counts = sorted({results["num_images"] for results in all_results})
    images = " and ".join(f"{count:,}" for count in counts)
    return f"{first['data']}: {images} test images"


def _footnotes(all_results):
    notes = []
    for results in all_results:
        if results["bn_eval"] == "batch":
            notes.append(
                f"{results['method']}: batch-norm statistics of the attacked "
                "batch (bn_eval=batch), not a claim of robustness."
            )
        values = results["accuracy"]
        if "fgsm" in values and values["fgsm"] < values.get("pgd20", 0) - 0.01:
            notes.append(
                f"{results['method']}: FGSM is stronger than PGD(20), a sign "
                "of masked gradients."
            )
    return notes
