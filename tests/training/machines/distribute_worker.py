"""Trains a few steps on N logical CPUs and saves every variable.

A process of its own: logical devices are set before TensorFlow starts. In
float64, so that one replica and two differ by rounding of that size only and
not by the sign of a gradient that is all but zero.

  python -m tests.training.machines.distribute_worker \
      NUM_DEVICES OUTPUT.npz [DEFENSE]
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from atat_tf.attacks import for_training, linf
from atat_tf.defenses import atat
from atat_tf.models import wide_resnet
from atat_tf.training import build as training_build
from atat_tf.training import trainer

_ATTACKS = {"trades": for_training.trades}


def main(num_devices, output, name="atat"):
    keras.config.set_floatx("float64")
    strategy = training_build.build_strategy(num_devices)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        student, teacher = (
            wide_resnet.wide_resnet((16, 16, 3), 10, 10, 1, synchronized=True)
            for _ in range(2)
        )
        built = trainer.AdversarialTrainer(
            student,
            atat.DEFENSES[name](),
            _ATTACKS.get(name, linf.pgd)(8 / 255, 2 / 255, 2),
            teacher,
            seed=3,
        )
        optimizer = keras.optimizers.SGD(
            0.05, momentum=0.9, use_ema=True, ema_momentum=0.9
        )
        built.compile(optimizer)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (21, 16, 16, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, 21).astype(np.int32)
    # Batches of 7: two replicas get 4 and 3.
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(7)
    built.fit(batches, epochs=1, verbose=0)
    variables = [*student.variables, *optimizer.variables]
    metrics = [float(m.result()) for m in built.metrics]
    np.savez(
        output,
        *[np.asarray(v) for v in variables],
        metrics=metrics,
        replicas=strategy.num_replicas_in_sync,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
