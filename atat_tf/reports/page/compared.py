"""Writes several runs side by side as one HTML page that needs nothing else."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from atat_tf import __version__
from atat_tf.errors import expect
from atat_tf.evaluation import opening
from atat_tf.evaluation.attention import explanations
from atat_tf.evaluation.run import Run
from atat_tf.evaluation.statistics import likeness
from atat_tf.reports.page import curves, data, measured, page
from atat_tf.reports.page import pictures as report_pictures
from atat_tf.reports.page import strip as report_strip
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.runs import naming

_TEMPLATE = "compared.html.jinja"
_STRIP_IMAGES = 3


def compared(
    workdirs: Sequence[str | pathlib.Path],
    data_dir: str | None = None,
    num_images: int = 64,
) -> str:
    """Returns the HTML of a page that compares runs on one data set.

    Args:
      workdirs: run folders, as many as there are kinds of lines at most.
      data_dir: of tensorflow-datasets.
      num_images: the strip's images are looked for among the first so many;
        0 shows none, and reads neither data nor weights.

    Raises:
      InputError: bad arguments, no run there, or runs on different data.
    """
    expect(num_images >= 0, "num_images >= 0", num_images=num_images)
    runs = _titled([Run(workdir, data_dir) for workdir in workdirs])
    _expect_comparable(runs)
    first = next(iter(runs.values()))
    evaluated = next((run for run in runs.values() if run.results), first)
    columns, radii, truths, opened, undrawn = {}, {}, [], {}, {}
    for title, run in runs.items():  # each ledger is read once for all
        columns[title] = measured.measured(run)
        radii[title] = measured.accuracy_at_radii(run)
        truths.append(measured.truth(run))
        if why := report_pictures.undrawn(run, num_images):
            undrawn[title] = why
        else:
            before = next(iter(opened.values()), None)
            opened[title] = _opened(run, num_images, evaluated, before)
    others = _others(radii, runs)
    radii |= dict.fromkeys(others, ({}, 0))
    checklists = {
        title: measured.checklist_of(run) for title, run in runs.items()
    }
    explained = {
        title: found
        for title, (checklist, _) in checklists.items()
        if (found := (checklist or {}).get("explanations"))
    }
    column, classes = _classes(columns, truths, first.class_names)
    values = {
        "version": __version__,
        "commit": run_folder.commit(),
        "dataset": page.on_data(evaluated),
        "notes": [
            *_stale(opened),
            *likeness.notes([(t, _shown(of)) for t, of in columns.items()]),
            *(
                f"{title}: its accuracies against ε are of other images, "
                "batch-norm statistics or steps than the first run's, and are "
                "left out."
                for title in others
            ),
        ],
        "rows": [
            _row(title, run, columns[title], *checklists[title])
            for title, run in runs.items()
        ],
        "radii": curves.radius_panel({t: of for t, (of, _) in radii.items()}),
        "radii_on": measured.on_images(radii),
        "without_radii": [
            title
            for title, (found, _) in radii.items()
            if not found and title not in others
        ],
        "explanations": explained,
        "good": explanations.GOOD,
        "tests": measured.paired(columns),
        "column": column,
        "classes": classes,
        "commands": _commands(runs, data_dir),
        "strip": _strip(opened) if opened else None,
        "undrawn": undrawn,
    }
    return page.rendered(values, _TEMPLATE)


def _others(radii, runs):
    """Returns whose accuracies at radii do not compare with the first's."""
    bases = {t: measured.radii_basis(runs[t]) for t in radii if radii[t][0]}
    first = next(iter(bases.values()), None)
    return [title for title in bases if bases[title] != first]


def _titled(runs):
    """Returns {title: Run}: the method, with the folder where two share it."""
    names = [naming.called(run.config) for run in runs]
    titled = {}
    for run, name in zip(runs, names, strict=True):
        title = f"{name} ({run.folder})" if names.count(name) > 1 else name
        titled[title] = run
    expect(
        len(titled) == len(runs),
        "run folders that differ",
        workdirs=[str(run.folder) for run in runs],
    )
    return titled


def _expect_comparable(runs: Mapping[str, Run]):
    """Raises InputError unless the runs are of one data set, in one size."""
    shapes = {tuple(run.spec.image_shape) for run in runs.values()}
    expect(
        len(shapes) == 1,
        "runs on images of one size",
        image_shapes=sorted(shapes),
    )
    trained = {run.config.dataset for run in runs.values()}
    evaluated = {run.results["data"] for run in runs.values() if run.results}
    expect(
        len(trained) == 1 and len(evaluated) <= 1,
        "runs trained and evaluated on one data set",
        datasets=sorted(trained | evaluated),
    )


def _shown(columns):
    """Returns {column: Basis} of the columns that the page's table has."""
    return {
        title: columns[name].basis
        for name, title in measured.HEADLINE.items()
        if name in columns
    }


def _stale(opened):
    """Returns a sentence on each run whose figures are of other weights."""
    return [
        f"{title}: the weights have changed since results.json was written. "
        "Its figures are of others, its pictures of these: evaluate it again."
        for title, one in opened.items()
        if report_pictures.is_stale(one)
    ]


def _row(title, run, columns, checklist, checklist_is):
    return {
        "title": title,
        "folder": str(run.folder),
        "network": run_config.network_name(run.config),
        "cards": measured.headline(columns, {}),
        "checked": measured.checked(checklist) or checklist_is,
    }


def _commands(runs, data_dir):
    """Returns {title: the commands of what a run of it lacks}."""
    return {
        title: data.commands(
            run.folder,
            run_config.to_dict(run.config),
            data_dir,
            run.results["num_images"] if run.results else None,
        )
        for title, run in runs.items()
    }


def _classes(columns, truths, class_names):
    """Returns a column's title and [{name, images, of: [percents of runs]}].

    The class that is least robust on average comes first.
    """
    runs = list(columns.values())
    name = measured.strongest(runs)
    if name is None:
        return None, []
    tables = [
        measured.by_class(of_run[name], truth, class_names)
        for of_run, truth in zip(runs, truths, strict=True)
    ]
    return measured.HEADLINE.get(name, name), _joined(tables)


def _joined(tables) -> list[dict[str, Any]]:
    others = [{row["number"]: row for row in table} for table in tables]
    lines = [
        {
            "name": row["name"],
            "images": row["images"],
            "of": [table[row["number"]]["attacked"] for table in others],
        }
        for row in tables[0]
    ]
    return sorted(lines, key=lambda line: sum(line["of"]))


def _opened(run, num_images, evaluated, before):
    """Returns the OpenRun of the weights and images that the figures are of.

    Args:
      run: its Run.
      num_images: as for `compared`.
      evaluated: a Run whose results.json names the images.
      before: an OpenRun whose images are taken, or None.
    """
    results = run.results or {}
    return opening.open_run(
        run.folder,
        num_images,
        weights=results.get("weights"),
        dataset_name=(evaluated.results or {}).get("dataset"),
        data_dir=run.data_dir,
        dataset=before and before.dataset,
        seed=results.get("seed"),
    )


def _strip(opened):
    """Returns the Strip of the first images that all runs have right."""
    first = next(iter(opened.values()))
    _, attack = report_pictures.shown_attack(
        first, (first.run.results or {}).get("accuracy", {})
    )
    indices = report_strip.right_by_all(opened, _STRIP_IMAGES)
    return report_strip.strip(opened, attack, indices)
