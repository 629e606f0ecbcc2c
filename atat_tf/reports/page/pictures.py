"""Makes the pictures of a run's report: test images, attacked, attention."""

import math
from collections.abc import Mapping

import numpy as np

from atat_tf import grad_cam
from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.data import images as image_files
from atat_tf.evaluation import opening
from atat_tf.evaluation.attention.views import Attended, Viewer
from atat_tf.evaluation.run import Run
from atat_tf.evaluation.statistics import likeness
from atat_tf.models import classifiers, graphs
from atat_tf.runs import build, terminal
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder

_DEFAULT_COLUMN = "pgd20"


def undrawn(run: Run, num_images: int) -> str:
    """Returns why no images of a run are drawn, "" where they are.

    Args:
      run: the run.
      num_images: how many were asked for.
    """
    if not num_images:
        return "the page was written with --num_images=0"
    if run.config.server:
        return "a server answers no gradient"
    if not datasets.can_draw(run.spec.image_shape):
        return "the images are neither gray nor RGB"
    path = run.folder / run_folder.MODEL
    network = build.build_classifier(run.config, run.spec, path)
    if graphs.spatial_layers(network):
        return ""
    return "no layer of the network has a spatial map"


def is_stale(opened: opening.OpenRun) -> bool:
    """Returns whether results.json is of other weights than those opened."""
    now = {"weights_digest": opened.ledger.identity["weights"]}
    return bool(likeness.of_others(opened.run.results or {}, now))


def shown_attack(
    opened: opening.OpenRun, accuracy: Mapping[str, float]
) -> tuple[str, linf.LinfAttack]:
    """Returns the column that is drawn, and its LinfAttack.

    Of FGSM's kin at the run's own ε, the one that leaves the fewest images
    right; PGD(20) where the run was not evaluated under any. A column of a
    plugin that is not here is passed over.

    Args:
      opened: the run.
      accuracy: {column: share}, what the run was evaluated under.
    """
    built = opened.known_columns([_DEFAULT_COLUMN, *accuracy])
    epsilon = opened.config.attack.epsilon
    fitting = [
        name
        for name in accuracy
        if len(attacks := built.get(name, ())) == 1
        and isinstance(attacks[0], linf.Steps)
        and math.isclose(attacks[0].epsilon, epsilon)
    ]
    # Of equals the last: tables go from weak to strong.
    name = min(reversed(fitting), key=accuracy.get, default=_DEFAULT_COLUMN)
    return name, built[name][0].attack


def viewer(opened: opening.OpenRun) -> Viewer:
    """Returns what looks where a run's network looks.

    Args:
      opened: the run.
    """
    layers = build.defense_layers(opened.config)
    return Viewer(
        opened.classifier,
        classifiers.shown_layer(opened.classifier, layers),
        opened.seed,
        opened.attacker.batch_size,
        score=run_config.score(opened.config),
    )


def attended(opened: opening.OpenRun, attack: linf.LinfAttack) -> Attended:
    """Returns what a run's network makes of its test images, attacked or not.

    Args:
      opened: the run.
      attack: each image is where it ends, whoever is fooled.
    """
    count, folder = len(opened.split), opened.run.folder
    terminal.stage(f"attacking {count} images of {folder}")
    return viewer(opened).attended(attack, _pixels(opened), opened.split.labels)


def _pixels(opened):
    return opened.split.images[:] / np.float32(255)


def uris(seen: Attended) -> list[dict[str, str]]:
    """Returns a dictionary of data URIs for each image.

    Keys are "clean", "clean_map", "attacked" and "attacked_map"; a map is as
    small as it is, and stretched over its image.
    """
    parts = {}
    for name, view in (("clean", seen.clean), ("attacked", seen.attacked)):
        shares = grad_cam.scaled_for_reading(view.maps).numpy()
        parts[name] = image_files.as_uint8(view.images)
        parts[f"{name}_map"] = image_files.tinted(shares)
    return [
        {name: image_files.data_uri(part[i]) for name, part in parts.items()}
        for i in range(len(seen.clean.images))
    ]
