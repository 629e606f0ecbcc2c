"""Runs the attacks that a ledger lacks, and reads from it who stands."""

from collections.abc import Callable, Sequence

import numpy as np

from atat_tf import losses
from atat_tf.attacks import columns, stepped
from atat_tf.data import datasets
from atat_tf.evaluation.attacker import Attacker
from atat_tf.evaluation.ledger import CLEAN, Ledger
from atat_tf.evaluation.outcome import Outcome


class Verdicts:
    """Who stands after which attack.

    Args:
      attacker: Attacker.
      split: datasets.Split.
      ledger: Ledger.
      seed: of the random starts; image i has the start (seed, 0, i).
      advance: called with the number of forward passes that are done, or that
        are not needed: one for each image in question, and `stepped.passes`
        for each of them and attack.
      keep: called with a description, int64 [m] indices and the Outcome of
        each group of attacked images, whose candidates the ledger does not
        hold. With it nothing is taken from the ledger.
    """

    def __init__(
        self,
        attacker: Attacker,
        split: datasets.Split,
        ledger: Ledger,
        seed: int,
        advance: Callable[[int], None] | None = None,
        keep: Callable[[str, np.ndarray, Outcome], None] | None = None,
    ) -> None:
        self._attacker = attacker
        self._split = split
        self._ledger = ledger
        self._seed = np.int64(seed)
        self._advance = advance or (lambda count: None)
        self._keep = keep
        self._indices = np.arange(len(split))

    def standing(self, attacks: Sequence) -> np.ndarray:
        """Returns which images withstand a column, running what is missing.

        Args:
          attacks: from `columns.column`, in order.

        Returns:
          bool [n].
        """
        self._classify(self._indices)
        self._advance(len(self._split))
        run: list[str] = []
        for attack in attacks:
            # With batch statistics a batch has to stay as it is.
            attacked = self._indices
            if self._attacker.is_frozen:
                attacked = np.flatnonzero(self._standing(run))
            self._run(attack, attacked, len(self._split))
            run.append(columns.description(attack))
        return self._standing(run)

    def standing_of(
        self, attacks: Sequence, indices: Sequence[int] | np.ndarray
    ) -> np.ndarray:
        """Returns which of some images withstand a column; frozen alone.

        Args:
          attacks: as for `standing`.
          indices: [k], the images that are classified and attacked; no other.

        Returns:
          bool [k].
        """
        self._classify(indices)
        run = columns.descriptions(attacks)
        asked = np.asarray(indices, np.int64)
        self._advance(len(asked))
        for number, attack in enumerate(attacks):
            stands = self._decided(run[:number], asked)
            self._run(attack, asked[stands], len(asked))
        return self._decided(run, asked)

    def _decided(self, descriptions, indices):
        lines = [self._ledger.deciding(descriptions, i) for i in indices]
        return np.array(
            [bool(line and not line["broken"]) for line in lines], bool
        )

    def _standing(self, descriptions):
        return self._ledger.standing(descriptions, len(self._split))

    def _classify(self, indices):
        known = self._ledger.verdicts(CLEAN)
        missing = [i for i in indices if i not in known]
        for group in self._groups(missing):
            logits = self._attacker.logits(self._split.images[group])
            self._ledger.append(CLEAN, self._clean_lines(group, logits))

    def _run(self, attack, indices, count):
        """Runs an attack on those of some images that the ledger lacks.

        Args:
          attack: the stepped attack.
          indices: the images that stand before it.
          count: the images in question, those that do not stand included.
        """
        description = columns.description(attack)
        known = {} if self._keep else self._ledger.verdicts(description)
        missing = [i for i in indices if i not in known]
        needless = count - len(missing)
        self._advance(needless * stepped.passes(attack))
        for group in self._groups(missing):
            self._attack(attack, description, group)

    def _attack(self, attack, description, group):
        images, labels = self._split.images[group], self._split.labels[group]
        outcome = self._attacker.run(
            attack, images, labels, group, self._seed, self._advance
        )
        if self._keep:
            self._keep(description, group, outcome)
        predictions = self._ledger.verdicts(CLEAN)
        lines = [
            {
                "index": int(index),
                "label": int(labels[i]),
                "prediction": predictions[index]["prediction"],
                "attacked_prediction": _known(outcome.prediction[i]),
                "broken": bool(outcome.broken[i]),
                "step": _step(outcome.broke_at[i]),
                "margin": float(outcome.margin[i]),
                "linf": float(outcome.linf[i]),
                "refuted": bool(outcome.refuted[i]),
                "seconds": round(float(outcome.seconds[i]), 6),
            }
            for i, index in enumerate(group)
        ]
        self._ledger.append(description, lines)

    def _clean_lines(self, group, logits):
        labels = self._split.labels[group]
        margins = losses.verdict_margin(labels, logits).numpy()
        predictions = losses.predicted(labels, logits).numpy()
        return [
            {
                "index": int(index),
                "label": int(labels[i]),
                "prediction": int(predictions[i]),
                "attacked_prediction": int(predictions[i]),
                "broken": bool(margins[i] <= 0),
                "step": None,
                "margin": float(margins[i]),
                "linf": 0.0,
                "refuted": False,
                "seconds": 0.0,
            }
            for i, index in enumerate(group)
        ]

    def _groups(self, indices):
        size = self._attacker.group_size
        indices = np.array(indices, np.int64)
        for first in range(0, len(indices), size):
            yield indices[first : first + size]


def _step(broke_at):
    return None if broke_at == stepped.NEVER else int(broke_at)


def _known(prediction):
    return None if prediction < 0 else int(prediction)
