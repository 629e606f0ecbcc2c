"""Our Wide ResNet in PyTorch, from the weights of the Keras model."""

import re

import numpy as np
import torch
from torch.nn import functional

# Of `atat_tf.models.wide_resnet`, which takes Keras' default.
_EPSILON = 1e-3


class WideResnet(torch.nn.Module):
    """Pre-activation units, as in `atat_tf.models.wide_resnet`.

    In inference mode always, its weights without gradients: from pixels in
    [0, 1], float32 [b, C, H, W], to logits [b, k].

    Args:
      weights: {path: float32 array}, "stem/kernel", "group0_0_conv1/kernel",
        "features_norm/gamma", "logits/bias" and so on.
    """

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        # Keras' kernels are [h, w, in, out].
        tensors = {
            path: torch.tensor(w.transpose(3, 2, 0, 1) if w.ndim == 4 else w)
            for path, w in weights.items()
        }
        self._weights = torch.nn.ParameterDict(tensors)
        self.requires_grad_(False)
        pattern = re.compile(r"(group(\d+)_(\d+))_conv1/kernel")
        found = filter(None, map(pattern.fullmatch, weights))
        self._units = sorted((int(m[2]), int(m[3]), m[1]) for m in found)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        x = self._convolved(4 * images - 2, "stem")
        for group, number, name in self._units:
            stride = 2 if group > 0 and number == 0 else 1
            activated = self._activated(x, f"{name}_act1")
            if f"{name}_shortcut/kernel" in self._weights:
                x = self._convolved(activated, f"{name}_shortcut", stride)
            y = self._convolved(activated, f"{name}_conv1", stride)
            y = self._activated(y, f"{name}_act2")
            x = x + self._convolved(y, f"{name}_conv2")
        features = self._activated(x, "features").mean((2, 3))
        kernel, bias = (
            self._weights[f"logits/{n}"] for n in ("kernel", "bias")
        )
        return features @ kernel + bias

    def _convolved(self, x, name, stride=1):
        kernel = self._weights[f"{name}/kernel"]
        size = kernel.shape[-1]
        # Keras' "same": the odd row and column are at the end where it strides.
        before = (size - stride) // 2 if size > 1 else 0
        after = max(size - stride, 0) - before
        if before == after:
            return functional.conv2d(x, kernel, None, stride, before)
        x = functional.pad(x, (before, after, before, after))
        return functional.conv2d(x, kernel, None, stride)

    def _activated(self, x, name):
        mean, variance, gamma, beta = (
            self._weights[f"{name}_norm/{variable}"]
            for variable in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        x = functional.batch_norm(x, mean, variance, gamma, beta, eps=_EPSILON)
        return functional.relu(x)
