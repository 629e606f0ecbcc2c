"""Logit pairing: AT plus Eq. 6 with λ2 = 1, the paper's form of ALP.

    python -m atat_tf.train --config=configs/alp.py --workdir=runs/alp

`--config.defense.pairing=mse` is ALP as Kannan et al. 2018 and their code have
it, half the mean squared difference.

WRN-34-10 on CIFAR-10 or CIFAR-100: not run.
"""

from . import base


def get_config():
    return base.with_defense(
        {
            "name": "alp",
            "logit_weight": 1.0,
            "clean_weight": 0.5,
            "pairing": "norm",
            "label_smoothing": 0.0,
            "logit_schedule": (0.0, 0.0),
        }
    )
