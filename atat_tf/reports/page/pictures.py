"""Makes the pictures of a run's report: test images, attacked, attention."""

import dataclasses
from collections.abc import Sequence

import ml_collections
import numpy as np

from atat_tf import attention
from atat_tf.attacks import linf
from atat_tf.data import images as image_files
from atat_tf.evaluation import evaluate_run
from atat_tf.evaluation.views import Viewer
from atat_tf.models import classifiers
from atat_tf.runs import build
from atat_tf.runs import config as run_config

_DEFAULT_COLUMN = "pgd20"


@dataclasses.dataclass(frozen=True)
class Shown:
    """n test images, clean and attacked.

    Attributes:
      images, adversarial: uint8 [n, H, W, C].
      labels, predictions, adversarial_predictions: int [n].
      clean_maps, adversarial_maps: float32 [n, h, w], Eq. 3 of the label.
      shift: float32 [n], 1 − cosine of the two maps.
    """

    images: np.ndarray
    adversarial: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    adversarial_predictions: np.ndarray
    clean_maps: np.ndarray
    adversarial_maps: np.ndarray
    shift: np.ndarray


def shown_attack(
    config: ml_collections.ConfigDict, names: Sequence[str], num_classes: int
) -> tuple[str, linf.LinfAttack]:
    """Returns the column that is drawn, and its LinfAttack.

    The last one of FGSM's kin within the run's threat model; PGD(20) where the
    run was not evaluated under any.

    Args:
      config: the run's.
      names: of the columns that the run was evaluated under.
      num_classes: k.
    """
    names = [_DEFAULT_COLUMN, *names]
    built = build.build_columns(config, names, num_classes)
    fitting = [
        name
        for name in names
        if len(built[name]) == 1
        and isinstance(built[name][0], linf.Steps)
        and evaluate_run.in_threat_model(config, built[name])
    ]
    name = fitting[-1] if fitting else _DEFAULT_COLUMN
    return name, built[name][0].attack


def shown(run: evaluate_run.OpenRun, attack: linf.LinfAttack) -> Shown:
    """Returns the Shown of a run's test images.

    Args:
      run: open for evaluation.
      attack: each image is where it ends, whoever is fooled.
    """
    images, labels = run.split.images, run.split.labels
    layers = build.build_defense(run.config).layers
    viewer = Viewer(
        run.classifier,
        classifiers.shown_layer(run.classifier, layers),
        run.seed,
        run.attacker.batch_size,
        score=run_config.score(run.config),
    )
    seen = viewer.attended(attack, images / np.float32(255), labels)
    return Shown(
        images,
        image_files.as_uint8(seen.attacked.images),
        labels,
        seen.clean.predictions,
        seen.attacked.predictions,
        seen.clean.maps,
        seen.attacked.maps,
        seen.shift,
    )


def uris(shown_images: Shown) -> list[dict[str, str]]:
    """Returns a dictionary of data URIs for each image of a Shown.

    Keys are "clean", "clean_map", "adversarial" and "adversarial_map"; a map is
    as small as it is and has its image's place.
    """
    heat = [
        image_files.coloured(attention.scaled_for_reading(maps).numpy())
        for maps in (shown_images.clean_maps, shown_images.adversarial_maps)
    ]
    parts = {
        "clean": shown_images.images,
        "clean_map": heat[0],
        "adversarial": shown_images.adversarial,
        "adversarial_map": heat[1],
    }
    return [
        {name: image_files.data_uri(part[i]) for name, part in parts.items()}
        for i in range(len(shown_images.labels))
    ]
