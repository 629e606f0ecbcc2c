"""What a training costs: forward passes an image, and the words for it."""

from atat_tf.attacks import for_training
from atat_tf.defenses import atat
from atat_tf.models import graphs
from atat_tf.runs import build, terminal
from atat_tf.runs.config import network_name

_DAY = 86400.0
_SMALL_RECIPE = "configs/small.py"


def passes_per_image(config):
    """Returns a training step's cost for an image, in forward passes.

    A gradient to the images costs one more than the forward pass, one to the
    weights too costs two more.

    Args:
      config: resolved.
    """
    defense = build.build_defense(config)
    if not defense.needs_attack:
        return 3
    # Of all, only adversarial training may leave the clean images out.
    alone = defense == atat.AdversarialTraining(clean_weight=0)
    attack = build.build_attack(config)
    before = isinstance(attack, for_training.KLAttack)
    passes = before + 2 * attack.num_steps + defense.needs_teacher
    return passes + (3 if alone else 6)


def flops_per_image(config, student):
    """Returns the FLOPs of a training step for an image.

    Args:
      config: resolved.
      student: the classifier.
    """
    return passes_per_image(config) * graphs.flops_per_image(student)


def announcement(config, student, dataset, num_steps, seconds, followed_by):
    """Returns lines that say what is trained and how long it takes.

    Args:
      config: resolved.
      student: the classifier.
      dataset: a `datasets.Dataset`.
      num_steps: steps that are left.
      seconds: measured, of one step.
      followed_by: None, or the config of the training that comes after, of
        as many images.
    """
    passes = passes_per_image(config)
    forward = graphs.flops_per_image(student)
    left = seconds * num_steps
    lines = [
        f"{config.defense.name}: {network_name(config)} on "
        f"{config.dataset} ({dataset.provenance}), "
        f"{len(dataset.train):,} training images",
        f"  {student.count_params():,} parameters; "
        f"{forward / 1e9:.3g} GFLOP an image forward, "
        f"{passes * forward / 1e9:.3g} in a training step "
        f"({passes:g} forward equivalents)",
        f"  about {terminal.duration(left)} for {num_steps:,} steps of "
        f"{config.batch_size} images "
        f"(measured: {config.batch_size / seconds:.3g} images/s)",
    ]
    if followed_by:
        steps = len(dataset.train) // config.batch_size
        after = passes_per_image(followed_by)
        then = seconds * after / passes * followed_by.num_epochs * steps
        lines.append(
            f"  then about {terminal.duration(then)} for the student, at "
            f"{after:g} forward equivalents an image"
        )
        left += then
    if left > _DAY:
        lines.append(
            "  that is over a day: a recipe for two CPU cores is "
            f"--config={_SMALL_RECIPE}"
        )
    return lines
