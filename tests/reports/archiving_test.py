"""The archive of a run: small, whole, and as good as the run it is of."""

import shutil

from absl.testing import absltest

from atat_tf.errors import InputError
from atat_tf.evaluation import evaluate_run, ledger, opening
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers
from atat_tf.reports import archiving, model_card
from atat_tf.reports.figures import networks
from atat_tf.reports.tables import records as table_records
from atat_tf.runs import folder as run_folder
from tests.reports.page import report_runs
from tests.reports.tables import table_runs
from tests.support import untrained_runs


class ArchivingTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = table_runs.temporary_folder(self)
        self.run = self.folder / "run"
        shutil.copytree(report_runs.evaluated(), self.run)
        for path in (self.run, self.run / "teacher"):
            rows = [{"epoch": 1, "validation_clean_accuracy": 0.5}]
            run_folder.write_metrics(path, rows * 3)
            values = run_folder.read_json(path / run_folder.CONFIG)
            values["num_epochs"] = 3
            run_folder.write_json(path / run_folder.CONFIG, values)
        (self.run / "checkpoints").mkdir()
        (self.run / "model.keras").write_bytes(b"of a run with --model")
        (self.run / "last.weights.h5").write_bytes(b"large")

    def test_what_is_kept_and_what_is_left(self):
        output = self.folder / "new" / "archive"
        sizes = archiving.archive(self.run, output)
        kept = {
            "config.json",
            "metrics.jsonl",
            "results.json",
            "best.weights.h5",
            "last.weights.h5",
            "model.keras",
            "ledger.jsonl.xz",
            "MODEL_CARD.md",
            "teacher/config.json",
            "teacher/metrics.jsonl",
            "teacher/best.weights.h5",
            "teacher/MODEL_CARD.md",
        }
        self.assertEqual(set(sizes), kept)
        there = {p for p in output.rglob("*") if p.is_file()}
        self.assertEqual(there, {output / name for name in kept})
        for name, size in sizes.items():
            self.assertEqual((output / name).stat().st_size, size)

    def test_its_evaluation_takes_every_verdict_from_the_packed_ledger(self):
        output = self.folder / "archive"
        archiving.archive(self.run, output)
        before = run_folder.read_json(self.run / run_folder.RESULTS)
        (output / run_folder.RESULTS).unlink()
        evaluate_run.evaluate_run(
            output, list(report_runs.COLUMNS), report_runs.NUM_IMAGES
        )
        after = run_folder.read_json(output / run_folder.RESULTS)
        self.assertEqual(after["accuracy"], before["accuracy"])
        self.assertFalse((output / ledger.FILE).exists())

    def test_in_place_and_again(self):
        lines = (self.run / ledger.FILE).read_bytes()
        first = archiving.archive(self.run, self.run)
        self.assertEqual(archiving.archive(self.run, self.run), first)
        self.assertEqual((self.run / ledger.FILE).read_bytes(), lines)
        self.assertTrue((self.run / "last.weights.h5").exists())

    def test_the_card_says_which_figure_is_an_estimate(self):
        results = run_folder.read_json(self.run / run_folder.RESULTS)
        results["estimates"] = {
            "autoattack": {
                "accuracy": 0.352,
                "low": 0.342,
                "high": 0.36,
                "num_images": 10000,
                "num_standing": 3830,
                "num_sampled": 454,
                "num_broken": 61,
            }
        }
        run_folder.write_json(self.run / run_folder.RESULTS, results)
        card = " ".join(model_card.text(self.run).split())
        self.assertIn("autoattack is an estimate, about 35.2 %", card)
        self.assertIn("34.2 to 36.0 %", card)
        self.assertIn("454 of the 3,830 that stood, with small", card)

    def test_the_card_has_the_figures_of_the_results(self):
        archiving.archive(self.run, self.run)
        card = (self.run / model_card.FILE).read_text()
        accuracy = run_folder.read_json(self.run / "results.json")["accuracy"]
        for name, column in (("clean", "clean"), ("fgsm", "fgsm@0.5/255")):
            right = round(report_runs.NUM_IMAGES * accuracy[column])
            percent = f"{100 * accuracy[column]:.2f}"
            self.assertRegex(
                card, rf"(?i)\| {name}.* \| 40 \| {right} \| {percent} \|"
            )
        self.assertIn("ε = 8/255", card)
        card = (self.run / "teacher" / model_card.FILE).read_text()
        self.assertIn("Not run.", card)

    def test_the_card_counts_a_tables_columns_in_the_ledger(self):
        mark = opening.open_run(self.run, 40).ledger.identity
        part = {"num_images": 40, "identity": mark, "columns": {"clean": []}}
        facts = {"data": "some", "commit": "c0ffee", "hardware": "an abacus"}
        table_records.add(self.run, "frozen", [part], facts)
        sizes = archiving.archive(self.run, self.folder / "archive")
        self.assertIn("evaluation_frozen.json", sizes)
        card = (self.folder / "archive" / model_card.FILE).read_text()
        self.assertIn("Counted from the ledger", card)
        self.assertIn("commit c0ffee; an abacus.", card)
        self.assertIn(mark["weights"], card)
        self.assertNotIn("FGSM", card)

    def test_a_card_names_the_columns_beyond_the_threat_model(self):
        results = run_folder.read_json(self.run / run_folder.RESULTS)
        results["accuracy"]["pgd20@16/255"] = 0.0
        results["attacks"]["pgd20@16/255"] = ["A"]
        run_folder.write_json(self.run / run_folder.RESULTS, results)
        self.assertIn(
            "by at most ε = 8/255, but for pgd20@16/255.",
            model_card.text(self.run),
        )

    def test_a_card_with_an_estimate_alone_shows_it(self):
        results = run_folder.read_json(self.run / run_folder.RESULTS)
        found = {"accuracy": 0.3, "low": 0.2, "high": 0.4, "num_images": 40}
        found |= {"num_standing": 20, "num_sampled": 10, "num_broken": 2}
        results |= {"accuracy": {}, "estimates": {"autoattack": found}}
        run_folder.write_json(self.run / run_folder.RESULTS, results)
        card = model_card.text(self.run)
        self.assertIn("autoattack is an estimate, about 30.0 %", card)
        self.assertIn("From results.json", card)
        self.assertNotIn("Not run.", card)

    def test_the_card_names_the_weights_that_the_figures_are_of(self):
        results = run_folder.read_json(self.run / run_folder.RESULTS)
        for weights in ("best", "last"):
            results["weights"] = weights
            run_folder.write_json(self.run / run_folder.RESULTS, results)
            card = model_card.text(self.run)
            self.assertIn(f"| weights | {weights}, epoch", card)

    def test_figures_of_weights_that_have_changed_are_refused(self):
        weights = run_folder.weights_path("", "best")
        shutil.copy(self.run / "teacher" / weights, self.run / weights)
        with self.assertRaisesRegex(InputError, "evaluate again.*sha256"):
            archiving.archive(self.run, self.folder / "archive")
        self.assertFalse((self.folder / "archive").exists())

    def test_so_are_those_of_a_teacher_before_anything_is_written(self):
        weights = run_folder.weights_path("", "best")
        shutil.copy(self.run / weights, self.run / "teacher" / weights)
        results = {**run_folder.read_json(self.run / run_folder.RESULTS)}
        results["weights_digest"] = "sha256:0"
        run_folder.write_json(
            self.run / "teacher" / run_folder.RESULTS, results
        )
        output = self.folder / "refused"
        with self.assertRaisesRegex(InputError, "evaluate again"):
            archiving.archive(self.run, output)
        self.assertFalse(output.exists())

    def test_figures_of_weights_that_are_gone_are_refused(self):
        results = run_folder.read_json(self.run / run_folder.RESULTS)
        results["weights"] = "ema"
        run_folder.write_json(self.run / run_folder.RESULTS, results)
        with self.assertRaisesRegex(InputError, "weights .*ema"):
            archiving.archive(self.run, self.folder / "refused")

    def test_a_run_that_is_not_over_is_refused(self):
        run_folder.write_metrics(self.run, [{"epoch": 1}])
        (self.run / run_folder.RESULTS).unlink()
        with self.assertRaisesRegex(InputError, "3 epochs are over.*epochs=1"):
            archiving.archive(self.run, self.folder / "archive")
        self.assertFalse((self.folder / "archive").exists())

    def test_a_served_model_has_no_weights_to_archive(self):
        values = run_folder.read_json(self.run / run_folder.CONFIG)
        values["server"] = "localhost:8500/model"
        run_folder.write_json(self.run / run_folder.CONFIG, values)
        with self.assertRaisesRegex(InputError, "served model.*8500/model"):
            archiving.archive(self.run, self.folder / "archive")
        self.assertFalse((self.folder / "archive").exists())

    def test_another_runs_archive_is_not_overwritten(self):
        output = run_folder.create(self.folder / "archive")
        run_folder.write_json(output / "config.json", {"seed": 1})
        with self.assertRaisesRegex(InputError, "archive of the same run"):
            archiving.archive(self.run, output)
        self.assertEqual([p.name for p in output.iterdir()], ["config.json"])


