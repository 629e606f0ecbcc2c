"""What benchmarks of training time: training steps, and parts of them."""

from collections.abc import Callable

import keras
import ml_collections
import numpy as np
import tensorflow as tf

from atat_tf.attacks import randomness
from atat_tf.data import batches as training_batches
from atat_tf.data import datasets
from atat_tf.models import frozen
from atat_tf.runs import build
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.training import build as training_build
from configs import at, atat

CIFAR_IMAGES = 50_000
PIPELINE_BATCHES = 200
_SPEC = datasets.SPECS["cifar10"]
_RECIPES = {"at": at, "atat": atat}


def resolved_config(
    method: str, depth: int, width: int, batch_size: int
) -> ml_collections.ConfigDict:
    """Returns the recipe of a method on CIFAR-10's shapes, checked."""
    config = _RECIPES[method].get_config()
    config.backbone.depth = depth
    config.backbone.width = width
    config.batch_size = batch_size
    # Labels at random teach nothing: the weights stay about as they began.
    config.optimizer.learning_rate = 1e-6
    config = run_config.resolve(config)
    run_checks.validate(config)
    return config


def random_split(count: int) -> datasets.Split:
    """Returns a datasets.Split of uniformly random images and labels."""
    draw = np.random.default_rng(0)
    return datasets.Split(
        draw.integers(0, 256, (count, *_SPEC.image_shape), np.uint8),
        draw.integers(0, _SPEC.num_classes, count, np.int32),
    )


def classifier(config: ml_collections.ConfigDict) -> keras.Model:
    """Returns the config's network for CIFAR-10's shapes, random weights."""
    return build.build_classifier(config, _SPEC)


def training_step(
    config: ml_collections.ConfigDict,
    split: datasets.Split,
    strategy: tf.distribute.Strategy | None = None,
) -> Callable[[], float]:
    """Returns a function that takes one training step as `training` does.

    The batch is the same each time: the input pipeline is timed apart.

    Args:
      config: from `resolved_config`.
      split: one batch.
      strategy: None for none at all.

    Returns:
      Function that returns the mean loss of the steps so far.
    """
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        teacher = None
        if run_config.needs_teacher(config):
            teacher = classifier(config)
        student = classifier(config)
        if config.student_start == "teacher":
            student.set_weights(teacher.get_weights())
        trainer = training_build.build_trainer(config, student, teacher, 1000)
    trainer.make_train_function()
    batches = tf.data.Dataset.from_tensors((split.images, split.labels))
    iterator = iter(strategy.experimental_distribute_dataset(batches.repeat()))

    def step():
        # Reading a number waits for the device.
        return float(trainer.train_function(iterator)["loss"])

    return step


def attack_step(
    config: ml_collections.ConfigDict, split: datasets.Split
) -> Callable[[], np.ndarray]:
    """Returns a function that attacks a batch once as training does."""
    student = classifier(config)
    attack = build.build_attack(config)
    images = tf.constant(split.images / 255.0, tf.float32)
    labels = tf.constant(split.labels)
    seeds = randomness.example_seeds(0, 0, tf.range(len(split), dtype=tf.int64))
    attacked = tf.function(
        lambda: attack(frozen.weights_of_now(student), images, labels, seeds),
        jit_compile=bool(tf.config.list_physical_devices("GPU")),
    )
    return lambda: attacked().numpy()


def unavoidable_passes(
    config: ml_collections.ConfigDict, split: datasets.Split
) -> dict[str, Callable]:
    """Returns {name: function}, the passes that no ATAT step can do without.

    Written apart from the house's own attack, loss and trainer; each is one
    compiled function. The attack's passes have batch norms folded.
    """
    student, teacher = classifier(config), classifier(config)
    optimizer = training_build.build_optimizer(config, 1000)
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
    logits_fn = frozen.weights_of_now(student)
    lower, upper = images - attack.epsilon, images + attack.epsilon

    def ascend(step, x):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss = _cross_entropy(labels, logits_fn(x))
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


def input_pipeline(batch_size: int) -> Callable[[], None]:
    """Returns a function that goes through PIPELINE_BATCHES new batches."""
    batches = training_batches.batches(
        random_split(CIFAR_IMAGES),
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
