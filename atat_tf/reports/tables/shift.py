"""Measures how far an attack moves a run's attention, image by image.

For each test image that is classified right: the distance between the
attention on the clean and on the attacked image, to be set beside the ledger's
verdict on the same attack.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import columns
from atat_tf.data import datasets
from atat_tf.evaluation import evaluate_run, opening
from atat_tf.evaluation.attention.views import Viewer
from atat_tf.models import frozen
from atat_tf.runs import folder as run_folder

FILE = "attention_shift.json"
# The paper's layer, for every row alike.
LAYER = "features"
# Where on the attack's way the attacked image is taken. The ledger's own
# candidate is the point at which an image broke: after fewer steps for images
# that break than for those that stand, which would decide the comparison.
POINT = "last"


def measure(
    workdir: str | pathlib.Path,
    column: str,
    num_images: int | None,
    dataset: datasets.Dataset,
    facts: Mapping[str, str],
) -> dict[str, Any]:
    """Measures a run and writes attention_shift.json.

    The attacked image is the attack's last point, after all of its steps,
    whether or not an earlier point broke the image. Maps are of the true
    class. The attack is run anew with the ledger's seed, since a ledger keeps
    no images.

    Args:
      workdir: a trained run folder.
      column: of one PGD without restarts, as "pgd20".
      num_images: the first so many test images; None for all.
      dataset: the run's data set.
      facts: what else is recorded: commit, hardware, ...

    Returns:
      The dictionary written: "identity" and "attack" of the ledger's lines,
      and for each image "indices", "distance" (Eq. 4), "shape_distance" (1 −
      cosine of the two maps: their size left out).
    """
    opened = opening.open_run(workdir, num_images, dataset=dataset)
    built = opened.columns([column])
    (attack,) = built[column]
    # The ledger gets what it lacks: verdicts on clean and attacked images.
    stands = evaluate_run.standing(opened, {"clean": (), **built}, "attention")
    indices = np.flatnonzero(stands["clean"])
    raw, shape = _distances(opened, attack.attack, indices)
    record = {
        **facts,
        "identity": opened.ledger.identity,
        "attack": columns.description(attack),
        "column": column,
        "num_images": len(opened.split),
        "layer": LAYER,
        "point": POINT,
        "indices": indices.tolist(),
        "distance": raw,
        "shape_distance": shape,
    }
    run_folder.write_json(pathlib.Path(workdir) / FILE, record)
    return record


def read(workdir: str | pathlib.Path) -> dict[str, Any] | None:
    """Returns what `measure` wrote, or None."""
    path = pathlib.Path(workdir) / FILE
    return run_folder.read_json(path) if path.exists() else None


def is_current(record: Mapping[str, Any] | None, num_images: int) -> bool:
    """Returns whether what `read` returned is of so many images."""
    return record is not None and record["num_images"] == num_images


def _distances(opened, attack, indices):
    viewer = Viewer(
        opened.classifier,
        LAYER,
        opened.seed,
        opened.attacker.batch_size,
        frozen.logits_function(opened.classifier),  # as the ledger's attack
    )
    images = opened.split.images[indices] / np.float32(255)
    seen = viewer.attended(
        attack, images, opened.split.labels[indices], indices
    )
    views = seen.clean, seen.attacked
    maps = ({LAYER: tf.constant(view.maps)} for view in views)
    raw = losses.attention_distance(*maps).numpy()
    return raw.tolist(), seen.shift.tolist()
