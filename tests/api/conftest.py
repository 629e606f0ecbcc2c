"""Names that a test registers are known in it alone."""

import pytest

from atat_tf.attacks import for_training, linf
from atat_tf.data import datasets
from atat_tf.defenses import atat
from atat_tf.runs import build

_REGISTRIES = (
    linf.ATTACKS,
    for_training.TRAINING_ATTACKS,
    atat.DEFENSES,
    build.BACKBONES,
    datasets.REGISTERED,
)


@pytest.fixture(autouse=True)
def _registries():
    before = [dict(registry) for registry in _REGISTRIES]
    yield
    for registry, entries in zip(_REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)
