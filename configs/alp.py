"""ALP (Kannan et al. 2018): AT plus logit pairing, Eq. 6 with λ2 = 1.

    python -m atat_tf.train --config=configs/alp.py --workdir=runs/alp

WRN-34-10 on CIFAR-10 or CIFAR-100: not run.
"""

import ml_collections

from . import base


def get_config():
    config = base.get_config()
    config.unlock()
    config.defense = ml_collections.ConfigDict(
        {"name": "alp", "logit_weight": 1.0, "clean_weight": 0.5}
    )
    config.student_start = "random"
    return config.lock()
