"""CIFAR-10 on two CPU cores: WRN-10-1, a few epochs, any of the methods.

    python -m atat_tf.train --config=configs/small.py:atat \
        --data_dir=../shared/tfds --workdir=runs/small_atat

The name behind the colon is a recipe: standard, at, madry, alp, tla, trades,
atat, fast, released_cifar10 or released_cifar100. Measured on
the JPEG copy of CIFAR-10, 10,000 test images, seed 0, best epoch by
validation; docs/results.md has AutoAttack, intervals, times and commits, and
docs/performance.md those of fast. A small network on the JPEG copy, not the
paper's WRN. Percent:

                        clean    FGSM  I-FGSM(20)  PGD(7)  PGD(20)
    standard            72.28    1.51        0.00    0.00     0.00
    at                  54.60   26.69       23.99   25.34    24.10
    madry               46.50   29.29       27.92   28.79    28.03
    alp                 31.36   24.68       24.40   24.53    24.38
    tla                 40.98   28.22       27.50   28.10    27.59
    trades              48.29   26.83       25.57   26.29    25.62
    atat                38.18   27.00       26.44   26.76    26.44
    fast                43.35 not run     not run  not run    27.62
    released_cifar10    60.38   17.98       12.17   14.25    12.17
    released_cifar100   52.39   23.59       20.27   21.88    20.37
"""

import importlib

_METHODS = (
    "standard",
    "at",
    "madry",
    "alp",
    "tla",
    "trades",
    "atat",
    "fast",
    "released_cifar10",
    "released_cifar100",
)


def get_config(method="atat"):
    if method not in _METHODS:
        raise ValueError(
            f"Expected a method among {', '.join(_METHODS)}. "
            f"Received: {method!r}."
        )
    config = importlib.import_module(f".{method}", __package__).get_config()
    config.backbone.depth = 10
    config.backbone.width = 1
    config.num_epochs = 6
    config.teacher_num_epochs = 6
    config.optimizer.schedule = "cosine"
    return config