def test_averaged_weights_are_the_ones_that_a_run_with_them_means(tmp_path):
    """Everywhere: what is loaded, evaluated, looked at and archived."""
    run = untrained_runs.write(tmp_path / "run", "at", 0)
    other = untrained_runs.write(tmp_path / "other", "at", 1)
    for name in ("best.weights.h5", "ema.weights.h5"):
        source = other if name.startswith("ema") else run
        shutil.copy(source / "best.weights.h5", run / f"kept.{name}")
    for name in ("best.weights.h5", "ema.weights.h5"):
        (run / f"kept.{name}").rename(run / name)
    values = run_folder.read_json(run / run_folder.CONFIG)
    values["optimizer"]["ema"] = 0.9
    values["evaluation"]["weights"] = "ema"
    values["num_epochs"] = 1
    run_folder.write_json(run / run_folder.CONFIG, values)
    run_folder.write_metrics(
        run, [{"epoch": 1, "validation_pgd_accuracy": 0.5}]
    )
    archiving.archive(run, tmp_path / "archive")
    expected = classifiers.weights_digest(Run(other).classifier())
    for folder in (run, tmp_path / "archive"):
        opened = opening.open_run(folder, 4)
        assert opened.ledger.identity["weights"] == expected
        (network,) = networks.load_all([str(folder)])
        found = classifiers.weights_digest(network.classifier)
        assert found == expected
    # Best weights are there for who asks for them.
    best = Run(tmp_path / "archive").classifier("best")
    assert classifiers.weights_digest(best) != expected


def test_a_card_names_no_folder_of_one_machine(tmp_path, monkeypatch):
    run = untrained_runs.write(tmp_path / "kept" / "run", "at", 0)
    run_folder.write_metrics(
        run, [{"epoch": 1, "validation_pgd_accuracy": 0.5}]
    )
    assert "--workdir=run " in model_card.text(run)
    monkeypatch.chdir(tmp_path)
    assert "--workdir=kept/run " in model_card.text(run)
    assert str(tmp_path) not in model_card.text(run)
