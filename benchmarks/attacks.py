"""Compares our AutoAttack with the original: verdicts and seconds.

  .venv-peers/bin/python -m benchmarks.attacks --data_dir=../shared/tfds
  .venv-peers/bin/python -m benchmarks.attacks --attacks=standard --json=FILE

benchmarks/requirements.txt says how to make that environment.

Both attack the images that are classified right, with the same weights, ε in
ℓ∞, steps and queries. "standard" is the standard version whole: its four parts
in order, each on what the ones before left. What the original returns is judged
by our model: inside ball and box, and wrong. Every round runs ours and theirs
in turns; one, untimed, comes before. In ours broken images leave at any step,
and candidates are checked once more, alone in a batch of one.

Goals: robust accuracies within 1 point of each other, ours not the higher one;
2 times as fast on the robust model.
"""

import dataclasses
import functools
import importlib.metadata
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from atat_tf.errors import InputError
from atat_tf.runs import command_line, terminal
from benchmarks import command, ratios

if TYPE_CHECKING:  # oneDNN is chosen before TensorFlow loads
    from atat_tf.evaluation.attacker import Attacker
    from benchmarks.torch_peer import Peer

# Run folders of the repository, each with an ε: where some images stand and
# some fall, and the usual one.
CASES = {
    "standard": ("results/small/cifar10/standard/seed0", 8 / 255),
    "standard_small": ("results/small/cifar10/standard/seed0", 1 / 255),
    "robust": ("results/small/cifar10/at/seed0", 8 / 255),
}
_STANDARD = ("apgd_ce", "apgd_t", "fab_t", "square")
PARTS = {**{name: (name,) for name in _STANDARD}, "standard": _STANDARD}
_PEER = "the original"
_SAME_LOGITS = 1e-4
_BALL_TOLERANCE = 1e-6
_MORE = "<= 1"

