"""Classifiers as people write them: sequential, nested and subclassed."""

import keras
import numpy as np
from keras import layers

from tests.support import toys

SHAPE, NUM_CLASSES = (10, 8, 3), 4  # not square


def sequential(*ending, seed=1):
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(6, 3, activation="relu", name="low"),
            layers.BatchNormalization(),
            layers.Conv2D(6, 3, activation="relu", name="high"),
            layers.GlobalAveragePooling2D(),
            *(ending or [layers.Dense(NUM_CLASSES)]),
        ]
    )
    return toys.randomise(model, seed)


@keras.saving.register_keras_serializable("tests")
class Block(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = layers.Conv2D(6, 3, name="inner")
        self.norm = layers.BatchNormalization(name="inner_norm")

    def call(self, x):
        return keras.ops.relu(self.norm(self.convolution(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem = keras.Sequential(
            [layers.Conv2D(6, 3, name="stem"), layers.ReLU(name="stem_relu")]
        )
        self.block = Block()
        self.drop = layers.Dropout(0.5)
        self.head = layers.Dense(NUM_CLASSES, activation="softmax")

    def call(self, images, training=None):
        x = self.block(self.stem(images), training=training)
        x = keras.ops.mean(x, axis=(1, 2))
        return self.head(self.drop(x, training=training))


def subclassed(seed=1):
    model = Subclassed()
    model(np.zeros((1, *SHAPE), np.float32))
    return toys.randomise(model, seed)


def arrays(count=8, low=0.0, high=1.0):
    draw = np.random.default_rng(0)
    images = draw.uniform(low, high, (count, *SHAPE)).astype(np.float32)
    return images, (np.arange(count) % NUM_CLASSES).astype(np.int64)
