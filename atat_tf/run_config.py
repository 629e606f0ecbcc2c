"""A run's config: every field filled in, as JSON and back, its teacher's.

A recipe's ConfigDict enters; it leaves with no field left to the data set.
What its fields name is made in `experiment`.
"""

import json

import ml_collections

from atat_tf import datasets, defenses, image_folders, models, sources
from configs import base


def resolve(config):
    """Returns a copy in which no field is left to the data set.

    Args:
      config: from a recipe, with None where BY_DATASET decides.
    """
    config = config.copy_and_resolve_references()
    config.unlock()
    sources.resolve(config)
    for path, value in _defaults(config).items():
        *sections, field = path.split(".")
        section = config
        for name in sections:
            section = section[name]
        if section[field] is None:
            section[field] = value
    if config.num_validation is None and config.dataset in datasets.SPECS:
        spec = datasets.SPECS[config.dataset]
        config.num_validation = spec.num_validation
    return config.lock()


def _defaults(config):
    """Returns {path of a field: what it is where the config has None}."""
    is_folder = image_folders.is_folder(config.dataset)
    kind = "folder" if is_folder else config.dataset
    by_dataset = dict(base.BY_DATASET.get(kind, base.BY_DATASET[""]))
    if config.defense.name == "standard":
        # Standard training is the teacher's, whoever trains it.
        by_dataset["num_epochs"] = by_dataset["teacher_num_epochs"]
        rate = by_dataset["teacher_learning_rate"]
        by_dataset["optimizer.learning_rate"] = rate
        by_dataset["guard"] = "off"
    by_attack = base.BY_ATTACK.get(config.attack.name, base.BY_ATTACK[""])
    defaults = {**by_attack, **by_dataset}
    if config.model:
        defaults |= base.FOR_MODEL
    if "layers" in config.defense:
        defaults["defense.layers"] = (
            (models.DEEPEST,) if config.model else ("features",)
        )
    return defaults


def to_dict(config):
    """Returns the config as JSON holds it: dictionaries, lists and scalars."""
    return json.loads(config.to_json())


def from_dict(values):
    """Returns the ConfigDict that `to_dict` came from.

    What a run of an earlier version does not say has its default.
    """
    defaults = to_dict(base.get_config())
    missing = {f: defaults[f] for f in sources.LATER_FIELDS if f not in values}
    return ml_collections.ConfigDict(_with_tuples(missing | values)).lock()


def teacher_config(config):
    """Returns the config that trains the teacher of `config`.

    The standard recipe on the same data, backbone and optimizer.
    """
    teacher = config.copy_and_resolve_references()
    teacher.unlock()
    teacher.defense = ml_collections.ConfigDict({"name": "standard"})
    teacher.num_epochs = config.teacher_num_epochs
    teacher.optimizer.learning_rate = config.teacher_learning_rate
    teacher.attack.name = "pgd"
    teacher.guard = "off"
    teacher.student_start = "random"
    if config.model:
        teacher.student_start = "teacher"
        teacher.num_epochs = 0  # it is the file's
    teacher.teacher = ""
    return teacher.lock()


def needs_teacher(config):
    """Returns whether the loss or the student's start reads a teacher."""
    from_teacher = config.student_start == "teacher"
    return from_teacher or defenses.DEFENSES[config.defense.name].needs_teacher


def _with_tuples(values):
    if isinstance(values, dict):
        return {name: _with_tuples(value) for name, value in values.items()}
    return tuple(values) if isinstance(values, list) else values
