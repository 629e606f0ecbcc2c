"""A run's config: with every field filled in, as JSON, and its teacher's.

What the fields name is made in `build`.
"""

import dataclasses
import json
import pathlib

from ml_collections import ConfigDict

from atat_tf.configs import base
from atat_tf.data import arrays, datasets
from atat_tf.data import folders as image_folders
from atat_tf.defenses import atat
from atat_tf.errors import expect, registered
from atat_tf.models import applications, graphs, served
from atat_tf.models import files as model_files
from atat_tf.runs import folder as run_folder
from atat_tf.runs import naming

# "stop" ends the training with an error, "rollback" with the best weights.
GUARDS = ("off", "stop", "rollback")
# The images that an evaluation is on.
SPLITS = ("test", "validation")
# Without these a config.json is not one of a run.
_FIELDS = {"dataset", "backbone", "defense"}
# What configs of earlier versions have, and what only these values did.
_REMOVED_FIELDS = {
    "micro_batch_size": 0,
    "attack_batch_size": 0,
    "remat": False,
}


def resolve(config: ConfigDict) -> ConfigDict:
    """Returns a copy in which no field is left to the data set.

    Args:
      config: from a recipe, with None where BY_DATASET decides.
    """
    config = config.copy_and_resolve_references()
    config.unlock()
    _resolve_sources(config)
    for path, value in _defaults(config).items():
        *sections, field = path.split(".")
        section = config
        for name in sections:
            section = section[name]
        if section[field] is None:
            section[field] = value
    defense = _with_defense_defaults(config.defense.to_dict())
    config.defense = ConfigDict(defense)
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
    if config.model or config.server:
        defaults = {
            path: value
            for path, value in defaults.items()
            if not path.startswith("backbone.")
        }
    if config.server:
        defaults |= base.FOR_SERVER
    if "layers" in config.defense:
        defaults["defense.layers"] = (
            (graphs.DEEPEST,) if config.model else ("features",)
        )
    return defaults


def to_dict(config: ConfigDict) -> dict:
    """Returns the config as JSON holds it: dictionaries, lists and scalars."""
    return json.loads(config.to_json())


def from_dict(values: dict) -> ConfigDict:
    """Returns the ConfigDict that `to_dict` came from.

    A field that a run of an earlier version lacks has its default.

    Raises:
      InputError: the run saved memory in a way that there is no more.
    """
    merged = to_dict(base.get_config())
    for name, value in values.items():
        if name in _REMOVED_FIELDS:
            expect(
                value == _REMOVED_FIELDS[name],
                f"{name}={_REMOVED_FIELDS[name]}, as there is "
                "gradient_accumulation_steps alone now",
                **{name: value},
            )
            continue
        if name == "defense":
            value = _with_defense_defaults(value)
        elif isinstance(value, dict):
            value = {**merged.get(name, {}), **value}
        merged[name] = value
    return ConfigDict(_with_tuples(merged)).lock()


def _with_defense_defaults(section):
    """Returns a defense's section with every field that its class has.

    A recipe or a run of an earlier version need not name them all.
    """
    factory = atat.DEFENSES.get(section.get("name"))
    if factory is None:
        return section  # refused where it is built
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(factory)
        if field.default is not dataclasses.MISSING
    }
    return defaults | section


def read(workdir: run_folder.Path) -> ConfigDict:
    """Returns the config of a run folder.

    Raises:
      InputError: no run there.
    """
    path = pathlib.Path(workdir) / run_folder.CONFIG
    return from_dict(run_folder.read_json(path, _FIELDS))


def teacher_config(config: ConfigDict) -> ConfigDict:
    """Returns the config that trains the teacher of `config`.

    The standard recipe on the same data, backbone and optimizer.
    """
    teacher = config.copy_and_resolve_references()
    teacher.unlock()
    teacher.defense = ConfigDict(_with_defense_defaults({"name": "standard"}))
    teacher.num_epochs = config.teacher_num_epochs
    teacher.optimizer.learning_rate = config.teacher_learning_rate
    teacher.attack.name = "pgd"
    teacher.guard = "off"
    teacher.weight_perturbation = 0.0
    teacher.teacher_momentum = 0.0
    teacher.student_start = "random"
    if config.model or config.server:
        teacher.student_start = "teacher"
        teacher.num_epochs = 0  # it is the file's
        teacher.evaluation.weights = "best"
    teacher.teacher = ""
    return teacher.lock()


