"""From a split to accuracies, through the ledger; kills repeat nothing."""

import json
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest

from atat_tf.attacks import columns, linf, stepped
from atat_tf.data import datasets
from atat_tf.evaluation import attacker as attacker_lib
from atat_tf.evaluation import ledger, verdicts
from tests.support import toys

_EPSILON = 1 / 255
_WEAK = linf.Steps(linf.fgsm(_EPSILON / 2))
_STRONG = linf.Steps(linf.pgd(_EPSILON, 0.3 / 255, 6))
_IDENTITY = {
    "weights": "w",
    "data": "d",
    "bn_eval": "frozen",
    "seed": 0,
    "batch": None,
}


class _Counting(attacker_lib.Attacker):
    """Counts the images that were attacked."""

    attacked = 0

    def run(self, attack, images, *args):
        self.attacked += len(images)
        return super().run(attack, images, *args)


class VerdictsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.enter_context(tempfile.TemporaryDirectory())
        self.path = pathlib.Path(folder) / ledger.FILE
        classifier = toys.small_wide_resnet()
        images = np.random.default_rng(0).integers(
            0, 256, (70, *toys.IMAGE_SHAPE), np.uint8
        )
        logits = classifier(images / np.float32(255), training=False).numpy()
        labels = logits.argmax(-1).astype(np.int32)
        labels[::7] = (labels[::7] + 1) % toys.NUM_CLASSES  # ten are wrong
        self.split = datasets.Split(images, labels)
        self.attacker = _Counting(classifier, 4)

    def _verdicts(self, **kwargs):
        book = ledger.Ledger(self.path, _IDENTITY)
        return verdicts.Verdicts(self.attacker, self.split, book, 0, **kwargs)

    def test_misclassified_images_never_enter(self):
        stands = self._verdicts().standing([_WEAK])
        self.assertEqual(self.attacker.attacked, 60)
        self.assertFalse(np.any(stands[::7]))
        clean = self._verdicts().standing([])
        np.testing.assert_array_equal(clean, np.arange(70) % 7 > 0)

    def test_broken_images_do_not_meet_the_next_attack(self):
        judge = self._verdicts()
        weak = judge.standing([_WEAK])
        both = judge.standing([_WEAK, _STRONG])
        self.assertEqual(self.attacker.attacked, 60 + weak.sum())
        self.assertTrue(np.all(weak[both]))
        self.assertLess(both.sum(), weak.sum())
        known = ledger.Ledger(self.path, _IDENTITY).verdicts(
            columns.description(_STRONG)
        )
        self.assertEqual(set(known), set(np.flatnonzero(weak)))

    def test_nothing_is_run_twice(self):
        first = self._verdicts().standing([_WEAK, _STRONG])
        attacked, content = self.attacker.attacked, self.path.read_bytes()
        np.testing.assert_array_equal(
            self._verdicts().standing([_WEAK, _STRONG]), first
        )
        self.assertEqual(self.attacker.attacked, attacked)
        self.assertEqual(self.path.read_bytes(), content)

    def test_a_killed_evaluation_ends_with_the_same_lines(self):
        def lines():
            kept = [
                json.loads(t) for t in self.path.read_text().splitlines() if t
            ]
            for line in kept:
                del line["seconds"]  # wall time is never the same
            return {(x["attack"], x["index"]): x for x in kept if "margin" in x}

        whole = self._verdicts().standing([_WEAK, _STRONG])
        content, expected = self.path.read_bytes(), lines()
        # Inside the last group, and inside the first attack's.
        for length in (len(content) - 10, len(content) // 2):
            cut = content[:length]
            self.path.write_bytes(cut)
            np.testing.assert_array_equal(
                self._verdicts().standing([_WEAK, _STRONG]), whole
            )
            text = self.path.read_text().replace("\n\n", "\n")
            torn = text.split("\n")[cut.count(b"\n")]
            self.path.write_text(text.replace(torn + "\n", "", 1))
            self.assertEqual(lines(), expected)

    def test_adversarials_are_kept_when_asked_for(self):
        self._verdicts().standing([_STRONG])
        kept = {}
        stands = self._verdicts(adversarials=kept).standing([_STRONG])
        images = kept[columns.description(_STRONG)]
        self.assertLen(images, 60)
        logits = self.attacker.logits(np.array(list(images.values())))
        labels = self.split.labels[list(images)]
        np.testing.assert_array_equal(
            logits.argmax(-1) == labels, stands[list(images)]
        )

    def test_progress_ends_at_all_passes(self):
        """Done, not needed since broken, or known before: all are counted."""
        passes = 1 + stepped.passes(_WEAK) + stepped.passes(_STRONG)
        for _ in range(2):
            counts = []
            self._verdicts(advance=counts.append).standing([_WEAK, _STRONG])
            self.assertEqual(sum(counts), passes * 70)


if __name__ == "__main__":
    absltest.main()
