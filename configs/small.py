"""CIFAR-10 on two CPU cores: WRN-10-1, a few epochs, any of the methods.

    python -m atat_tf.train --config=configs/small.py:atat \
        --data_dir=../shared/tfds --workdir=runs/small_atat

The name behind the colon is a recipe: standard, at, madry, alp, tla, trades,
atat, fast, released_cifar10 or released_cifar100. Measured on
the JPEG copy of CIFAR-10, 10,000 test images, seed 0, best epoch by
validation, commit 10140ccb2955; about half an hour for atat with its teacher,
and for at, on two free cores. A small network on the JPEG copy, not the
paper's WRN. Percent:

              clean    FGSM  I-FGSM(20)  PGD(7)  PGD(20)
    standard  72.28    1.52        0.00    0.00     0.00
    at        54.60   26.69       24.16   25.35    24.19
    atat      38.18   27.00       26.47   26.76    26.45
    others    not run
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
    config = importlib.import_module(f"configs.{method}").get_config()
    config.backbone.depth = 10
    config.backbone.width = 1
    config.num_epochs = 6
    config.teacher_num_epochs = 6
    config.optimizer.schedule = "cosine"
    return config
