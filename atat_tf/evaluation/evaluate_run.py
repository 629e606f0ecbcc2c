"""Evaluation of a run folder: its ledger, and results.json made from it."""

import dataclasses
import pathlib

import keras
import ml_collections
import numpy as np

from atat_tf.attacks import columns, stepped
from atat_tf.data import datasets
from atat_tf.data import folders as image_folders
from atat_tf.errors import InputError, expect, unknown
from atat_tf.evaluation import accuracy as robustness
from atat_tf.evaluation import attacker as attacker_lib
from atat_tf.evaluation import gate, ledger, verdicts
from atat_tf.models import classifiers
from atat_tf.runs import build, terminal
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder


def load_config(workdir):
    """Returns a run's config.

    Raises:
      InputError: the folder holds no run.
    """
    path = pathlib.Path(workdir) / run_folder.CONFIG
    return run_config.from_dict(run_folder.read_json(path))


def load_dataset(config, data_dir=None):
    """Returns the Dataset that a config names, with its splits."""
    dataset = datasets.load(
        config.dataset,
        data_dir,
        config.split_seed,
        config.num_validation,
        run_config.image_size(config),
        config.bad_images,
    )
    trained_on = tuple(config.class_names)
    expect(
        not trained_on or dataset.class_names == trained_on,
        f"the classes that the run was trained on, {trained_on}",
        class_names=dataset.class_names,
    )
    return dataset


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
    classifier = build.build_classifier(
        config, spec, pathlib.Path(workdir) / run_folder.MODEL
    )
    run_folder.load_weights(workdir, weights, classifier)
    return classifier


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run's classifier, ready to be attacked on test images.

    Attributes:
      config: the run's.
      dataset: Dataset whose images are attacked.
      classifier: keras.Model with the stored weights.
      attacker: Attacker of it.
      split: datasets.Split, the images in question.
      ledger: Ledger that verdicts are taken from and added to.
      seed: of the attacks' random starts.
    """

    config: ml_collections.ConfigDict
    dataset: datasets.Dataset
    classifier: keras.Model
    attacker: attacker_lib.Attacker
    split: datasets.Split
    ledger: ledger.Ledger
    seed: int


def open_run(
    workdir,
    num_images=None,
    bn_eval="frozen",
    weights="best",
    dataset_name=None,
    data_dir=None,
    dataset=None,
    seed=None,
    ledger_path=None,
    split="test",
):
    """Returns the OpenRun of a run folder.

    Args:
      workdir: the run folder.
      num_images: the first so many images; None for all.
      bn_eval: "frozen" or "batch" statistics, see `attacker_lib.Attacker`.
      weights: "best", "last" or "ema".
      dataset_name: another data set with the same classes.
      data_dir: of tensorflow-datasets.
      dataset: the Dataset, where the caller has read it already.
      seed: of the attacks' random starts; None for the run's.
      ledger_path: the ledger; None for the one in the run folder.
      split: "test", or "validation" for the images kept aside in training, on
        which a method can be chosen before the test images are looked at.

    Raises:
      InputError: bad arguments, or no run there.
    """
    config = load_config(workdir)
    _expect_choices(weights, num_images, bn_eval, split)
    if dataset is None:
        dataset = _dataset(config, dataset_name, data_dir)
    keras.utils.set_random_seed(config.seed)
    classifier = load_classifier(workdir, dataset.spec, weights)
    images = getattr(dataset, split).take(num_images)
    expect(len(images), f"{split} images", num_images=len(images))
    seed = config.seed if seed is None else seed
    batch_size = config.evaluation.batch_size
    attacker = attacker_lib.Attacker(classifier, batch_size, bn_eval)
    book = ledger.Ledger(
        ledger_path or pathlib.Path(workdir) / ledger.FILE,
        ledger_identity(
            classifiers.weights_digest(classifier),
            dataset.provenance,
            bn_eval,
            seed,
            [batch_size, len(images)],
            split,
        ),
    )
    return OpenRun(config, dataset, classifier, attacker, images, book, seed)


def open_beside(run, folder, workdir):
    """Returns the OpenRun of a run's teacher on the same images, or None.

    Its lines go into the run's own ledger: its folder may be anybody's.

    Args:
      run: OpenRun.
      folder: the teacher's run folder; it may be absent.
      workdir: the run's folder.
    """
    if not run_folder.weights_path(folder, "best").exists():
        return None
    return open_run(
        folder,
        len(run.split),
        dataset=run.dataset,
        seed=run.seed,
        ledger_path=pathlib.Path(workdir) / ledger.FILE,
    )


def ledger_identity(digest, provenance, bn_eval, seed, batch, split="test"):
    """Returns what marks the ledger's lines of an evaluation.

    Args:
      digest: of the weights.
      provenance: of the data set.
      bn_eval: "frozen" or "batch".
      seed: of the random starts.
      batch: [batch size, number of images], which verdicts do not depend on
        with frozen statistics.
      split: "test" or "validation".
    """
    return {
        "weights": digest,
        "data": f"{provenance}, {split}",
        "bn_eval": bn_eval,
        "seed": seed,
        "batch": None if bn_eval == "frozen" else batch,
    }


def evaluate_run(
    workdir,
    attacks=None,
    num_images=None,
    bn_eval="frozen",
    weights=None,
    dataset_name=None,
    data_dir=None,
    dataset=None,
    seed=None,
    save_adversarials=None,
    split=None,
):
    """Evaluates a run and writes results.json.

    Args:
      workdir: the run folder.
      attacks: names of columns, see `columns.column`; None for the data set's
        own.
      num_images, bn_eval, dataset_name, data_dir, dataset, seed: as for
        `open_run`.
      weights, split: as for `open_run`; None for the config's own.
      save_adversarials: .npz file for the candidates of every attack; nothing
        is then taken from the ledger.

    Returns:
      The dictionary written to results.json.

    Raises:
      InputError: bad arguments, or no run there.
    """
    config = load_config(workdir)
    build.build_columns(config, attacks)
    _expect_place(save_adversarials)
    weights = weights or config.evaluation.weights
    split = split or config.evaluation.split
    run = open_run(
        workdir,
        num_images,
        bn_eval,
        weights,
        dataset_name,
        data_dir,
        dataset,
        seed,
        split=split,
    )
    attacker = run.attacker
    if attacker.is_frozen:
        gate.expect_passed(attacker, run.split.images)
    classes = run.dataset.spec.num_classes
    built = build.build_columns(config, attacks, classes)
    adversarials = {} if save_adversarials else None
    stands, refuted = standing(run, built, "evaluating", adversarials)
    if save_adversarials:
        _save(save_adversarials, built, run.split, adversarials)
    results = {
        "dataset": run.dataset.name,
        "data": run.dataset.provenance,
        "method": config.defense.name,
        "num_images": len(run.split),
        "bn_eval": bn_eval,
        "seed": run.seed,
        "commit": run_folder.commit(),
        "accuracy": {name: float(np.mean(s)) for name, s in stands.items()},
        "worst_case": worst_case(config, built, stands),
        "refuted": refuted,
        "weights": weights,
        "weights_digest": run.ledger.identity["weights"],
        "batch_size": attacker.batch_size,
        "attacks": {
            name: [columns.description(attack) for attack in built[name]]
            for name in built
        },
    }
    if split != "test":
        results["split"] = split
    run_folder.write_json(pathlib.Path(workdir) / run_folder.RESULTS, results)
    return results


def standing(run, built, doing, adversarials=None):
    """Returns which images withstand each column, running what is missing.

    Args:
      run: OpenRun.
      built: {column: stepped attacks}.
      doing: a word for the progress bar.
      adversarials: as for `verdicts.Verdicts`.

    Returns:
      {column: bool [n]}, and the number of refuted candidates.
    """
    passes = sum(
        1 + sum(stepped.passes(attack) for attack in attacks)
        for attacks in built.values()
    )
    stands, refuted = {}, 0
    with terminal.bar(doing, passes * len(run.split)) as advance:
        for name, attacks in built.items():

            def ended(count, name=name):
                advance(f"{doing} {name}", units=count)

            judge = verdicts.Verdicts(
                run.attacker,
                run.split,
                run.ledger,
                run.seed,
                ended,
                adversarials,
            )
            stands[name] = judge.standing(attacks)
            refuted += judge.refuted(attacks)
    return stands, refuted


def worst_case(config, built, stands):
    """Returns the share of images that withstand all columns of the config's

    threat model together: the mean of the worst, not the worst mean. None
    where no column is in it.

    Args:
      config: gives ε.
      built: {column: stepped attacks}.
      stands: {column: bool [n]}.
    """
    within = [
        stands[name]
        for name, attacks in built.items()
        if in_threat_model(config, attacks)
    ]
    return float(np.mean(np.all(within, axis=0))) if within else None


def in_threat_model(config, attacks):
    """Returns whether all attacks of a column stay in the config's ball."""
    return all(
        attack.epsilon <= config.attack.epsilon
        and getattr(attack, "norm", "linf") == "linf"
        for attack in attacks
    )


