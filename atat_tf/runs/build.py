"""From a config to objects; the only file that knows every registry.

A resolved ConfigDict enters; it leaves checked, or as the classifier, attack,
defense and trainer that it names.
"""

import dataclasses
import inspect

import keras

from atat_tf.attacks import columns, for_training, linf
from atat_tf.defenses import atat
from atat_tf.errors import expect, unknown
from atat_tf.models import applications, cifar, wide_resnet
from atat_tf.models import files as model_files

BACKBONES = {**wide_resnet.BACKBONES, **cifar.BACKBONES}


def build_classifier(config, spec, model_file=None):
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
    # Keras' L2 has no ½.
    l2 = config.optimizer.weight_decay / 2
    if config.model:
        path = model_file or config.model
        classifier = model_files.load(path, config.model_range)
        model_files.expect_classes(classifier, spec)
        return applications.with_settings(
            classifier, l2, config.sync_batch_norm
        )
    name = config.backbone.name
    if applications.is_one(name):
        factory = applications.factory(name)
    else:
        factory = registered("a backbone", BACKBONES, name)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        return factory(
            spec.image_shape,
            spec.num_classes,
            depth=config.backbone.depth,
            width=config.backbone.width,
            l2=l2,
            synchronized=config.sync_batch_norm,
        )
    finally:
        keras.config.set_dtype_policy(before)


def build_attack(config):
    """Returns the training attack that the config's section names.

    Raises:
      InputError: an unknown name, or a field out of its range.
    """
    name, section = _attack_section(config)
    known = for_training.TRAINING_ATTACKS
    factory = registered("a training attack", known, name)
    expect(
        name == "pgd" or section["random_start"],
        f"random_start=True, as {name} always has it",
        random_start=section["random_start"],
    )
    fields = inspect.signature(factory).parameters
    return factory(**{f: v for f, v in section.items() if f in fields})


def build_validation_attack(config):
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


def build_columns(config, names=None, num_classes=10):
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
    return {name: columns.column(name, *ball, num_classes) for name in names}


def build_defense(config):
    """Returns the defense with the weights of its section."""
    section = config.defense.to_dict()
    factory = registered("a defense", atat.DEFENSES, section.pop("name"))
    fields = {field.name for field in dataclasses.fields(factory)}
    for name in section:
        if name not in fields:
            raise unknown(f"a field of {factory.__name__}", name, fields)
    return factory(**section)


def _attack_section(config):
    """Returns the training attack's name and the fields of the PGD."""
    section = config.attack.to_dict()
    # Runs from before there were several have no name in their config.json.
    return section.pop("name", "pgd"), section


def registered(kind, registry, name):
    if name not in registry:
        raise unknown(kind, name, registry)
    return registry[name]
