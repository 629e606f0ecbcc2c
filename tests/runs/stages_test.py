"""Every command says what it does: at once, and at each long stage."""

import shutil
import subprocess
import sys

import pytest

from atat_tf import __main__ as atat
from tests.support import commands, runs, trained_runs

_COMMANDS = [name for group in atat.COMMANDS.values() for name in group]
_RUN = "--workdir=results/small/cifar10/atat/seed0"
# Ctrl-C where TensorFlow itself is imported. The client reads files beside it
# and does not come there.
_PROGRAM = """
import sys
class Stopping:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "tensorflow.python":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stopping)
from atat_tf import __main__
__main__.main(sys.argv[1:])
"""
# What each command needs to come that far.
_WORDS = {
    "train": ["--dataset=digits"],
    "compare": [
        "--workdirs=results/small/cifar10/atat/seed0,"
        "results/small/cifar10/at/seed0"
    ],
    "export": [_RUN, "--output=models/a"],
    "reproduce": ["--table=1", "--dry_run"],
    "demo": ["--port=0"],
    "serve": ["--model_name=a", "--model_base_path=/nowhere"]
    + ["--grpc_socket_path=a"],
    "client": ["--server=localhost:1", "--timeout=0.1", "docs/figures"],
}


@pytest.mark.parametrize("name", _COMMANDS)
def test_something_is_said_first_and_ctrl_c_is_one_line(name, tmp_path):
    words = _WORDS.get(name, [_RUN])
    if name == "merge":  # which looks for shards first
        run = shutil.copytree(
            runs.ROOT / _RUN.partition("=")[2], tmp_path / "a"
        )
        (run / "shards" / "0-of-1").mkdir(parents=True)
        (run / "shards" / "0-of-1" / "shard.json").touch()
        words = [f"--workdir={run}"]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, name, *words],
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if name == "client":
        assert done.stderr.startswith("asking localhost:1 about 9 images ...\n")
        return
    assert done.stderr.startswith("loading TensorFlow ...\n")
    if name != "serve":  # asyncio handles the signal itself
        assert done.returncode == 130
        assert done.stderr == "loading TensorFlow ...\n\nStopped.\n"


# What each command that works for long is given, and what it says.
_STAGES = {
    "train": (
        ["--workdir={new}"]
        + [f"--config.{name}={value}" for name, value in runs.TINY.items()],
        ["reading digits", "building", "tracing the step", "evaluating"],
    ),
    "evaluate": (
        # Another seed has no verdicts yet.
        ["--workdir={run}", "--attacks=clean", "--num_images=10", "--seed=7"],
        ["reading digits", "building the network of {run}", "evaluating"],
    ),
    "check": (
        ["--workdir={run}", "--num_images=20"],
        ["what the attention maps are worth", "point 1 of 22, logits"],
    ),
    "inspect": (
        ["--workdir={run}", "--output={new}/a", "--num_images=1"],
        ["reading digits", "attacking 1 pictures", "writing the pictures"],
    ),
    "landscape": (
        ["--workdir={run}", "--output={new}/a", "--indices=0"]
        + ["--resolution=3"],
        ["reading digits", "measuring the loss", "writing the pictures"],
    ),
    "report": (
        ["--workdir={run}", "--output={new}.html", "--num_images=4"],
        ["reading digits", "attacking 4 images"],
    ),
    "compare": (
        ["--workdirs={run},{run}/teacher", "--output={new}.html"]
        + ["--num_images=4"],
        ["reading digits", "building the network of {run}/teacher"],
    ),
    "archive": (["--workdir={run}", "--output={new}"], ["packing the ledger"]),
    "export": (
        ["--workdir={run}", "--output={new}"],
        ["building the network", "tracing", "loading the version again"],
    ),
    "reproduce": (
        ["--table=1", "--dry_run", "--workdir={new}"],
        ["reading digits"],
    ),
    "demo": (
        ["--workdir={run}", "--export={new}", "--num_steps=1"],
        ["building the network", "reading digits", "attacking the samples"],
    ),
}
# They need a server or shards, and are run in tests of their own.
_ELSEWHERE = {"serve", "client", "attack", "merge"}


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in _COMMANDS if n not in _ELSEWHERE])
def test_long_stages_are_told(name, tmp_path):
    words, said = _STAGES[name]
    folders = {"run": trained_runs.finished(), "new": tmp_path / "new"}
    status, output = commands.run(
        "atat_tf", name, *(word.format(**folders) for word in words)
    )
    assert status == 0, output
    for stage in said:
        assert stage.format(**folders) in output
