"""Trains a few steps on digits as one worker of TF_CONFIG, or alone.

In float64, so that one process and several differ by rounding of that size
only and not by the sign of a gradient that is all but zero.

  python -m tests.training.machines.many_machines_worker BATCH_SIZE OUTPUT.npz
"""

import sys

import keras
import numpy as np

from atat_tf.attacks import linf
from atat_tf.data import batches as training_batches
from atat_tf.data import datasets
from atat_tf.defenses import atat
from atat_tf.models import wide_resnet
from atat_tf.training import build as training_build
from atat_tf.training import machines, trainer, workers

_STEPS = 3


def main(batch_size, output):
    keras.config.set_floatx("float64")
    cluster = machines.from_environment()
    if cluster.count > 1:
        strategy = workers.build_strategy(cluster)
    else:
        strategy = training_build.build_strategy()
    group = workers.WorkerGroup(strategy)
    # Of a worker that is not the chief its own weights are never used.
    keras.utils.set_random_seed(1 + cluster.mine)
    with strategy.scope():
        student, teacher = (
            wide_resnet.wide_resnet((32, 32, 3), 10, 10, 1, synchronized=True)
            for _ in range(2)
        )
        built = trainer.AdversarialTrainer(
            student,
            atat.ATAT(),
            linf.pgd(8 / 255, 2 / 255, 2),
            teacher,
            seed=3,
        )
        optimizer = keras.optimizers.SGD(
            0.05, momentum=0.9, use_ema=True, ema_momentum=0.9
        )
        built.compile(optimizer)
    split = datasets.load("digits").train
    batches = group.batches(
        lambda parts: training_batches.batches(
            split, batch_size, 5, 0, _STEPS, False, parts
        ),
        batch_size,
    )
    step, iterator = group.train_function(built), iter(batches)
    for _ in range(_STEPS):
        step(iterator)
    variables = [*student.variables, *optimizer.variables]
    metrics = [float(m.result()) for m in built.metrics]
    total = group.sum([cluster.mine + 1, batch_size])
    np.savez(
        output,
        *[np.asarray(v) for v in variables],
        metrics=metrics,
        replicas=strategy.num_replicas_in_sync,
        total=total,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
