"""The plan of a table: which networks, in which order, and whether they can.

A table, a scale and a number of seeds enter; jobs with resolved configs leave,
or the reason why the plan cannot be run, before anything is trained.
"""

import dataclasses
import math
import pathlib

import ml_collections

from atat_tf.data import datasets
from atat_tf.errors import InputError, expect
from atat_tf.reports.tables import catalogue
from atat_tf.reports.tables import records as table_records
from atat_tf.reports.tables import shift as shift_measurement
from atat_tf.runs import build as run_build
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.runs import recipes
from atat_tf.training import cost as training_cost

_TEACHER_RECIPE = "standard"


class NoData(InputError):
    """The data set of a plan is not there and cannot be had."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One network to train and evaluate.

    Attributes:
      row: its Row.
      seed: of every random draw.
      workdir: its run folder.
      config: resolved.
      in_table: whether it is a line of the table; else a teacher only.
    """

    row: catalogue.Row
    seed: int
    workdir: pathlib.Path
    config: ml_collections.ConfigDict
    in_table: bool = True

    @property
    def epochs_done(self):
        """Epochs that are trained."""
        return len(run_folder.read_metrics(self.workdir))

    @property
    def is_trained(self):
        """Whether training, and the evaluation at its end, are over."""
        has_results = (self.workdir / run_folder.RESULTS).exists()
        return has_results and self.epochs_done >= self.config.num_epochs


@dataclasses.dataclass(frozen=True)
class Plan:
    """The jobs of a table, teachers before their students.

    Attributes:
      table, scale: Table and Scale.
      num_seeds: seeds 0 to num_seeds − 1.
      folder: where the table's files are written.
      jobs: list of Jobs.
      dataset: Dataset of all of them.
      commit: of the source, as the plan was made.
    """

    table: catalogue.Table
    scale: catalogue.Scale
    num_seeds: int
    folder: pathlib.Path
    jobs: list
    dataset: datasets.Dataset
    commit: str

    def wanted(self, mode="frozen"):
        """Returns {column: number of test images} of a batch-norm mode."""
        return {
            column: len(self.dataset.test.take(self._limit(column)))
            for column in self.table.columns_in(mode)
        }

    def missing(self, job):
        """Returns the columns that a job is still to be evaluated in.

        Returns:
          {batch-norm mode: {column: number of test images}}, no mode empty.
        """
        found = {}
        for mode in self.table.bn_modes if job.in_table else ():
            record = table_records.read(job.workdir, mode)
            columns = table_records.missing(record, self.wanted(mode))
            if columns:
                found[mode] = columns
        return found

    def lacks_shift(self, job):
        """Returns whether a job's attention shifts are still to be measured."""
        if not (self.table.shift and job.in_table):
            return False
        measured = shift_measurement.read(job.workdir)
        wanted = len(self.dataset.test.take(self.scale.shift_images))
        return not shift_measurement.is_current(measured, wanted)

    def has_work(self, job):
        """Returns whether a job is still to be trained, judged or measured."""
        if not job.is_trained or self.missing(job):
            return True
        return self.lacks_shift(job)

    def _limit(self, column):
        is_autoattack = column == catalogue.AUTOATTACK
        return self.scale.autoattack_images if is_autoattack else None


def build(table, scale, num_seeds, workdir, data_dir=None, rows=None):
    """Returns the Plan of a table.

    Args:
      table: Table.
      scale: Scale.
      num_seeds: >= 1.
      workdir: folder of all scales.
      data_dir: of tensorflow-datasets.
      rows: keys of the rows to run; None for all.

    Raises:
      InputError: a row without recipe, a bad config, no data, or run folders
        of another config.
    """
    expect(num_seeds >= 1, "seeds >= 1", seeds=num_seeds)
    chosen = catalogue.chosen_rows(table, rows)
    _expect_recipes(scale, chosen)
    folder = pathlib.Path(workdir) / scale.name
    jobs = {}
    for seed in range(num_seeds):
        for row in chosen:
            for job in jobs_of_row(row, table, scale, seed, folder):
                earlier = jobs.get(job.workdir)
                in_table = job.in_table or bool(earlier and earlier.in_table)
                jobs[job.workdir] = dataclasses.replace(job, in_table=in_table)
    for job in jobs.values():
        run_checks.validate(job.config, data_dir)
        run_checks.expect_same_config(job.workdir, job.config)
    return Plan(
        table,
        scale,
        num_seeds,
        folder,
        list(jobs.values()),
        _dataset(next(iter(jobs.values())).config, data_dir),
        run_folder.commit(),
    )


