"""Whole runs: files, resuming to the bit after kills, refusals, failures."""

import functools
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
from unittest import mock

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.data import extra
from atat_tf.errors import InputError, TrainingError
from atat_tf.evaluation import evaluate_run
from atat_tf.reports.page import compared, page
from atat_tf.runs import folder as run_folder
from atat_tf.training import checkpoints
from atat_tf.training import run as training_run
from tests.support import runs, trained_runs


def test_images_neither_gray_nor_rgb_are_trained_on_and_not_drawn(tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (200, 8, 8, 4)).astype(np.uint8)
    labels = np.arange(200) % 2
    path = tmp_path / "own.npz"
    pairs = {"x_train": images, "y_train": labels}
    np.savez(path, **pairs, x_test=images[:50], y_test=labels[:50])
    config = runs.config("at", dataset=str(path), num_validation=100)
    training_run.train_and_evaluate(config, tmp_path / "run")
    rows = run_folder.read_metrics(tmp_path / "run")
    assert "validation_attention_shift" not in rows[-1]
    assert "validation_pgd_accuracy" in rows[-1]
    html = page.page(tmp_path / "run", num_images=4)
    assert "Attention shift" not in html


def test_a_network_without_a_map_is_trained_and_not_drawn(tmp_path):
    layers = [
        keras.Input((32, 32, 3)),
        keras.layers.Flatten(),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(10),
    ]
    keras.Sequential(layers).save(tmp_path / "flat.keras")
    config = runs.config("at", model=str(tmp_path / "flat.keras"))
    results = training_run.train_and_evaluate(config, tmp_path / "run")
    assert 0 <= results["accuracy"]["clean"] <= 1
    rows = run_folder.read_metrics(tmp_path / "run")
    assert "validation_attention_shift" not in rows[-1]
    for html in (
        page.page(tmp_path / "run", num_images=4),
        compared.compared([tmp_path / "run"], num_images=4),
    ):
        assert "Attention shift" not in html
        assert "drawn: no layer of the network has a spatial map" in html


@pytest.mark.parametrize("guesses", [True, False])
def test_a_network_that_guesses_is_said_to(tmp_path, capsys, guesses):
    """Labels of noise are guessed; black and white are told apart."""
    draw = np.random.default_rng(0)
    labels = np.arange(300) % 2
    images = draw.integers(0, 256, (300, 8, 8, 1)).astype(np.uint8)
    if not guesses:
        images = (255 * labels).astype(np.uint8)[:, None, None, None]
        images = np.tile(images, (1, 8, 8, 1))
    pairs = {"x_train": images, "y_train": labels}
    path = tmp_path / "own.npz"
    np.savez(path, **pairs, x_test=images[:50], y_test=labels[:50])
    config = runs.config("standard", dataset=str(path), num_validation=100)
    training_run.train_and_evaluate(config, tmp_path / "run")
    words = " ".join(capsys.readouterr().out.split())
    assert ("not above chance (50 %, one of 2 classes)" in words) == guesses


def _arrays(folder, which):
    """Returns {name: array} of a run's weights."""
    arrays = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with h5py.File(run_folder.weights_path(folder, which)) as file:
        file.visititems(visit)
    return arrays


def _contents(folder):
    """Returns {path: bytes} of the weights and metrics of a run."""
    paths = [*folder.rglob("*.h5"), *folder.rglob("metrics.jsonl")]
    return {path: path.read_bytes() for path in paths}


def _are_equal(some, others):
    return some.keys() == others.keys() and all(
        np.array_equal(some[name], others[name]) for name in some
    )


class RunsTest(parameterized.TestCase, tf.test.TestCase):
    """What the tests share: `done`, trained once, and a workdir for each."""

    @functools.cached_property
    def done(self):
        return trained_runs.finished()

    def setUp(self):
        super().setUp()
        self.base = pathlib.Path(self.get_temp_dir())
        self.workdir = self.base / self.id().rpartition(".")[2]

    def _train(self, method="atat", workdir=None, **overrides):
        if method in ("atat", "fast"):
            overrides.setdefault("teacher", str(self.done / "teacher"))
        return training_run.train_and_evaluate(
            runs.config(method, **overrides), workdir or self.workdir
        )

    def _assert_same_weights(self, here, there, names=run_folder.WEIGHTS):
        for name in names:
            first = _arrays(here, name)
            self.assertGreater(len(first), 10)
            self.assertTrue(_are_equal(first, _arrays(there, name)), name)


