"""The ledger: groups whole or not at all, other evaluations' lines apart."""

import json

import numpy as np
import pytest

from atat_tf.errors import InputError
from atat_tf.evaluation import ledger

_IDENTITY = ledger.identity("sha256:1", "some", "frozen", 0, None)


def _lines(*indices):
    return [{"index": i, "broken": i % 2 == 0} for i in indices]


@pytest.fixture(name="path")
def _path(tmp_path):
    return tmp_path / ledger.FILE


def _open(path, **changed):
    return ledger.Ledger(path, {**_IDENTITY, **changed})


def test_what_was_written_is_read(path):
    first = _open(path)
    first.append("a", _lines(0, 1))
    first.append("b", _lines(5))
    for lines in (first, _open(path)):
        assert lines.verdicts("a") == {0: _lines(0)[0], 1: _lines(1)[0]}
        assert set(lines.verdicts("b")) == {5}
        assert not lines.verdicts("c")


def test_candidates_of_other_images_are_not_counted(path):
    lines = _open(path)
    lines.append("a", [{**line, "refuted": True} for line in _lines(0, 1, 2)])
    lines.append("b", [{**line, "refuted": False} for line in _lines(1, 2)])
    assert [lines.refuted(["a", "b"], n) for n in (0, 2, 3)] == [0, 2, 3]
    assert [lines.broken(["a", "b"], n) for n in (0, 2, 3)] == [0, 1, 3]


def test_a_line_says_all_that_its_verdict_depends_on(path):
    _open(path).append("a", _lines(3))
    about = {"attack": "a", "group": [3, 1], **_IDENTITY}
    assert json.loads(path.read_text()) == {**_lines(3)[0], **about}


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": "sha256:2"},
        {"data": "other, test"},
        {"bn_eval": "batch"},
        {"seed": 1},
        {"batch": [100, 200]},
    ],
    ids=lambda changed: [*changed][0],
)
def test_lines_of_another_evaluation_are_not_read(path, changed):
    _open(path, **changed).append("a", _lines(0))
    assert not _open(path).verdicts("a")
    # And they stay.
    _open(path).append("a", _lines(1))
    assert set(_open(path, **changed).verdicts("a")) == {0}


def test_the_batch_is_part_of_the_identity_with_batch_statistics_alone():
    about = ("w", "d", "batch", 0, [4, 8])
    assert ledger.identity(*about)["batch"] == [4, 8]
    assert ledger.identity("w", "d", "frozen", 0, [4, 8])["batch"] is None


def test_with_batch_statistics_an_attack_is_of_every_image(path):
    lines = _open(path, bn_eval="batch")
    right = [{"index": index, "broken": False} for index in range(2)]
    lines.append(ledger.CLEAN, right)
    lines.append("A", [{"index": 0, "broken": True}])
    assert lines.standing(["A"], 2) is None
    lines.append("A", right[1:])
    np.testing.assert_array_equal(lines.standing(["A"], 2), [False, True])


def test_who_stands_after_several_attacks(path):
    """Image 4 is wrong from the start; A breaks 1, then B breaks 0."""
    lines = _open(path)
    for attack, broken in (
        (ledger.CLEAN, {0: 0, 1: 0, 2: 0, 3: 0, 4: 1}),
        ("A", {0: 0, 1: 1, 2: 0, 3: 0}),
        ("B", {0: 1, 2: 0, 3: 0}),
    ):
        lines.append(
            attack, [{"index": i, "broken": bool(b)} for i, b in broken.items()]
        )
    for attacks, stands in (
        ([], [1, 1, 1, 1, 0]),
        (["A"], [1, 0, 1, 1, 0]),
        (["A", "B"], [0, 0, 1, 1, 0]),
    ):
        np.testing.assert_array_equal(lines.standing(attacks, 5), stands)
    np.testing.assert_array_equal(lines.standing(["A"], 2), [1, 0])
    # B never met image 1, so that it cannot stand alone.
    assert lines.standing(["B"], 5) is None
    assert lines.standing(["A"], 6) is None
    assert lines.standing(["A", "C"], 5) is None
    assert lines.deciding(["A", "B"], 1) == {"index": 1, "broken": True}
    assert lines.deciding(["A", "C"], 1) == {"index": 1, "broken": True}
    assert lines.deciding(["A", "C"], 2) is None


def test_every_cut_leaves_whole_groups(path):
    """As a kill may leave the file, at any byte."""
    lines = _open(path)
    lines.append("a", _lines(0, 1, 2))
    lines.append("a", _lines(3, 4))
    content = path.read_bytes()
    first_group = content.index(b'"index": 3') - 1
    for length in range(0, len(content) + 1, 7):
        path.write_bytes(content[:length])
        known = set(_open(path).verdicts("a"))
        assert known in [set(), {0, 1, 2}, {0, 1, 2, 3, 4}]
        assert (len(known) >= 3) == (length >= first_group - 1)
        # What is missing is written again and read.
        again = _open(path)
        again.append("a", _lines(0, 1, 2))
        again.append("a", _lines(3, 4))
        assert len(_open(path).verdicts("a")) == 5


def test_packed_lines_are_read_and_added_to(path):
    whole, folder = _open(path), path.parent
    whole.append("a", _lines(0, 1, 2))
    _open(path, seed=1).append("a", _lines(4))
    with open(path, "a") as file:
        file.write('{"index": 9, "attack": "a", "gro')
    assert ledger.pack(folder, folder) == 4
    path.unlink()
    assert ledger.is_in(folder)
    lines = _open(path)
    assert lines.verdicts("a") == whole.verdicts("a")
    assert set(_open(path, seed=1).verdicts("a")) == {4}
    # What is new stands in the plain file; packing again joins both.
    lines.append("a", [{"index": 2, "broken": False}])
    assert len(path.read_text().splitlines()) == 1
    assert ledger.pack(folder, folder) == 5
    path.unlink()
    assert not _open(path).verdicts("a")[2]["broken"]


def test_the_last_line_wins_and_the_same_is_packed_once(path):
    lines = _open(path)
    for broken in (True, False, True):
        lines.append("a", [{"index": 0, "broken": broken}])
        assert _open(path).verdicts("a")[0]["broken"] == broken
    assert ledger.pack(path.parent, path.parent) == 2
    path.unlink()
    assert _open(path).verdicts("a")[0]["broken"]


def test_ledgers_of_one_file_do_not_share_what_they_add(path):
    _open(path).append("a", _lines(0))
    first, second = _open(path), _open(path)
    first.append("a", _lines(1))
    assert set(second.verdicts("a")) == {0}
    assert set(_open(path).verdicts("a")) == {0, 1}


@pytest.mark.parametrize("content", [b"no xz at all", b""])
def test_a_packed_file_that_is_none_is_named(path, content):
    path.with_name(ledger.PACKED).write_bytes(content)
    with pytest.raises(InputError, match="packed ledger.*jsonl.xz"):
        _open(path)


def test_what_is_no_ledger_is_passed_over(path):
    path.write_text('nonsense\n[1]\n{"index": 1}\n')
    with open(path, "a") as file:
        for odd in (7, [0], [0, "x"]):
            line = {"index": 0, "attack": "a", "group": odd, **_IDENTITY}
            file.write(json.dumps(line) + "\n")
    assert not _open(path).verdicts("a")
