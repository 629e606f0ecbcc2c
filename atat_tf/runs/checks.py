"""What must hold between a config, its folder, its teacher and its data."""

import pathlib

import tensorflow as tf
from ml_collections import ConfigDict

from atat_tf.data import batches, datasets, extra
from atat_tf.data import folders as image_folders
from atat_tf.defenses import objective
from atat_tf.errors import InputError, expect, expect_known
from atat_tf.models import applications, checks, graphs
from atat_tf.models import layers as model_layers
from atat_tf.runs import build
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder


def validate(
    config: ConfigDict, data_dir: run_folder.Path | None = None
) -> None:
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
    for field in ("checkpoint_every_steps", "attention_panels"):
        _expect_field(config, field, lambda value: value >= 0, ">= 0")
    _validate_accumulation(config)
    for field in ("weight_perturbation", "teacher_momentum"):
        _expect_field(config, field, lambda size: 0 <= size < 1, "in [0, 1)")
    expect(
        not config.teacher_momentum
        or build.build_defense(config).needs_teacher,
        "teacher_momentum=0 without a teacher in the loss",
        teacher_momentum=config.teacher_momentum,
    )
    _expect_choice(config, "student_start", ("teacher", "random"))
    _expect_choice(config, "precision", ("float32", "mixed_bfloat16"))
    _validate_optimizer(config.optimizer)
    _validate_guard(config)
    _expect_field(
        config.evaluation, "batch_size", lambda value: value >= 1, ">= 1"
    )
    _expect_choice(config.evaluation, "split", run_config.SPLITS)
    _expect_choice(config.evaluation, "weights", run_folder.WEIGHTS)
    expect(
        config.evaluation.weights != "ema" or config.optimizer.ema > 0,
        "optimizer.ema > 0 where the averaged weights are evaluated",
        ema=config.optimizer.ema,
    )
    _expect_field(config, "teacher_learning_rate", lambda rate: rate > 0, "> 0")
    attack = build.build_attack(config)
    build.build_validation_attack(config)
    build.build_columns(config)
    objective.expect_fitting_attack(build.build_defense(config), attack)
    spec = run_config.data_spec(config, data_dir)
    _expect_choice(config, "bad_images", image_folders.BAD_IMAGES)
    _expect_choice(config, "augmentation", tuple(batches.AUGMENTATIONS))
    if config.extra_images:
        extra.mapped(config.extra_images, spec)
        _expect_field(
            config,
            "extra_share",
            lambda share: 1 / config.batch_size <= share < 1,
            f"in [1/{config.batch_size}, 1), an image at least of each batch",
        )
    if config.model:
        _validate_model(config, spec)
    elif applications.is_one(config.backbone.name):
        applications.factory(config.backbone.name)
    else:
        expect_known("a backbone", config.backbone.name, build.BACKBONES)
        if config.backbone.name in build.OWN_BACKBONES:
            model_layers.units_per_group(
                config.backbone.depth, config.backbone.width
            )
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
    classifier = build.build_classifier(config, spec)
    layers = build.build_defense(config).layers
    checks.expect_trainable(graphs.with_taps(classifier, layers))
    if objective.compares_images(build.build_defense(config)):
        checks.expect_one_image(classifier)


def _validate_guard(config):
    _expect_choice(config, "guard", run_config.GUARDS)
    _expect_field(config, "guard_share", lambda s: 0 < s < 1, "in (0, 1)")
    expect(
        config.guard == "off" or build.build_defense(config).needs_attack,
        "guard=off for a defense that is not validated under attack",
        guard=config.guard,
    )


def _validate_accumulation(config):
    size = config.batch_size
    _expect_field(
        config,
        "gradient_accumulation_steps",
        lambda steps: steps == 0 or (steps >= 2 and size % steps == 0),
        f"as 0, or from 2 and a divisor of batch_size={size}",
    )
    for field in ("weight_perturbation", "teacher_momentum"):
        expect(
            not (config.gradient_accumulation_steps and config[field]),
            f"{field}=0 with gradient accumulation, whose parts would each "
            "move the weights",
            **{field: config[field]},
        )
    # Keras' optimizers move the average at every part of a batch.
    expect(
        not (config.gradient_accumulation_steps and config.optimizer.ema),
        "optimizer.ema=0 with gradient accumulation",
        ema=config.optimizer.ema,
    )


