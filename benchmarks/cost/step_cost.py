"""What one ATAT step costs in a fresh process: seconds, and peak memory.

  python -m benchmarks.cost.step_cost '{"depth": 10, "batch_size": 32}'

Prints one line of JSON. Images are uniformly random. Peak memory is the whole
process's, Python and TensorFlow included; `start_gib` is what it was before
the networks were built.
"""

import dataclasses
import json
import resource
import sys
import time

import numpy as np
import tensorflow as tf

from atat_tf.data import datasets
from atat_tf.runs import build
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.training import build as training_build
from benchmarks.cost import model as cost_model
from benchmarks.cost import sizes
from configs import atat


def measure(settings):
    """Returns what Settings cost, as a dictionary.

    Args:
      settings: cost_model.Settings.
    """
    strategy = training_build.build_strategy(settings.replicas)
    start = _peak_gib()
    config = _config(settings)
    spec = datasets.Spec(10, (settings.image_size, settings.image_size, 3))
    with strategy.scope():
        teacher, student = (
            build.build_classifier(config, spec) for _ in range(2)
        )
        student.set_weights(teacher.get_weights())
        trainer = training_build.build_trainer(config, student, teacher, 1000)
    trainer.make_train_function()
    draw = np.random.default_rng(0)
    shape = settings.batch_size, *spec.image_shape
    batch = (
        draw.integers(0, 256, shape, np.uint8),
        draw.integers(0, spec.num_classes, settings.batch_size, np.int32),
    )
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    iterator = iter(strategy.experimental_distribute_dataset(batches))
    seconds, processor = [], []
    for _ in range(settings.repeats + 1):
        begin = time.perf_counter(), time.process_time()
        float(trainer.train_function(iterator)["loss"])
        seconds.append(time.perf_counter() - begin[0])
        processor.append(time.process_time() - begin[1])
    return {
        **dataclasses.asdict(settings),
        **sizes.of(student),
        # The first one traces.
        "seconds": float(np.median(seconds[1:])),
        "processor_seconds": float(np.median(processor[1:])),
        "start_gib": start,
        "peak_gib": _peak_gib(),
    }


def _config(settings):
    config = atat.get_config()
    config.backbone.depth = settings.depth
    config.backbone.width = settings.width
    config.attack.num_steps = settings.num_steps
    config.batch_size = settings.batch_size
    # Labels at random teach nothing: the weights stay about as they began.
    config.optimizer.learning_rate = 1e-6
    for field in ("micro_batch_size", "attack_batch_size", "remat"):
        config[field] = getattr(settings, field)
    config = run_config.resolve(config)
    run_checks.validate(config)
    return config


def _peak_gib():
    # Linux gives kilobytes.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used * 1024 / 2**30


if __name__ == "__main__":
    print(json.dumps(measure(cost_model.Settings(**json.loads(sys.argv[1])))))
