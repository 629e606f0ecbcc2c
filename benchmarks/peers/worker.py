"""The process of a peer: calls come on standard input, answers go out.

Started by `process` under the peers' interpreter. A call is a pickled pair: the
name of a function of `Worker`, and its arguments. An answer is a pickled pair
as well: an error's sentence or None, and what the function returned.
"""

import os
import pickle
import sys
import time

import numpy as np


class Worker:
    """What a peer is asked for; images are uint8, labels int64.

    Args:
      name: one of `attacks.PEERS` or of `training.PEERS`.
    """

    def __init__(self, name: str):
        from benchmarks.peers import attacks, training

        self._peer = (attacks.PEERS | training.PEERS)[name]()
        self.versions = self._peer.versions

    def load(self, weights: dict[str, np.ndarray]) -> None:
        self._peer.load(weights)

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self._peer.logits(_pixels(images))

    def prepare(self, arguments: dict[str, float]) -> None:
        self._peer.prepare(**arguments)

    def step(
        self, images: np.ndarray, labels: np.ndarray
    ) -> tuple[float, float, float]:
        """Returns the loss, the seconds and the processor seconds."""
        return _timed(lambda: self._peer.step(_pixels(images), labels))

    def attack(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        arguments: dict[str, float],
    ) -> tuple[np.ndarray, float, float]:
        """Returns the adversarial images, and seconds as `step`."""
        attack, pixels = self._peer.attack(name, **arguments), _pixels(images)

        def attacked():
            parts = []
            for first in range(0, len(pixels), batch_size):
                batch = slice(first, first + batch_size)
                parts.append(attack(pixels[batch], labels[batch]))
                # An evaluation judges what came out.
                self._peer.logits(parts[-1])
            return np.concatenate(parts)

        return _timed(attacked)


def _timed(function):
    begin = time.perf_counter(), time.process_time()
    answer = function()
    seconds = time.perf_counter() - begin[0]
    return answer, seconds, time.process_time() - begin[1]


def _pixels(images):
    return images.astype(np.float32) / np.float32(255)


def _answered(function):
    """Returns (None, what a function returns), or its error's sentence."""
    try:
        return None, function()
    except Exception as error:  # whatever an import or a peer raises
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}", None


def main(name: str) -> None:
    """Answers until the calls end."""
    # Peers print; answers have the real standard output for themselves.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)

        def say(error, answer):
            pickle.dump((error, answer), answers)
            answers.flush()

        error, worker = _answered(lambda: Worker(name))
        say(error, worker and worker.versions)
        while worker:
            try:
                task, arguments = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            say(*_answered(lambda: getattr(worker, task)(*arguments)))  # noqa: B023


if __name__ == "__main__":
    main(sys.argv[1])
