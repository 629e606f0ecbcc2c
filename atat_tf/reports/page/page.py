"""Writes the report of a run as one HTML page that needs nothing else.

Figures come from the files of the run folder, pictures from its weights and
the test images.
"""

import importlib.resources
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
import numpy as np

from atat_tf import __version__
from atat_tf.attacks import columns
from atat_tf.data import datasets
from atat_tf.errors import expect
from atat_tf.evaluation import opening, printed_table
from atat_tf.evaluation.attention import explanations
from atat_tf.evaluation.run import Run
from atat_tf.reports.page import curves as report_curves
from atat_tf.reports.page import data as report_data
from atat_tf.reports.page import measured
from atat_tf.reports.page import pictures as report_pictures
from atat_tf.reports.page import strip as report_strip
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.runs import naming

_TEMPLATE = "page.html.jinja"
_STRIP_IMAGES = 4


def page(
    workdir: str | pathlib.Path,
    data_dir: str | None = None,
    num_images: int = 64,
) -> str:
    """Returns the report's HTML.

    Args:
      workdir: the run folder.
      data_dir: of tensorflow-datasets.
      num_images: the first so many test images are shown; 0 shows none, and
        reads neither data nor weights. The page says where none can be shown,
        as of a served model.

    Raises:
      InputError: bad arguments, no run there, or no data.
    """
    expect(num_images >= 0, "num_images >= 0", num_images=num_images)
    run = Run(workdir, data_dir)
    undrawn = report_pictures.undrawn(run, num_images)
    pictures = None if undrawn else _Pictures(run, num_images)
    values = {
        # The run's ledger is read once for all, and then the teacher's.
        **_verdicts(run, pictures),
        **_facts(run),
        "pictures": pictures,
        "undrawn": undrawn,
    }
    return rendered(values)


def rendered(values: Mapping[str, Any], template: str = _TEMPLATE) -> str:
    """Returns a template with the values in it; every text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def on_data(run: Run) -> str:
    """Returns the data that a run is of, and that it was evaluated on."""
    trained = run.config.dataset
    evaluated = (run.results or {}).get("dataset", trained)
    if evaluated == trained:
        return trained
    return f"{trained}, evaluated on {evaluated}"


def _source(name):
    source = importlib.resources.files(__package__).joinpath(name)
    return source.read_text(encoding="utf-8")


def _facts(run):
    """Returns what the files say without the ledger."""
    rows, results, teacher = run.metrics, run.results, run.teacher
    config = run_config.to_dict(run.config)
    teacher_results = teacher.results if teacher else None
    weights = (results or {}).get("weights") or run.config.evaluation.weights
    title = naming.called(run.config)
    named = [(title, results)] if results else []
    if teacher_results:
        named.insert(
            0,
            (
                f"{naming.called(teacher.config)}, the teacher",
                teacher_results,
            ),
        )
    columns_of_run = measured.measured(run)
    checklist, checklist_is = measured.checklist_of(run)
    radii = {"this run": measured.accuracy_at_radii(run)}
    if results and teacher_results:
        if measured.radii_basis(run) == measured.radii_basis(teacher):
            radii["teacher"] = measured.accuracy_at_radii(teacher)
    return {
        "version": __version__,
        "cards": measured.headline(
            columns_of_run, measured.measured(teacher) if teacher else {}
        ),
        "checked": measured.checked(checklist),
        "checklist_is": checklist_is,
        "not_asked": measured.not_asked(checklist),
        "explanations": (checklist or {}).get("explanations", {}),
        "good": explanations.GOOD,
        "radii": report_curves.radius_panel(
            {title: found for title, (found, _) in radii.items()}
        ),
        "radii_on": measured.on_images(radii),
        "commit": run_folder.commit(),
        "workdir": str(run.folder),
        "method": title,
        "given": naming.given_as(run.config),
        "dataset": on_data(run),
        "config": report_data.flat(config),
        "panels": report_curves.panels(
            rows, run_folder.kept_epoch(rows, weights)
        ),
        "rows": rows,
        "kept": run_folder.kept_in_words(rows, weights),
        "table": printed_table.table(named) if named else None,
        "provenance": report_data.provenance(named),
        "results": results,
        "teacher": str(teacher.folder) if teacher else None,
        "teacher_results": teacher_results,
        "checklist": checklist,
        "commands": report_data.commands(
            run.folder,
            config,
            run.data_dir,
            results["num_images"] if results else None,
        ),
    }


def _verdicts(run, pictures):
    """Returns the columns, each shown image's verdicts, and the confusion."""
    lines, results = run.ledger, run.results
    is_stale = bool(pictures and pictures.is_stale)
    if is_stale:
        lines = None
    names = report_data.attacked_columns(results) if lines else []
    verdicts = [
        [
            report_data.verdict(lines, results["attacks"][column], index)
            for column in names
        ]
        for index in range(len(pictures.images) if pictures else 0)
    ]
    columns_of_run = measured.measured(run) if lines else {}
    name = measured.strongest([columns_of_run])
    confusion, by_class = None, []
    if name:
        column = columns_of_run[name]
        classes = run.class_names
        if results["dataset"] != run.config.dataset:
            classes = datasets.class_names(results["dataset"], run.data_dir)
        counts = report_data.confusion(
            lines, column.basis.attacks, column.count, len(classes)
        )
        by_class = measured.by_class(column, measured.truth(run), classes)
        if counts is not None:
            confusion = report_data.confusion_table(counts, classes)
    return {
        "is_stale": is_stale,
        "columns": names,
        "verdicts": verdicts,
        "strongest": name and measured.HEADLINE.get(name, name),
        "strongest_images": name and columns_of_run[name].count,
        "confusion": confusion,
        "classes": by_class,
    }


