"""The released code's CIFAR-100 loss: attention by squared error.

    python -m atat_tf.train --config=configs/released_cifar100.py \
        --workdir=runs/released_cifar100

Its network and its random start of the student; data, attack and schedule are
the paper's, as in every recipe. `evaluate --bn_eval=batch` is how the released
code evaluates. WRN-34-10 on CIFAR-10 or CIFAR-100: not run.
"""

from . import base


def get_config():
    return base.with_defense(
        {"name": "released_cifar100", "layers": ("features",)},
        {"backbone.name": "madry_wide_resnet"},
    )
