"""What an epoch's weights do on the validation split."""

import numpy as np

from atat_tf import defenses, experiment, robustness, training_attention


class Validation:
    """Accuracy, under the attack of validation too, and attention.

    Attributes:
      score: field of `figures` by which the best epoch is chosen: robust
        accuracy where the defense has an attack (Rice et al. 2020), or clean.
    """

    def __init__(self, config, student, split, team):
        """Takes what is judged, and on what.

        Args:
          config: resolved.
          student: the classifier in training.
          split: the validation images.
          team: the `workers.Team`; each worker judges its share.
        """
        named = {"clean": None}
        if defenses.DEFENSES[config.defense.name].needs_attack:
            named["pgd"] = experiment.build_validation_attack(config)
        self._evaluator = robustness.Evaluator(student, named)
        self._batch_size = config.evaluation.batch_size
        self._split = split
        self._team = team
        self._panels = _panels(config, student, split)
        self.score = _field(self._evaluator.names[-1])

    def figures(self):
        """Returns ({field: figure}, picture or None) of the weights as is."""
        figures = {}
        for name in self._evaluator.names:
            correct = self._evaluator.correct(
                name,
                self._split,
                self._batch_size,
                share=(self._team.cluster.mine, self._team.cluster.count),
            )
            total = int(self._team.total(np.sum(correct)))
            figures[_field(name)] = total / len(self._split)
        if not self._panels:
            return figures, None
        attended = self._panels.attended()
        figures["validation_attention_shift"] = float(np.mean(attended.shift))
        return figures, self._panels.picture(attended)


def _field(name):
    return f"validation_{name}_accuracy"


def _panels(config, student, validation):
    """Returns the AttentionPanels of the first validation images, or None."""
    split = validation.take(config.attention_panels)
    if not len(split):
        return None
    return training_attention.AttentionPanels(
        student,
        experiment.build_validation_attack(config),
        experiment.build_defense(config).layers,
        split,
        config.seed,
    )
