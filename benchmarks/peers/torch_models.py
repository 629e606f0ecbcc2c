"""Our Wide ResNet in PyTorch, from the weights of the Keras model.

PyTorch is imported where it is used: it is in the peers' environment alone.
"""

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# Of `atat_tf.models.wide_resnet`, which takes Keras' default.
_EPSILON = 1e-3


def wide_resnet(weights: dict[str, np.ndarray]) -> "torch.nn.Module":
    """Returns the network in inference mode, its weights without gradients.

    Args:
      weights: {path: float32 array}, "stem/kernel", "group0_0_conv1/kernel",
        "features_norm/gamma", "logits/bias" and so on.

    Returns:
      From pixels in [0, 1], float32 [b, C, H, W], to logits [b, k].
    """
    import torch

    class WideResnet(torch.nn.Module):
        """Pre-activation units, as in `atat_tf.models.wide_resnet`."""

        def __init__(self):
            super().__init__()
            self.stem = _convolution(weights, "stem", 1)
            self.units = torch.nn.Sequential(
                *(_unit(weights, name) for name in _unit_names(weights))
            )
            self.features = _norm_activation(weights, "features")
            self.logits = _dense(weights, "logits")

        def forward(self, images):
            pixels = 4 * images - 2
            x = self.features(self.units(self.stem(pixels)))
            return self.logits(x.mean((2, 3)))

    return WideResnet().eval().requires_grad_(False)


def _unit_names(weights):
    """Returns group0_0, group0_1, ..., in the order of the network."""
    pattern = re.compile(r"(group(\d+)_(\d+))_conv1/kernel")
    found = filter(None, map(pattern.fullmatch, weights))
    ordered = sorted((int(m[2]), int(m[3]), m[1]) for m in found)
    return [name for _, _, name in ordered]


def _unit(weights, name):
    import torch

    group, number = map(int, re.findall(r"\d+", name))
    stride = 2 if group > 0 and number == 0 else 1

    class Unit(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.activation1 = _norm_activation(weights, f"{name}_act1")
            self.convolution1 = _convolution(weights, f"{name}_conv1", stride)
            self.activation2 = _norm_activation(weights, f"{name}_act2")
            self.convolution2 = _convolution(weights, f"{name}_conv2", 1)
            self.shortcut = None
            if f"{name}_shortcut/kernel" in weights:
                shortcut = f"{name}_shortcut"
                self.shortcut = _convolution(weights, shortcut, stride)

        def forward(self, x):
            activated = self.activation1(x)
            if self.shortcut is not None:
                x = self.shortcut(activated)
            y = self.activation2(self.convolution1(activated))
            return x + self.convolution2(y)

    return Unit()


def _convolution(weights, name, stride):
    import torch

    kernel = weights[f"{name}/kernel"]  # [h, w, in, out]
    size, _, channels_in, channels_out = kernel.shape
    # Keras' "same": the odd row and column are at the end where it strides.
    before = (size - stride) // 2 if size > 1 else 0
    after = max(size - stride, 0) - before
    convolution = torch.nn.Conv2d(
        channels_in,
        channels_out,
        size,
        stride,
        padding=before if before == after else 0,
        bias=False,
    )
    convolution.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
    if before == after:
        return convolution
    pad = torch.nn.ZeroPad2d((before, after, before, after))
    return torch.nn.Sequential(pad, convolution)


def _norm_activation(weights, name):
    import torch

    def array(variable):
        return torch.tensor(weights[f"{name}_norm/{variable}"])

    norm = torch.nn.BatchNorm2d(len(array("gamma")), eps=_EPSILON)
    norm.weight.data, norm.bias.data = array("gamma"), array("beta")
    norm.running_mean = array("moving_mean")
    norm.running_var = array("moving_variance")
    return torch.nn.Sequential(norm, torch.nn.ReLU())


def _dense(weights, name):
    import torch

    kernel = weights[f"{name}/kernel"]
    dense = torch.nn.Linear(*kernel.shape)
    dense.weight.data = torch.tensor(kernel.T.copy())
    dense.bias.data = torch.tensor(weights[f"{name}/bias"])
    return dense