class _Pictures:
    """What the page shows of the test images.

    Attributes:
      class_names: k strings.
      column, attack: which attack made the attacked images, with parameters.
      images: a dictionary an image: words and data URIs.
      strip: the first of them that are right before the attack, with
        attention before and after it, at several radii.
      is_stale: whether results.json is of other weights than are shown.
      shifts: [(whose, mean shift, images)] of the student and the teacher.
    """

    def __init__(self, run, num_images):
        results = run.results or {}
        opened = opening.open_run(
            run.folder,
            num_images,
            weights=results.get("weights"),
            dataset_name=results.get("dataset"),
            data_dir=run.data_dir,
            seed=results.get("seed"),
        )
        self.is_stale = report_pictures.is_stale(opened)
        self.class_names = opened.dataset.class_names
        self.column, attack = report_pictures.shown_attack(
            opened, results.get("accuracy", {})
        )
        self.attack = columns.in_words(attack)
        labels = opened.split.labels
        seen = report_pictures.attended(opened, attack)
        uris = report_pictures.uris(seen)
        teacher = opening.open_teacher(opened)
        self.shifts = []
        right = seen.clean.predictions == labels
        if teacher:
            by_teacher = report_pictures.attended(teacher, attack)
            right &= by_teacher.clean.predictions == labels
            self.shifts.append(_shift("teacher", by_teacher, labels))
        self.shifts.append(_shift("this run", seen, labels))
        self.images = [
            {
                **self._words(seen, labels[i], i),
                "uris": uris[i],
            }
            for i in range(len(labels))
        ]
        shown = {"teacher": teacher} if teacher else {}
        indices = np.flatnonzero(right)[:_STRIP_IMAGES].tolist()
        self.strip = report_strip.strip(
            {**shown, "this run": opened}, attack, indices
        )

    def _words(self, seen, label, i):
        clean, attacked = (
            view.predictions[i] for view in (seen.clean, seen.attacked)
        )
        return {
            "index": i,
            "label": int(label),
            "name": self.class_names[label],
            "prediction": self.class_names[clean],
            "attacked": self.class_names[attacked],
            "is_right": bool(clean == label),
            "shift": float(seen.shift[i]),
        }


def _shift(whose, seen, labels):
    """Returns the mean shift over images that were right before the attack."""
    right = seen.clean.predictions == labels
    mean = float(np.mean(seen.shift[right])) if right.any() else None
    return whose, mean, int(right.sum())
