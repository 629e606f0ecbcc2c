"""The original AutoAttack on our Wide ResNet, rebuilt in PyTorch.

Croce and Hein's own code, which they publish as `pyautoattack`.
"""

import re
from collections.abc import Sequence

import numpy as np
import pyautoattack
import torch
from torch.nn import functional

# Of `atat_tf.models.wide_resnet`, which takes Keras' default.
_EPSILON = 1e-3


class Peer:
    """What AutoAttack makes of images, uint8 [n, H, W, C].

    Args:
      weights: {path: float32 array} of a Wide ResNet's variables.
      batch_size: images at a time.
    """

    def __init__(self, weights: dict[str, np.ndarray], batch_size: int) -> None:
        network = WideResnet(weights)
        self._network = network.to(memory_format=torch.channels_last)
        self._batch_size = batch_size

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns logits [n, k]."""
        with torch.no_grad():
            return self._network(_pixels(images)).numpy()

    def attack(
        self,
        parts: Sequence[str],
        images: np.ndarray,
        labels: np.ndarray,
        epsilon: float,
        num_steps: int,
        num_queries: int,
    ) -> np.ndarray:
        """Returns adversarial images, float32 [n, H, W, C].

        Of the standard version, or of some of its parts, each on what the ones
        before left. An image that withstands all is returned as it is.

        Args:
          parts: among "apgd_ce", "apgd_t", "fab_t" and "square".
          images: as above.
          labels: integers [n].
          epsilon: ε in ℓ∞.
          num_steps: of APGD and FAB.
          num_queries: of Square.
        """
        whole = pyautoattack.AutoAttack(
            self._network, norm="Linf", eps=epsilon, version="standard", seed=0
        )
        whole.attacks_to_run = [part.replace("_", "-") for part in parts]
        for part in (whole.apgd, whole.apgd_targeted, whole.fab):
            part.n_iter = num_steps
        whole.square.n_queries = num_queries
        adversarial, _ = whole.run_standard_evaluation(
            _pixels(images),
            torch.from_numpy(labels.astype(np.int64)),
            batch_size=self._batch_size,
        )
        return np.ascontiguousarray(adversarial.numpy().transpose(0, 2, 3, 1))


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


def _pixels(images):
    """Returns float32 [n, C, H, W]; in memory too, which FAB asks for."""
    channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return torch.from_numpy(channels_first.astype(np.float32) / np.float32(255))