def _validate_optimizer(section):
    schedules = ("piecewise", "cosine", "one_cycle")
    _expect_choice(section, "schedule", schedules)
    _expect_field(section, "peak_at", lambda s: 0 < s < 1, "in (0, 1)")
    _expect_choice(section, "ema_statistics", ("last", "averaged"))
    expect(
        section.ema_statistics == "last" or section.ema > 0,
        "optimizer.ema > 0 beside averaged batch-norm statistics",
        ema=section.ema,
    )
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
    expect_known(field, section[field], known)


# Fields in which a run may differ from what it began with.
_MOVE_NO_WEIGHT = (
    "attention_panels",
    "guard",
    "guard_share",
)


def expect_same_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Raises InputError if a run folder holds a run of another config.

    Args:
      workdir: the run folder; it need not exist.
      config: resolved.
    """
    if not (workdir / run_folder.CONFIG).exists():
        return
    here = run_config.to_dict(config)
    there = run_config.to_dict(run_config.read(workdir))
    for field in _MOVE_NO_WEIGHT:
        here.pop(field, None)
        there.pop(field, None)
    differing = run_config.differences(here, there)
    if differing:
        raise InputError(
            f"Expected the config of the run in {str(workdir)!r}, or another "
            f"--workdir. Received: {'; '.join(differing)}."
        )


def expect_fitting_teacher(config: ConfigDict, folder: pathlib.Path) -> None:
    """Raises InputError if a config's teacher cannot teach its student.

    Args:
      config: resolved.
      folder: the run folder of its teacher.
    """
    read = run_config.read(folder)
    teacher = run_config.to_dict(read)
    fields = (
        "dataset",
        "class_names",
        "backbone",
        "model_digest",
        "model_range",
        "split_seed",
        "num_validation",
    )
    here = {f: run_config.to_dict(config)[f] for f in fields}
    there = {f: teacher.get(f) for f in fields}
    sizes = run_config.image_size(config), run_config.image_size(read)
    if None not in sizes:
        here["image_size"], there["image_size"] = map(_as_shape, sizes)
    differing = run_config.differences(here, there)
    if differing:
        raise InputError(
            "Expected a teacher of the student's data set, split, classes and "
            f"backbone. Received: {config.teacher!r} with "
            f"{'; '.join(differing)}."
        )
    path = run_folder.weights_path(folder, read.evaluation.weights)
    if not path.exists():
        raise InputError(
            "Expected a trained teacher. Received: "
            f"{config.teacher!r} without {path.name}."
        )


def _as_shape(size):
    """Returns (H, W) of what images are resized to."""
    return (size, size) if isinstance(size, int) else tuple(size)[:2]


def expect_a_batch(
    config: ConfigDict,
    dataset: datasets.Dataset,
    strategy: tf.distribute.Strategy,
) -> None:
    """Raises InputError if a batch is more than the data or less than devices.

    Or if gradients are to be accumulated on several devices, which Keras'
    optimizers cannot.

    Args:
      config: resolved.
      dataset: whose training images are counted.
      strategy: whose devices share a batch.
    """
    smallest = strategy.num_replicas_in_sync
    for field in ("weight_perturbation", "teacher_momentum"):
        expect(
            smallest == 1 or not config[field],
            f"{field}=0 on several devices (--num_devices=1 takes one)",
            **{field: config[field]},
        )
    expect(
        smallest == 1 or not config.gradient_accumulation_steps,
        "gradient_accumulation_steps=0 on several devices (--num_devices=1 "
        "takes one)",
        gradient_accumulation_steps=config.gradient_accumulation_steps,
    )
    if not smallest <= config.batch_size <= len(dataset.train):
        raise InputError(
            f"Expected a batch_size from {smallest} (one image a device) to "
            f"{len(dataset.train)} (the training images). Received: "
            f"batch_size={config.batch_size}."
        )
