"""Tables end to end on runs of seconds, shared, stopped and resumed."""

import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from atat_tf.attacks import columns
from atat_tf.errors import TrainingError
from atat_tf.evaluation import ledger, opening
from atat_tf.reports.tables import catalogue, reproduction
from atat_tf.reports.tables import records as table_records
from atat_tf.reports.tables import shift as shift_measurement
from atat_tf.runs import build
from atat_tf.runs import folder as run_folder
from atat_tf.training import run as training_run
from tests.reports.tables import table_runs
from tests.support import commands, runs

_SCALE = table_runs.SCALE
_TABLE = catalogue.Table(
    "1",
    "Table 1: CIFAR-10",
    "cifar10",
    {"standard": "standard", "at": "at", "atat": "atat"},
    # AutoAttack's place is taken by one of its steps.
    ("clean", "fgsm", "standard"),
)


def _one_step_instead_of_autoattack(config, names=None, num_classes=10):
    ball = config.attack.epsilon, config.attack.step_size
    names = config.evaluation.attacks if names is None else names
    return {
        name: columns.column(
            "apgd_ce1" if name == "standard" else name, *ball, num_classes
        )
        for name in names
    }


@pytest.mark.long
class TwoProcessesTest(tf.test.TestCase):
    def test_each_row_is_run_once_and_both_have_the_table(self):
        folder = table_runs.temporary_folder(self)
        source = (
            "import sys; from atat_tf.reports.tables import reproduction; "
            "from tests.reports.tables import table_runs as t; "
            "reproduction.reproduce(t.TABLE, t.SCALE, 1, sys.argv[1])"
        )
        words = [sys.executable, "-c", source, str(folder)]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            finished = list(pool.map(runs.finish, [words] * 2))
        for status, text in finished:
            self.assertEqual(status, 0, text)
            self.assertNotIn("not run", text)
        both = "".join(text for _, text in finished)
        for row in table_runs.TABLE.rows:
            workdir = folder / "smoke/digits" / row / "seed0"
            started = both.replace("\n", "").count(f"seed 0: {workdir}")
            self.assertEqual(started, 1, both)


