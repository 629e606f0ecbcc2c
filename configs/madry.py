"""AT of Madry et al. 2018: cross-entropy on adversarial images only.

    python -m atat_tf.train --config=configs/madry.py --workdir=runs/madry

`configs/at.py` is the mixture with clean images. WRN-34-10 on CIFAR-10 or
CIFAR-100: not run.
"""

from . import base


def get_config():
    return base.with_defense(
        {"name": "at", "clean_weight": 0.0, "label_smoothing": 0.0}
    )
