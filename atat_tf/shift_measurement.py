"""How far attacks move the attention of a run, image by image.

A run folder enters; for each test image that is classified right, the
distance between the attention on the clean and on the attacked image leaves,
to be set beside the ledger's verdict on the same attack.
"""

import pathlib

import numpy as np
import tensorflow as tf

from atat_tf import (
    attention,
    attention_shift,
    columns,
    evaluation,
    experiment,
    losses,
    models,
    run_folder,
)

FILE = "attention_shift.json"
# The paper's layer, for every row alike.
LAYER = "features"


def measure(workdir, column, num_images, dataset, facts):
    """Measures a run and writes attention_shift.json.

    The attacked image is the attack's candidate: the point at which it broke,
    or the one that came closest. Maps are of the true class. The attack is
    run anew with the ledger's seed, since a ledger keeps no images.

    Args:
      workdir: a trained run folder.
      column: of one attack, as "pgd20".
      num_images: the first so many test images; None for all.
      dataset: its Dataset.
      facts: what else is recorded: commit, hardware, ...

    Returns:
      The dictionary written: "identity" and "attack" of the ledger's lines,
      and for each image "indices", "distance" (Eq. 4), "shape_distance" (1 −
      cosine of the two maps: their size left out).
    """
    run = evaluation.open_run(workdir, num_images, dataset=dataset)
    built = experiment.build_columns(
        run.config, [column], dataset.spec.num_classes
    )
    (attack,) = built[column]
    adversarials = {}
    evaluation.standing(run, built, "attention", adversarials)
    attacked = adversarials.get(columns.description(attack), {})
    indices = np.array(sorted(attacked), np.int64)
    tapped = models.with_taps(run.classifier, [LAYER])
    raw, shape = _distances(
        tapped, run.split, indices, attacked, run.config.evaluation.batch_size
    )
    record = {
        **facts,
        "identity": run.ledger.identity,
        "attack": columns.description(attack),
        "column": column,
        "num_images": len(run.split),
        "layer": LAYER,
        "indices": indices.tolist(),
        "distance": raw,
        "shape_distance": shape,
    }
    run_folder.write_json(pathlib.Path(workdir) / FILE, record)
    return record


def read(workdir):
    """Returns what `measure` wrote, or None."""
    path = pathlib.Path(workdir) / FILE
    return run_folder.read_json(path) if path.exists() else None


def _distances(tapped, split, indices, attacked, batch_size):
    raw, shape = [], []
    for start in range(0, len(indices), batch_size):
        group = indices[start : start + batch_size]
        labels = split.labels[group]
        clean = split.images[group].astype(np.float32) / np.float32(255)
        adversarial = np.stack([attacked[i] for i in group.tolist()])
        before, after = (
            attention.logits_and_attention(tapped, tf.constant(images), labels)[
                1
            ]
            for images in (clean, adversarial)
        )
        raw += losses.attention_distance(before, after).numpy().tolist()
        shape += attention_shift.cosine_distance(
            before[LAYER].numpy(), after[LAYER].numpy()
        ).tolist()
    return raw, shape
