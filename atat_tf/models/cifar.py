"""VGG, ResNet and DenseNet at CIFAR's size: Fig. 2's architectures, to train.

As in `wide_resnet`: pixels in [0, 1] are normalised in the first layer,
"features" is the last map with spatial extent, "logits" the output. Depth is
counted as a Wide ResNet's, 6n + 4: three groups of n units of two layers.
Arguments, result and errors are those of `wide_resnet.wide_resnet`.
"""

import keras
from keras import layers

from atat_tf.models import layers as model_layers

_GROWTH = 12  # channels that each layer of a DenseNet adds, times the width


def vgg(
    image_shape: tuple[int, int, int],
    num_classes: int,
    depth: int = 10,
    width: int = 4,
    l2: float = model_layers.L2_KERNEL,
    synchronized: bool = False,
) -> keras.Model:
    """Returns a VGG (Simonyan & Zisserman 2014) with batch norm.

    Plain 3 × 3 convolutions, 2n a group, max pooling between the groups, and a
    global mean instead of the three dense layers.
    """
    count = 2 * model_layers.units_per_group(depth, width)
    part = model_layers.Parts(l2, synchronized, layers.ReLU, {})
    inputs, x = model_layers.normalised(image_shape)
    for group, channels in enumerate((16 * width, 32 * width, 64 * width)):
        if group:
            x = layers.MaxPooling2D(2, name=f"group{group}_pool")(x)
        for number in range(count):
            name = f"group{group}_{number}"
            x = part.convolution(x, channels, 3, 1, f"{name}_conv")
            is_last = group == 2 and number == count - 1
            x = part.norm_activation(x, "features" if is_last else name)
    return part.classifier(inputs, x, num_classes, "vgg")


def resnet(
    image_shape: tuple[int, int, int],
    num_classes: int,
    depth: int = 10,
    width: int = 1,
    l2: float = model_layers.L2_KERNEL,
    synchronized: bool = False,
) -> keras.Model:
    """Returns a ResNet (He et al. 2016) for CIFAR: activation after the sum.

    He et al., who do not count the shortcuts' convolutions, call the depth
    6n + 2.
    """
    units = model_layers.units_per_group(depth, width)
    part = model_layers.Parts(l2, synchronized, layers.ReLU, {})
    inputs, x = model_layers.normalised(image_shape)
    x = part.convolution(x, 16 * width, 3, 1, "stem_conv")
    x = part.norm_activation(x, "stem")
    for group, channels in enumerate((16 * width, 32 * width, 64 * width)):
        for unit in range(units):
            stride = 2 if group > 0 and unit == 0 else 1
            is_last = group == 2 and unit == units - 1
            name = "features" if is_last else f"group{group}_{unit}"
            x = _residual_unit(part, x, channels, stride, name)
    return part.classifier(inputs, x, num_classes, "resnet")


def densenet(
    image_shape: tuple[int, int, int],
    num_classes: int,
    depth: int = 10,
    width: int = 1,
    l2: float = model_layers.L2_KERNEL,
    synchronized: bool = False,
) -> keras.Model:
    """Returns a DenseNet (Huang et al. 2016) without bottlenecks.

    Each of the 2n layers of a group reads all maps of its group so far and adds
    12 · width channels; depth 40 and width 1 are the paper's DenseNet-40-12.
    """
    count = 2 * model_layers.units_per_group(depth, width)
    part = model_layers.Parts(l2, synchronized, layers.ReLU, {})
    inputs, x = model_layers.normalised(image_shape)
    x = part.convolution(x, 16 * width, 3, 1, "stem")
    for group in range(3):
        if group:
            name = f"transition{group}"
            x = part.norm_activation(x, f"{name}_act")
            x = part.convolution(x, x.shape[-1], 1, 1, f"{name}_conv")
            x = layers.AveragePooling2D(2, name=name)(x)
        for number in range(count):
            name = f"group{group}_{number}"
            y = part.norm_activation(x, f"{name}_act")
            y = part.convolution(y, _GROWTH * width, 3, 1, f"{name}_conv")
            x = layers.Concatenate(name=name)([x, y])
    features = part.norm_activation(x, "features")
    return part.classifier(inputs, features, num_classes, "densenet")


BACKBONES = {"vgg": vgg, "resnet": resnet, "densenet": densenet}


def _residual_unit(part, x, channels, stride, name):
    """Returns ReLU(x + two convolutions of it), under the unit's name."""
    inner = name if name != "features" else "group2_last"
    shortcut = x
    if x.shape[-1] != channels or stride != 1:
        shortcut = part.convolution(
            x, channels, 1, stride, f"{inner}_shortcut_conv"
        )
        shortcut = part.norm(shortcut, f"{inner}_shortcut_norm")
    y = part.convolution(x, channels, 3, stride, f"{inner}_conv1")
    y = part.norm_activation(y, f"{inner}_act1")
    y = part.convolution(y, channels, 3, 1, f"{inner}_conv2")
    y = part.norm(y, f"{inner}_norm2")
    y = layers.Add(name=f"{inner}_add")([shortcut, y])
    return layers.ReLU(name=name)(y)
