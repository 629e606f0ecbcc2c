"""Every entry of the library at the edges of what it can be given."""

import keras
import numpy as np
import pytest

import atat_tf as atat
from atat_tf.errors import InputError
from tests.support import digits

X, Y = digits.test_images(12)


def _fit(model, x, y, epsilon, batch_size):
    attack = atat.pgd(epsilon, 0.01, 1)
    trainer = atat.AdversarialTrainer(model, atat.AdversarialTraining(), attack)
    trainer.compile("sgd")
    trainer.fit(x, y, batch_size=batch_size, verbose=0)


def _harden(model, x, y, epsilon, batch_size):
    atat.harden(
        model,
        x,
        y,
        defense="at",
        epsilon=epsilon,
        epochs=1,
        batch_size=batch_size,
        verbose=0,
    )


ENTRIES = {
    "robust_accuracy": lambda *given: atat.robust_accuracy(
        *given[:3], ("clean", "pgd1"), epsilon=given[3], batch_size=given[4]
    ),
    "attack": lambda *given: atat.attack(
        *given[:3], "pgd1", epsilon=given[3], batch_size=given[4]
    ),
    "checklist": lambda *given: atat.checklist(
        *given[:3], epsilon=given[3], batch_size=given[4]
    ),
    "attention": lambda *given: atat.attention(*given[:3], batch_size=given[4]),
    "harden": _harden,
    "trainer": _fit,
}
_WRONG = {
    "no images": (X[:0], Y[:0], 0.1, "images"),
    "a label below": (X, Y - 10, 0.1, "labels from 0 to 9"),
    "a label above": (X, Y + 10, 0.1, "labels from 0 to 9"),
    "a fraction": (X, Y + 0.5, 0.1, "labels"),
    "fewer labels": (X, Y[:-1], 0.1, "label"),
    "bytes as floats": (X * 255, Y, 0.1, "pixels"),
    "negative": (X - 0.5, Y, 0.1, "pixels"),
    "no number": (X * np.nan, Y, 0.1, "pixels"),
    "no radius": (X, Y, 0.0, "epsilon"),
    "a radius above the range": (X, Y, 1.01, "epsilon"),
    "NaN as a radius": (X, Y, np.nan, "epsilon (that is a number|in)"),
    "several radii": (X, Y, (0.1, 0.2), "epsilon"),
    "no batch": (X, Y, 0.1, "batch_size"),
}


@pytest.fixture(scope="module")
def model():
    return digits.classifier()


@pytest.mark.parametrize("wrong", _WRONG)
@pytest.mark.parametrize("entry", ENTRIES)
def test_refused_in_a_sentence(model, entry, wrong):
    x, y, epsilon, message = _WRONG[wrong]
    if entry == "attention" and "radi" in wrong:
        return  # it has none
    if entry == "robust_accuracy" and wrong == "several radii":
        return  # it takes them
    batch_size = 0 if wrong == "no batch" else 4
    with pytest.raises(InputError, match=message):
        ENTRIES[entry](model, x, y, epsilon, batch_size)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_forgotten_range_is_refused(entry):
    of_bytes = digits.classifier(keras.layers.Rescaling(1 / 255))
    with pytest.raises(InputError, match=r"bounds=\(0, 255\)"):
        ENTRIES[entry](of_bytes, X, Y, 0.1, 4)


@pytest.mark.parametrize("entry", ENTRIES)
def test_one_image_in_the_whole_range(entry):
    model = keras.models.clone_model(digits.classifier())
    # Nothing can be learnt of one.
    count = 2 if entry == "harden" else 1
    ENTRIES[entry](model, X[:count], Y[:count], 1.0, 1)
