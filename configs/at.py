"""AT-PGD: cross-entropy over the mixture of clean and adversarial images.

    python -m atat_tf.train --config=configs/at.py --workdir=runs/at

`--config.defense.clean_weight=0` is Madry et al. 2018, adversarial images
only. WRN-34-10 on CIFAR-10 or CIFAR-100: not run.
"""

from . import base


def get_config():
    return base.with_defense(
        {"name": "at", "clean_weight": 0.5, "label_smoothing": 0.0}
    )