flags.declare_key_flag("data_dir")
flags.adopt_module_key_flags(command)
_CASES = flags.DEFINE_list("cases", ["robust"], f"among {', '.join(CASES)}")
_ATTACKS = flags.DEFINE_list(
    "attacks", list(_STANDARD), f"among {', '.join(PARTS)}"
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 200, "first test images", lower_bound=1
)
_NUM_STEPS = flags.DEFINE_integer(
    "num_steps", 100, "of APGD and FAB", lower_bound=4
)
_NUM_QUERIES = flags.DEFINE_integer("num_queries", 5000, "of Square")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "of both", lower_bound=1)
_REPEATS = flags.DEFINE_integer(
    "repeats", 5, "rounds of ours and theirs in turns", lower_bound=1
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A classifier, and the peer's copy, with images that it classifies right.

    Attributes:
      what: a line that says what it is.
      attacker: of the classifier.
      peer: of the same network.
      images: uint8 [n, H, W, C].
      labels: int32 [n].
      count: of all images, right or wrong.
      epsilon: ε in ℓ∞.
    """

    what: str
    attacker: "Attacker"
    peer: "Peer"
    images: np.ndarray
    labels: np.ndarray
    count: int
    epsilon: float

    def ours(self, parts: tuple[str, ...], steps: dict[str, int]) -> np.ndarray:
        """Returns which images stand after our attacks, bool [n]."""
        stands = np.ones(len(self.labels), bool)
        for part in parts:
            for attack in _our_attacks(part, self.epsilon, steps[part]):
                entering = np.flatnonzero(stands)
                for first in range(0, len(entering), self.attacker.group_size):
                    group = entering[first : first + self.attacker.group_size]
                    given = self.images[group], self.labels[group], group
                    outcome = self.attacker.run(attack, *given, seed=0)
                    stands[group] = ~outcome.broken
        return stands

    def theirs(
        self, parts: tuple[str, ...], steps: dict[str, int]
    ) -> np.ndarray:
        """Returns the same of the peer's, its images judged by our model."""
        adversarial = self.peer.attack(
            parts,
            self.images,
            self.labels,
            self.epsilon,
            steps["apgd_ce"],
            steps["square"],
        )
        return ~self._broken(adversarial)

    def _broken(self, adversarial):
        """Returns which candidates fool our model, inside ball and box."""
        pixels = self.images.astype(np.float32) / np.float32(255)
        distance = np.abs(adversarial - pixels).max((1, 2, 3))
        inside = (
            (distance <= self.epsilon + _BALL_TOLERANCE)
            & (adversarial.min((1, 2, 3)) >= 0)
            & (adversarial.max((1, 2, 3)) <= 1)
        )
        logits = self.attacker.logits(adversarial)
        return inside & ~_is_right(self.labels, logits)


def opened(
    name: str, data_dir: str | None, num_images: int, batch_size: int
) -> Case:
    """Returns a Case.

    Args:
      name: a key of CASES.
      data_dir: of tensorflow-datasets, with CIFAR-10.
      num_images: the first so many test images.
      batch_size: images at a time, of both.

    Raises:
      InputError: no data there, or no original AutoAttack.
      RuntimeError: the peer's network is another function.
    """
    from atat_tf.evaluation.attacker import Attacker
    from atat_tf.evaluation.run import Run

    try:
        from benchmarks.torch_peer import Peer
    except ModuleNotFoundError as error:
        raise InputError(
            "Expected the environment that benchmarks/requirements.txt "
            f"describes. Received: no module {error.name}."
        ) from error
    folder, epsilon = CASES[name]
    run = Run(command.ROOT / folder, data_dir)
    split, classifier = run.dataset.test.take(num_images), run.classifier()
    attacker = Attacker(classifier, batch_size)
    logits = attacker.logits(split.images)
    weights = {v.path: v.numpy() for v in classifier.variables}
    peer = Peer(weights, batch_size)
    difference = np.abs(peer.logits(split.images) - logits).max()
    if not difference <= _SAME_LOGITS:
        raise RuntimeError(f"the peer's logits differ by {difference:.2g}")
    right = _is_right(split.labels, logits)
    what = f"{name} (ε = {epsilon * 255:g}/255)"
    shown = split.images[right], split.labels[right], len(split)
    return Case(what, attacker, peer, *shown, epsilon)


def _is_right(labels, logits):
    from atat_tf import losses

    return losses.is_right(labels, logits).numpy()


def _our_attacks(part, epsilon, num_steps):
    from atat_tf.attacks import columns

    return columns.column(f"{part}{num_steps}", epsilon, epsilon / 4, 10)


def compare(case: Case, name: str, steps: dict[str, int], repeats: int) -> dict:
    """Returns the rounds of an attack, ours and the peer's in turns.

    Args:
      case: Case.
      name: a key of PARTS.
      steps: {part: number of steps}.
      repeats: rounds, after an untimed one; verdicts are the last one's.

    Returns:
      "attack"; "ours" and "theirs", shares of all images that stand;
      "only_ours_breaks", "only_theirs_breaks", numbers of images; "seconds"
      and "processor_seconds", {"ours", "theirs": of each round}.
    """
    stands = {}

    def attacked(who, function):
        stands[who] = function(PARTS[name], steps)

    seconds, processor_seconds = ratios.round_robin(
        {
            "ours": functools.partial(attacked, "ours", case.ours),
            "theirs": functools.partial(attacked, "theirs", case.theirs),
        },
        repeats,
    )
    ours, theirs = stands["ours"], stands["theirs"]
    return {
        "attack": name,
        "ours": float(ours.sum() / case.count),
        "theirs": float(theirs.sum() / case.count),
        "only_ours_breaks": int((theirs & ~ours).sum()),
        "only_theirs_breaks": int((ours & ~theirs).sum()),
        "seconds": seconds,
        "processor_seconds": processor_seconds,
    }


def comparisons(what: str, row: dict) -> list[dict]:
    """Returns how much faster and how much weaker ours is, see `ratios`."""
    what = f"{row['attack']}, {what}"
    found = []
    for clock, words, goal in (
        ("seconds", "times faster", ">= 2"),
        ("processor_seconds", "the same by processor seconds", ""),
    ):
        faster = ratios.over(row[clock]["theirs"], row[clock]["ours"])
        found.append(ratios.comparison(f"{what}: {words}", _PEER, faster, goal))
    more = [100 * (row["ours"] - row["theirs"])]
    return [
        *found,
        ratios.comparison(f"{what}: left more", _PEER, more, _MORE, "points"),
    ]


def print_rows(case: Case, rows: list[dict]) -> None:
    """Prints who stands, and the images that are disagreed about."""
    terminal.table(
        f"{case.what}, {len(case.labels)} of {case.count} images right",
        ("attack", "ours", "theirs", "only ours breaks", "only theirs", "s"),
        [
            (
                row["attack"],
                f"{row['ours']:.1%}",
                f"{row['theirs']:.1%}",
                str(row["only_ours_breaks"]),
                str(row["only_theirs_breaks"]),
                ratios.figures(row["seconds"]["ours"])[0],
            )
            for row in rows
        ],
    )


def main(argv: list[str]) -> None:
    del argv
    command.expect_names("--cases", _CASES.value, CASES)
    command.expect_names("--attacks", _ATTACKS.value, PARTS)
    data_dir = command_line.data_dir()
    # OpenMP threads of torch that wait would take turns with those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    results = {"surroundings": command.begin(), "rows": {}, "comparisons": []}
    steps = dict.fromkeys(_STANDARD, _NUM_STEPS.value)
    steps["square"] = _NUM_QUERIES.value
    for case_name in _CASES.value:
        sizes = _NUM_IMAGES.value, _BATCH_SIZE.value
        case = opened(case_name, data_dir, *sizes)
        rows = [
            compare(case, name, steps, _REPEATS.value)
            for name in _ATTACKS.value
        ]
        print_rows(case, rows)
        results["rows"][case.what] = rows
        for row in rows:
            results["comparisons"] += comparisons(case.what, row)
    for name in ("pyautoattack", "torch"):
        results["surroundings"][name] = importlib.metadata.version(name)
    command.finish("Beside the original AutoAttack", results)
    weaker = [c for c in results["comparisons"] if c["goal"] == _MORE]
    if any(ratios.verdict(each) == "not met" for each in weaker):
        sys.exit("error: an attack of ours left more images than the peer's.")


if __name__ == "__main__":
    command_line.run(main, recipes=False)
