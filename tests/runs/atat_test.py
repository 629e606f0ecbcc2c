"""The one command: every command by its name, help, and what is misspelled."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from atat_tf import __main__ as atat
from atat_tf import __version__
from atat_tf.runs import command_line
from tests.support import commands

_COMMANDS = [name for group in atat.COMMANDS.values() for name in group]


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_help_has_every_command(words):
    status, output = commands.run("atat_tf", *words)
    assert status == 0
    for name in _COMMANDS:
        assert f"  {name} " in output


@pytest.mark.parametrize("name", _COMMANDS)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_every_command_has_help(name, word):
    if name == "serve":  # it ends its process, whatever threads there are
        done = subprocess.run(
            [sys.executable, "-m", "atat_tf", name, word],
            capture_output=True,
            text=True,
            check=False,
        )
        status, output = done.returncode, done.stdout
    else:
        status, output = commands.run("atat_tf", name, word)
    assert status == 0, output
    assert "--" in output
    # As it is typed, however it was started.
    assert f"atat {name}" in output and "python -m" not in output
    assert max(map(len, output.splitlines())) <= 80


def test_version():
    status, output = commands.run("atat_tf", "--version")
    assert (status, output) == (0, f"atat {__version__}\n")


def test_a_misspelled_command():
    status, output = commands.run("atat_tf", "trian", "--dataset=digits")
    assert status == 1
    assert output.startswith("error: Expected a command among archive,")
    assert "Did you mean 'train'?" in output


def test_training_needs_a_word():
    """The default is the paper's protocol, a year of one core."""
    status, output = commands.run("atat_tf", "train")
    assert status == 0
    assert "--dataset=VALUE" in output


def test_check_is_evaluation_with_the_checklist():
    status, output = commands.run(
        "atat_tf", "check", "--workdir=/nowhere", "--attacks=fgsm"
    )
    assert status == 1
    assert "no --attacks for a checklist" in output
    _, output = commands.run("atat_tf", "check", "--help")
    assert "atat check --workdir" in output and "checklist.json" in output
    assert "--num_images" in output and "--attacks" not in output
    assert "(default: 500)" in output
    _, output = commands.run("atat_tf", "evaluate", "--help")
    assert "--attacks" in output and "--checklist" in output


# Each in a fork, since two commands may have a flag of one name.
_BARE = """
import os, sys
from atat_tf import __main__ as atat
from atat_tf.runs import command_line
for name in sys.argv[1:]:
    sys.stdout.flush()
    if os.fork():
        os.wait()
        continue
    try:
        atat.main([name])
    except SystemExit as ended:
        print(name, "tensorflow" in sys.modules, ended.code, flush=True)
    os._exit(0)
"""


def test_a_missing_flag_is_said_before_tensorflow_loads(tmp_path):
    # serve listens, demo takes what is there, and train is asked for above.
    names = sorted({*_COMMANDS} - {"serve", "train", "demo"})
    done = subprocess.run(
        [sys.executable, "-c", _BARE, *names],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(names), done.stderr
    for name, line in zip(names, lines, strict=True):
        assert line.startswith(f"{name} False error: Expected "), line


# What commands of runs need besides a run.
_NEEDED = {"export": ["--output=models/a"], "reproduce": ["--table=1"]}
_OF_NO_RUN = {"serve", "client"}
_OF_SEVERAL_RUNS = {"evaluate", "check", "inspect", "landscape"}
_OF_SEVERAL_RUNS |= {"compare", "demo", "merge"}


@pytest.mark.parametrize("name", sorted({*_COMMANDS} - _OF_NO_RUN))
def test_workdir_is_one_run_and_workdirs_are_several(name):
    words = [name, *_NEEDED.get(name, [])]
    status, output = commands.run("atat_tf", *words, "--workdir=/no/a,/no/b")
    assert status == 1
    assert output.startswith("error: Expected one run folder in --workdir; ")
    assert "--workdirs=A,B" in output and len(output.splitlines()) == 1
    several = "--workdirs=/no/a,/no/b"
    status, output = commands.run("atat_tf", *words, several, "--workdir=/no/c")
    assert status == 1 and len(output.splitlines()) == 1
    if name in _OF_SEVERAL_RUNS:
        assert "Received: both." in output
    else:
        assert "Unknown command line flag 'workdirs'" in output


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    "words, expected",
    [("ev", "evaluate"), ("evaluate --che", "--checklist")],
)
def test_completion(words, expected):
    _, script = commands.run("atat_tf", "--completion")
    program = f"""
        atat() {{ {sys.executable} -m atat_tf "$@"; }}
        {script}
        COMP_WORDS=(atat {words})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _atat
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{expected}\n"


# {a flag that all commands may have: what reads it}
_READ_BY = {
    "workdir": r"command_line\.workdirs?\(",
    "data_dir": r"command_line\.data_dir\(",
    "dataset": r"command_line\.(dataset|config)\(",
    "seed": r"command_line\.(seed|config)\(",
    "config": r"command_line\.config\(",
    "plugin": r"command_line\.run\(",
}
_WITH_FLAGS = {
    name: found
    for group in atat.COMMANDS.values()
    for name, found in group.items()
    if name not in ("client", "serve")  # which have other flags
}


def _flags(name):
    _, text = commands.run("atat_tf", name, "--help")
    return re.findall(r"^  --(?:\[no\])?([a-z_]+)", text, re.MULTILINE)


@pytest.mark.parametrize("name", _WITH_FLAGS)
def test_a_command_reads_the_flags_that_its_help_lists(name):
    module, before, _ = _WITH_FLAGS[name]
    path = importlib.util.find_spec(module).origin
    text = pathlib.Path(path).read_text()
    for flag in _flags(name):
        read_by = _READ_BY.get(flag)
        if read_by is None:
            (variable,) = re.findall(
                rf'^(_\w+) = flags\.DEFINE\w*\([^"]*"{flag}"',
                text,
                re.MULTILINE,
            )
            read_by = rf"{variable}(\.value|\.name|,|\))"
        assert re.search(read_by, text), f"--{flag} of {name}"
    for word in before:
        assert word.removeprefix("--") not in _flags(name)


@pytest.mark.parametrize(
    "name", sorted({*_WITH_FLAGS} - {"train", "reproduce", "inspect"})
)
def test_a_missing_folder_is_said_before_tensorflow_loads(name, monkeypatch):
    def loads():
        raise AssertionError("TensorFlow loads")

    monkeypatch.setattr(command_line, "quiet_start", loads)
    words = ["--workdir=/nowhere"]
    if "workdir" not in _flags(name):
        words = ["--workdirs=/nowhere,/no"]
    if name == "export":
        words.append("--output=models/mine")
    status, text = commands.run("atat_tf", name, *words)
    assert status == 1
    assert "Expected a run folder with config.json" in text
    assert len(text.splitlines()) == 1
