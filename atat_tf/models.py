"""Backbones: functional Keras models from pixels in [0, 1] to float32 logits.

Every backbone normalises pixels in its first layer, names its last map with
spatial extent "features" (the paper's choice of layer, §3.2) and its output
"logits", and is found by name in BACKBONES.
"""

import keras
import tensorflow as tf
from keras import layers

from atat_tf.errors import InputError, expect

# 2e-4 · ½‖w‖² (the released code's weight decay): Keras' L2 has no ½.
L2_KERNEL = 1e-4
# In the place of a layer's name: the last with a spatial map (§3.2).
DEEPEST = "deepest"
_BATCH_NORM_MOMENTUM = 0.9


def units_per_group(depth, width):
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


def wide_resnet(
    image_shape,
    num_classes,
    depth=34,
    width=10,
    l2=L2_KERNEL,
    synchronized=False,
):
    """Returns WRN-depth-width (Zagoruyko & Komodakis 2016), pre-activation.

    Args:
      image_shape: (H, W, C).
      num_classes: k >= 2.
      depth: 6n + 4: three groups of n two-convolution units.
      width: multiple of the channels 16, 32, 64.
      l2: factor of ‖w‖² on every kernel.
      synchronized: whether batch norm averages over replicas in training.

    Pixels are normalised in float32 whatever the policy: bfloat16 has steps
    of 1/256 in [0.5, 1), half an attack step.

    Returns:
      keras.Model, float32 [b, H, W, C] in [0, 1] -> float32 logits [b, k];
      layer "features" is the last map, [b, H/4, W/4, 64 · width].

    Raises:
      InputError: depth is not 6n + 4, or width < 1.
    """
    units = units_per_group(depth, width)
    part = Parts(l2, synchronized, layers.ReLU, {})
    inputs = keras.Input(image_shape, name="images")
    x = layers.Rescaling(
        4.0, offset=-2.0, dtype=keras.config.floatx(), name="normalise"
    )(inputs)
    x = part.convolution(x, 16, 3, 1, "stem")
    for group, channels in enumerate((16 * width, 32 * width, 64 * width)):
        for unit in range(units):
            stride = 2 if group > 0 and unit == 0 else 1
            x = _wide_unit(part, x, channels, stride, f"group{group}_{unit}")
    features = part.norm_activation(x, "features")
    return part.classifier(inputs, features, num_classes, "wide_resnet")


def _wide_unit(part, x, channels, stride, name):
    activated = part.norm_activation(x, f"{name}_act1")
    shortcut = x
    if x.shape[-1] != channels or stride != 1:
        shortcut = part.convolution(
            activated, channels, 1, stride, f"{name}_shortcut"
        )
    y = part.convolution(activated, channels, 3, stride, f"{name}_conv1")
    y = part.norm_activation(y, f"{name}_act2")
    y = part.convolution(y, channels, 3, 1, f"{name}_conv2")
    return layers.Add(name=f"{name}_add")([shortcut, y])


def madry_wide_resnet(
    image_shape,
    num_classes,
    depth=34,
    width=10,
    l2=L2_KERNEL,
    synchronized=False,
):
    """Returns the released code's network, after the Madry CIFAR-10 challenge.

    It differs from `wide_resnet` in: leaky ReLU 0.1, shortcuts by average
    pooling and zero-padded channels (no weights), each image standardised to
    mean 0 and deviation 1 inside the network.

    Args:
      image_shape: (H, W, C).
      num_classes: k >= 2.
      depth: 6n + 4; the released network has n = 5.
      width: multiple of the channels 16, 32, 64; the released has 10.
      l2: factor of ‖w‖² on every kernel.
      synchronized: whether batch norm averages over replicas in training.

    Returns:
      keras.Model as from `wide_resnet`.

    Raises:
      InputError: depth is not 6n + 4, or width < 1.
    """
    units = units_per_group(depth, width)
    part = Parts(l2, synchronized, layers.LeakyReLU, {"negative_slope": 0.1})
    inputs = keras.Input(image_shape, name="images")
    x = PerImageStandardization(dtype=keras.config.floatx(), name="normalise")(
        inputs
    )
    x = part.convolution(x, 16, 3, 1, "stem")
    for group, channels in enumerate((16 * width, 32 * width, 64 * width)):
        for unit in range(units):
            first = unit == 0
            x = _madry_unit(
                part,
                x,
                channels,
                stride=2 if group > 0 and first else 1,
                activate_before_residual=group == 0 and first,
                name=f"group{group}_{unit}",
            )
    features = part.norm_activation(x, "features")
    return part.classifier(inputs, features, num_classes, "madry_wide_resnet")


def _madry_unit(part, x, channels, stride, activate_before_residual, name):
    activated = part.norm_activation(x, f"{name}_act1")
    shortcut = activated if activate_before_residual else x
    y = part.convolution(activated, channels, 3, stride, f"{name}_conv1")
    y = part.norm_activation(y, f"{name}_act2")
    y = part.convolution(y, channels, 3, 1, f"{name}_conv2")
    if stride != 1:
        shortcut = layers.AveragePooling2D(stride, name=f"{name}_pool")(
            shortcut
        )
    if shortcut.shape[-1] != channels:
        shortcut = PadChannels(channels, name=f"{name}_pad")(shortcut)
    return layers.Add(name=f"{name}_add")([shortcut, y])