@pytest.mark.long
class EndToEndTest(tf.test.TestCase):
    """One table from nothing, beside another process, stopped and resumed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.base = pathlib.Path(tempfile.mkdtemp())
        cls.page = cls.base / "page.md"
        name = "table 1, scale smoke"
        cls.page.write_text(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n")
        cls.trained = []
        with mock.patch.object(
            build, "build_columns", _one_step_instead_of_autoattack
        ):
            cls._wait_for_the_teacher_and_stop_at_its_student()
            cls.partial = (cls.base / "smoke/table1.md").read_text()
            with cls._watched():
                cls.results = cls._reproduce()
                with mock.patch.object(opening, "open_run", None):
                    cls.repeated = cls._reproduce(page=cls.page)

    @classmethod
    def _reproduce(cls, table=_TABLE, **kwargs):
        return reproduction.reproduce(
            table, _SCALE, 1, cls.base, command="python -m x", **kwargs
        )

    @classmethod
    def _watched(cls, stop_at=None):
        real = training_run.train_and_evaluate

        def train(config, *arguments):
            if config.defense.name == stop_at:
                raise KeyboardInterrupt
            cls.trained.append(config.defense.name)
            return real(config, *arguments)

        return mock.patch.object(training_run, "train_and_evaluate", train)

    @classmethod
    def _wait_for_the_teacher_and_stop_at_its_student(cls):
        teacher = cls.base / "smoke/digits/standard/seed0"
        with runs.held_elsewhere(teacher) as other:

            def wait(seconds):
                cls.trained.append("waited")
                other.kill()
                other.wait()

            try:
                with (
                    cls._watched(stop_at="atat"),
                    mock.patch.object(reproduction.time, "sleep", wait),
                ):
                    cls._reproduce()
            except KeyboardInterrupt:
                return
        raise AssertionError("it was not stopped")

    def test_a_row_is_trained_once_and_waits_for_its_teacher_alone(self):
        self.assertEqual(self.trained, ["at", "waited", "standard", "atat"])
        self.assertEqual(self.repeated, self.results)

    def test_the_partial_table_says_not_run(self):
        self.assertIn(f"| ATAT, λ = (1, 1) {'| not run ' * 3}|", self.partial)
        self.assertNotRegex(self.partial, r"\| Standard .*not run")

    def test_cells_are_the_ledgers(self):
        """Counted from the text of the ledger, without the library."""
        workdir = self.base / "smoke/digits/atat/seed0"
        broken = collections.defaultdict(dict)
        for text in (workdir / ledger.FILE).read_text().splitlines():
            line = json.loads(text)
            broken[line["attack"]][line["index"]] = line["broken"]
        right = [i for i, value in broken["none"].items() if not value]
        cells = self._line("atat")["cells"]
        self.assertEqual(cells["clean"]["standing"], [len(right)])
        (fgsm,) = (x for x in broken if "num_steps=1," in x and "Linf" in x)
        standing = [i for i in right if not broken[fgsm][i]]
        self.assertEqual(cells["fgsm"]["standing"], [len(standing)])
        self.assertEqual(cells["fgsm"]["num_images"], 360)
        self.assertEqual(cells["standard"]["num_images"], 4)

    def _line(self, row):
        return next(x for x in self.results["lines"] if x["row"] == row)

    def test_the_student_has_the_rows_teacher(self):
        folder = self.base / "smoke/digits"
        config = run_folder.read_json(folder / "atat/seed0/config.json")
        self.assertEqual(config["teacher"], str(folder / "standard/seed0"))
        self.assertFalse((folder / "atat/seed0/teacher").exists())

    def test_files_and_page(self):
        folder = self.base / "smoke"
        written = (folder / "table1.md").read_text()
        self.assertIn(written, self.page.read_text())
        self.assertIn("python -m x", written)
        self.assertEqual(
            run_folder.read_json(folder / "table1.json"), self.results
        )
        self.assertRegex(written, "cores? of ")

    def test_batch_statistics(self):
        """The protocol table's way, on the network that is there."""
        table = dataclasses.replace(
            _TABLE,
            name="protocol",
            rows={"standard": "standard"},
            columns=("clean", "fgsm"),
            bn_modes=("frozen", "batch"),
        )
        results = self._reproduce(table)
        frozen, batch = (line["cells"] for line in results["lines"])
        before = self._line("standard")["cells"]
        self.assertEqual(frozen["fgsm"], before["fgsm"])
        self.assertEqual(batch["fgsm"]["num_images"], 360)
        (more,), (fewer,) = (
            cells["clean"]["standing"] for cells in (batch, frozen)
        )
        self.assertNotEqual(more, fewer)
        test, _ = results["tests"]
        self.assertEqual(test["only_first"] - test["only_second"], more - fewer)

    def test_a_row_that_fails_does_not_stop_the_others(self):
        table = dataclasses.replace(
            _TABLE,
            name="ablation",
            rows={"madry": "at", "standard": "standard"},
            columns=("clean", "fgsm"),
        )
        diverged = mock.patch.object(
            training_run,
            "train_and_evaluate",
            side_effect=FloatingPointError("a finite loss"),
        )
        with (
            diverged,
            self.assertRaisesRegex(
                TrainingError, "only.*, seed 0 failed: a finite loss"
            ),
        ):
            self._reproduce(table)
        results = run_folder.read_json(self.base / "smoke/ablation.json")
        madry, standard = results["lines"]
        self.assertIsNone(madry["cells"]["clean"])
        self.assertIsNotNone(standard["cells"]["clean"])

    def test_shift(self):
        """The whole way: images attacked anew, maps, ledger's verdicts."""
        table = dataclasses.replace(
            catalogue.table("shift"),
            rows={"standard": ""},
        )
        results = self._reproduce(table)
        (shift,) = results["shifts"]
        workdir = self.base / "smoke/digits/standard/seed0"
        measured = shift_measurement.read(workdir)
        self.assertEqual(measured["num_images"], 40)
        stands = table_records.standing(workdir, "frozen")
        right = np.flatnonzero(stands["clean"][:40])
        self.assertAllEqual(measured["indices"], right)
        self.assertEqual(
            shift["num_broken"], np.sum(~stands["pgd20"][:40][right])
        )
        self.assertAllGreaterEqual(measured["distance"], 0)
        # FGSM's and AutoAttack's columns are still there.
        self.assertContainsSubset({"fgsm", "standard"}, stands)


class HardwareTest(tf.test.TestCase):
    def test_the_cores_that_the_process_may_use(self):
        count = len(os.sched_getaffinity(0))
        words = reproduction.hardware()
        self.assertRegex(words, rf"^{count} cores? of [^ ]")
        gpus = tf.config.list_physical_devices("GPU")
        self.assertLen(words.split(", "), 1 + len(gpus))


class NoDataTest(tf.test.TestCase):
    def test_table_2_says_so_and_makes_no_folder(self):
        folder = table_runs.temporary_folder(self)
        words = ["--table=2", "--rows=standard,at,alp,atat"]
        words += [f"--data_dir={folder}", f"--workdir={folder}/runs"]
        with mock.patch.dict(os.environ, {"no_proxy": "*"}):
            status, text = commands.run("atat_tf.reproduce", *words)
        self.assertEqual(status, 1)
        self.assertRegex(text, "Eq. 6 alone .*not run: no data")
        self.assertRegex(text.splitlines()[-1], "error: .*data set 'cifar100'")
        self.assertFalse((folder / "runs").exists())
