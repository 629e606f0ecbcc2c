"""What must hold between a config, its folder, its teacher and its data."""

import pathlib

from atat_tf import evaluation, run_config, run_folder
from atat_tf.errors import InputError

# Fields in which a run may differ from what it began with.
_MOVE_NO_WEIGHT = (
    "attack_batch_size",
    "attention_panels",
    "guard",
    "guard_share",
    "remat",
)


def expect_same_config(workdir, config):
    """Raises InputError if a run folder holds a run of another config.

    Args:
      workdir: the run folder; it need not exist.
      config: resolved.
    """
    path = workdir / run_folder.CONFIG
    if not path.exists():
        return
    here = run_config.to_dict(config)
    there = run_config.from_dict(run_folder.read_json(path))
    there = run_config.to_dict(there)
    # Runs from before there were several training attacks had PGD.
    there.setdefault("attack", {}).setdefault("name", "pgd")
    for field in _MOVE_NO_WEIGHT:
        here.pop(field, None)
        there.pop(field, None)
    differing = evaluation.differences(here, there)
    if differing:
        raise InputError(
            f"Expected the config of the run in {str(workdir)!r}, or another "
            f"--workdir. Received: {'; '.join(differing)}."
        )


def expect_fitting_teacher(config):
    """Raises InputError if a config's teacher cannot teach its student.

    Args:
      config: resolved; `teacher` names a run folder.
    """
    path = pathlib.Path(config.teacher) / run_folder.CONFIG
    teacher = run_config.from_dict(run_folder.read_json(path))
    teacher = run_config.to_dict(teacher)
    fields = (
        "dataset",
        "backbone",
        "model_digest",
        "split_seed",
        "num_validation",
    )
    here = {f: run_config.to_dict(config)[f] for f in fields}
    there = {f: teacher.get(f) for f in fields}
    differing = evaluation.differences(here, there)
    if differing:
        raise InputError(
            "Expected a teacher of the student's data set, split, classes and "
            f"backbone. Received: {config.teacher!r} with "
            f"{'; '.join(differing)}."
        )
    if not run_folder.weights_path(config.teacher, "best").exists():
        raise InputError(
            "Expected a trained teacher. Received: "
            f"{config.teacher!r} without best.weights.h5."
        )


def expect_a_batch(config, dataset, strategy):
    """Raises InputError if a batch is more than the data or less than devices.

    Args:
      config: resolved.
      dataset: a `datasets.Dataset`.
      strategy: the tf.distribute.Strategy.
    """
    smallest = strategy.num_replicas_in_sync
    if not smallest <= config.batch_size <= len(dataset.train):
        raise InputError(
            f"Expected a batch_size from {smallest} (one image a device) to "
            f"{len(dataset.train)} (the training images). Received: "
            f"batch_size={config.batch_size}."
        )
