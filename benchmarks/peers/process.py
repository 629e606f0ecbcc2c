"""torchattacks in a process of its own, under an interpreter of its own.

Its pins conflict with ours, so that it lives in another environment, see
benchmarks/requirements.txt. Calls and answers are pickled; both environments
have the same NumPy.
"""

import contextlib
import dataclasses
import os
import pickle
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from atat_tf.errors import expect
from benchmarks import command

if TYPE_CHECKING:  # oneDNN is chosen before TensorFlow loads
    import keras

_PYTHON = flags.DEFINE_string(
    "peers_python",
    ".venv-peers/bin/python",
    "interpreter of torchattacks' environment",
)


@dataclasses.dataclass(frozen=True)
class Attacked:
    """What an attack returned.

    Attributes:
      adversarial: float32 [n, H, W, C].
      seconds: of the attack and a forward pass over its images, by the clock.
      processor_seconds: of the peer's process, over all of its threads.
    """

    adversarial: np.ndarray
    seconds: float
    processor_seconds: float


class Peer:
    """A process that attacks a Wide ResNet; a context manager that ends it.

    Attributes:
      versions: {distribution: version}.

    Raises:
      InputError: there is no such interpreter.
      RuntimeError: the process cannot import torchattacks, or a call of it
        failed.
    """

    def __init__(self) -> None:
        interpreter = command.ROOT / _PYTHON.value
        expect(
            interpreter.exists(),
            "the environment that benchmarks/requirements.txt describes",
            peers_python=str(interpreter),
        )
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [interpreter, "-m", "benchmarks.peers.worker"],
            cwd=command.ROOT,
            # OpenMP threads that wait would take turns with those that work.
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def __enter__(self) -> "Peer":
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            self.versions = self._answer()
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

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
        **settings: float,
    ) -> Attacked:
        """Returns what an attack makes of images.

        Args:
          name: a key of `worker.ATTACKS`.
          images: uint8 [n, H, W, C].
          labels: integers [n].
          batch_size: images at a time.
          **settings: epsilon, num_steps and, for "pgd", step_size.
        """
        labels = labels.astype(np.int64)
        given = name, images, labels, batch_size, settings
        return Attacked(*self._ask("attack", *given))

    def _ask(self, task: str, *arguments: Any) -> Any:
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((task, arguments), self._process.stdin)
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        try:
            error, answer = pickle.load(self._process.stdout)
        except EOFError:
            self._log.seek(0)
            last = self._log.read().strip().splitlines()[-1:]
            error = f"the peer's process ended: {' '.join(last)}"
        if error:
            raise RuntimeError(error)
        return answer

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()
