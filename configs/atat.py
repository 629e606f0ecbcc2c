"""ATAT, the paper's method and protocol: Eq. 7 with λ1 = λ2 = 1.

    python -m atat_tf.train --dataset=cifar10 --workdir=runs/atat

WRN-34-10 on CIFAR-10 or CIFAR-100: not run (280 GFLOP an image and step, 100
epochs; more than a year on two CPU cores).
"""

from . import base


def get_config():
    return base.get_config()
