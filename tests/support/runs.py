"""Tiny runs on digits that tests share: one epoch takes a second or two."""

import contextlib
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import tensorflow as tf

from tests.support import digits, tiny

ROOT = pathlib.Path(__file__).parents[2]

# What makes a run tiny; also as flags, for processes of their own.
TINY = {
    "dataset": "digits",
    "backbone.name": "tiny",
    "batch_size": 64,
    "num_epochs": 2,
    "teacher_num_epochs": 1,
    # 5 steps an epoch: the rest of the training images is kept aside.
    "num_validation": 1117,
    "attack.num_steps": 1,
    "checkpoint_every_steps": 1,
    "evaluation.attacks": ("clean",),
    "evaluation.batch_size": 200,
}


# Fields of `config` and `command`: averages of weights and statistics.
AVERAGED = {"optimizer__ema": 0.9, "optimizer__ema_statistics": "averaged"}


def config(method="atat", **overrides):
    """Returns a recipe's config made tiny; overrides use __ for a dot."""
    values = importlib.import_module(f"configs.{method}").get_config()
    overrides = {k.replace("__", "."): v for k, v in overrides.items()}
    values.update_from_flattened_dict({**TINY, **overrides})
    return values


def command(workdir, *words, **overrides):
    """Returns the words that train a tiny run in a process of its own.

    Args:
      workdir: the run folder.
      *words: flags that come first, --config among them.
      **overrides: as for `config`.
    """
    overrides = {k.replace("__", "."): v for k, v in overrides.items()}
    values = {**TINY, **overrides}
    return [
        sys.executable,
        "-m",
        "atat_tf.train",
        f"--workdir={workdir}",
        f"--plugin={tiny.__name__}",
        *words,
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]


def digits_folder(base):
    """Writes digits as PNG files; returns the name of the data set."""
    folder = pathlib.Path(base) / "photos"
    images, labels = digits.arrays()
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(folder / f"{label}/{number}.png", image)
    return f"folder:{folder}"


def finish(words, **kwargs):
    """Runs a command to its end; returns exit status and what it printed."""
    done = subprocess.run(
        words,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
        **kwargs,
    )
    return done.returncode, done.stdout


def kill_at(words, workdir, checkpoint, delay):
    """Runs a command and kills it (SIGKILL) some time after a checkpoint.

    Args:
      words: from `command`.
      workdir: the run folder.
      checkpoint: the step whose checkpoint is waited for.
      delay: seconds from its appearance to the kill.

    Returns:
      Whether it was killed; it may have ended before.
    """
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and newest_step(workdir) < checkpoint:
        time.sleep(0.005)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@contextlib.contextmanager
def held_elsewhere(folder):
    """Yields a process that holds a folder; it is killed at the end.

    Args:
      folder: as for `run_folder.held`.
    """
    source = (
        "import sys\n"
        "from atat_tf.runs import folder as run_folder\n"
        "with run_folder.held(sys.argv[1]):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", source, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            if process.stdout.readline() != "held\n":
                raise AssertionError("the folder could not be held")
            yield process
        finally:
            process.kill()


def newest_step(workdir):
    """Returns the step of a run folder's newest checkpoint, 0 without one."""
    paths = pathlib.Path(workdir).glob("checkpoints/step-*.npz")
    return max((int(path.stem[5:]) for path in paths), default=0)


def events(folder):
    """Returns {(tag, step): [value, ...]} of a folder's TensorBoard files."""
    values = {}
    for path in sorted(pathlib.Path(folder).glob("events.*")):
        # A kill may have cut a file short.
        with contextlib.suppress(tf.errors.DataLossError):
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                for value in event.summary.value:
                    of_this = values.setdefault((value.tag, event.step), [])
                    of_this.append(tf.make_ndarray(value.tensor))
    return values