def score(config: ConfigDict) -> str:
    """Returns the class score that a run's attention maps explain.

    A name of `grad_cam.SCORES`: the one that it was trained with, or the
    paper's where its defense knows nothing of maps.
    """
    return config.defense.get("score", "logit")


def needs_teacher(config: ConfigDict) -> bool:
    """Returns whether the loss or the student's start reads a teacher."""
    if config.student_start == "teacher":
        return True
    defense = registered("a defense", config.defense.name, atat.DEFENSES)
    return defense.needs_teacher


def _with_tuples(values):
    if isinstance(values, dict):
        return {name: _with_tuples(value) for name, value in values.items()}
    return tuple(values) if isinstance(values, list) else values


def _resolve_sources(config):
    """Fills in what images of one's own and a saved model tell.

    Args:
      config: ConfigDict, unlocked.

    Raises:
      InputError: there is no such folder or file.
    """
    if image_folders.is_folder(config.dataset):
        config.dataset = image_folders.absolute(config.dataset)
        config.class_names = image_folders.listing(config.dataset).class_names
    config.dataset = arrays.absolute(config.dataset)
    if arrays.is_file(config.dataset):
        spec = datasets.spec(config.dataset, image_size=image_size(config))
        config.image_shape = spec.image_shape
        config.class_names = datasets.class_names(config.dataset)
    if config.model:
        _resolve_model(config)
    if config.server:
        config.backbone.name = config.server
        if _takes_any_size(config):
            shape = served.ServedClassifier(config.server).input_shape[1:]
            config.image_shape = shape
    if config.extra_images:
        path = pathlib.Path(config.extra_images).expanduser().absolute()
        config.extra_images = str(path)
        config.extra_digest = model_files.digest(
            path, "an .npz file of extra images"
        )


def _resolve_model(config):
    config.model = str(pathlib.Path(config.model).expanduser().absolute())
    expect(
        config.model.endswith(".keras"),
        "a .keras file to keep beside the run (keras.saving.load_model(FILE)"
        ".save('my.keras') writes one)",
        model=config.model,
    )
    config.model_digest = model_files.digest(config.model)
    # The file is the network: a config that names another would mislead.
    config.backbone.name = pathlib.Path(config.model).name
    config.backbone.depth = config.backbone.width = None
    if _takes_any_size(config):
        config.image_shape = model_files.image_shape(
            config.model, config.model_range
        )


def _takes_any_size(config):
    """Returns whether a data set is resized, and nobody has said to what."""
    return config.dataset not in datasets.SPECS and not image_size(config)


def image_size(
    config: ConfigDict,
) -> int | tuple[int, int, int] | None:
    """Returns what images are resized to: a number, (H, W, C), or None."""
    return tuple(config.image_shape or ()) or config.image_size


def data_spec(
    config: ConfigDict, data_dir: run_folder.Path | None = None
) -> datasets.Spec:
    """Returns the datasets.Spec of a resolved config.

    Of images of one's own the config tells all: they need not be there.
    """
    classes = tuple(config.class_names)
    size = image_size(config)
    if classes and size:
        shape = size if isinstance(size, tuple) else (size, size, 3)
        return datasets.Spec(len(classes), shape, class_names=classes)
    return datasets.spec(config.dataset, data_dir, size)


def network_name(config: ConfigDict) -> str:
    """Returns the network that a config names, in a word or two."""
    if config.model or config.server:
        return naming.own(config)
    if applications.is_one(config.backbone.name):
        return config.backbone.name
    size = config.backbone
    return f"{size.name} {size.depth}-{size.width}"


def differences(here: dict, there: dict, prefix: str = "") -> list[str]:
    """Returns a line for each field that differs between two nested dicts."""
    lines = []
    for name in sorted({*here, *there}):
        mine, other = here.get(name), there.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            lines += differences(mine, other, f"{prefix}{name}.")
        elif mine != other:
            lines.append(
                f"{prefix}{name}={json.dumps(mine)} here, "
                f"{json.dumps(other)} there"
            )
    return lines