@keras.saving.register_keras_serializable(package="atat_tf")
class PerImageStandardization(layers.Layer):
    """(x − mean) / max(deviation, 1/√n) of each image, on the 0–255 scale.

    The floor of the deviation is meant for pixels in 0–255, so [0, 1] is
    scaled first.
    """

    def call(self, images):
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

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and self._is_fused(inputs, mask)):
            return super().call(inputs, training=training, mask=mask)
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
        variance *= tf.maximum(count - 1, 1) / count
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign(
                moving * self.momentum + value * (1.0 - self.momentum)
            )
        return tf.cast(outputs, self.compute_dtype)

    def _is_fused(self, inputs, mask):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return (
            len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and inputs.dtype != tf.float64
            and mask is None
            and self.scale
            and self.center
            and not self.renorm
            and not (self.synchronized and replicas > 1)
        )

    def _moments(self, inputs, mask):
        if mask is not None:
            return super()._moments(inputs, mask)
        axes = self._reduction_axes
        mean = self._mean(inputs, axes)
        variance = self._mean(tf.square(inputs - mean), axes)
        return tf.squeeze(mean, axes), tf.squeeze(variance, axes)

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


@keras.saving.register_keras_serializable(package="atat_tf")
class PadChannels(layers.Layer):
    """Zero channels on both sides, up to a number of channels."""

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels

    def call(self, x):
        missing = self.channels - x.shape[-1]
        before = missing // 2
        return tf.pad(x, [[0, 0]] * 3 + [[before, missing - before]])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.channels)

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


BACKBONES = {
    "wide_resnet": wide_resnet,
    "madry_wide_resnet": madry_wide_resnet,
}


def with_taps(classifier, tapped_layers):
    """Returns a model over the same weights that also answers activations.

    Args:
      classifier: functional keras.Model, images -> logits.
      tapped_layers: names of layers whose output is [b, h, w, c], or DEEPEST.

    Returns:
      keras.Model, images -> {"logits": [b, k], layer: [b, h, w, c], ...}.

    Raises:
      InputError: a layer does not exist or has no spatial extent; those that
        can be named are listed.
    """
    spatial = spatial_layers(classifier)
    outputs = {}
    for name in tapped_layers:
        if spatial and name == DEEPEST:
            outputs[name] = list(spatial.values())[-1]
        elif name not in spatial:
            raise InputError(
                "Expected attention layers among those with a spatial map: "
                f"{', '.join(spatial)}. Received: {name!r}."
            )
        else:
            outputs[name] = spatial[name]
    return keras.Model(
        classifier.inputs,
        {"logits": classifier.outputs[0], **outputs},
        name=f"{classifier.name}_with_taps",
    )


def spatial_layers(classifier):
    """Returns {layer name: output [b, h, w, c]} where h · w > 1.

    In the order from the images to the logits. A layer's own `output` will
    not do: that of a loaded Sequential lies on another graph.
    """
    spatial, seen = {}, set()
    # Depth first, without recursion: some backbones are a thousand layers deep.
    waiting = [(classifier.outputs[0], False)]
    while waiting:
        tensor, is_done = waiting.pop()
        layer, inputs = made_by(tensor)
        shape = tensor.shape
        if is_done:
            if inputs and len(shape) == 4 and shape[1] * shape[2] > 1:
                spatial[layer.name] = tensor
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            waiting.append((tensor, True))
            waiting.extend((earlier, False) for earlier in reversed(inputs))
    return spatial


def made_by(tensor):
    """Returns the layer that makes a symbolic tensor, and what it makes it of.

    Args:
      tensor: an output of a functional model, or met on the way there.

    Returns:
      The layer and its list of input tensors, empty for the model's inputs.
    """
    history = tensor._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return history.operation, list(node.input_tensors)


def flops_per_image(classifier):
    """Returns the floating-point operations of one forward pass on one image.

    Counts 2 operations for each multiplication with a kernel (convolutions
    and dense layers); normalisation and activations, about 1 %, are left out.
    """
    flops = 0
    for layer in classifier.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            positions = layer.output.shape[1] * layer.output.shape[2]
            flops += 2 * positions * int(tf.size(layer.kernel))
        elif isinstance(layer, layers.Dense):
            flops += 2 * int(tf.size(layer.kernel))
    return flops


class Parts:
    """The layers that all backbones are built from."""

    def __init__(self, l2, synchronized, activation, activation_arguments):
        self._l2 = l2
        self._synchronized = synchronized
        self._activation = activation
        self._activation_arguments = activation_arguments

    def _regularizer(self):
        return keras.regularizers.L2(self._l2) if self._l2 else None

    def convolution(self, x, channels, size, stride, name):
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

    def norm(self, x, name):
        return BatchNormalization(
            momentum=_BATCH_NORM_MOMENTUM,
            synchronized=self._synchronized,
            name=name,
        )(x)

    def norm_activation(self, x, name):
        x = self.norm(x, f"{name}_norm")
        return self._activation(name=name, **self._activation_arguments)(x)

    def classifier(self, inputs, features, num_classes, name):
        x = layers.GlobalAveragePooling2D(name="pool")(features)
        # Not the policy's dtype: losses are never in bfloat16.
        logits = layers.Dense(
            num_classes,
            kernel_regularizer=self._regularizer(),
            dtype=keras.config.floatx(),
            name="logits",
        )(x)
        return keras.Model(inputs, logits, name=name)
