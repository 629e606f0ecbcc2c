"""Backbones: functional Keras models from pixels in [0, 1] to float32 logits.

Every backbone normalises pixels in its first layer, names its last map with
spatial extent "features" (the paper's choice of layer, §3.2) and its output
"logits", and is found by name in BACKBONES.
"""

import keras
from keras import layers

from atat_tf.models import layers as model_layers


def wide_resnet(
    image_shape: tuple[int, int, int],
    num_classes: int,
    depth: int = 34,
    width: int = 10,
    l2: float = model_layers.L2_KERNEL,
    synchronized: bool = False,
) -> keras.Model:
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
    units = model_layers.units_per_group(depth, width)
    part = model_layers.Parts(l2, synchronized, layers.ReLU, {})
    inputs, x = model_layers.normalised(image_shape)
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
    image_shape: tuple[int, int, int],
    num_classes: int,
    depth: int = 34,
    width: int = 10,
    l2: float = model_layers.L2_KERNEL,
    synchronized: bool = False,
) -> keras.Model:
    """Returns the released code's network, after the Madry CIFAR-10 challenge.

    It differs from `wide_resnet` in: leaky ReLU 0.1, shortcuts by average
    pooling and zero-padded channels (no weights), each image standardised to
    mean 0 and deviation 1 inside the network. Arguments, result and errors are
    those of `wide_resnet`; the released network has the defaults.
    """
    units = model_layers.units_per_group(depth, width)
    part = model_layers.Parts(
        l2, synchronized, layers.LeakyReLU, {"negative_slope": 0.1}
    )
    inputs = keras.Input(image_shape, name="images")
    x = model_layers.PerImageStandardization(
        dtype=keras.config.floatx(), name="normalise"
    )(inputs)
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
        shortcut = model_layers.PadChannels(channels, name=f"{name}_pad")(
            shortcut
        )
    return layers.Add(name=f"{name}_add")([shortcut, y])


BACKBONES = {
    "wide_resnet": wide_resnet,
    "madry_wide_resnet": madry_wide_resnet,
}
