"""ATAT with a one-step attack in training, N-FGSM: two fifths of the cost.

    python -m atat_tf.train --config=configs/fast.py --workdir=runs/fast

`--config.attack.name=fgsm_rs` is the one of Wong et al. 2020, and any recipe
takes either name. One-step training can collapse within an epoch: validation
is under PGD(7), and `config.guard` ends the run then. WRN-34-10 on CIFAR-10
or CIFAR-100: not run.
"""

from . import base


def get_config():
    config = base.get_config()
    config.attack.name = "n_fgsm"
    return config.lock()
