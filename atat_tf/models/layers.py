"""Layers and building blocks that every backbone of the package shares."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from atat_tf.errors import expect

# 2e-4 · ½‖w‖² (the released code's weight decay): Keras' L2 has no ½.
L2_KERNEL = 1e-4
_BATCH_NORM_MOMENTUM = 0.9


def units_per_group(depth: int, width: int) -> int:
    """Returns n of a Wide ResNet's depth 6n + 4.

    Raises:
      InputError: depth is not 6n + 4 with n >= 1, or width < 1.
    """
    units, remainder = divmod(depth - 4, 6)
    expect(
        not remainder and units >= 1,
        "a depth of 6n + 4 (10, 16, 22, 28, 34, ...)",
        depth=depth,
    )
    expect(width >= 1, "a width >= 1", width=width)
    return units


def normalised(
    image_shape: tuple[int, int, int], scale: float = 4.0, offset: float = -2.0
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns the input and its pixels, in [-2, 2] and in float32 always."""
    inputs = keras.Input(image_shape, name="images")
    rescaling = layers.Rescaling(
        scale, offset, dtype=keras.config.floatx(), name="normalise"
    )
    return inputs, rescaling(inputs)


@keras.saving.register_keras_serializable(package="atat_tf")
class PerImageStandardization(layers.Layer):
    """(x − mean) / max(deviation, 1/√n) of each image, on the 0–255 scale.

    The floor of the deviation is meant for pixels in 0–255, so [0, 1] is
    scaled first.
    """

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return tf.image.per_image_standardization(255.0 * images)