class MemoryBudgetTest(RunsTest):
    def test_trains_the_same_weights_from_files(self):
        """A set of which a tenth may be held, and none of the extra images."""
        data, folders = runs.digits_folder(self.base), []
        size = 1797 * 12 * 12 * 3
        drawn = np.random.default_rng(0).integers(0, 256, (1200, 12, 12, 3))
        path = self.base / "extra.npz"
        np.savez(path, image=drawn.astype(np.uint8), label=np.arange(1200) % 9)
        for budget in (None, size / 10):
            folders.append(self.workdir / str(budget))
            values = runs.config(
                "standard",
                dataset=data,
                image_size=12,
                num_epochs=1,
                extra_images=str(path),
            )
            with mock.patch.object(extra, "load", wraps=extra.load) as read:
                training_run.train_and_evaluate(
                    values, folders[-1], memory_budget=budget
                )
            self.assertEqual(read.call_args.args[2], budget)
        self._assert_same_weights(*folders, ("last", "best"))

    def test_other_data_than_it_began_with_are_refused(self):
        file = self.base / "set.npz"
        images = np.zeros((200, 8, 8, 1), np.uint8)
        labels = np.arange(200) % 2
        named = {"x_train": images, "x_test": images, "y_test": labels}
        values = runs.config(
            "standard",
            dataset=str(file),
            num_validation=100,
            num_epochs=1,
        )
        np.savez(file, y_train=labels, **named)
        training_run.train_and_evaluate(values, self.workdir)
        np.savez(file, y_train=1 - labels, **named)
        with self.assertRaisesRegex(InputError, "the data that the run began"):
            training_run.train_and_evaluate(values, self.workdir)


@pytest.mark.early
class FilesTest(RunsTest):
    def test_a_run_folder_holds_what_the_readme_says(self):
        for folder in (self.done, self.done / "teacher"):
            expected = {"config.json", "checkpoints", "best.weights.h5"}
            expected |= {"last.weights.h5", "metrics.jsonl", "tensorboard"}
            expected |= {"ema.weights.h5"}
            if folder == self.done:
                expected |= {"results.json"}
            self.assertContainsSubset(expected, os.listdir(folder))
        # No temporary file is left.
        hidden = {path.name for path in self.done.rglob(".*")}
        self.assertContainsSubset(hidden, {run_folder.LOCK})

    def test_metrics_and_tensorboard_have_each_epoch(self):
        rows = run_folder.read_metrics(self.done)
        self.assertEqual(
            [(r["epoch"], r["step"]) for r in rows], [(1, 5), (2, 10)]
        )
        expected = {
            "learning_rate",
            "seconds",
            "train_adversarial_accuracy",
            "train_attention_transfer",
            "train_clean_accuracy",
            "train_cross_entropy",
            "train_logit_pairing",
            "validation_averaged_clean_accuracy",
            "validation_averaged_pgd_accuracy",
            "validation_clean_accuracy",
        }
        events = runs.events(self.done / "tensorboard")
        for row in rows:
            self.assertContainsSubset(expected, row)
            for tag in ("train/loss", "validation/pgd_accuracy"):
                (value,) = events[tag, row["step"]]
                self.assertAllClose(value, row[tag.replace("/", "_")])

    def test_attention_is_drawn_after_each_epoch(self):
        events = runs.events(self.done / "tensorboard")
        for row in run_folder.read_metrics(self.done):
            shift = row["validation_attention_shift"]
            self.assertBetween(shift, 1e-6, 1)
            (written,) = events["validation/attention_shift", row["step"]]
            self.assertAllClose(written, shift)
            (picture,) = events["validation/attention", row["step"]]
            # Eight rows of four tiles, with heads and words.
            self.assertEqual(tuple(picture[:2]), (b"528", b"1222"))

    def test_results_and_resolved_configs(self):
        stored = run_folder.read_json(self.done / "results.json")
        self.assertEqual(stored["method"], "atat")
        self.assertEqual(stored["num_images"], 360)
        self.assertEqual(set(stored["accuracy"]), {"clean"})
        for field in ("dataset", "data", "bn_eval", "seed", "commit"):
            self.assertIn(field, stored)
        config = run_folder.read_json(self.done / "config.json")
        self.assertEqual(config["backbone"]["depth"], 10)
        teacher = run_folder.read_json(self.done / "teacher/config.json")
        self.assertEqual(teacher["defense"]["name"], "standard")
        self.assertEqual(teacher["num_epochs"], 1)

    def test_kept_weights(self):
        last, best, average = (
            _arrays(self.done, name) for name in ("last", "best", "ema")
        )
        # Batch norm's statistics are averaged too: no array is the same.
        self.assertFalse([k for k in last if np.all(last[k] == average[k])])
        scores = [
            row["validation_pgd_accuracy"]
            for row in run_folder.read_metrics(self.done)
        ]
        # Of two epochs the last is the best only if it is strictly better.
        self.assertEqual(_are_equal(best, last), scores[1] > scores[0])

    def test_without_checkpoints_a_whole_run_is_done_and_a_part_refused(self):
        shutil.copytree(self.done, self.workdir)
        for folder in (self.workdir, self.workdir / "teacher"):
            shutil.rmtree(folder / "checkpoints")
        stored = run_folder.read_json(self.done / "results.json")
        before = _contents(self.workdir)
        self.assertEqual(self._train(teacher="", **runs.AVERAGED), stored)
        self.assertEqual(_contents(self.workdir), before)
        rows = run_folder.read_metrics(self.workdir)
        run_folder.write_metrics(self.workdir, rows[:1])
        with self.assertRaisesRegex(InputError, "a checkpoint of the training"):
            self._train(teacher="", **runs.AVERAGED)
        self.assertLen(run_folder.read_metrics(self.workdir), 1)

    def test_results_of_earlier_weights_are_not_the_last_word(self):
        shutil.copytree(self.done, self.workdir)
        path = self.workdir / "results.json"
        stored = run_folder.read_json(path)
        earlier = {"accuracy": {"clean": 0.01}, "weights_digest": "earlier"}
        run_folder.write_json(path, stored | earlier)
        again = self._train(teacher="", **runs.AVERAGED)
        self.assertEqual(again["accuracy"], stored["accuracy"])
        self.assertEqual(again["weights_digest"], stored["weights_digest"])

    def test_a_look_at_fewer_images_is_not_the_evaluation(self):
        """As where that was killed, and repeated after the look."""
        shutil.copytree(self.done, self.workdir)
        path = self.workdir / "results.json"
        stored = run_folder.read_json(path)
        path.unlink()
        evaluate_run.evaluate_run(self.workdir, ["clean"], 4)
        again = self._train(teacher="", **runs.AVERAGED)
        self.assertEqual(again["accuracy"], stored["accuracy"])
        self.assertEqual(again["num_images"], stored["num_images"])

    def test_done_is_done(self):
        before = (self.done / "last.weights.h5").stat().st_mtime_ns
        again = training_run.train_and_evaluate(
            runs.config(**runs.AVERAGED), self.done
        )
        stored = run_folder.read_json(self.done / "results.json")
        self.assertEqual(again, stored)
        after = (self.done / "last.weights.h5").stat().st_mtime_ns
        self.assertEqual(before, after)


