"""What `benchmarks.train_step` times: training steps, and their parts alone.

The size of a network and of a batch enters; seconds leave, measured round
robin so that whatever else the machine does meets every measurement alike.
"""

import resource
import statistics
import time

import numpy as np
import tensorflow as tf

from atat_tf import datasets, experiment
from configs import at, atat

PIPELINE_IMAGES = 50_000
PIPELINE_BATCHES = 200
_SPEC = datasets.SPECS["cifar10"]
_RECIPES = {"at": at, "atat": atat}


def resolved_config(method, depth, width, batch_size):
    """Returns the recipe of a method on CIFAR-10's shapes, checked."""
    config = _RECIPES[method].get_config()
    config.backbone.depth = depth
    config.backbone.width = width
    config.batch_size = batch_size
    # Labels at random teach nothing: the weights stay about as they began.
    config.optimizer.learning_rate = 1e-6
    config = experiment.resolve(config)
    experiment.validate(config)
    return config


def random_split(count):
    """Returns a datasets.Split of uniformly random images and labels."""
    draw = np.random.default_rng(0)
    return datasets.Split(
        draw.integers(0, 256, (count, *_SPEC.image_shape), np.uint8),
        draw.integers(0, _SPEC.num_classes, count, np.int32),
    )


def training_step(config, split, strategy=None):
    """Returns a function that takes one training step as `training` does.

    The batch is the same each time: the input pipeline is timed apart.

    Args:
      config: from `resolved_config`.
      split: one batch.
      strategy: of tf.distribute; None for none at all.
    """
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        teacher = None
        if experiment.needs_teacher(config):
            teacher = experiment.build_classifier(config, _SPEC)
        student = experiment.build_classifier(config, _SPEC)
        if config.student_start == "teacher":
            student.set_weights(teacher.get_weights())
        trainer = experiment.build_trainer(config, student, teacher, 1000)
    trainer.make_train_function()
    batches = tf.data.Dataset.from_tensors((split.images, split.labels))
    iterator = iter(strategy.experimental_distribute_dataset(batches.repeat()))

    def step():
        # Reading a number waits for the device.
        float(trainer.train_function(iterator)["loss"])

    return step


def unavoidable_passes(config, split):
    """Returns {name: function}, the passes that no ATAT step can do without.

    Written with plain model calls, apart from the house's own attack, loss
    and trainer; each is one compiled function.
    """
    student = experiment.build_classifier(config, _SPEC)
    teacher = experiment.build_classifier(config, _SPEC)
    optimizer = experiment.build_optimizer(config, 1000)
    variables = student.trainable_variables
    optimizer.build(variables)
    images = tf.constant(split.images / 255.0, tf.float32)
    labels = tf.constant(split.labels)
    mixture, twice = tf.repeat(images, 2, 0), tf.repeat(labels, 2)
    compiled = tf.function(
        jit_compile=bool(tf.config.list_physical_devices("GPU"))
    )

    @compiled
    def update():
        with tf.GradientTape() as tape:
            loss = _cross_entropy(twice, student(mixture, training=True))
            loss = tf.reduce_mean(loss) + tf.add_n(student.losses)
        return tape.gradient(loss, variables)

    gradients = [tf.zeros_like(variable) for variable in variables]
    steps = config.attack.num_steps
    return {
        f"{steps} attack gradients": compiled(
            lambda: _attack(config.attack, student, images, labels)
        ),
        "teacher forward": compiled(lambda: teacher(images, training=False)),
        "student fwd + bwd on 2b": update,
        "SGD update": compiled(lambda: optimizer.apply(gradients, variables)),
    }


def _attack(attack, student, images, labels):
    lower, upper = images - attack.epsilon, images + attack.epsilon

    def ascend(step, x):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss = _cross_entropy(labels, student(x, training=False))
        x += attack.step_size * tf.sign(tape.gradient(loss, x))
        x = tf.clip_by_value(x, lower, upper)
        return step + 1, tf.clip_by_value(x, 0.0, 1.0)

    _, adversarial = tf.while_loop(
        lambda step, _: step < attack.num_steps,
        ascend,
        (tf.constant(0), images),
        parallel_iterations=1,
    )
    return adversarial


def _cross_entropy(labels, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def input_pipeline(batch_size):
    """Returns a function that goes through PIPELINE_BATCHES new batches."""
    batches = datasets.training_batches(
        random_split(PIPELINE_IMAGES),
        batch_size,
        seed=0,
        first_step=0,
        num_steps=PIPELINE_BATCHES,
        flip=_SPEC.flip,
    )

    def iterate():
        for _images, _labels in batches:
            pass

    return iterate


def round_robin(timed, repeats):
    """Returns seconds by the clock and of processor, one of each a round.

    Processor seconds are this process's alone, over all of its threads: where
    other work shares the machine, their ratios can be trusted further.

    Args:
      timed: {name: function}; each runs twice beforehand, untimed.
      repeats: number of rounds.

    Returns:
      {name: [seconds]} and {name: [processor seconds]}.
    """
    for function in timed.values():
        function()
        function()
    clock = {name: [] for name in timed}
    processor = {name: [] for name in timed}
    for _ in range(repeats):
        for name, function in timed.items():
            begin = time.perf_counter(), time.process_time()
            function()
            processor[name].append(time.process_time() - begin[1])
            clock[name].append(time.perf_counter() - begin[0])
    return clock, processor


def summary(values):
    """Returns the median, the smallest and the largest of some numbers."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


def first_step(depth, width, batch_size):
    """Returns what the first ATAT step of a fresh process costs.

    Returns:
      Seconds to build teacher, student and trainer, seconds of the first
      step (tracing included), and the process's peak memory in GiB.
    """
    config = resolved_config("atat", depth, width, batch_size)
    split = random_split(batch_size)
    begin = time.perf_counter()
    step = training_step(config, split, experiment.build_strategy())
    built = time.perf_counter()
    step()
    stepped = time.perf_counter()
    # Linux gives kilobytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "build_seconds": built - begin,
        "first_step_seconds": stepped - built,
        "peak_gib": peak / 2**30,
    }