@keras.saving.register_keras_serializable(package="atat_tf")
class BatchNormalization(layers.BatchNormalization):
    """Batch norm by one kernel, whose statistics can be differentiated twice.

    In training TensorFlow's fused kernel does what are ten operations on whole
    maps in Keras; across replicas statistics are taken one operation at a time.

    TensorFlow's moments take the mean inside the variance for a constant.
    That is right for a gradient, and wrong for the gradient of a gradient,
    which attention at a layer below a batch norm in training mode needs.
    Across replicas Keras subtracts a squared mean from a mean of squares, which
    in float32 leaves few digits where a channel is all but constant.
    """

    def call(
        self,
        inputs: tf.Tensor,
        training: bool | None = None,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the normalised inputs, as Keras' layer does."""
        # Keras 3.12 knows no renormalisation.
        is_plain = mask is None and not getattr(self, "renorm", False)
        if not (training and self.trainable and is_plain):
            return super().call(inputs, training=training, mask=mask)
        if self._is_fused(inputs):
            outputs, mean, variance = self._fused(inputs)
        else:
            # bfloat16 overflows in the sums.
            is_double = inputs.dtype == tf.float64
            inputs = inputs if is_double else tf.cast(inputs, tf.float32)
            mean, variance = self.statistics(inputs)
            outputs = keras.ops.batch_normalization(
                inputs,
                mean,
                variance,
                self.axis,
                offset=self.beta if self.center else None,
                scale=self.gamma if self.scale else None,
                epsilon=self.epsilon,
            )
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign(
                moving * self.momentum + value * (1.0 - self.momentum)
            )
        return tf.cast(outputs, self.compute_dtype)

    def statistics(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns mean and variance [c], over all replicas if synchronized."""
        channels = self.axis % len(inputs.shape)
        axes = [axis for axis in range(len(inputs.shape)) if axis != channels]
        mean = self._mean(inputs, axes)
        variance = self._mean(tf.square(inputs - mean), axes)
        return tf.squeeze(mean, axes), tf.squeeze(variance, axes)

    def _fused(self, inputs):
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, tf.float32),
            scale=self.gamma,
            offset=self.beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel answers Σ (x − mean)² / (n − 1); Keras keeps the mean.
        count = tf.cast(tf.size(inputs) // tf.size(mean), variance.dtype)
        return outputs, mean, variance * (tf.maximum(count - 1, 1) / count)

    def _is_fused(self, inputs):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return (
            len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and inputs.dtype != tf.float64
            and self.scale
            and self.center
            and not (self.synchronized and replicas > 1)
        )

    def _mean(self, values, axes):
        """Returns means with axes kept, over all replicas if synchronized."""
        context = tf.distribute.get_replica_context()
        if not self.synchronized or context is None:
            return tf.reduce_mean(values, axes, keepdims=True)
        total = tf.reduce_sum(values, axes, keepdims=True)
        count = tf.size(values) // tf.size(total)
        total, count = context.all_reduce(
            tf.distribute.ReduceOp.SUM, [total, tf.cast(count, total.dtype)]
        )
        return total / count


class _State:
    """State that is another layer's too, which alone saves and loads it."""

    def save_own_variables(self, store: Any) -> None:
        pass

    def load_own_variables(self, store: Any) -> None:
        pass


class _OneKernel(_State, BatchNormalization):
    pass


class _DepthwiseConv2D(_State, layers.Conv2D):
    """A convolution of single channels, by TensorFlow's kernel for it.

    Keras has XLA compile each call of a grouped convolution anew.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        height, width, _, filters = kernel.shape
        multiplier = filters // self.groups
        return tf.nn.depthwise_conv2d(
            inputs,
            tf.reshape(kernel, (height, width, self.groups, multiplier)),
            (1, *self.strides, 1),
            self.padding.upper(),
            dilations=self.dilation_rate,
        )

    @staticmethod
    def replaces(layer: layers.Conv2D) -> bool:
        """Returns whether this kernel computes what a built layer does."""
        return (
            layer.groups > 1
            and layer.kernel.shape[2] == 1
            and layer.data_format == "channels_last"
            and layer.strides[0] == layer.strides[1]  # the kernel has one
        )


def by_fewer_operations(layer: Any) -> Any:
    """Returns a layer of the same state and function, or the layer itself.

    Of Keras' own it is one that TensorFlow traces, compiles and runs in less
    time. Weights, settings and later changes of either are the layer's: both
    are one object's state under two classes.

    Args:
      layer: that is built, or an operation of keras.ops.
    """
    if type(layer) is layers.BatchNormalization:
        kind = _OneKernel
    elif type(layer) is layers.Conv2D and _DepthwiseConv2D.replaces(layer):
        kind = _DepthwiseConv2D
    else:
        return layer
    same = object.__new__(kind)
    object.__setattr__(same, "__dict__", layer.__dict__)
    return same


@keras.saving.register_keras_serializable(package="atat_tf")
class PadChannels(layers.Layer):
    """Zero channels on both sides, up to a number of channels."""

    def __init__(self, channels: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.channels = channels

    def call(self, x: tf.Tensor) -> tf.Tensor:
        missing = self.channels - x.shape[-1]
        before = missing // 2
        return tf.pad(x, [[0, 0]] * 3 + [[before, missing - before]])

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.channels)

    def get_config(self) -> dict:
        return {**super().get_config(), "channels": self.channels}


class Parts:
    """The layers that all backbones are built from."""

    def __init__(
        self,
        l2: float,
        synchronized: bool,
        activation: type[layers.Layer],
        activation_arguments: Mapping[str, Any],
    ):
        self._l2 = l2
        self._synchronized = synchronized
        self._activation = activation
        self._activation_arguments = activation_arguments

    def _regularizer(self):
        return keras.regularizers.L2(self._l2) if self._l2 else None

    def convolution(
        self,
        x: keras.KerasTensor,
        channels: int,
        size: int,
        stride: int,
        name: str,
    ) -> keras.KerasTensor:
        return layers.Conv2D(
            channels,
            size,
            stride,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal"
            ),
            kernel_regularizer=self._regularizer(),
            name=name,
        )(x)

    def norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return BatchNormalization(
            momentum=_BATCH_NORM_MOMENTUM,
            synchronized=self._synchronized,
            name=name,
        )(x)

    def norm_activation(
        self, x: keras.KerasTensor, name: str
    ) -> keras.KerasTensor:
        x = self.norm(x, f"{name}_norm")
        return self._activation(name=name, **self._activation_arguments)(x)

    def classifier(
        self,
        inputs: keras.KerasTensor,
        features: keras.KerasTensor,
        num_classes: int,
        name: str,
    ) -> keras.Model:
        x = layers.GlobalAveragePooling2D(name="pool")(features)
        # Not the policy's dtype: losses are never in bfloat16.
        logits = layers.Dense(
            num_classes,
            kernel_regularizer=self._regularizer(),
            dtype=keras.config.floatx(),
            name="logits",
        )(x)
        return keras.Model(inputs, logits, name=name)
