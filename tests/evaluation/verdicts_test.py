"""From a split to accuracies, through the ledger; kills repeat nothing."""

import json

import numpy as np
import pytest

from atat_tf.attacks import columns, linf, stepped
from atat_tf.data import datasets
from atat_tf.evaluation import attacker as attacker_lib
from atat_tf.evaluation import ledger, verdicts
from tests.support import toys

_EPSILON = 1 / 255
_WEAK = linf.Steps(linf.fgsm(_EPSILON / 2))
_STRONG = linf.Steps(linf.pgd(_EPSILON, 0.3 / 255, 6))
_IDENTITY = ledger.identity("w", "d", "frozen", 0, None)


class _Counting(attacker_lib.Attacker):
    """Counts the images that were attacked."""

    attacked = 0

    def run(self, attack, images, *args):
        self.attacked += len(images)
        return super().run(attack, images, *args)


@pytest.fixture(name="attacked", scope="module")
def _attacked():
    """Returns an attacker and 70 images, of which ten are misclassified."""
    classifier = toys.small_wide_resnet()
    images = toys.random_bytes(70)
    logits = classifier(images / np.float32(255), training=False).numpy()
    labels = logits.argmax(-1).astype(np.int32)
    labels[::7] = (labels[::7] + 1) % toys.NUM_CLASSES
    return _Counting(classifier, 4), datasets.Split(images, labels)


class _Problem:
    """The images, and a ledger's file of their own."""

    def __init__(self, path, attacker, split):
        self.path, self.attacker, self.split = path, attacker, split
        attacker.attacked = 0

    def lines(self):
        return ledger.Ledger(self.path, _IDENTITY)

    def standing(self, *attacks, **kwargs):
        judge = verdicts.Verdicts(
            self.attacker, self.split, self.lines(), 0, **kwargs
        )
        return judge.standing(attacks)


@pytest.fixture(name="problem")
def _problem(tmp_path, attacked):
    return _Problem(tmp_path / ledger.FILE, *attacked)


def test_images_leave_once_they_are_misclassified(problem):
    clean = problem.standing()
    np.testing.assert_array_equal(clean, np.arange(70) % 7 > 0)
    weak = problem.standing(_WEAK)
    assert problem.attacker.attacked == 60
    assert not np.any(weak[::7])
    both = problem.standing(_WEAK, _STRONG)
    assert problem.attacker.attacked == 60 + weak.sum()
    assert np.all(weak[both]) and both.sum() < weak.sum()
    met = problem.lines().verdicts(columns.description(_STRONG))
    assert set(met) == set(np.flatnonzero(weak))


def test_nothing_is_run_twice(problem):
    first = problem.standing(_WEAK, _STRONG)
    attacked, content = problem.attacker.attacked, problem.path.read_bytes()
    again = problem.standing(_WEAK, _STRONG)
    np.testing.assert_array_equal(again, first)
    assert problem.attacker.attacked == attacked
    assert problem.path.read_bytes() == content


def test_a_killed_evaluation_ends_with_the_same_lines(problem):
    def lines():
        kept = [
            json.loads(t) for t in problem.path.read_text().splitlines() if t
        ]
        for line in kept:
            del line["seconds"]  # wall time is never the same
        return {(x["attack"], x["index"]): x for x in kept if "margin" in x}

    whole = problem.standing(_WEAK, _STRONG)
    content, expected = problem.path.read_bytes(), lines()
    # Inside the last group, and inside the first attack's.
    for length in (len(content) - 10, len(content) // 2):
        cut = content[:length]
        problem.path.write_bytes(cut)
        again = problem.standing(_WEAK, _STRONG)
        np.testing.assert_array_equal(again, whole)
        text = problem.path.read_text().replace("\n\n", "\n")
        torn = text.split("\n")[cut.count(b"\n")]
        problem.path.write_text(text.replace(torn + "\n", "", 1))
        assert lines() == expected


def test_adversarials_are_kept_when_asked_for(problem):
    problem.standing(_STRONG)
    images = {}

    def keep(description, indices, outcome):
        assert description == columns.description(_STRONG)
        images.update(zip(indices.tolist(), outcome.adversarial, strict=True))

    stands = problem.standing(_STRONG, keep=keep)
    assert len(images) == 60
    logits = problem.attacker.logits(np.array(list(images.values())))
    labels = problem.split.labels[list(images)]
    np.testing.assert_array_equal(
        logits.argmax(-1) == labels, stands[list(images)]
    )


def test_progress_ends_at_all_passes(problem):
    """Done, not needed since broken, or known before: all are counted."""
    passes = 1 + stepped.passes(_WEAK) + stepped.passes(_STRONG)
    for _ in range(2):
        counts = []
        problem.standing(_WEAK, _STRONG, advance=counts.append)
        assert sum(counts) == passes * 70
