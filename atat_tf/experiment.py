"""From a config to objects; the only file that knows every registry.

A resolved ConfigDict enters; it leaves checked, or as the classifier, attack,
defense and trainer that it names.
"""

import dataclasses
import inspect

import keras
import tensorflow as tf

from atat_tf import (
    admission,
    attacks,
    cifar_backbones,
    columns,
    defenses,
    guard,
    image_folders,
    keras_backbones,
    model_files,
    models,
    sources,
    trainer,
    training_attacks,
)
from atat_tf.errors import expect, unknown

BACKBONES = {**models.BACKBONES, **cifar_backbones.BACKBONES}


def validate(config, data_dir=None):
    """Checks a resolved config, before any long work.

    Args:
      config: from `run_config.resolve`.
      data_dir: where the data set is.

    Raises:
      InputError: the first rule that does not hold.
    """
    _expect_field(config, "seed", lambda s: 0 <= s < 2**31, "in [0, 2**31)")
    for field in ("batch_size", "num_epochs", "teacher_num_epochs"):
        _expect_field(config, field, lambda value: value >= 1, ">= 1")
    for field in (
        "checkpoint_every_steps",
        "attention_panels",
        "micro_batch_size",
        "attack_batch_size",
    ):
        _expect_field(config, field, lambda value: value >= 0, ">= 0")
    expect(
        not (config.sync_batch_norm and config.micro_batch_size),
        "sync_batch_norm=False with micro-batches, whose statistics are their "
        "own",
        micro_batch_size=config.micro_batch_size,
    )
    _expect_choice(config, "student_start", ("teacher", "random"))
    _expect_choice(config, "precision", ("float32", "mixed_bfloat16"))
    _expect_choice(config.optimizer, "schedule", ("piecewise", "cosine"))
    _validate_optimizer(config.optimizer)
    _validate_guard(config)
    _expect_field(config, "teacher_learning_rate", lambda rate: rate > 0, "> 0")
    attack = build_attack(config)
    build_validation_attack(config)
    build_columns(config)
    trainer.expect_fitting_attack(build_defense(config), attack)
    spec = sources.data_spec(config, data_dir)
    _expect_choice(config, "bad_images", image_folders.BAD_IMAGES)
    if config.model:
        _validate_model(config, spec)
    elif keras_backbones.is_one(config.backbone.name):
        keras_backbones.factory(config.backbone.name)
    else:
        _factory("a backbone", BACKBONES, config.backbone.name)
        models.units_per_group(config.backbone.depth, config.backbone.width)
    expect(
        min(spec.image_shape[:2]) >= 8,
        "images of at least 8 × 8 pixels",
        image_shape=spec.image_shape,
    )


def _validate_model(config, spec):
    expect(
        config.precision == "float32",
        "precision=float32 with a saved model, whose layers have their own",
        precision=config.precision,
    )
    classifier = build_classifier(config, spec)
    models.with_taps(classifier, build_defense(config).layers)
    admission.expect_trainable(classifier)


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
        return keras_backbones.with_settings(
            classifier, l2, config.sync_batch_norm
        )
    name = config.backbone.name
    if keras_backbones.is_one(name):
        factory = keras_backbones.factory(name)
    else:
        factory = _factory("a backbone", BACKBONES, name)
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
    known = training_attacks.TRAINING_ATTACKS
    factory = _factory("a training attack", known, name)
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
        name not in training_attacks.ONE_STEP or section["num_steps"] > 1,
        f"num_steps > 1, of the PGD that validates {name}",
        num_steps=section["num_steps"],
    )
    return attacks.LinfAttack(**section)


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
    factory = _factory("a defense", defenses.DEFENSES, section.pop("name"))
    fields = {field.name for field in dataclasses.fields(factory)}
    for name in section:
        if name not in fields:
            raise unknown(f"a field of {factory.__name__}", name, fields)
    return factory(**section)


def build_optimizer(config, steps_per_epoch):
    """Returns SGD with momentum and the config's schedule."""
    section = config.optimizer
    total = config.num_epochs * steps_per_epoch
    if section.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            section.learning_rate, total
        )
    else:
        boundaries = [round(share * total) for share in section.decay_at]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            boundaries,
            [
                section.learning_rate * section.decay_factor**drops
                for drops in range(len(boundaries) + 1)
            ],
        )
    return keras.optimizers.SGD(
        rate,
        momentum=section.momentum,
        use_ema=section.ema > 0,
        ema_momentum=section.ema,
    )


def build_trainer(config, student, teacher, steps_per_epoch):
    """Returns the compiled trainer; call it inside the strategy's scope."""
    defense = build_defense(config)
    # Validation reports accuracy under attack for every defense that trains
    # with one.
    attack = build_attack(config) if defense.needs_attack else None
    built = trainer.AdversarialTrainer(
        student,
        defense,
        attack,
        teacher if defense.needs_teacher else None,
        seed=config.seed,
        micro_batch_size=config.micro_batch_size,
        attack_batch_size=config.attack_batch_size,
        remat=config.remat,
    )
    built.compile(build_optimizer(config, steps_per_epoch))
    return built


def build_strategy(num_devices=None):
    """Returns a strategy over all visible GPUs, or over N logical CPUs.

    Args:
      num_devices: how many; None for all GPUs, or the one CPU.

    Raises:
      InputError: fewer GPUs than asked for.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and (num_devices or 1) > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices
        )
    kind = "GPU" if gpus else "CPU"
    available = len(gpus) if gpus else max(num_devices or 1, 1)
    count = available if num_devices is None else num_devices
    expect(
        1 <= count <= available,
        f"num_devices from 1 to {available}, the {kind}s there are",
        num_devices=num_devices,
    )
    return tf.distribute.MirroredStrategy(
        [f"{kind}:{number}" for number in range(count)]
    )


def _attack_section(config):
    """Returns the training attack's name and the fields of the PGD."""
    section = config.attack.to_dict()
    # Runs from before there were several have no name in their config.json.
    return section.pop("name", "pgd"), section


def _validate_guard(config):
    _expect_choice(config, "guard", guard.GUARDS)
    _expect_field(config, "guard_share", lambda s: 0 < s < 1, "in (0, 1)")
    expect(
        config.guard == "off" or build_defense(config).needs_attack,
        "guard=off for a defense that is not validated under attack",
        guard=config.guard,
    )


def _validate_optimizer(section):
    _expect_field(section, "learning_rate", lambda rate: rate > 0, "> 0")
    for field in ("momentum", "ema"):
        _expect_field(section, field, lambda value: 0 <= value < 1, "in [0, 1)")
    _expect_field(section, "weight_decay", lambda value: value >= 0, ">= 0")
    _expect_field(
        section,
        "decay_at",
        lambda shares: list(shares) == sorted({s for s in shares if 0 < s < 1}),
        "as ascending shares of the run in (0, 1)",
    )


def _expect_field(section, field, rule, words):
    value = section[field]
    expect(rule(value), f"{field} {words}", **{field: value})


def _expect_choice(section, field, known):
    if section[field] not in known:
        raise unknown(field, section[field], known)


def _factory(kind, registry, name):
    if name not in registry:
        raise unknown(kind, name, registry)
    return registry[name]
