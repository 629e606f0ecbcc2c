"""Trains a few steps on digits in several replicas and saves every variable.

The replicas are N logical CPUs, or the workers that TF_CONFIG names. In
float64, so that results differ by rounding of that size only, and not by the
sign of a gradient that is all but zero.

  python -m tests.training.machines.replicas_worker OUTPUT.npz N [DEFENSE]
"""

import sys

import keras
import numpy as np

from atat_tf.attacks import for_training, linf
from atat_tf.data import batches as training_batches
from atat_tf.data import datasets
from atat_tf.defenses import atat
from atat_tf.errors import InputError
from atat_tf.training import build as training_build
from atat_tf.training import trainer
from atat_tf.training.machines import membership, workers
from tests.support import tiny

_STEPS = 3
# Two replicas get 3 and 4 of these, three get 2, 2 and 3.
BATCH_SIZE = 7
_ATTACKS = {"trades": for_training.trades}


def main(output, num_devices=1, defense="atat"):
    cluster = membership.from_environment()
    if cluster.count > 1:
        strategy = workers.build_strategy(cluster)
    else:
        strategy = training_build.build_strategy(num_devices)
    group = workers.WorkerGroup(strategy)
    # Of a worker that is not the chief its own weights are never used.
    keras.utils.set_random_seed(1 + cluster.mine)
    with strategy.scope():
        student, teacher = (
            tiny.tiny((32, 32, 3), 10, 10, 1, l2=1e-4, synchronized=True)
            for _ in range(2)
        )
        built = trainer.AdversarialTrainer(
            student,
            atat.DEFENSES[defense](),
            _ATTACKS.get(defense, linf.pgd)(8 / 255, 2 / 255, 2),
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
            split, BATCH_SIZE, 5, 0, _STEPS, False, parts
        ),
        BATCH_SIZE,
    )
    step, iterator = group.train_function(built), iter(batches)
    for _ in range(_STEPS):
        step(iterator)
    variables = [*student.variables, *optimizer.variables]
    np.savez(
        output,
        *[np.asarray(v) for v in variables],
        metrics=[float(m.result()) for m in built.metrics],
        replicas=strategy.num_replicas_in_sync,
        total=group.sum([cluster.mine + 1, BATCH_SIZE]),
        refused=_refusal_of_one_image(built, split) if num_devices > 1 else "",
    )


def _refusal_of_one_image(built, split):
    """Returns what is said where one of several devices has no image."""
    try:
        built.evaluate(split.images[:1], split.labels[:1], verbose=0)
    except InputError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    keras.config.set_floatx("float64")
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
