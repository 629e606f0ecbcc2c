"""Real processes on loopback: the weights of one, files, losses, resuming."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.runs import build
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from tests.support import runs
from tests.training.machines import replicas_worker

_FLOAT64 = 1e-9
# In float32 rounding decides the sign of a gradient that is all but zero, and
# steps as long as a recipe's make much of little. Short ones keep what differs
# to a few hundredths of the way that the weights go; a gradient that is wrong
# by the number of workers, two, would make it about a half.
_SHORT_STEPS = {
    "sync_batch_norm": True,
    **runs.AVERAGED,
    "optimizer__learning_rate": 1e-3,
    "teacher_learning_rate": 1e-3,
}
_SHARE = 0.2


def _start(commands):
    """Starts one worker for each list of words; returns the processes."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in commands]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()

    def environment(number):
        task = {"type": "worker", "index": number}
        config = {"cluster": {"worker": addresses}, "task": task}
        return {
            **os.environ,
            "TF_CONFIG": json.dumps(config),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }

    return [
        subprocess.Popen(
            words,
            cwd=runs.ROOT,
            env=environment(number),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, words in enumerate(commands)
    ]


def _finish(processes, timeout=300):
    """Waits for processes; returns [(exit status, what it printed)].

    Raises:
      subprocess.TimeoutExpired: together they took longer; all are killed.
    """
    ends = time.monotonic() + timeout
    try:
        outputs = [
            process.communicate(timeout=max(ends - time.monotonic(), 0.1))[0]
            for process in processes
        ]
    finally:
        _kill(processes)
    statuses = [process.returncode for process in processes]
    return list(zip(statuses, outputs, strict=True))


def _kill(processes):
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def _trained(workdir, which):
    """Returns where a run's trainable weights began, and where they ended."""
    values = run_folder.read_json(workdir / run_folder.CONFIG)
    config = run_config.from_dict(values)
    keras.utils.set_random_seed(config.seed)
    spec = run_config.data_spec(config)
    classifier = build.build_classifier(config, spec)

    def flat():
        variables = classifier.trainable_variables
        return np.concatenate([v.numpy().ravel() for v in variables])

    begin = flat()
    classifier.load_weights(run_folder.weights_path(workdir, which))
    return begin, flat()


@pytest.mark.long
class ManyMachinesTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        # Without the parameters: a comma is refused in the name of a run.
        name = self.id().partition(" ")[0]
        self.base = pathlib.Path(self.get_temp_dir()) / name
        self.base.mkdir()

    def _assert_all_ended(self, ended):
        for status, output in ended:
            self.assertEqual(status, 0, output)

    def _assert_same_weights(self, here, there):
        for which in ("last", "ema"):
            begin, first = _trained(here, which)
            _, second = _trained(there, which)
            moved = np.linalg.norm(first - begin)
            self.assertLess(np.linalg.norm(first - second), _SHARE * moved)

    def _wait_for_step(self, workdir, step, process):
        while runs.newest_step(workdir) < step:
            if process.poll() is not None:
                self.fail(process.stdout.read())
            time.sleep(0.02)

    def test_weights_of_one_process_in_float64(self):
        """Batch norm, random starts, unequal parts, L2, EMA and metrics."""
        module = [sys.executable, "-m", replicas_worker.__name__]
        results = []
        for count in (1, 2, 3):
            outputs = [f"{self.base}/{count}_{n}.npz" for n in range(count)]
            commands = [[*module, output, "1"] for output in outputs]
            if count == 1:
                self._assert_all_ended([runs.finish(commands[0])])
            else:
                self._assert_all_ended(_finish(_start(commands)))
            results += [np.load(output) for output in outputs]
        alone, *others = results
        self.assertEqual(
            [r["replicas"].item() for r in results], [1, 2, 2, 3, 3, 3]
        )
        size = replicas_worker.BATCH_SIZE
        self.assertAllEqual(others[0]["total"], [1 + 2, 2 * size])
        self.assertAllEqual(others[2]["total"], [1 + 2 + 3, 3 * size])
        self.assertGreater(len(alone.files), 20)
        for name in set(alone.files) - {"replicas", "total", "refused"}:
            for other in others:
                self.assertAllClose(
                    alone[name], other[name], _FLOAT64, _FLOAT64, name
                )

    def test_the_command_as_a_whole(self):
        """Teacher, student, validation, files and table, on two workers."""
        one = self.base / "one"
        words = runs.command(one, **_SHORT_STEPS)
        self._assert_all_ended([runs.finish(words)])
        folders = [self.base / "chief", self.base / "other"]
        commands = [runs.command(f, **_SHORT_STEPS) for f in folders]
        ended = _finish(_start(commands))
        self._assert_all_ended(ended)
        self.assertCountEqual(os.listdir(folders[0]), os.listdir(one))
        self.assertFalse(folders[1].exists())
        self.assertRegex(ended[0][1], r"\n +2/2 ")
        self.assertNotIn("epoch", ended[1][1])
        self._assert_same_weights(folders[0], one)
        here, there = (
            run_folder.read_metrics(folder) for folder in (folders[0], one)
        )
        for row, other in zip(here, there, strict=True):
            self.assertEqual(row.keys(), other.keys())
            for name in set(row) - {"seconds"}:
                self.assertAllClose(row[name], other[name], 0.02, 0.02, name)

    def test_images_that_are_read_as_they_are_needed(self):
        """Two workers train the weights that they train from memory."""
        data = runs.digits_folder(self.base)
        fields = {"dataset": data, "image_size": 12, **_SHORT_STEPS}
        size = 1797 * 12 * 12 * 3 / 1e9
        folders = []
        for budget in (1.0, size / 10):
            folders.append(self.base / f"{budget}_chief")
            commands = [
                runs.command(
                    self.base / f"{budget}_{name}",
                    "--config=configs/standard.py",
                    f"--memory_budget={budget}",
                    **fields,
                )
                for name in ("chief", "other")
            ]
            self._assert_all_ended(_finish(_start(commands)))
        for which in ("last", "ema"):
            _, first = _trained(folders[0], which)
            _, second = _trained(folders[1], which)
            self.assertAllEqual(first, second)

    @parameterized.parameters(
        (signal.SIGKILL, 3, 2), (signal.SIGKILL, 2, 0), (signal.SIGSTOP, 2, 1)
    )
    def test_a_lost_worker_stops_all_and_they_go_on(self, sign, count, victim):
        workdir = self.base / "run"
        words = runs.command(
            workdir,
            "--config=configs/at.py",
            sync_batch_norm=True,
            num_epochs=200,
        )
        processes = _start([words] * count)
        self._wait_for_step(workdir, 2, processes[0])
        lost = processes.pop(victim)
        lost.send_signal(sign)
        begin = time.monotonic()
        ended = _finish(processes, 60)
        print(f"stopped after {time.monotonic() - begin:.0f} s")
        _kill([lost])
        for status, output in ended:
            self.assertEqual(status, 1, output)
            self.assertNotIn("Traceback", output)
            last = output.strip().splitlines()[-1]
            self.assertRegex(
                last,
                f"^error: Expected all {count} workers to stay. Received: no "
                rf"answer from worker {victim} \(127.0.0.1:\d+\)\. The same",
            )
        step = runs.newest_step(workdir)
        again = _start([words] * count)
        for line in again[0].stdout:
            if "going on from step" in line:
                self.assertIn(f"going on from step {step}", line)
                break
        self._wait_for_step(workdir, step + 1, again[0])
        _kill(again)

    def test_resumed_by_another_number_of_workers(self):
        """Killed after some steps on two, it ends alone with the weights."""
        alone, resumed = self.base / "alone", self.base / "resumed"
        words = {
            folder: runs.command(
                folder, "--config=configs/at.py", **_SHORT_STEPS
            )
            for folder in (alone, resumed)
        }
        self._assert_all_ended([runs.finish(words[alone])])
        processes = _start([words[resumed]] * 2)
        self._wait_for_step(resumed, 3, processes[0])
        _kill(processes)
        self._assert_all_ended([runs.finish(words[resumed])])
        self._assert_same_weights(resumed, alone)

    def test_other_flags_on_one_worker(self):
        words = [runs.command(self.base / "run", seed=seed) for seed in (0, 1)]
        for status, output in _finish(_start(words)):
            self.assertEqual(status, 1)
            self.assertRegex(
                output,
                "error: Expected the same flags and data on every worker. "
                r"Received: others on worker 1 \(",
            )
            self.assertNotIn("Traceback", output)
