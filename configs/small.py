"""CIFAR-10 on two CPU cores: WRN-10-1, a few epochs, any of the methods.

    python -m atat_tf.train --config=configs/small.py:atat \
        --data_dir=../shared/tfds --workdir=runs/small_atat

The name behind the colon is a recipe: standard, at, alp or atat.
"""

import importlib

_METHODS = ("standard", "at", "alp", "atat")


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