@pytest.mark.long
class MethodsTest(RunsTest):
    def _epoch(self, method, **overrides):
        self._train(method, num_epochs=1, **overrides)
        (row,) = run_folder.read_metrics(self.workdir)
        return row

    @parameterized.parameters(
        ("atat", True),
        ("released_cifar10", False),
        ("released_cifar100", False),
    )
    def test_where_the_student_starts(self, method, at_the_teacher):
        """One step later, at a rate of all but zero, it is still there."""
        row = self._epoch(method, teacher="", optimizer__learning_rate=1e-30)
        teacher = _arrays(self.workdir / "teacher", "best")
        student = _arrays(self.workdir, "last")
        kernel = next(k for k in teacher if teacher[k].shape == (16, 10))
        self.assertGreater(np.max(np.abs(teacher[kernel])), 0)
        same = np.allclose(teacher[kernel], student[kernel])
        self.assertEqual(same, at_the_teacher)
        terms = "train_logit_transfer", "train_attention_transfer"
        if not at_the_teacher:
            self.assertGreater(max(row.get(t, 0.0) for t in terms), 0)

    def test_madry_alone_never_sees_clean_images(self):
        """And no attention is drawn where none is asked for."""
        row = self._epoch("at", defense__clean_weight=0.0, attention_panels=0)
        self.assertFalse((self.workdir / "teacher").exists())
        self.assertNotIn("train_clean_accuracy", row)
        self.assertGreater(row["train_adversarial_accuracy"], 0)
        self.assertNotIn("validation_attention_shift", row)
        tags = {tag for tag, _ in runs.events(self.workdir / "tensorboard")}
        self.assertFalse([tag for tag in tags if "attention" in tag])


