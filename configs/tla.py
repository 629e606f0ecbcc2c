"""TLA (Mao et al. 2019): adversarial training with a triplet loss.

    python -m atat_tf.train --config=configs/tla.py --workdir=runs/tla

Weights and margin are those of the authors' CIFAR-10 configuration, which
goes on from an adversarially trained network where this starts from random
weights. WRN-34-10 on CIFAR-10 or CIFAR-100: not run.
"""

from . import base


def get_config():
    return base.with_defense(
        {
            "name": "tla",
            "triplet_weight": 2.0,
            "norm_weight": 1e-3,
            "margin": 0.03,
            "clean_weight": 0.0,
            "layers": ("features",),
            "label_smoothing": 0.0,
        }
    )
