"""Makes the pictures of a run's report: test images, attacked, attention."""

from collections.abc import Sequence

import ml_collections
import numpy as np

from atat_tf import grad_cam
from atat_tf.attacks import linf
from atat_tf.data import images as image_files
from atat_tf.evaluation import evaluate_run
from atat_tf.evaluation.views import Attended, Viewer
from atat_tf.models import classifiers
from atat_tf.runs import build
from atat_tf.runs import config as run_config

_DEFAULT_COLUMN = "pgd20"


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


def attended(run: evaluate_run.OpenRun, attack: linf.LinfAttack) -> Attended:
    """Returns what a run's network makes of its test images, attacked or not.

    Args:
      run: open for evaluation.
      attack: each image is where it ends, whoever is fooled.
    """
    layers = build.build_defense(run.config).layers
    viewer = Viewer(
        run.classifier,
        classifiers.shown_layer(run.classifier, layers),
        run.seed,
        run.attacker.batch_size,
        score=run_config.score(run.config),
    )
    pixels = run.split.images / np.float32(255)
    return viewer.attended(attack, pixels, run.split.labels)


def uris(seen: Attended) -> list[dict[str, str]]:
    """Returns a dictionary of data URIs for each image.

    Keys are "clean", "clean_map", "attacked" and "attacked_map"; a map is as
    small as it is, and stretched over its image.
    """
    parts = {}
    for name, view in (("clean", seen.clean), ("attacked", seen.attacked)):
        shares = grad_cam.scaled_for_reading(view.maps).numpy()
        parts[name] = image_files.as_uint8(view.images)
        parts[f"{name}_map"] = image_files.coloured(shares)
    return [
        {name: image_files.data_uri(part[i]) for name, part in parts.items()}
        for i in range(len(seen.clean.images))
    ]
