"""Reproduces a table: trains and evaluates what is missing, writes the rest.

Killed at any moment, the same call resumes where it was.
"""

import os
import pathlib
import platform
import time
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from atat_tf.attacks import columns
from atat_tf.errors import InputError, TrainingError
from atat_tf.evaluation import evaluate_run, opening
from atat_tf.reports.tables import catalogue
from atat_tf.reports.tables import files as table_files
from atat_tf.reports.tables import plan as table_plan
from atat_tf.reports.tables import records as table_records
from atat_tf.reports.tables import results as table_results
from atat_tf.reports.tables import shift as shift_measurement
from atat_tf.reports.tables import text as table_text
from atat_tf.runs import folder as run_folder
from atat_tf.runs import terminal
from atat_tf.training import run as training_run

_POLL_SECONDS = 10


def reproduce(
    table: catalogue.Table,
    scale: catalogue.Scale,
    num_seeds: int,
    workdir: str | pathlib.Path,
    data_dir: str | None = None,
    rows: Sequence[str] | None = None,
    dry_run: bool = False,
    page: str | pathlib.Path | None = None,
    command: str = "",
) -> dict[str, Any] | None:
    """Reproduces a table: prints the plan, runs it, writes and prints results.

    Args:
      table, scale: from `catalogue.table` and `catalogue.scale`.
      num_seeds: seeds 0 to num_seeds − 1.
      workdir: folder of all scales.
      data_dir: of tensorflow-datasets.
      rows: keys of the rows to run; None for all. Others stay as they are.
      dry_run: whether the plan is all that is wanted.
      page: a Markdown page to put the table into, see `table_files.insert`.
      command: that the Markdown file names.

    Returns:
      What the table's JSON file holds; None after a dry run.

    Raises:
      InputError: the plan cannot be run; nothing was started.
      TrainingError: rows failed; the others were run and written.
    """
    section_name = table_text.section_name(table, scale)
    if page is not None:
        table_files.expect_marks(page, section_name)
    try:
        plan = table_plan.build(
            table, scale, num_seeds, workdir, data_dir, rows
        )
    except table_plan.NoData:
        _show_without_data(table, scale, num_seeds, workdir)
        raise
    plan.show()
    if dry_run:
        return None
    failures = _run_all(plan, data_dir, command)
    results, sections = _write(plan, command)
    table_files.show(sections)
    if page is not None:
        text = table_files.markdown(sections, command)
        table_files.insert(page, section_name, text)
    if failures:
        raise TrainingError(" ".join(failures))
    return results


def _run_all(plan, data_dir, command):
    """Returns a sentence for each job that failed; the others are run.

    Several processes may be at work on a plan: what one of them holds, and
    the students of a teacher that it holds, wait until it lets go.
    """
    jobs, waiting, failures = plan.jobs, [], []
    while jobs:
        before, waiting = waiting, []
        for job in jobs:
            if job.config.teacher in [str(busy.workdir) for busy in waiting]:
                waiting.append(job)
                continue
            try:
                if _run(plan, job, data_dir):
                    _write(plan, command)
            except run_folder.Busy:
                waiting.append(job)
            except (FloatingPointError, InputError, TrainingError) as error:
                failures.append(f"{job.label} failed: {error}")
                terminal.console().print(failures[-1])
            # Networks and traces of one job are of no use to the next.
            keras.backend.clear_session()
        if waiting == jobs:  # nothing else is left to do
            if waiting != before:
                labels = ", ".join(job.label for job in waiting)
                terminal.console().print(f"Another process is at: {labels}")
            time.sleep(_POLL_SECONDS)
        jobs = waiting
    return failures


def _run(plan, job, data_dir):
    """Returns whether anything was left to do of a job, having done it."""
    if not plan.has_work(job):
        return False
    with run_folder.held(job.workdir):
        if plan.has_work(job):  # another process may have done it by now
            _do(plan, job, data_dir)
            return True
    return False


def _do(plan, job, data_dir):
    missing = plan.missing(job)
    terminal.console().print(f"{job.label}: {job.workdir}")
    if not job.is_trained:
        training_run.train_and_evaluate(job.config, job.workdir, data_dir)
    facts = {
        "data": plan.dataset.provenance,
        "commit": plan.commit,
        "hardware": hardware(),
    }
    for mode, wanted in missing.items():
        parts = [
            _evaluated(plan, job, mode, count, wanted)
            for count in dict.fromkeys(wanted.values())
        ]
        table_records.add(job.workdir, mode, parts, facts)
    if plan.lacks_shift(job):
        shift_measurement.measure(
            job.workdir,
            catalogue.SHIFT_COLUMN,
            plan.scale.shift_images,
            plan.dataset,
            facts,
        )


def _evaluated(plan, job, mode, count, wanted):
    """Returns a record's part: the columns wanted on `count` images."""
    opened = opening.open_run(job.workdir, count, mode, dataset=plan.dataset)
    if opened.attacker.is_frozen:
        opened.attacker.expect_judgeable(opened.split.images)
    names = [column for column in wanted if wanted[column] == count]
    built = opened.columns(names)
    evaluate_run.standing(opened, built, f"{job.label}, {mode}:")
    return {
        "num_images": count,
        "identity": opened.ledger.identity,
        "columns": {n: columns.descriptions(built[n]) for n in built},
    }


def _write(plan, command):
    results = table_results.collect(
        plan.table, plan.scale, plan.num_seeds, plan.folder
    )
    sections = table_text.sections(results)
    name = file_name(plan.table)
    table_files.write(plan.folder, name, results, sections, command)
    return results, sections


def _show_without_data(table, scale, num_seeds, workdir):
    folder = pathlib.Path(workdir) / scale.name
    results = table_results.collect(
        table, scale, num_seeds, folder, reason="no data"
    )
    table_files.show(table_text.sections(results)[:1])


def file_name(table: catalogue.Table) -> str:
    """Returns the name of a table's files, without suffix."""
    return f"table{table.name}" if table.name.isdigit() else table.name


def hardware() -> str:
    """Returns the machine in words: cores and processor, and GPUs."""
    cpu = platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    # Only Linux knows which cores the process may use.
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count()
    words = [f"{count} core{'s' * (count > 1)} of {cpu}"]
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        words.append(details.get("device_name", "GPU"))
    return ", ".join(words)
