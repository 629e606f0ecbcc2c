"""Attention maps of any Keras classifier, and what is drawn of them."""

import keras
import numpy as np
import pytest
from keras import layers

import atat_tf as atat
from atat_tf.errors import InputError
from tests.support import digits

X, Y = digits.test_images(6)


def test_maps_are_those_of_the_pooled_head():
    """Eq. 2 of a pooled, linear head is W / (h · w)."""
    model = digits.classifier()
    looked = atat.attention(model, X, Y)
    maps = keras.Model(model.inputs[0], model.get_layer("maps").output)(
        X
    ).numpy()
    head = model.layers[-1].kernel.numpy()
    weighted = np.einsum("nhwc,cn->nhw", maps, head[:, Y]) / 16
    np.testing.assert_allclose(looked.maps, np.maximum(weighted, 0), 1e-4, 1e-5)
    assert looked.layer == "maps" and looked.maps.shape == (6, 4, 4)
    predicted = model.predict(X, verbose=0).argmax(1)
    np.testing.assert_array_equal(looked.predictions, predicted)
    np.testing.assert_array_equal(atat.attention(model, X).classes, predicted)


def test_pixels_of_any_range_have_one_map():
    expected = atat.attention(digits.classifier(), X, Y)
    pixels = np.rint(X * 255).astype(np.uint8)
    for model, x, bounds in (
        (digits.classifier(), pixels, (0, 1)),
        (digits.classifier(layers.Rescaling(1 / 255)), X * 255, (0, 255)),
    ):
        found = atat.attention(model, x, Y.astype(str), bounds=bounds, **NAMES)
        np.testing.assert_allclose(found.maps, expected.maps, 2e-2, 2e-2)
        np.testing.assert_array_equal(found.images, pixels)


NAMES = {"class_names": tuple("0123456789")}


def test_what_is_drawn():
    looked = atat.attention(digits.classifier(), X, Y)
    drawn = looked.overlay()
    assert drawn.dtype == np.uint8 and drawn.shape == (6, 8, 8, 3)
    figure = looked.plot(columns=4)
    titles = [axis.get_title() for axis in figure.axes]
    for title, label, predicted in zip(
        titles, Y, looked.predictions, strict=False
    ):
        said = "," if label == predicted else f"; predicted: {predicted}"
        assert title.startswith(f"class {label}{said}")
    assert titles[6:] == ["", ""]
    page = looked._repr_html_()
    assert page.count("<img") == 6 and "'maps'" in repr(looked)
    for label, predicted in zip(Y, looked.predictions, strict=True):
        assert f"<figcaption>class {label}" in page
        assert (f"predicted: {predicted}<" in page) == (label != predicted)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"layer": "nowhere"}, "spatial map.*'nowhere'"),
        ({"model": lambda images: images[:, 0, :, 0]}, "a Keras model that is"),
        ({"score": "logits"}, "Did you mean 'logit'"),
    ],
)
def test_refusals(arguments, message):
    given = {"model": digits.classifier(), "x": X, **arguments}
    with pytest.raises(InputError, match=message):
        atat.attention(**given)


@pytest.mark.parametrize(
    "method, arguments",
    [
        ("quality", {"epsilon": "a"}),
        ("quality", {"epsilon": -1.0}),
        ("quality", {"seed": "a"}),
        ("plot", {"columns": "a"}),
    ],
)
def test_refusals_of_what_is_returned(method, arguments):
    looked = atat.attention(digits.classifier(), X)
    with pytest.raises(InputError, match=next(iter(arguments))):
        getattr(looked, method)(**arguments)
