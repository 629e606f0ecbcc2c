"""What an epoch's weights do on the validation split."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import ml_collections
import numpy as np

from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.defenses import atat
from atat_tf.evaluation import accuracy as robustness
from atat_tf.models import graphs
from atat_tf.runs import build
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.training.machines import workers
from atat_tf.training.records import panels


class Validation:
    """Accuracy, under the attack of validation too, and attention.

    Attributes:
      score: field of `figures` by which the best epoch is chosen: robust
        accuracy where the defense has an attack (Rice et al. 2020), or clean.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        student: keras.Model,
        dataset: datasets.Dataset,
        group: workers.WorkerGroup,
    ):
        """Takes what is judged, and on what.

        Args:
          config: resolved.
          student: the classifier in training.
          dataset: with the validation images.
          group: the `workers.WorkerGroup`; each worker judges its share.
        """
        named: dict[str, linf.LinfAttack | None] = {"clean": None}
        if atat.DEFENSES[config.defense.name].needs_attack:
            named["pgd"] = build.build_validation_attack(config)
        self._evaluator = robustness.Evaluator(student, named)
        self._batch_size = config.evaluation.batch_size
        self._split = dataset.validation
        self._group = group
        self._panels = _panels(config, student, dataset)
        self.score = _score_field(config)

    def figures(self) -> tuple[dict[str, float], np.ndarray | None]:
        """Returns ({field: figure}, picture or None) of the weights as is."""
        figures = self.accuracies()
        if not self._panels:
            return figures, None
        attended = self._panels.attended()
        figures["validation_attention_shift"] = float(np.mean(attended.shift))
        return figures, self._panels.picture(attended)

    def accuracies(self, averaged: bool = False) -> dict[str, float]:
        """Returns {field: accuracy} of the weights as is.

        Args:
          averaged: name the fields as those of the averaged weights.
        """
        figures = {}
        for name in self._evaluator.names:
            correct = self._evaluator.correct(
                name,
                self._split,
                self._batch_size,
                share=(self._group.cluster.mine, self._group.cluster.count),
            )
            total = int(self._group.sum(np.sum(correct)))
            field = run_folder.validation_field(name, averaged)
            figures[field] = total / len(self._split)
        return figures


def _panels(config, student, dataset):
    """Returns the AttentionPanels of the first validation images, or None.

    None without images that can be drawn, or maps to draw over them.
    """
    split = dataset.validation.take(config.attention_panels)
    if (
        not len(split)
        or not datasets.can_draw(dataset.spec.image_shape)
        or not graphs.spatial_layers(student)
    ):
        return None
    return panels.AttentionPanels(
        student,
        build.build_validation_attack(config),
        build.build_defense(config).layers,
        split,
        dataset.class_names,
        config.seed,
        run_config.score(config),
    )


def has_collapsed(scores: Sequence[float], share: float) -> bool:
    """Returns whether the last score is below a share of the best before it.

    Args:
      scores: accuracies in [0, 1], one an epoch, in order.
      share: of the best, in (0, 1).
    """
    return len(scores) > 1 and scores[-1] < share * max(scores[:-1])


def is_ended_by_guard(
    config: ml_collections.ConfigDict, rows: Sequence[Mapping[str, Any]]
) -> bool:
    """Returns whether the guard has ended a training after some epochs.

    Args:
      config: resolved.
      rows: of metrics.jsonl, one an epoch.
    """
    field = _score_field(config)
    scores = [row[field] for row in rows if field in row]
    return config.guard != "off" and has_collapsed(scores, config.guard_share)


def _score_field(config):
    has_attack = atat.DEFENSES[config.defense.name].needs_attack
    return run_folder.validation_field("pgd" if has_attack else "clean")


def collapse_sentence(scores: Sequence[float]) -> str:
    """Returns a sentence on a collapse in the last epoch."""
    best = max(scores)
    return (
        f"Validation accuracy under PGD has collapsed: "
        f"{100 * scores[-1]:.1f} % in epoch {len(scores)}, after "
        f"{100 * best:.1f} % in epoch {scores.index(best) + 1}, whose weights "
        "are kept as the best."
    )
