"""The data and the network that a config names in other ways than by a word.

A folder of images and a saved model are looked at once, when the config is
resolved; from then on the config tells what a run needs to know of them.
"""

import pathlib

from atat_tf import datasets, image_folders, keras_backbones, model_files

# What configs of the first version lack.
LATER_FIELDS = (
    "image_shape",
    "flip",
    "bad_images",
    "class_names",
    "model",
    "model_digest",
    "model_range",
    "micro_batch_size",
    "attack_batch_size",
    "remat",
)


def resolve(config):
    """Fills in what a folder of images and a saved model tell.

    Args:
      config: ConfigDict, unlocked.

    Raises:
      InputError: there is no such folder or file.
    """
    if image_folders.is_folder(config.dataset):
        config.dataset = image_folders.absolute(config.dataset)
        config.class_names = image_folders.listing(config.dataset).class_names
    if config.model:
        _resolve_model(config)


def _resolve_model(config):
    config.model = str(pathlib.Path(config.model).expanduser().absolute())
    config.model_digest = model_files.digest(config.model)
    free = config.dataset not in datasets.SPECS
    if free and not image_size(config):
        config.image_shape = model_files.image_shape(config.model)


def image_size(config):
    """Returns what images are resized to: a number, (H, W, C), or None."""
    return tuple(config.image_shape or ()) or config.image_size


def data_spec(config, data_dir=None):
    """Returns the datasets.Spec of a resolved config.

    Of a folder of images the config tells all: it need not be there.
    """
    names = tuple(config.class_names)
    size = image_size(config)
    if names and size:
        shape = size if isinstance(size, tuple) else (size, size, 3)
        return datasets.Spec(len(names), shape, class_names=names)
    return datasets.spec(config.dataset, data_dir, size)


def network_name(config):
    """Returns the network that a config names, in a word or two."""
    if config.model:
        return pathlib.Path(config.model).name
    if keras_backbones.is_one(config.backbone.name):
        return config.backbone.name
    size = config.backbone
    return f"{size.name} {size.depth}-{size.width}"
