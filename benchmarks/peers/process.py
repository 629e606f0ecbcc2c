"""Peers in a process of their own, under an interpreter of their own.

Their pins conflict with ours, so that they live in another environment:

  python3.11 -m venv .venv-peers
  .venv-peers/bin/pip install -r benchmarks/requirements.txt

Arrays go there and back as .npz files, all else as lines of JSON.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = ".venv-peers/bin/python"


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
      name: one of `peer_attacks.PEERS` or of `peer_training.PEERS`.
      python: its interpreter; relative to the repository's root.
      environment: variables of the process beside this one's.

    Raises:
      NotRun: there is no such interpreter, or the peer cannot be imported.
    """

    def __init__(self, name, python=PYTHON, environment=None):
        self.name = name
        interpreter = ROOT / python
        if not interpreter.exists():
            raise NotRun(
                f"no interpreter {python}; benchmarks/peers/process.py tells "
                "how to make the environment"
            )
        self._folder = tempfile.TemporaryDirectory()
        self._numbers = itertools.count()
        self._log = open(pathlib.Path(self._folder.name) / "log", "w+")
        self._process = subprocess.Popen(
            [str(interpreter), "-m", "benchmarks.peers.worker", name],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self.versions = self._answer()["versions"]
        except NotRun:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def load(self, classifier):
        """Has the peer rebuild a Wide ResNet; later attacks are on it.

        Args:
          classifier: keras.Model from `wide_resnet.wide_resnet`.
        """
        weights = {v.path: v.numpy() for v in classifier.variables}
        self._ask("load", weights)

    def logits(self, images):
        """Returns the peer's logits [n, k] of uint8 images [n, H, W, C]."""
        return self._ask("logits", {"images": images})[0]["logits"]

    def attack(self, name, images, labels, batch_size, **arguments):
        """Returns the Attacked of uint8 images.

        Args:
          name: of an attack that the peer has, see `peer_attacks`.
          images: uint8 [n, H, W, C].
          labels: integers [n].
          batch_size: images at a time.
          **arguments: the attack's own, numbers.

        Raises:
          NotRun: the attack failed.
        """
        arrays, answer = self._ask(
            "attack",
            {"images": images, "labels": labels.astype(np.int64)},
            name=name,
            batch_size=batch_size,
            arguments=arguments,
        )
        return Attacked(
            arrays["adversarial"],
            answer["seconds"],
            answer["processor_seconds"],
        )

    def prepare(self, **arguments):
        """Has the peer make ready its training of the network loaded.

        Args:
          **arguments: of its `prepare`, numbers.
        """
        self._ask("prepare", {}, arguments=arguments)

    def step(self, images, labels):
        """Returns the Stepped of one training step on a batch, uint8 images.

        Raises:
          NotRun: the step failed.
        """
        arrays = {"images": images, "labels": labels.astype(np.int64)}
        return Stepped(**self._ask("step", arrays)[1])

    def close(self):
        """Ends the process."""
        if self._process.poll() is None:
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()
        self._log.close()
        self._folder.cleanup()

    def _ask(self, task, arrays, **arguments):
        """Returns the arrays and the rest of the answer."""
        number = next(self._numbers)
        folder = pathlib.Path(self._folder.name)
        here, there = folder / f"{number}.npz", folder / f"{number}a.npz"
        np.savez(here, **arrays)
        question = {
            "task": task,
            "arrays": str(here),
            "answer": str(there),
            **arguments,
        }
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        try:
            answer = self._answer()
            with np.load(there) as file:
                return dict(file), answer
        finally:
            here.unlink()
            there.unlink(missing_ok=True)

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = self._log.read().strip().splitlines()[-1:]
            raise NotRun(f"its process ended with {code}: {' '.join(last)}")
        answer = json.loads(line)
        if "error" in answer:
            raise NotRun(answer["error"])
        return answer


def environment(onednn):
    """Returns the variables of a process: oneDNN in TensorFlow on or off.

    TensorFlow leaves them off on processors without AVX-512.
    """
    return {
        "TF_ENABLE_ONEDNN_OPTS": "1" if onednn else "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # OpenMP threads that wait would take turns with those that work.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