@pytest.mark.early
class KillTest(RunsTest):
    @pytest.mark.long
    def test_killed_at_many_random_moments(self):
        self._kill_and_finish(15)

    def _kill_and_finish(self, times):
        """SIGKILL in start-up, in an epoch or inside a checkpoint's writing."""
        words = runs.command(
            self.workdir,
            f"--teacher={self.done / 'teacher'}",
            **runs.AVERAGED,
        )
        generator = np.random.default_rng()
        # Checkpoints appear at every one of the 10 steps.
        moments = np.sort(generator.integers(0, 10, times)).tolist()
        delays = generator.uniform(0, 0.6, times).round(3).tolist()
        print("killed at", list(zip(moments, delays, strict=True)))
        killed = 0
        for moment, delay in zip(moments, delays, strict=True):
            killed += runs.kill_at(words, self.workdir, moment, delay)
        self.assertGreater(killed, 0)
        status, output = runs.finish(words)
        self.assertEqual(status, 0, output)
        self._assert_same_weights(self.workdir, self.done)
        here = run_folder.read_metrics(self.workdir)
        there = run_folder.read_metrics(self.done)
        for row in (*here, *there):
            del row["seconds"]
        self.assertEqual(here, there)
        # However often a step was repeated, it is written once.
        events = runs.events(self.workdir / "tensorboard")
        self.assertEqual(
            events.keys(), runs.events(self.done / "tensorboard").keys()
        )
        self.assertEqual({len(values) for values in events.values()}, {1})

    @pytest.mark.long
    def test_a_teacher_killed_in_its_training_goes_on_too(self):
        words = runs.command(self.workdir, **runs.AVERAGED)
        self.assertTrue(runs.kill_at(words, self.workdir / "teacher", 2, 0.01))
        self.assertTrue(runs.kill_at(words, self.workdir, 1, 0.01))
        status, output = runs.finish(words)
        self.assertEqual(status, 0, output)
        self._assert_same_weights(self.workdir, self.done)


