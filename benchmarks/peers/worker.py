"""The process of torchattacks: calls come on standard input, answers go out.

Started by `process` under the interpreter of torchattacks' environment. A call
is a pickled pair: the name of a method of `Worker`, and its arguments. An
answer is a pickled pair as well: an error's sentence or None, and what the
method returned.
"""

import importlib.metadata
import os
import pickle
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchattacks

from benchmarks.peers import torch_models

# Name here -> class of torchattacks, and what it is made with beside the
# network, ε and the number of steps. Its own AutoAttack runs its parts with 10
# steps and not with 100, seeds from the clock, and targets every wrong class
# where the original targets nine at most: so the parts are called one by one.
ATTACKS = {
    "pgd": ("PGD", {"random_start": False}),
    "apgd_ce": ("APGD", {"norm": "Linf", "loss": "ce"}),
    "apgd_t": ("APGDT", {"norm": "Linf", "n_classes": 10}),
    "fab_t": (
        "FAB",
        {"norm": "Linf", "multi_targeted": True, "n_classes": 10},
    ),
    "square": ("Square", {"norm": "Linf"}),
}


class Worker:
    """What the peer is asked for; images are uint8, labels int64."""

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Builds the network, of ten classes, from {path: array}."""
        network = torch_models.WideResnet(weights)
        self._network = network.to(memory_format=torch.channels_last)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns logits [n, k]."""
        with torch.no_grad():
            return self._network(_pixels(images)).numpy()

    def attack(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        settings: dict[str, float],
    ) -> tuple[np.ndarray, float, float]:
        """Returns adversarial images, seconds, and processor seconds."""
        attack, parts = self._made(name, **settings), []
        pixels, labels = _pixels(images), torch.from_numpy(labels)
        begin = time.perf_counter(), time.process_time()
        for first in range(0, len(pixels), batch_size):
            batch = slice(first, first + batch_size)
            parts.append(attack(pixels[batch], labels[batch]).detach())
            # An evaluation judges what came out.
            with torch.no_grad():
                self._network(parts[-1])
        seconds = time.perf_counter() - begin[0]
        processor_seconds = time.process_time() - begin[1]
        adversarial = torch.cat(parts).numpy().transpose(0, 2, 3, 1)
        return np.ascontiguousarray(adversarial), seconds, processor_seconds

    def _made(self, name, epsilon, num_steps, step_size=None):
        kind, more = ATTACKS[name]
        # The one attack whose steps are called otherwise.
        steps = "n_queries" if name == "square" else "steps"
        more = {**more, "eps": epsilon, steps: num_steps}
        if step_size is not None:
            more["alpha"] = step_size
        return getattr(torchattacks, kind)(self._network, **more)


def _pixels(images):
    """Returns float32 [n, C, H, W]; in memory too, which FAB asks for."""
    channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return torch.from_numpy(channels_first.astype(np.float32) / np.float32(255))


def versions() -> dict[str, str]:
    """Returns {distribution: version}."""
    names = "torchattacks", "torch"
    return {name: importlib.metadata.version(name) for name in names}


def _answered(function: Callable, *arguments: Any) -> tuple[str | None, Any]:
    """Returns (None, what a function returns), or its error's sentence."""
    try:
        return None, function(*arguments)
    except Exception as error:  # whatever an import or an attack raises
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}", None


def main() -> None:
    """Answers until the calls end."""
    # Attacks print; answers have the real standard output for themselves.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        worker = Worker()
        answer = _answered(versions)
        while True:
            pickle.dump(answer, answers)
            answers.flush()
            try:
                task, arguments = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            answer = _answered(getattr(worker, task), *arguments)


if __name__ == "__main__":
    main()
