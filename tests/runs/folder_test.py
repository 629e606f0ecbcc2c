"""Files appear whole or not at all; one process at a time writes a folder."""

import errno
import fcntl
import json
import os
import resource
from concurrent import futures

import numpy as np
import pytest

from atat_tf.errors import InputError
from atat_tf.runs import folder as run_folder
from tests.support import runs, toys


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError):
        with run_folder.replacing(tmp_path / "a") as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_full_disk_names_the_file(tmp_path):
    """A file-size limit stands in for the disk: the same OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="could not write .*results"):
            run_folder.write_json(tmp_path / "results.json", ["x" * 5000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not os.listdir(tmp_path)


def test_json_round_trip(tmp_path):
    with pytest.raises(InputError, match="run folder with config.json"):
        run_folder.read_json(tmp_path / "config.json")
    run_folder.write_json(tmp_path / "config.json", {"a": [1, 2.5, None]})
    values = run_folder.read_json(tmp_path / "config.json")
    assert values == {"a": [1, 2.5, None]}


def test_metrics_without_a_line_cut_short(tmp_path):
    path = tmp_path / run_folder.METRICS
    path.write_text(json.dumps({"epoch": 1}) + '\n{"epoch": 2, "lo')
    assert run_folder.read_metrics(tmp_path) == [{"epoch": 1}]


def test_weights_round_trip(tmp_path):
    model, other = toys.small_classifier(0), toys.small_classifier(1)
    with pytest.raises(InputError, match="no weights"):
        run_folder.load_weights(tmp_path, "best", model)
    run_folder.save_weights(tmp_path, "best", model)
    run_folder.load_weights(tmp_path, "best", other)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="a run folder with best"):
        run_folder.load_weights(tmp_path, "ema", model)
    with pytest.raises(InputError, match="does not fit"):
        run_folder.load_weights(tmp_path, "best", toys.small_wide_resnet())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for refused in (run_folder.create, _hold):
        with pytest.raises(InputError, match="can be written"):
            refused(tmp_path / "file" / "run")


def test_a_folder_that_many_make_at_a_time(tmp_path):
    def make(number):
        return run_folder.create(tmp_path / str(number // 8))

    with futures.ThreadPoolExecutor(8) as pool:
        assert len([*pool.map(make, range(400))]) == 400
    assert not [*tmp_path.rglob(".writable*")]


def test_a_model_left_by_a_command_that_was_cut_short(tmp_path):
    """The run's config will have the digest of the file that is given."""
    run, given = tmp_path / "run", tmp_path / "given.keras"
    run.mkdir()
    for content in ("first", "other"):
        given.write_text(content)
        run_folder.keep_model(given, run)
        assert (run / run_folder.MODEL).read_text() == content
    given.unlink()  # a run goes on with its copy
    run_folder.keep_model(given, run)
    assert (run / run_folder.MODEL).read_text() == "other"


def test_commit_is_of_this_repository():
    commit = run_folder.commit()
    assert commit == "unknown" or int(commit.removesuffix("-dirty"), 16)


def _hold(folder):
    with run_folder.held(folder):
        pass


def test_one_process_at_a_time_holds_a_folder(tmp_path):
    with runs.held_elsewhere(tmp_path) as other:
        with pytest.raises(run_folder.Busy, match="another --workdir"):
            _hold(tmp_path)
        _hold(tmp_path / "teacher")
        # Killed, it lets go.
        other.kill()
        other.wait()
        _hold(tmp_path)


def test_a_folder_is_held_twice_within_a_process(tmp_path):
    with run_folder.held(tmp_path):
        _hold(tmp_path)
        # The inner end has not released it.
        with pytest.raises(AssertionError, match="could not be held"):
            with runs.held_elsewhere(tmp_path):
                pass
    with pytest.raises(ZeroDivisionError):
        with run_folder.held(tmp_path):
            raise ZeroDivisionError
    with runs.held_elsewhere(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_holds_nothing(tmp_path, monkeypatch, code):
    def no_locks(*_):
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    _hold(tmp_path)


def test_the_epoch_of_the_weights():
    rows = [
        {"epoch": 1, "validation_clean_accuracy": 0.9},
        {"epoch": 2, "validation_clean_accuracy": 0.8},
        {"epoch": 3, "validation_clean_accuracy": 0.9},
    ]
    assert run_folder.kept_epoch(rows) == 1
    robust = 0.1, 0.2, float("nan")
    for row, accuracy in zip(rows, robust, strict=True):
        row["validation_pgd_accuracy"] = accuracy
    assert run_folder.kept_epoch(rows) == 2
    assert run_folder.kept_epoch([{"epoch": 1}]) is None
    assert run_folder.kept_in_words([], "ema") is None
    words = [run_folder.kept_in_words(rows, w) for w in run_folder.WEIGHTS]
    assert words == ["best, epoch 2", "last, epoch 3", "averaged, epoch 3"]
    rows[-1]["rolled_back_to"] = 2
    words = [run_folder.kept_in_words(rows, w) for w in run_folder.WEIGHTS]
    assert words == ["best, epoch 2", "last, epoch 2", "averaged, epoch 2"]