def jobs_of_row(row, table, scale, seed, folder):
    """Returns a row's Job, its teacher's before it.

    Args:
      row: Row with a recipe.
      table, scale: Table and Scale.
      seed: of every random draw.
      folder: of the scale's runs.
    """
    config = _config(row, table, scale, seed)
    job_folder = table_records.folder_of(folder, config.dataset, row.key, seed)
    if row.recipe == _TEACHER_RECIPE or not run_config.needs_teacher(config):
        return [Job(row, seed, job_folder, config)]
    teacher = _teacher_row(config.backbone.name)
    source = table_records.folder_of(folder, config.dataset, teacher.key, seed)
    config.unlock()
    config.teacher = str(source)
    teacher_config = _config(teacher, table, scale, seed)
    return [
        Job(teacher, seed, source, teacher_config, in_table=False),
        Job(row, seed, job_folder, config.lock()),
    ]


def recipe(scale, row):
    """Returns a row's ConfigDict as its recipe has it, None without recipe.

    Args:
      scale: Scale.
      row: Row.
    """
    if row.recipe not in recipes.names():
        return None
    if not scale.recipe:
        return recipes.load(row.recipe)
    try:
        return recipes.load(f"{scale.recipe}:{row.recipe}")
    except InputError:  # none of its methods
        return None


def _dataset(config, data_dir):
    try:
        return run_build.load_dataset(config, data_dir)
    except InputError as error:
        raise NoData(str(error)) from error


def _teacher_row(backbone):
    row = catalogue.ROWS[_TEACHER_RECIPE]
    if backbone == "wide_resnet":
        return row
    return catalogue.Row(
        f"teacher_{backbone}",
        f"Standard ({backbone})",
        row.recipe,
        {"backbone.name": backbone},
    )


def _config(row, table, scale, seed):
    """Returns a row's resolved config, no teacher named."""
    config = recipe(scale, row)
    config.unlock()
    config.dataset = scale.data_set(table.data_set)
    config.seed = seed
    changes = {**scale.changes, **row.changes}
    if row.recipe == _TEACHER_RECIPE and "teacher_num_epochs" in changes:
        # Standard training is the teacher's, whoever trains it.
        changes["num_epochs"] = changes["teacher_num_epochs"]
    config.update_from_flattened_dict(changes)
    config = run_config.resolve(config)
    if row.equal_cost_to:
        other = _config(catalogue.ROWS[row.equal_cost_to], table, scale, seed)
        config.unlock()
        config.num_epochs = _equal_cost_epochs(config, other)
        config.lock()
    return config


def _equal_cost_epochs(config, other):
    """Returns the epochs that cost at least as much as another's training.

    In forward passes an image; the other's teacher is part of its cost.
    """
    cost = other.num_epochs * training_cost.passes_per_image(other)
    if run_config.needs_teacher(other):
        teacher = run_config.teacher_config(other)
        cost += teacher.num_epochs * training_cost.passes_per_image(teacher)
    return math.ceil(cost / training_cost.passes_per_image(config))


def _expect_recipes(scale, rows):
    lacking = [row.key for row in rows if recipe(scale, row) is None]
    if lacking:
        able = [row.key for row in rows if row.key not in lacking]
        raise InputError(
            f"Expected a recipe for every row, at scale {scale.name}. "
            f"Received: none for {', '.join(lacking)}; the others can be run "
            f"with --rows={','.join(able)}."
        )
