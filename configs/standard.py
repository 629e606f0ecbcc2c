"""Standard training on clean images: the teacher, and the undefended row.

    python -m atat_tf.train --config=configs/standard.py --workdir=runs/standard

WRN-34-10 on CIFAR-10 or CIFAR-100: not run.
"""

from . import base


def get_config():
    return base.with_defense({"name": "standard", "label_smoothing": 0.0})
