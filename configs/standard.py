"""Standard training on clean images: the teacher, and the undefended row.

    python -m atat_tf.train --config=configs/standard.py --workdir=runs/standard

WRN-34-10 on CIFAR-10 or CIFAR-100: not run.
"""

import ml_collections

from . import base


def get_config():
    config = base.get_config()
    config.unlock()
    config.defense = ml_collections.ConfigDict(
        {"name": "standard", "label_smoothing": 0.0}
    )
    config.student_start = "random"
    return config.lock()
