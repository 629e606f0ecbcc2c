"""Plans; tables end to end on runs of seconds, shared, stopped and resumed."""

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
from absl.testing import parameterized

from atat_tf.attacks import columns
from atat_tf.errors import InputError, TrainingError
from atat_tf.evaluation import evaluate_run, ledger
from atat_tf.reports.tables import catalogue, reproduction
from atat_tf.reports.tables import plan as table_plan
from atat_tf.reports.tables import records as table_records
from atat_tf.reports.tables import shift as shift_measurement
from atat_tf.runs import build
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
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


class PlanTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.workdir = pathlib.Path(self.get_temp_dir()) / self.id()

    def _plan(self, table="1", seeds=1, rows=None, scale=_SCALE):
        if isinstance(table, str):
            table = catalogue.table(table)
        return table_plan.build(table, scale, seeds, self.workdir, None, rows)

    def test_a_seeds_rows_share_its_teacher(self):
        plan = self._plan(seeds=2, rows=["standard", "at", "atat"])
        keys = ("standard", "at", "atat")
        self.assertEqual(
            [(job.row.key, job.seed) for job in plan.jobs],
            [(key, seed) for seed in (0, 1) for key in keys],
        )
        standard, at, atat = plan.jobs[3:]
        self.assertEqual(atat.config.teacher, str(standard.workdir))
        self.assertEqual(at.config.teacher, "")
        self.assertEqual({job.config.seed for job in plan.jobs[3:]}, {1})

    def test_a_teacher_that_is_no_row_is_trained_and_not_a_line(self):
        teacher, atat = self._plan(rows=["atat"]).jobs
        self.assertFalse(teacher.in_table)
        self.assertTrue(atat.in_table)
        # It is the very network of the Standard row.
        (standard,) = self._plan(rows=["standard"]).jobs
        self.assertEqual(teacher.config, standard.config)
        self.assertEqual(teacher.workdir, standard.workdir)

    def test_tables_share_rows(self):
        first = {j.row.key: j for j in self._plan(rows=["atat"]).jobs}
        second = {
            j.row.key: j
            for j in self._plan("ablation", rows=["atat", "lambda_0_1"]).jobs
        }
        self.assertEqual(first["atat"].workdir, second["atat"].workdir)
        changed = second["lambda_0_1"].config
        self.assertEqual(changed.defense.attention_weight, 0)
        self.assertEqual(
            run_config.differences(
                changed.defense.to_dict(),
                first["atat"].config.defense.to_dict(),
            ),
            ["attention_weight=0.0 here, 1.0 there"],
        )

    def test_epochs(self):
        """ATAT: 3 epochs of 21 passes (7 attack gradients of 2, an update of
        3 on twice the images, the teacher's 1), its teacher's 8 of 3: 87.
        An epoch of AT has 20, so 5 epochs are 100, and 4 would be 80.
        The Standard row is the teacher.
        """
        for table, row, epochs in (
            ("ablation", "at_equal_cost", 5),
            ("1", "standard", 8),
        ):
            scale = catalogue.scale("tiny")
            (job,) = self._plan(table, rows=[row], scale=scale).jobs
            self.assertEqual(job.config.num_epochs, epochs)

    @parameterized.parameters("tiny", "small", "paper")
    def test_every_row_has_a_valid_config(self, scale):
        """Except rows whose recipe is not there, which are named."""
        for table in ("1", "2", "ablation", "protocol", "shift"):
            of = catalogue.table(table)
            able = [
                row
                for row in catalogue.chosen_rows(of)
                if table_plan.recipe(catalogue.scale(scale), row) is not None
            ]
            self.assertGreaterEqual(len(able), 2)
            for row in able:
                for job in table_plan.jobs_of_row(
                    row, of, catalogue.scale(scale), 0, "nowhere"
                ):
                    run_checks.validate(job.config)
                    wide = job.config.backbone.depth == 34
                    self.assertEqual(wide, scale == "paper")

    def test_rows_without_a_recipe_are_named_with_those_that_can_run(self):
        table = dataclasses.replace(_TABLE, rows={**_TABLE.rows, "lost": ""})
        lost = catalogue.Row("lost", "Lost", "no_such_recipe")
        with (
            mock.patch.dict(catalogue.ROWS, {"lost": lost}),
            self.assertRaisesRegex(
                InputError, "none for lost; .*--rows=standard,at,atat"
            ),
        ):
            self._plan(table)

    def test_nothing_is_made_by_a_plan_that_cannot_run(self):
        bad = dataclasses.replace(_SCALE, changes={"batch_size": 0})
        for keywords, message in (
            ({"seeds": 0}, "seeds >= 1. Received: seeds=0"),
            ({"rows": ["atta"]}, "Did you mean 'atat'"),
            ({"rows": ["at"], "scale": bad}, "batch_size >= 1"),
        ):
            with self.assertRaisesRegex(InputError, message):
                self._plan(**keywords)
        self.assertFalse(self.workdir.exists())

    def test_a_run_of_another_config_stands_in_the_way(self):
        (job,) = self._plan(rows=["at"]).jobs
        run_folder.create(job.workdir)
        config = job.config.to_dict()
        config["num_epochs"] = 99
        run_folder.write_json(job.workdir / "config.json", config)
        with self.assertRaisesRegex(
            InputError, "another --workdir.*num_epochs=1 here, 99 there"
        ):
            self._plan(rows=["at"])

    def test_what_is_left_in_forward_passes(self):
        plan = self._plan(_TABLE)
        standard, _, atat = plan.jobs
        # Clean and FGSM are 1 + 1 + 2 on 360 images; AutoAttack is on 4
        # images 1 + 200 + 9 · 200 + 9 · 300 + 5,000.
        evaluation = {"evaluate frozen": 360 * 4 + 4 * 9701}
        left = {"train 1 epochs": 320 * 3, **evaluation}
        self.assertEqual(plan.left(standard), left)
        # ATAT's step with one attack step: 2 + 6 + 1.
        left = {"train 1 epochs": 320 * 9, **evaluation}
        self.assertEqual(plan.left(atat), left)


