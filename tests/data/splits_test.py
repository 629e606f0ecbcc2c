"""Which names mean which split, and the draw of validation images."""

import numpy as np
import pytest

from atat_tf.data import splits
from atat_tf.errors import InputError


def test_the_names_of_splits():
    found = splits.meant(["Train", "val", "Testing", "annotations"])
    assert found == {"train": "Train", "validation": "val", "test": "Testing"}
    assert splits.meant(["cat", "dog"]) == {}


def test_two_names_of_one_split_are_ambiguous():
    with pytest.raises(InputError, match="validation.*'val', 'valid'"):
        splits.meant(["train", "valid", "val"])


@pytest.mark.parametrize("draw", [splits.uniform, splits.stratified])
def test_a_draw_is_a_partition_fixed_by_its_seed(draw):
    labels = np.random.default_rng(0).integers(0, 3, 40)
    kept, drawn = draw(labels, 10, 5)
    assert len(drawn) == 10
    np.testing.assert_array_equal(np.sort([*kept, *drawn]), range(40))
    for part in (kept, drawn):
        assert np.all(np.diff(part) > 0)
    np.testing.assert_array_equal(draw(labels, 10, 5)[1], drawn)
    assert not np.array_equal(draw(labels, 10, 6)[1], drawn)


@pytest.mark.parametrize("seed", range(20))
def test_every_class_gives_its_share_and_keeps_an_image(seed):
    labels = np.repeat([0, 1, 2, 4], [100, 50, 2, 1])
    kept, drawn = splits.stratified(labels, 30, seed)
    assert {*labels[kept]} == {0, 1, 2, 4}
    counts = np.bincount(labels[drawn], minlength=5)
    # 30 of 153 are a fifth.
    assert 18 <= counts[0] <= 21 and 9 <= counts[1] <= 11
    assert counts[2] <= 1 and counts[4] == 0
    most, _ = splits.stratified(labels, 149, seed)
    np.testing.assert_array_equal(labels[most], [0, 1, 2, 4])


def test_nothing_to_validate_with():
    with pytest.raises(InputError, match="a class with two images"):
        splits.stratified(np.array([0, 1]), 1, 0)


def test_more_than_there_are():
    with pytest.raises(InputError, match="num_validation up to 2"):
        splits.stratified(np.array([0, 0, 1, 1]), 3, 0)
