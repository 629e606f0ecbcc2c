"""Real processes on loopback: the weights of one, files, losses, resuming."""

import os
import pathlib
import shutil
import signal
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.data import datasets
from atat_tf.runs import build
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from tests.support import runs
from tests.training.machines import many_machines

_FLOAT64 = 1e-9
# In float32 rounding decides the sign of a gradient that is all but zero, and
# steps as long as a recipe's make much of little. Short ones keep what differs
# to a few hundredths of the way that the weights go; a gradient that is wrong
# by the number of workers, two, would make it about a half.
_SHORT_STEPS = {
    "sync_batch_norm": True,
    "optimizer__ema": 0.9,
    "optimizer__learning_rate": 1e-3,
    "teacher_learning_rate": 1e-3,
}
_SHARE = 0.2


def _trained(workdir, which):
    """Returns where a run's trainable weights began, and where they ended."""
    values = run_folder.read_json(workdir / run_folder.CONFIG)
    config = run_config.from_dict(values)
    keras.utils.set_random_seed(config.seed)
    spec = datasets.spec(config.dataset)
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
        self.base = pathlib.Path(self.get_temp_dir()) / self.id()
        self.base.mkdir()

    def _assert_all_ended(self, ended):
        for status, output in ended:
            self.assertEqual(status, 0, output)

    def _assert_same_weights(self, here, there, which):
        begin, first = _trained(here, which)
        _, second = _trained(there, which)
        moved = np.linalg.norm(first - begin)
        self.assertLess(np.linalg.norm(first - second), _SHARE * moved)

    def test_weights_of_one_process_in_float64(self):
        """Batch norm, random starts, unequal parts, L2, EMA and metrics."""
        results = []
        for count in (1, 2, 3):
            outputs = [f"{self.base}/{count}_{n}.npz" for n in range(count)]
            module = [
                sys.executable,
                "-m",
                "tests.training.machines.many_machines_worker",
            ]
            commands = [[*module, "8", output] for output in outputs]
            if count == 1:
                self._assert_all_ended([runs.finish(commands[0])])
            else:
                ended = many_machines.finish(many_machines.start(commands))
                self._assert_all_ended(ended)
            results += [np.load(output) for output in outputs]
        alone, *others = results
        self.assertEqual(
            [r["replicas"].item() for r in results], [1, 2, 2, 3, 3, 3]
        )
        self.assertAllEqual(others[0]["total"], [1 + 2, 16])
        self.assertAllEqual(others[2]["total"], [1 + 2 + 3, 24])
        self.assertGreater(len(alone.files), 80)
        for name in set(alone.files) - {"replicas", "total"}:
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
        ended = many_machines.finish(
            many_machines.start(
                [runs.command(f, **_SHORT_STEPS) for f in folders]
            )
        )
        self._assert_all_ended(ended)
        self.assertCountEqual(os.listdir(folders[0]), os.listdir(one))
        self.assertFalse(folders[1].exists())
        self.assertIn("epoch 2/2", ended[0][1])
        self.assertNotIn("epoch", ended[1][1])
        for which in ("last", "ema"):
            self._assert_same_weights(folders[0], one, which)
        here, there = (
            run_folder.read_metrics(folder) for folder in (folders[0], one)
        )
        for row, other in zip(here, there, strict=True):
            self.assertEqual(row.keys(), other.keys())
            for name in set(row) - {"seconds"}:
                self.assertAllClose(row[name], other[name], 0.02, 0.02, name)

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
        processes = many_machines.start([words] * count)
        folder = workdir / "checkpoints"
        while len(list(folder.glob("step-*.npz"))) < 2:
            self.assertIsNone(processes[0].poll())
            time.sleep(0.05)
        processes[victim].send_signal(sign)
        lost = time.monotonic()
        others = [p for n, p in enumerate(processes) if n != victim]
        ended = many_machines.finish(others, 60)
        print(f"stopped after {time.monotonic() - lost:.0f} s")
        processes[victim].kill()
        processes[victim].communicate()
        for status, output in ended:
            self.assertEqual(status, 1, output)
            self.assertNotIn("Traceback", output)
            last = output.strip().splitlines()[-1]
            self.assertRegex(
                last,
                f"^error: Expected all {count} workers to stay. Received: no "
                rf"answer from worker {victim} \(127.0.0.1:\d+\)\. The same",
            )
        step = _newest_step(folder)
        again = many_machines.start([words] * count)
        for line in again[0].stdout:
            if "going on from step" in line:
                self.assertIn(f"going on from step {step}", line)
                break
        while _newest_step(folder) <= step:
            self.assertIsNone(again[0].poll())
            time.sleep(0.05)
        for process in again:
            process.kill()
            process.communicate()

    def test_resumed_by_another_number_of_workers(self):
        """Killed after some steps on two, it ends alone with the weights."""
        words = {
            name: runs.command(
                self.base / name, "--config=configs/at.py", **_SHORT_STEPS
            )
            for name in ("alone", "resumed")
        }
        self._assert_all_ended([runs.finish(words["alone"])])
        processes = many_machines.start([words["resumed"]] * 2)
        folder = self.base / "resumed" / "checkpoints"
        while _newest_step(folder) < 3:
            self.assertIsNone(processes[0].poll())
            time.sleep(0.01)
        for process in processes:
            process.kill()
            process.communicate()
        self._assert_all_ended([runs.finish(words["resumed"])])
        for which in ("last", "ema"):
            self._assert_same_weights(
                self.base / "resumed", self.base / "alone", which
            )
        shutil.rmtree(self.base)

    def test_other_flags_on_one_worker(self):
        words = [runs.command(self.base / "run", seed=seed) for seed in (0, 1)]
        ended = many_machines.finish(many_machines.start(words))
        for status, output in ended:
            self.assertEqual(status, 1)
            self.assertRegex(
                output,
                "error: Expected the same flags and data on every worker. "
                r"Received: others on worker 1 \(",
            )
            self.assertNotIn("Traceback", output)


def _newest_step(folder):
    steps = [int(path.stem[5:]) for path in folder.glob("step-*.npz")]
    return max(steps, default=0)


if __name__ == "__main__":
    tf.test.main()
