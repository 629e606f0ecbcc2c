"""Makes what a config names, from the registries of all packages."""

import contextlib
import dataclasses
import inspect
import pathlib
from collections.abc import Iterable

import keras
from ml_collections import ConfigDict

from atat_tf.attacks import columns, for_training, linf, stepped
from atat_tf.data import datasets
from atat_tf.defenses import atat, objective
from atat_tf.errors import InputError, expect, expect_known, registered
from atat_tf.models import applications, cifar, served, wide_resnet
from atat_tf.models import files as model_files
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.runs import terminal

OWN_BACKBONES = {**wide_resnet.BACKBONES, **cifar.BACKBONES}
# Those of `atat.register` as well.
BACKBONES = {**OWN_BACKBONES}


def load_dataset(
    config: ConfigDict,
    data_dir: run_folder.Path | None = None,
    memory_budget: float | None = None,
) -> datasets.Dataset:
    """Returns the data set that a config names, with its splits.

    Args:
      config: resolved.
      data_dir: of tensorflow-datasets.
      memory_budget: as for `datasets.load`.

    Raises:
      InputError: it is not there, or its classes are not the config's.
    """
    terminal.stage(f"reading {config.dataset}")
    dataset = datasets.load(
        config.dataset,
        data_dir,
        config.split_seed,
        config.num_validation,
        run_config.image_size(config),
        config.bad_images,
        memory_budget,
    )
    trained_on = tuple(config.class_names)
    expect(
        not trained_on or dataset.class_names == trained_on,
        f"the classes that the run was trained on, {trained_on}",
        class_names=dataset.class_names,
    )
    return dataset


def build_classifier(
    config: ConfigDict,
    spec: datasets.Spec,
    model_file: pathlib.Path | None = None,
) -> keras.Model:
    """Returns the backbone for the data set's images and classes.

    Under "mixed_bfloat16" the layers compute in bfloat16; weights and logits
    stay float32.

    Args:
      config: resolved.
      spec: datasets.Spec.
      model_file: the run folder's copy of the config's saved model, if it has
        one; None for the file that the config names.

    Raises:
      InputError: the saved model is no classifier of these images.
    """
    expect(
        not config.server,
        "a network whose weights are here (evaluate, its checklist and report "
        "take one that a server answers for)",
        server=config.server,
    )
    # Keras' L2 has no ½.
    l2 = config.optimizer.weight_decay / 2
    if config.model:
        path = model_file or config.model
        classifier = model_files.load(path, config.model_range)
        shape = classifier.inputs[0].shape[1:]
        model_files.expect_classes(shape, classifier.output_shape[-1], spec)
        if config.unfreeze:
            for layer in classifier.layers:
                layer.trainable = True
        return applications.with_settings(
            classifier, l2, config.sync_batch_norm
        )
    name = config.backbone.name
    if applications.is_one(name):
        factory = applications.factory(name)
    else:
        factory = registered("a backbone", name, BACKBONES)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        network = factory(
            spec.image_shape,
            spec.num_classes,
            depth=config.backbone.depth,
            width=config.backbone.width,
            l2=l2,
            synchronized=config.sync_batch_norm,
        )
    finally:
        keras.config.set_dtype_policy(before)
    if name in OWN_BACKBONES or applications.is_one(name):
        return network
    # A backbone of someone else's may leave them out.
    return applications.with_settings(network, l2, config.sync_batch_norm)


def build_judged(
    config: ConfigDict, spec: datasets.Spec
) -> keras.Model | served.ServedClassifier:
    """Returns what an evaluation judges: the network, or a served one.

    Args:
      config, spec: as for `build_classifier`.

    Raises:
      InputError: the model is no classifier of these images, or no server
        answers.
    """
    if not config.server:
        return build_classifier(config, spec)
    classifier = served.ServedClassifier(config.server)
    model_files.expect_classes(
        classifier.input_shape[1:], classifier.num_classes, spec
    )
    return classifier


def build_attack(config: ConfigDict) -> linf.LinfAttack:
    """Returns the training attack that the config's section names.

    Raises:
      InputError: an unknown name, or a field out of its range.
    """
    name, section = _attack_section(config)
    known = for_training.TRAINING_ATTACKS
    factory = registered("a training attack", name, known)
    expect(
        name == "pgd" or section["random_start"],
        f"random_start=True, as {name} always has it",
        random_start=section["random_start"],
    )
    fields = inspect.signature(factory).parameters
    return factory(**{f: v for f, v in section.items() if f in fields})


def build_validation_attack(config: ConfigDict) -> linf.LinfAttack:
    """Returns the PGD that validation images, and so the best epoch, meet.

    The section's own PGD, by the labels, whatever attack trains: one-step
    attacks do not notice when a network has learnt to fool them.
    """
    name, section = _attack_section(config)
    expect(
        name not in for_training.ONE_STEP or section["num_steps"] > 1,
        f"num_steps > 1, of the PGD that validates {name}",
        num_steps=section["num_steps"],
    )
    return linf.LinfAttack(**section)


def expect_radii(names: Iterable[str]) -> None:
    """Raises InputError for a column in ℓ2 that would take the config's ε.

    That is of ℓ∞. Columns of before are built as they were.
    """
    for name in names:
        expect(
            not name.endswith("_l2"),
            "a radius behind an attack in ℓ2, as apgd_ce_l2@0.5: the run's ε "
            "is of ℓ∞",
            attack=name,
        )


def build_columns(
    config: ConfigDict,
    names: Iterable[str] | None = None,
    num_classes: int = 10,
) -> dict[str, tuple]:
    """Returns {name: stepped attacks} for a table's columns, in order.

    Args:
      config: gives ε and the step size.
      names: as for `columns.column`; None for the data set's own.
      num_classes: k, which limits the targets of targeted attacks.

    Raises:
      InputError: an unknown name.
    """
    names = config.evaluation.attacks if names is None else names
    expect(names, "at least one attack", attacks=names)
    ball = config.attack.epsilon, config.attack.step_size
    built = {name: columns.column(name, *ball, num_classes) for name in names}
    for name, attacks in built.items():
        expect(
            not config.get("server")
            or not any(map(stepped.needs_gradient, attacks)),
            "clean or square (any number of steps, as square500): a server "
            "answers scores without a gradient",
            attack=name,
        )
    return built


def known_columns(
    config: ConfigDict, names: Iterable[str], num_classes: int
) -> dict[str, tuple]:
    """Returns the same without columns of a plugin that is not here."""
    built: dict[str, tuple] = {}
    for name in names:
        with contextlib.suppress(InputError):
            built |= build_columns(config, [name], num_classes)
    return built


def build_defense(config: ConfigDict) -> objective.Defense:
    """Returns the defense with the weights of its section."""
    section = config.defense.to_dict()
    factory = registered("a defense", section.pop("name"), atat.DEFENSES)
    fields = {field.name for field in dataclasses.fields(factory)}
    for name in section:
        expect_known(f"a field of {factory.__name__}", name, fields)
    return factory(**section)


def defense_layers(config: ConfigDict) -> tuple[str, ...]:
    """Returns the layers that a run's defense acts on, () for none.

    Of a defense whose plugin is not given those that the config names.
    """
    try:
        return tuple(build_defense(config).layers)
    except InputError:
        return tuple(config.defense.get("layers", ()))


def _attack_section(config):
    """Returns the training attack's name and the fields of the PGD."""
    section = config.attack.to_dict()
    return section.pop("name"), section
