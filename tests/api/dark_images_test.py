"""Images that are all but black in the range they are said to be of."""

import numpy as np
import pytest

import atat_tf as atat
from atat_tf.data import datasets
from atat_tf.errors import InputError
from tests.support import toys

_Y = np.arange(20) % toys.NUM_CLASSES
_BITS = np.random.default_rng(0).integers(0, 2, (20, *toys.IMAGE_SHAPE))
# Divided by 255 twice, bytes of 0 and 1, and a wrong range.
_DARK = {
    "twice": ((_BITS / 255).astype(np.float32), (0, 1)),
    "bits": (_BITS.astype(np.uint8), (0, 1)),
    "range": (_BITS.astype(np.float32), (0, 255)),
}


def _fit(model, x, y, bounds):
    attack = atat.fgsm(bounds[1] / 100, bounds=bounds)
    trainer = atat.AdversarialTrainer(model, atat.AdversarialTraining(), attack)
    trainer.compile("sgd")
    trainer.fit(x, y, verbose=0)


_ENTRIES = {
    "robust_accuracy": lambda m, x, y, b: atat.robust_accuracy(
        m, x, y, "clean", bounds=b
    ),
    "attack": lambda m, x, y, b: atat.attack(m, x, y, "fgsm", bounds=b),
    "checklist": lambda m, x, y, b: atat.checklist(m, x, y, bounds=b),
    "harden": lambda m, x, y, b: atat.harden(
        m, x, y, epsilon=b[1] / 100, bounds=b
    ),
    "attention": lambda m, x, y, b: atat.attention(m, x, bounds=b),
}


@pytest.mark.parametrize("kind", _DARK)
@pytest.mark.parametrize("entry", _ENTRIES)
def test_they_are_refused(entry, kind):
    images, bounds = _DARK[kind]
    with pytest.raises(InputError, match="but black|bytes from 0 to 255"):
        _ENTRIES[entry](toys.small_classifier(), images, _Y, bounds)


@pytest.mark.parametrize("bounds", [(0, 1), (0, 255)])
def test_a_trainer_refuses_them(bounds):
    images = (_BITS * bounds[1] / 255).astype(np.float32)
    with pytest.raises(InputError, match="but black"):
        _fit(toys.small_classifier(), images, _Y, bounds)


def test_a_file_of_bits_is_refused(tmp_path):
    path = tmp_path / "bits.npz"
    parts = {"x_train": _BITS, "x_test": _BITS}
    arrays = {name: part.astype(np.uint8) for name, part in parts.items()}
    np.savez(path, y_train=_Y, y_test=_Y, **arrays)
    with pytest.raises(InputError, match="bytes of 0 and 1"):
        datasets.load(str(path))


def test_one_colour_is_no_mistake():
    black = np.zeros((4, *toys.IMAGE_SHAPE), np.float32)
    model = toys.small_classifier()
    found = atat.robust_accuracy(model, black, _Y[:4], "clean")
    assert found.num_images == 4