class CommandTest(parameterized.TestCase, tf.test.TestCase):
    def test_a_dry_run_shows_what_is_done_and_left(self):
        folder = table_runs.temporary_folder(self)
        words = ["--table=1", "--dry_run", "--rows=standard"]
        words.append(f"--workdir={folder}")
        status, text = commands.run("atat_tf.reproduce", *words)
        self.assertEqual(status, 0, text)
        self.assertRegex(text, "seed 0 .* 0 of 8 .*train 8 epochs")
        self.assertEmpty(list(folder.iterdir()))
        plan = table_plan.build(
            catalogue.table("1"), catalogue.scale("tiny"), 1, folder, None
        )
        workdir = run_folder.create(plan.jobs[0].workdir)
        run_folder.write_metrics(workdir, [{"epoch": 1}] * 3)
        _, text = commands.run("atat_tf.reproduce", *words)
        self.assertRegex(text, "seed 0 .* 3 of 8 .*train 5 epochs")

    @parameterized.parameters(
        ([], "--table=1, 2, ablation"),
        (["--table=3"], "a table among"),
        (["--table=1", "--scale=tinny"], "Did you mean 'tiny'"),
        (["--table=1", "--dataset=digits"], "no --dataset: .*--scale"),
        (["--table=1", "--page=nowhere.md"], "an existing page"),
    )
    def test_refusals_are_one_sentence(self, words, message):
        status, text = commands.run("atat_tf.reproduce", *words)
        self.assertEqual(status, 1)
        self.assertRegex(text, f"^error: Expected .*{message}")
        self.assertLen(text.splitlines(), 1)


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
                with mock.patch.object(evaluate_run, "open_run", None):
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


class NoDataTest(tf.test.TestCase):
    def test_table_2_says_so_and_makes_no_folder(self):
        folder = table_runs.temporary_folder(self)
        words = ["--table=2", "--rows=standard,at,alp,atat"]
        words += [f"--data_dir={folder}", f"--workdir={folder}/runs"]
        with mock.patch.dict(os.environ, {"no_proxy": "*"}):
            status, text = commands.run("atat_tf.reproduce", *words)
        self.assertEqual(status, 1)
        self.assertRegex(text, "ALP .*not run: no data")
        self.assertRegex(text.splitlines()[-1], "error: .*data set 'cifar100'")
        self.assertFalse((folder / "runs").exists())


if __name__ == "__main__":
    tf.test.main()