def _dataset(config, name, data_dir):
    dataset = load_dataset(config, data_dir)
    if name is None or image_folders.absolute(name) == config.dataset:
        return dataset
    other = datasets.load(
        name, data_dir, image_size=run_config.image_size(config)
    )
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


def _expect_choices(weights, num_images, bn_eval, split):
    if split not in run_config.SPLITS:
        raise unknown("images", split, run_config.SPLITS)
    if weights not in run_folder.WEIGHTS:
        raise unknown("weights", weights, run_folder.WEIGHTS)
    if num_images is not None:
        expect(num_images >= 1, "num_images >= 1", num_images=num_images)
    expect(
        bn_eval in robustness.BATCH_NORM_MODES,
        "bn_eval of frozen or batch",
        bn_eval=bn_eval,
    )


def _expect_place(path):
    """Raises InputError unless a file can be written at `path`, or no path."""
    place = pathlib.Path(path or ".npz")
    expect(
        place.parent.is_dir() and place.name.endswith(".npz"),
        "an .npz file in an existing folder",
        save_adversarials=path,
    )


def _save(path, built, split, adversarials):
    """Writes each attack's candidates, with the images' indices."""
    arrays = {"labels": split.labels}
    for name, attacks in built.items():
        for number, attack in enumerate(attacks):
            # No entry: nobody was left to attack.
            kept = adversarials.get(columns.description(attack), {})
            key = f"{name}/{number}"
            arrays[f"{key}/indices"] = np.array(sorted(kept))
            arrays[f"{key}/images"] = np.array([kept[i] for i in sorted(kept)])
    with run_folder.replacing(path) as temporary:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
