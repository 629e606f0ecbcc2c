"""A small network that is worth attacking: WRN-16-2 on CIFAR-10, two CPU cores.

    python -m atat_tf.train --config=configs/reference.py \
        --data_dir=../shared/tfds --workdir=runs/reference

`configs/reference.py:small` is WRN-16-1. N-FGSM on adversarial images alone,
30 epochs, the rate from 0 to 0.2 and back to 0, weight decay 5e-4. The weights
are the average over steps, and are taken at the end: the rate ends at zero and
networks of this size hardly overfit the attack, so that a choice among epochs
on a thousand images would be a choice by chance.
"""

import ml_collections

from . import base

_WIDTHS = {"reference": 2, "small": 1}


def get_config(name="reference"):
    if name not in _WIDTHS:
        raise ValueError(
            f"Expected one of {', '.join(_WIDTHS)}. Received: {name!r}."
        )
    config = base.get_config()
    config.unlock()
    config.defense = ml_collections.ConfigDict(
        {"name": "at", "clean_weight": 0.0, "label_smoothing": 0.0}
    )
    config.attack.name = "n_fgsm"
    config.guard = "rollback"
    config.student_start = "random"
    config.backbone.depth = 16
    config.backbone.width = _WIDTHS[name]
    config.num_epochs = 30
    config.optimizer.schedule = "one_cycle"
    config.optimizer.learning_rate = 0.2
    config.optimizer.weight_decay = 5e-4
    # Over 1,000 steps, three epochs.
    config.optimizer.ema = 0.999
    config.optimizer.ema_statistics = "averaged"
    config.evaluation.weights = "ema"
    config.evaluation.attacks = ("clean", "pgd20", "autoattack")
    return config.lock()
