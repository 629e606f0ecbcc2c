"""TRADES (Zhang et al. 2019), β = 6: clean cross-entropy + β · divergence.

    python -m atat_tf.train --config=configs/trades.py --workdir=runs/trades

The attack climbs the divergence from the clean prediction too, in the steps
of every other recipe; the authors take 10 of 0.007 within 0.031. WRN-34-10 on
CIFAR-10 or CIFAR-100: not run.
"""

from . import base


def get_config():
    return base.with_defense(
        {"name": "trades", "robust_weight": 6.0, "label_smoothing": 0.0},
        {"attack.name": "trades"},
    )
