"""Own arrays in an .npz file: read as they are, or refused in a sentence."""

import pathlib

import numpy as np
import pytest

from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from configs import at

_SHAPE = (8, 10, 3)


def _arrays(**changed):
    draw = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("test", 12)):
        shape = (count, *_SHAPE)
        arrays[f"x_{split}"] = draw.integers(0, 256, shape, np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 4
    return arrays | changed


@pytest.fixture(name="written")
def _written(tmp_path):
    def write(**changed):
        path = tmp_path / "own.npz"
        np.savez(path, **_arrays(**changed))
        return str(path)

    return write


def test_images_and_labels_are_those_of_the_file(written):
    arrays = _arrays()
    dataset = datasets.load(written(y_train=arrays["y_train"][:, None]))
    assert dataset.spec.num_classes == 4
    assert dataset.spec.image_shape == _SHAPE
    assert dataset.class_names == ("0", "1", "2", "3")
    assert dataset.provenance.startswith("file own.npz, sha256:")
    np.testing.assert_array_equal(dataset.test.images, arrays["x_test"])
    np.testing.assert_array_equal(dataset.test.labels, arrays["y_test"])
    parts = dataset.train, dataset.validation
    assert [len(part) for part in parts] == [36, 4]
    seen = {image.tobytes() for part in parts for image in part.images}
    assert seen == {image.tobytes() for image in arrays["x_train"]}


def test_gray_images_without_an_axis_of_channels(written):
    arrays = _arrays()
    gray = {name: arrays[name][..., 0] for name in ("x_train", "x_test")}
    dataset = datasets.load(written(**gray))
    assert dataset.spec.image_shape == (8, 10, 1)


def test_a_config_names_the_whole_path(written, monkeypatch, tmp_path):
    written()
    monkeypatch.chdir(tmp_path)
    config = at.get_config()
    config.dataset = "own.npz"
    resolved = run_config.resolve(config)
    assert resolved.dataset == str(tmp_path / "own.npz")
    run_checks.validate(resolved)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"x_train": np.zeros((40, *_SHAPE), np.float32)}, "x_train of bytes"),
        ({"x_test": np.zeros((0, *_SHAPE), np.uint8)}, "x_test of bytes"),
        ({"x_test": np.zeros((12, 9, 9, 3), np.uint8)}, "of one shape"),
        ({"y_train": np.full(40, -1)}, "whole numbers from 0.*first=.-1"),
        ({"y_train": np.linspace(0, 3, 40)}, "y_train of whole numbers"),
        ({"y_train": np.zeros(39, int)}, "y_train of whole numbers"),
        ({"y_test": np.full(12, 4)}, "labels from 0 to 3 in the test split"),
    ],
)
def test_what_is_not_understood_is_refused(written, changed, message):
    with pytest.raises(InputError, match=message):
        datasets.load(written(**changed))


@pytest.mark.parametrize("name", ["x_train", "y_test"])
def test_a_damaged_file(written, name):
    path = pathlib.Path(written())
    content = bytearray(path.read_bytes())
    content[content.index(f"{name}.npy".encode()) + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"Bad CRC-32.*{name}"):
        datasets.load(str(path))


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="an .npz file of images"):
        datasets.load(str(tmp_path / "nowhere.npz"))
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(InputError, match="arrays x_train, y_train"):
        datasets.spec(str(tmp_path / "other.npz"))
