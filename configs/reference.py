"""A small network that is worth attacking: WRN-16-2 on CIFAR-10, two CPU cores.

    python -m atat_tf.train --config=configs/reference.py \
        --data_dir=../shared/tfds --workdir=runs/reference

N-FGSM on adversarial images alone, 30 epochs, the rate from 0 to 0.2 and back
to 0, weight decay 5e-4. The weights are the average over steps, and are taken
at the end: the rate ends at zero and networks of this size hardly overfit the
attack, so that a choice among epochs on a thousand images would be a choice by
chance.

`configs/reference.py:small` is WRN-16-1. `small_atat` is the variant of ATAT
that goes on from the screening, on WRN-16-1 and at the cost of `small`: 30
epochs of AT are 150 forward passes of an image, ten of a teacher and thirteen
of ATAT 147.
"""

import ml_collections

from . import base, ours

NAMES = "reference", "small", "small_atat"


def get_config(name="reference"):
    if name not in NAMES:
        raise ValueError(
            f"Expected one of {', '.join(NAMES)}. Received: {name!r}."
        )
    config = base.get_config()
    config.unlock()
    config.attack.name = "n_fgsm"
    config.guard = "rollback"
    config.backbone.depth = 16
    config.backbone.width = 2 if name == "reference" else 1
    config.num_epochs = 30
    config.student_start = "random"
    if name == "small_atat":
        config.defense.update(ours.DEFENSES["mse"])
        config.num_epochs = 13
        config.teacher_num_epochs = 10
        config.student_start = "teacher"
    else:
        config.defense = ml_collections.ConfigDict(ours.DEFENSES["control_at"])
    config.optimizer.schedule = "one_cycle"
    config.optimizer.learning_rate = 0.2
    config.optimizer.weight_decay = 5e-4
    # Over 1,000 steps, three epochs.
    config.optimizer.ema = 0.999
    config.optimizer.ema_statistics = "averaged"
    config.evaluation.weights = "ema"
    config.evaluation.attacks = ("clean", "pgd20", "autoattack")
    return config.lock()