@pytest.mark.early
class InterruptTest(RunsTest):
    def test_ctrl_c_says_how_to_go_on(self):
        words = runs.command(
            self.workdir, "--config=configs/standard.py", num_epochs=100
        )
        process = subprocess.Popen(
            words,
            cwd=runs.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell's background jobs, and what they start, ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        for line in process.stdout:
            if " 1/100 " in line:  # the first epoch's row
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertIn("same command goes on", rest)
        self.assertNotIn("Traceback", rest)


def _raise_first_score(workdir, steps_left):
    """Rewrites a run's checkpoints, so that its first epoch was perfect.

    Args:
      workdir: the run folder.
      steps_left: how many of the newest checkpoints go.
    """
    paths = sorted(workdir.glob("checkpoints/step-*.npz"))
    for newest in paths[len(paths) - steps_left :]:
        newest.unlink()
    path = paths[-1 - steps_left]
    with np.load(path) as stored:
        arrays = dict(stored)
    facts = json.loads(str(arrays["facts"]))
    assert facts["step"] == 10 - steps_left
    facts["epochs"][0]["validation_pgd_accuracy"] = facts["best"] = 1.0
    arrays["facts"] = json.dumps(facts)
    np.savez(path, **arrays)


@pytest.mark.early
class GuardOfFinishedTest(RunsTest):
    def test_a_run_killed_before_its_guard_acted_ends_in_the_same_way(self):
        shutil.copytree(self.done, self.workdir)
        _raise_first_score(self.workdir, steps_left=0)
        settings = {"teacher": "", **runs.AVERAGED, "attention_panels": 0}
        with self.assertRaisesRegex(TrainingError, "in epoch 2, after 100.0 %"):
            self._train(**settings, guard="stop")
        results = self._train(**settings, guard="rollback")
        self.assertEqual(results["num_images"], 360)
        best = _arrays(self.workdir, "best")
        for name in ("last", "ema"):
            self.assertTrue(_are_equal(best, _arrays(self.workdir, name)))
        last = run_folder.read_metrics(self.workdir)[-1]
        self.assertEqual((last["epoch"], last["rolled_back_to"]), (2, 1))


@pytest.mark.long
class GuardTest(RunsTest):
    """One-step training; an epoch 1 that was better makes epoch 2 a collapse.

    The run is real, and ends one step short; then the record of its first
    epoch is raised to 100 %.
    """

    def setUp(self):
        super().setUp()
        self._fast(guard="off")
        _raise_first_score(self.workdir, steps_left=1)
        for name in ("results.json", "ledger.jsonl"):
            (self.workdir / name).unlink(missing_ok=True)

    def _fast(self, **overrides):
        return self._train(
            "fast", attack__num_steps=2, **runs.AVERAGED, **overrides
        )

    def test_rollback_ends_with_the_best_weights(self):
        results = self._fast(guard="rollback")
        self.assertLen(run_folder.read_metrics(self.workdir), 2)
        best = _arrays(self.workdir, "best")
        for name in ("last", "ema"):
            self.assertTrue(_are_equal(best, _arrays(self.workdir, name)))
        self.assertEqual(results["num_images"], 360)
        # Done is done.
        self.assertEqual(self._fast(guard="rollback"), results)

    def test_stop_is_an_error_until_it_is_answered(self):
        with self.assertRaisesRegex(
            TrainingError, r"collapsed: .* in epoch 2, after 100.0 %.*=off"
        ):
            self._fast(guard="stop")
        self.assertLen(run_folder.read_metrics(self.workdir), 2)
        self.assertFalse((self.workdir / "results.json").exists())
        # Again, and by the recipe's own choice.
        with self.assertRaises(TrainingError):
            self._fast()
        self.assertEqual(self._fast(guard="off")["num_images"], 360)


class RefusalTest(RunsTest):
    def test_another_config_in_the_workdir(self):
        with self.assertRaisesRegex(
            InputError, r"another --workdir.*seed=1 here, 0 there"
        ):
            training_run.train_and_evaluate(
                runs.config(**runs.AVERAGED, seed=1), self.done
            )

    @parameterized.parameters(
        ({"teacher": "/nowhere"}, "run folder with config.json"),
        ({"backbone__width": 2}, "a teacher of.*width=2 here, 1 there"),
        ({"backbone__name": "madry_wide_resnet"}, "a teacher of.*name="),
        ({"num_validation": 160}, "a teacher of.*num_validation"),
        ({"dataset": "cifar100"}, "a teacher of.*dataset"),
        ({"defense__layers": ("pool",)}, "spatial map.*features.*'pool'"),
        ({"batch_size": 321}, "batch_size from 1.*to 320"),
    )
    def test_what_does_not_fit(self, overrides, message):
        with self.assertRaisesRegex(InputError, message):
            self._train(**overrides)
        self.assertFalse(self.workdir.exists())

    def test_untrained_teacher(self):
        empty = self.base / "untrained"
        run_folder.create(empty)
        shutil.copy(self.done / "teacher/config.json", empty)
        with self.assertRaisesRegex(InputError, "a trained teacher"):
            self._train(teacher=str(empty))
        self.assertFalse(self.workdir.exists())

    def test_unwritable_workdir(self):
        blocked = self.base / "a_file"
        blocked.write_text("")
        with self.assertRaisesRegex(InputError, "can be written"):
            self._train(workdir=blocked / "run")

    @parameterized.parameters(("", {}), ("teacher", {"teacher": ""}))
    def test_another_process_trains_there(self, folder, overrides):
        """Or in the folder of the teacher, which is trained first."""
        held = self.workdir / folder / checkpoints.FOLDER
        with (
            runs.held_elsewhere(held),
            self.assertRaisesRegex(run_folder.Busy, "no other process"),
        ):
            self._train(**overrides)
        self.assertEmpty(list(held.glob("step-*")))
        self.assertFalse((held.parent / "config.json").exists())


class FailureTest(RunsTest):
    def test_a_loss_that_is_not_finite_names_the_step(self):
        with self.assertRaisesRegex(
            FloatingPointError, r"finite.*step \d+|step \d+.*NaN"
        ):
            self._train("at", optimizer__learning_rate=1e30)
        newest = checkpoints.read(self.workdir, [])
        # Whatever was kept is from before.
        self.assertTrue(newest is None or newest[0]["step"] < 10)

    @pytest.mark.long
    def test_a_full_disk_is_one_sentence(self):
        """A limit on file sizes stands in for the disk."""

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        words = runs.command(self.workdir, "--config=configs/at.py")
        status, output = runs.finish(words, preexec_fn=limit)
        self.assertEqual(status, 1, output)
        self.assertRegex(output, "(?m)^error: could not write .*/")
        self.assertNotIn("Traceback", output)
        # Nothing half-written is left, and with room again it goes on.
        hidden = {path.name for path in self.workdir.rglob(".*")}
        self.assertEmpty(hidden - {".lock"})
        status, output = runs.finish(words)
        self.assertEqual(status, 0, output)
