"""A small classifier of scikit-learn's digits, trained once in a process."""

import functools

import keras
import numpy as np
from keras import layers
from sklearn import datasets

SHAPE = (8, 8, 1)


@functools.cache
def arrays():
    """Returns images float32 [n, 8, 8, 1] in [0, 1] and labels int [n]."""
    digits = datasets.load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype(np.float32)
    return images, digits.target


def test_images(count):
    """Returns the first images that no training has seen, and their labels."""
    images, labels = arrays()
    return images[1400 : 1400 + count], labels[1400 : 1400 + count]


def training_images(count=1400):
    images, labels = arrays()
    return images[:count], labels[:count]


def body():
    """Returns new layers up to the pooled features, "maps" the last map."""
    return [
        layers.Conv2D(8, 3, activation="relu"),
        layers.BatchNormalization(momentum=0.9),
        layers.Conv2D(16, 3, activation="relu", name="maps"),
        layers.GlobalAveragePooling2D(),
    ]


@functools.cache
def _trained():
    keras.utils.set_random_seed(0)
    ending = layers.Dense(10, activation="softmax")
    model = keras.Sequential([keras.Input(SHAPE), *body(), ending])
    model.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy"
    )
    model.fit(*training_images(), epochs=5, batch_size=64, verbose=0)
    return model.get_weights()


def classifier(*first, activation="softmax", last=(), shape=SHAPE):
    """Returns a new model with trained weights.

    Args:
      *first: layers before those of the trained model.
      activation: of the last dense layer.
      last: layers behind it.
      shape: of the images.
    """
    model = keras.Sequential(
        [
            keras.Input(shape),
            *first,
            *body(),
            layers.Dense(10, activation=activation),
            *last,
        ]
    )
    model.set_weights(_trained())
    return model
