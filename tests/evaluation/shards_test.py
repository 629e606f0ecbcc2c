"""Shards of an evaluation: the merged table is that of one process."""

import json
import os
import shutil

import pytest

from atat_tf.errors import InputError
from atat_tf.evaluation import shards
from atat_tf.evaluation.ledger import Ledger
from atat_tf.evaluation.run import Run
from atat_tf.runs import folder as run_folder
from tests.support import commands, ledgers, untrained_runs

_COUNT = 2
_MEASURED = "margin", "linf"
_FEW = "--attacks=clean,pgd2", "--num_images=30"
_SEVERAL = "--attacks=clean,pgd2,apgd_t1@1/255,square3", "--num_images=41"


def _run(command, workdir, *words):
    return commands.run(f"atat_tf.{command}", f"--workdir={workdir}", *words)


def _divide(folder, asked, count, bars=True):
    """Evaluates all shards of a run, by the command.

    Args:
      folder: the run.
      asked: flags.
      count: of the shards.
      bars: whether there is anything to attack, and so a bar.
    """
    for index in range(count):
        status, output = _run(
            "evaluate", folder, *asked, f"--shard={index}/{count}"
        )
        assert status == 0, output
        assert f"shards/{index}-of-{count} is done" in output
        assert (" images ..." in output) == bars


@pytest.fixture(name="divided", scope="module")
def _divided(tmp_path_factory):
    """Returns a run all of whose shards are done, and that is not merged."""
    folder = untrained_runs.write(tmp_path_factory.mktemp("divided") / "run")
    _divide(folder, _FEW, _COUNT)
    return folder


def _lines(folder):
    """Returns {attack: {image: line}} of a run, without what is timing.

    In batches of other sizes kernels round otherwise: of measured values six
    digits are compared.
    """
    run = Run(folder)
    found = Ledger(folder / "ledger.jsonl", run.ledger.identity)
    attacks = {a for of_one in run.results["attacks"].values() for a in of_one}
    return {
        attack: {
            index: {
                name: float(f"{value:.6g}") if name in _MEASURED else value
                for name, value in line.items()
                if name != "seconds"
            }
            for index, line in found.verdicts(attack).items()
        }
        for attack in ("none", *attacks)
    }


def _table(output):
    """Returns what is printed, without the lines of stages and progress."""
    return [
        line
        for line in output.splitlines()
        if "images/s" not in line and not line.endswith("...")
    ]


def _assert_same(divided, asked, tmp_path):
    whole = untrained_runs.write(tmp_path / "whole")
    status, expected = _run("evaluate", whole, *asked)
    assert status == 0, expected
    folder = shutil.copytree(divided, tmp_path / "merged")
    assert not (folder / "results.json").exists()
    for _ in range(2):  # merged again, nothing changes
        with ledgers.read() as read:
            status, table = _run("merge", folder)
        assert status == 0, table
        assert len(read) == len({*read})
        assert _table(table) == _table(expected)
        assert Run(folder).results == Run(whole).results
        assert _lines(folder) == _lines(whole)


def test_the_table_and_the_lines_are_those_of_one_process(divided, tmp_path):
    _assert_same(divided, _FEW, tmp_path)


@pytest.mark.long
def test_so_they_are_of_several_attacks_in_a_row(tmp_path):
    folder = untrained_runs.write(tmp_path / "run")
    _divide(folder, _SEVERAL, 3)
    _assert_same(folder, _SEVERAL, tmp_path)


@pytest.mark.long
def test_a_shard_goes_on_where_it_was(divided, tmp_path):
    folder = shutil.copytree(divided, tmp_path / "run")
    part = folder / "shards" / "1-of-2"
    before = (part / "ledger.jsonl").read_text()
    (part / "shard.json").unlink()
    with pytest.raises(InputError, match=r"Received: missing=\[1\]"):
        shards.merge(folder)
    _divide(folder, _FEW, _COUNT, bars=False)
    assert (part / "ledger.jsonl").read_text() == before
    shards.merge(folder)


