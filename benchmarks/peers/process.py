"""Peers in a process of their own, under an interpreter of their own.

Their pins conflict with ours, so that they live in another environment:

  python3.11 -m venv .venv-peers
  .venv-peers/bin/pip install -r benchmarks/requirements.txt

Calls and answers are pickled; both environments have the same NumPy.
"""

import contextlib
import dataclasses
import os
import pathlib
import pickle
import subprocess
import tempfile
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from benchmarks import command

if TYPE_CHECKING:  # oneDNN is chosen before TensorFlow loads
    import keras

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = flags.DEFINE_string(
    "peers_python",
    ".venv-peers/bin/python",
    "interpreter of the peers' environment",
)
ONEDNN = flags.DEFINE_bool("onednn", True, "oneDNN's kernels for ours")
PEERS_ONEDNN = flags.DEFINE_bool(
    "peers_onednn", True, "oneDNN's kernels for the TensorFlow peers"
)


class NotRun(Exception):
    """A peer that cannot do what it was asked for; the message says why."""


@dataclasses.dataclass(frozen=True)
class Attacked:
    """What a peer's attack returned.

    Attributes:
      adversarial: float32 [n, H, W, C].
      seconds: of the attack and a forward pass over its images, by the clock.
      processor_seconds: of the peer's process, over all of its threads.
    """

    adversarial: np.ndarray
    seconds: float
    processor_seconds: float


@dataclasses.dataclass(frozen=True)
class Stepped:
    """What a peer's training step returned.

    Attributes:
      loss: on the adversarial images, before the update.
      seconds, processor_seconds: of the step, as in `Attacked`.
    """

    loss: float
    seconds: float
    processor_seconds: float


class Peer:
    """A process that attacks or trains classifiers as one peer does it.

    Args:
      name: one of `peers.attacks.PEERS` or of `peers.training.PEERS`.

    Raises:
      NotRun: there is no such interpreter, or the peer cannot be imported.
    """

    def __init__(self, name: str):
        self.name = name
        interpreter = ROOT / PYTHON.value
        if not interpreter.exists():
            raise NotRun(
                f"no interpreter {PYTHON.value}; benchmarks/peers/process.py "
                "tells how to make the environment"
            )
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [str(interpreter), "-m", "benchmarks.peers.worker", name],
            cwd=ROOT,
            env=os.environ | command.environment(PEERS_ONEDNN.value),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            self.versions = self._answer()
        except NotRun:
            self.close()
            raise

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def load(self, classifier: "keras.Model") -> None:
        """Has the peer rebuild a Wide ResNet; later attacks are on it.

        Args:
          classifier: from `wide_resnet.wide_resnet`.
        """
        self._ask("load", {v.path: v.numpy() for v in classifier.variables})

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the peer's logits [n, k] of uint8 images [n, H, W, C]."""
        return self._ask("logits", images)

    def attack(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        **arguments: float,
    ) -> Attacked:
        """Returns what an attack makes of images.

        Args:
          name: of an attack that the peer has, see `peers.attacks`.
          images: uint8 [n, H, W, C].
          labels: integers [n].
          batch_size: images at a time.
          **arguments: the attack's own.

        Raises:
          NotRun: the attack failed.
        """
        labels = labels.astype(np.int64)
        given = name, images, labels, batch_size, arguments
        return Attacked(*self._ask("attack", *given))

    def prepare(self, **arguments: float) -> None:
        """Has the peer make ready its training of the network loaded."""
        self._ask("prepare", arguments)

    def step(self, images: np.ndarray, labels: np.ndarray) -> Stepped:
        """Returns the Stepped of one training step on a batch, uint8 images.

        Raises:
          NotRun: the step failed.
        """
        return Stepped(*self._ask("step", images, labels.astype(np.int64)))

    def close(self) -> None:
        """Ends the process."""
        with self._process, contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._log.close()

    def _ask(self, task, *arguments):
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((task, arguments), self._process.stdin)
            self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        try:
            error, answer = pickle.load(self._process.stdout)
        except EOFError:
            code = self._process.wait()
            self._log.seek(0)
            last = self._log.read().strip().splitlines()[-1:]
            error = f"its process ended with {code}: {' '.join(last)}"
        if error:
            raise NotRun(error)
        return answer


def opened(
    stack: contextlib.ExitStack, names: Iterable[str], suffix: str = ""
) -> tuple[dict[str, Peer], dict[str, str]]:
    """Returns {name: Peer} of those that start, and why the others do not.

    Args:
      stack: that ends them.
      names: of peers.
      suffix: of their names in the peers' process.
    """
    found, not_run = {}, {}
    for name in names:
        try:
            found[name] = stack.enter_context(Peer(f"{name}{suffix}"))
        except NotRun as error:
            not_run[name] = str(error)
    return found, not_run
