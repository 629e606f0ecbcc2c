"""What ours and the peers are compared on: classifiers, images, and verdicts.

Everything about TensorFlow is imported by the functions, so that commands
answer --help at once and can choose oneDNN before it loads.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from benchmarks.peers import process as peers

if TYPE_CHECKING:
    from atat_tf.data import datasets
    from atat_tf.evaluation import attacker as attacker_lib

# Run folders that are part of the repository.
RUNS = {
    "standard": "results/small/cifar10/standard/seed0",
    "robust": "results/small/cifar10/at/seed0",
}
DATA_DIR = flags.DEFINE_string(
    "data_dir",
    str(peers.ROOT.parent / "shared" / "tfds"),
    "of tensorflow-datasets, with CIFAR-10",
)
SAME_LOGITS = 1e-4
_BALL_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Case:
    """A classifier with images and labels.

    Attributes:
      what: a line that says what it is.
      classifier: keras.Model.
      images: uint8 [n, H, W, C].
      labels: int32 [n].
      epsilon: ε that is told apart by it, in ℓ∞.
    """

    what: str
    classifier: object
    images: np.ndarray
    labels: np.ndarray
    epsilon: float

    @property
    def num_classes(self) -> int:
        return self.classifier.output_shape[-1]

    def first(self, count: int) -> "Case":
        """Returns the case with its first images alone."""
        return dataclasses.replace(
            self, images=self.images[:count], labels=self.labels[:count]
        )


def load_dataset() -> "datasets.Dataset":
    """Returns CIFAR-10 as the runs in `results` have read it."""
    from atat_tf.evaluation.run import Run

    return Run(peers.ROOT / RUNS["robust"], DATA_DIR.value).dataset


def run_case(
    name: str, dataset: "datasets.Dataset", num_images: int, epsilon: float
) -> Case:
    """Returns the Case of a run folder on the first test images."""
    from atat_tf.evaluation.run import Run

    classifier = Run(peers.ROOT / RUNS[name]).classifier()
    split = dataset.test.take(num_images)
    what = f"{name} ({RUNS[name]})"
    return Case(what, classifier, split.images, split.labels, epsilon)


def logits(
    classifier: Callable, images: np.ndarray, batch_size: int = 500
) -> np.ndarray:
    """Returns a Keras model's outputs for uint8 images or floats in [0, 1]."""
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255)
    return np.concatenate(
        [
            classifier(images[s : s + batch_size], training=False).numpy()
            for s in range(0, len(images), batch_size)
        ]
    )


def expect_same_logits(peer: peers.Peer, case: Case) -> float:
    """Raises NotRun unless the peer's network is the same function."""
    ours = logits(case.classifier, case.images)
    difference = np.abs(peer.logits(case.images) - ours).max()
    if not difference <= SAME_LOGITS:
        raise peers.NotRun(f"its logits differ by {difference:.2g}")
    return float(difference)


def broken(case: Case, adversarial: np.ndarray) -> np.ndarray:
    """Returns which images [n] are fooled, as our model and our rules see it.

    A candidate counts inside the ball and the box only.
    """
    pixels = case.images.astype(np.float32) / np.float32(255)
    distance = np.abs(adversarial - pixels).max((1, 2, 3))
    inside = (
        (distance <= case.epsilon + _BALL_TOLERANCE)
        & (adversarial.min((1, 2, 3)) >= 0)
        & (adversarial.max((1, 2, 3)) <= 1)
    )
    predictions = logits(case.classifier, adversarial).argmax(-1)
    return inside & (predictions != case.labels)


def evaluation(
    attacker: "attacker_lib.Attacker",
    attacks: Sequence,
    case: Case,
    entering: np.ndarray,
    only_right: bool = True,
) -> tuple[np.ndarray, float, float]:
    """Returns which images still stand, with seconds and processor seconds.

    Args:
      attacker: Attacker of the case's classifier.
      attacks: stepped attacks; each meets what stood after the one before.
      case: Case.
      entering: bool [n], the images to begin with.
      only_right: whether misclassified ones are taken out first.
    """
    begin = time.perf_counter(), time.process_time()
    stands = entering.copy()
    if only_right:
        predictions = attacker.logits(case.images[entering]).argmax(-1)
        stands[entering] = predictions == case.labels[entering]
    for each in attacks:
        entering = np.flatnonzero(stands)
        for first in range(0, len(entering), attacker.group_size):
            group = entering[first : first + attacker.group_size]
            outcome = attacker.run(
                each, case.images[group], case.labels[group], group, 0
            )
            stands[group] = ~outcome.broken
    seconds = time.perf_counter() - begin[0]
    return stands, seconds, time.process_time() - begin[1]
