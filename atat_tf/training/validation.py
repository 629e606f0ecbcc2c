"""What an epoch's weights do on the validation split."""

from collections.abc import Sequence

import keras
import ml_collections
import numpy as np

from atat_tf import grad_cam
from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.data import images as image_files
from atat_tf.defenses import atat
from atat_tf.evaluation import accuracy as robustness
from atat_tf.evaluation.views import Attended, Viewer
from atat_tf.models import classifiers
from atat_tf.runs import build
from atat_tf.runs import config as run_config
from atat_tf.training import workers


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
        split: datasets.Split,
        group: workers.WorkerGroup,
    ):
        """Takes what is judged, and on what.

        Args:
          config: resolved.
          student: the classifier in training.
          split: the validation images.
          group: the `workers.WorkerGroup`; each worker judges its share.
        """
        named: dict[str, linf.LinfAttack | None] = {"clean": None}
        if atat.DEFENSES[config.defense.name].needs_attack:
            named["pgd"] = build.build_validation_attack(config)
        self._evaluator = robustness.Evaluator(student, named)
        self._batch_size = config.evaluation.batch_size
        self._split = split
        self._group = group
        self._panels = _panels(config, student, split)
        self.score = _field(self._evaluator.names[-1])

    def figures(self) -> tuple[dict[str, float], np.ndarray | None]:
        """Returns ({field: figure}, picture or None) of the weights as is."""
        figures = {}
        for name in self._evaluator.names:
            correct = self._evaluator.correct(
                name,
                self._split,
                self._batch_size,
                share=(self._group.cluster.mine, self._group.cluster.count),
            )
            total = int(self._group.sum(np.sum(correct)))
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
    return AttentionPanels(
        student,
        build.build_validation_attack(config),
        build.build_defense(config).layers,
        split,
        config.seed,
        run_config.score(config),
    )


_READABLE_SIDE = 96  # pixels of an enlarged image, at least
_GAP = 4  # pixels between the tiles of a panel


class AttentionPanels:
    """Looks at the same images again and again; it is traced once.

    Args:
      student: functional, float32 images -> logits.
      attack: how the second image of a row is made.
      layers: where the defense acts; the last of them is drawn, or, where
        there is none, the last layer with a spatial map.
      split: at least one image, uint8.
      seed: of the random starts; image i has the start (seed, 0, i).
      score: of `grad_cam.SCORES`.
    """

    def __init__(
        self,
        student: keras.Model,
        attack: linf.LinfAttack,
        layers: Sequence[str],
        split: datasets.Split,
        seed: int,
        score: str = "logit",
    ):
        layer = classifiers.shown_layer(student, layers)
        self._viewer = Viewer(student, layer, seed, len(split), score=score)
        self._attack, self._split = attack, split

    def attended(self) -> Attended:
        """Returns the Attended of the student's weights as they are now."""
        images = self._split.images[:] / np.float32(255)
        return self._viewer.attended(self._attack, images, self._split.labels)

    def picture(self, attended: Attended) -> np.ndarray:
        """Returns a row an image: clean, its map, attacked, its map.

        Args:
          attended: from `attended`.

        Returns:
          uint8 [height, width, 3].
        """
        images = self._split.images[:]
        adversarial = image_files.as_uint8(attended.attacked.images)
        clean_heat, adversarial_heat = (
            grad_cam.scaled_for_reading(view.maps).numpy()
            for view in (attended.clean, attended.attacked)
        )
        rows = [
            _beside(
                (
                    _rgb(images[i]),
                    image_files.overlaid(images[i], clean_heat[i]),
                    _rgb(adversarial[i]),
                    image_files.overlaid(adversarial[i], adversarial_heat[i]),
                )
            )
            for i in range(len(images))
        ]
        return np.concatenate(rows)


def _rgb(image):
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _beside(tiles):
    """Returns the tiles enlarged, in a row, with white between and below."""
    times = -(-_READABLE_SIDE // max(tiles[0].shape[:2]))
    padded = [
        np.pad(
            tile.repeat(times, 0).repeat(times, 1),
            ((0, _GAP), (0, _GAP), (0, 0)),
            constant_values=255,
        )
        for tile in tiles
    ]
    return np.concatenate(padded, axis=1)


def has_collapsed(scores: Sequence[float], share: float) -> bool:
    """Returns whether the last score is below a share of the best before it.

    Args:
      scores: accuracies in [0, 1], one an epoch, in order.
      share: of the best, in (0, 1).
    """
    return len(scores) > 1 and scores[-1] < share * max(scores[:-1])


def collapse_sentence(scores: Sequence[float]) -> str:
    """Returns a sentence on a collapse in the last epoch."""
    best = max(scores)
    return (
        f"Validation accuracy under PGD has collapsed: "
        f"{100 * scores[-1]:.1f} % in epoch {len(scores)}, after "
        f"{100 * best:.1f} % in epoch {scores.index(best) + 1}, whose weights "
        "are kept as the best."
    )
