"""A backbone of two convolutions, for runs that tests train.

`--plugin=tests.support.tiny` registers it in a process of its own.
"""

import keras
from keras import layers

import atat_tf as atat
from atat_tf.models import layers as model_layers


@atat.register("backbone", "tiny")
def tiny(image_shape, num_classes, depth, width, l2, synchronized):
    """Returns conv ("hidden") -> conv ("features") -> pool -> "logits".

    Args:
      image_shape: of an image.
      num_classes: how many logits.
      depth, width: not read.
      l2: of the kernels of the convolutions.
      synchronized: whether batch norm is over all replicas.
    """
    del depth, width
    # A checkpoint is known by the names of its variables: all are named.
    x = images = keras.Input(image_shape, name="images")
    for name, channels in (("hidden", 8), ("features", 16)):
        x = layers.Conv2D(
            channels,
            3,
            2,
            "same",
            use_bias=False,
            kernel_regularizer=keras.regularizers.L2(l2),
            name=f"{name}_conv",
        )(x)
        x = model_layers.BatchNormalization(
            synchronized=synchronized, name=f"{name}_norm"
        )(x)
        x = layers.ReLU(name=name)(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(
        num_classes, dtype=keras.config.floatx(), name="logits"
    )(x)
    return keras.Model(images, logits, name="tiny")
