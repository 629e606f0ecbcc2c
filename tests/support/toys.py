"""Small images, labels and models that tests share, all fixed by a seed."""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from atat_tf.attacks import randomness, stepped
from atat_tf.models import layers as model_layers
from atat_tf.models import wide_resnet

IMAGE_SHAPE = (8, 8, 3)
NUM_CLASSES = 5


def random_images(count, shape=IMAGE_SHAPE, seed=0, dtype="float32"):
    """Returns a tensor [count, *shape], uniform in [0, 1]."""
    values = np.random.default_rng(seed).uniform(size=(count, *shape))
    return tf.constant(values, dtype)


def random_bytes(count, seed=0):
    """Returns images as they are stored, uint8 [count, *IMAGE_SHAPE]."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, *IMAGE_SHAPE), np.uint8)


def random_labels(count, num_classes=NUM_CLASSES, seed=0):
    """Returns int32 [count]."""
    generator = np.random.default_rng(seed)
    return tf.constant(generator.integers(0, num_classes, count), tf.int32)


def seeds(count, seed=0, first=0):
    """Returns the random-start seeds of images first, first + 1, ..."""
    return randomness.example_seeds(seed, 0, tf.range(first, first + count))


def linear_logits(weights, bias=0.0):
    """Returns images [b, H, W, C] -> images · weights [H, W, C, k] + bias."""
    weights = tf.constant(weights, tf.float32)
    return lambda images: tf.tensordot(images, weights, 3) + bias


def curved_logits(num_classes=NUM_CLASSES):
    """Returns the logits of a random network of one hidden layer of tanh."""
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(*IMAGE_SHAPE, 20)) / 4
    last = tf.constant(generator.normal(size=(20, num_classes)), tf.float32)
    features = linear_logits(hidden)
    return lambda images: tf.tanh(features(images - 0.5)) @ last


def two_class_pixels(slopes, bias=0.0):
    """Returns the logits (0, slopes · pixels + bias) of images [b, 1, n, 1].

    For label 0 the loss climbs along the slopes, for label 1 against them.
    """
    weights = np.zeros((1, len(slopes), 1, 2), np.float32)
    weights[0, :, 0, 1] = slopes
    return linear_logits(weights, tf.constant([0.0, bias]))


def pixels(*rows):
    """Returns images [b, 1, n, 1] of rows of n pixels."""
    return tf.constant(rows, tf.float32)[:, None, :, None]


def randomise(model, seed=0):
    """Fills every weight, moving statistics too, so that none is trivial."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        normal = generator.normal(size=weight.shape)
        if weight.name == "kernel":
            fan_in = np.prod(weight.shape[:-1])
            value = normal * np.sqrt(2.0 / fan_in)
        elif weight.name in ("gamma", "moving_variance"):
            value = 1.0 + 0.2 * np.tanh(normal)
        else:
            value = 0.2 * normal
        weight.assign(value)
    return model


def small_classifier(seed=0, norm=True):
    """Returns conv ("hidden") -> conv ("features") -> pool -> "logits".

    With `norm` there is batch normalisation before both ReLU; without it
    training and inference mode are the same function.
    """
    inputs = keras.Input(IMAGE_SHAPE, name="images")
    x = inputs
    for name, stride in (("hidden", 1), ("features", 2)):
        x = layers.Conv2D(
            6, 3, stride, "same", use_bias=not norm, name=f"{name}_conv"
        )(x)
        if norm:
            x = model_layers.BatchNormalization(name=f"{name}_norm")(x)
        x = layers.ReLU(name=name)(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(
        NUM_CLASSES, dtype=keras.config.floatx(), name="logits"
    )(x)
    return randomise(keras.Model(inputs, logits), seed)


def small_wide_resnet(seed=0):
    """Returns WRN-10-1 on the small images, with every weight random."""
    return randomise(
        wide_resnet.wide_resnet(IMAGE_SHAPE, NUM_CLASSES, 10, 1), seed
    )


class RandomLayer(layers.Layer):
    """Adds noise in inference, too, which no attack can judge."""

    def call(self, x):
        return x + 0.1 * tf.random.normal(tf.shape(x))


def inference(model):
    """Returns images -> logits of a classifier in inference mode."""
    return lambda images: model(images, training=False)


def values(variables):
    """Returns copies of the variables' values, as arrays."""
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def closed_form_maps(activations, kernel, labels):
    """Returns the maps of a pooled linear head, in NumPy.

    y^c = Σ_k W_kc mean(A_k), so that every ∂y^c/∂A_k is W_kc / (h·w), and so
    is its mean over space: ATT = ReLU(Σ_k W_kc A_k) / (h·w).
    """
    activations, kernel = np.asarray(activations), np.asarray(kernel)
    _, height, width, _ = activations.shape
    maps = np.zeros(activations.shape[:3], activations.dtype)
    for i, label in enumerate(np.asarray(labels)):
        scores = activations[i] @ kernel[:, label]
        maps[i] = np.maximum(scores, 0.0) / (height * width)
    return maps


@contextlib.contextmanager
def precision(policy, floatx="float32"):
    """Sets Keras' global dtypes inside a `with`, and restores them."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


def steps_of(attack, logits_fn, shape):
    """Returns (images, labels, seeds) -> last state, for any batch size.

    Args:
      attack: in steps, see `stepped`.
      logits_fn: images -> logits.
      shape: of an image.
    """

    @tf.function(
        input_signature=(
            tf.TensorSpec([None, *shape], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, 2], tf.int64),
        )
    )
    def run(images, labels, seeds):
        state = attack.start(logits_fn, images, labels, seeds)
        return stepped.advanced(
            attack, logits_fn, state, tf.constant(0), attack.num_steps
        )

    return run


def last_state(attack, logits_fn, images, labels, row_seeds=None):
    """Returns the last state of an attack in steps, as arrays."""
    row_seeds = seeds(len(labels)) if row_seeds is None else row_seeds
    run = steps_of(attack, logits_fn, images.shape[1:])
    return {k: v.numpy() for k, v in run(images, labels, row_seeds).items()}