@pytest.mark.parametrize(
    "indices, part, name, value, message",
    [
        ([1], "settings", "seed", 9, "1-of-2 beside 0-of-2 with seed=9, not"),
        ([1], "settings", "attacks", ["clean"], "attacks=.'clean'., not"),
        ([1], "identity", "weights", "sha256:0", "weights='sha256:0', not"),
        # All say the same, and it is not what the run is.
        ([0, 1], "identity", "data", "mnist", "data='mnist', not"),
        ([0, 1], None, "commit", "abc", "as it is, by .* commit='abc', not"),
    ],
)
def test_shards_of_others_are_refused(
    divided, tmp_path, indices, part, name, value, message
):
    folder = shutil.copytree(divided, tmp_path / "run")
    for index in indices:
        path = folder / "shards" / f"{index}-of-{_COUNT}" / "shard.json"
        told = json.loads(path.read_text())
        (told[part] if part else told)[name] = value
        run_folder.write_json(path, told)
    with pytest.raises(InputError, match=message):
        shards.merge(folder)
    assert not (folder / "results.json").exists()


@pytest.mark.parametrize(
    "torn, message",
    [
        ('{"settings": {"num_im', "with shard.json"),
        ("[]", "missing=.'commit', 'identity', 'settings'"),
        ('{"settings": null, "identity": {}, "commit": ""}', "a whole shard"),
        ('{"settings": {}, "identity": {}, "commit": ""}', "a whole shard"),
        ({"attacks": [3]}, "a whole shard"),
        ({"num_images": "x"}, "a whole shard"),
        ({"another": 1}, "a whole shard"),
    ],
)
def test_a_torn_file_is_a_sentence(divided, tmp_path, torn, message):
    folder = shutil.copytree(divided, tmp_path / "run")
    path = folder / "shards" / f"1-of-{_COUNT}" / "shard.json"
    if isinstance(torn, dict):
        told = json.loads(path.read_text())
        told["settings"] |= torn
        torn = json.dumps(told)
    path.write_text(torn)
    with pytest.raises(InputError, match=message):
        shards.merge(folder)


@pytest.mark.parametrize("kept", [0, 0.9])
def test_a_shard_that_has_lost_verdicts_is_named(divided, tmp_path, kept):
    folder = shutil.copytree(divided, tmp_path / "run")
    path = folder / "shards" / f"1-of-{_COUNT}" / "ledger.jsonl"
    os.truncate(path, int(kept * path.stat().st_size))
    with pytest.raises(InputError, match="again.*lost=.'1-of-2'.[.]$"):
        shards.merge(folder)
    assert not (folder / "results.json").exists()
    assert not (folder / "ledger.jsonl").exists()


def test_shards_of_two_counts_some_and_none(divided, tmp_path):
    folder = shutil.copytree(divided, tmp_path / "run")
    place = folder / "shards"
    shutil.copytree(place / "0-of-2", place / "0-of-4")
    with pytest.raises(InputError, match=r"shards_are_of=\[2, 4\]"):
        shards.merge(folder)
    shutil.rmtree(place / "0-of-2")
    shutil.rmtree(place / "1-of-2")
    with pytest.raises(InputError, match=r"missing=\[1, 2, 3\]"):
        shards.merge(folder)
    shutil.rmtree(place)
    status, output = _run("merge", folder)
    assert status == 1 and "evaluate --shard=0/N makes the first" in output
    assert "loading TensorFlow" not in output


@pytest.mark.parametrize(
    "words, message",
    [
        (["--shard=3"], "a shard as 3/16"),
        (["--shard=16/16"], "the first is 0/16 and the last 15/16"),
        (["--shard=0/2", "--precision=1"], "--shard without --precision: its"),
        (["--shard=0/2", "--bn_eval=batch"], "--shard with bn_eval=frozen"),
        (["--shard=0/2", "--checklist"], "no --shard for a checklist"),
        (["--shard=0/50", "--num_images=40"], "no more shards than images"),
    ],
)
def test_what_is_no_shard(divided, words, message):
    status, output = _run("evaluate", divided, *words)
    assert status == 1 and message in output and "Traceback" not in output
