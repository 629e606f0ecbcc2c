"""What a run is called wherever a person reads of it."""

import pathlib

from ml_collections import ConfigDict

# {recipe: what its networks are called}.
METHODS = {
    "standard": "Standard",
    "at": "AT (mixture)",
    "madry": "AT (adversarial only)",
    "alp": "Eq. 6 alone",
    "tla": "TLA",
    "trades": "TRADES",
    "atat": "ATAT",
    "released_cifar10": "released, CIFAR-10's loss",
    "released_cifar100": "released, CIFAR-100's loss",
}


def own(config: ConfigDict) -> str:
    """Returns the name of a config's saved or served model, else ""."""
    return pathlib.Path(config.model).name if config.model else config.server


def is_given(config: ConfigDict) -> bool:
    """Returns whether a network is evaluated as it is, not trained here."""
    return bool(own(config)) and config.num_epochs == 0


def given_as(config: ConfigDict) -> str:
    """Returns a sentence on a network that is evaluated as it is, else ""."""
    if not is_given(config):
        return ""
    what = "saved" if config.model else "served"
    return f"A {what} model, {own(config)}, as it was given: not trained here."


def method(config: ConfigDict) -> str:
    """Returns the name of a run's defense, or that of a network as given."""
    return own(config) if is_given(config) else config.defense.name


def recipe(config: ConfigDict) -> str:
    """Returns the key of METHODS that a run is of, else `method`."""
    name = method(config)
    if name == "at" and not config.defense.clean_weight:
        return "madry"
    return name


def called(config: ConfigDict) -> str:
    """Returns what a run is called."""
    name = recipe(config)
    return METHODS.get(name, name)
