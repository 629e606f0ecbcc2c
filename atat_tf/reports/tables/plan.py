"""Plans a table: which networks are trained and evaluated, in which order.

A plan that cannot be run is refused before anything is trained.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Sequence

import ml_collections

from atat_tf.attacks import stepped
from atat_tf.data import datasets
from atat_tf.errors import InputError, expect
from atat_tf.evaluation import ledger
from atat_tf.reports.tables import catalogue
from atat_tf.reports.tables import records as table_records
from atat_tf.reports.tables import shift as shift_measurement
from atat_tf.runs import build as run_build
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.runs import recipes, terminal
from atat_tf.training import cost as training_cost
from atat_tf.training import validation

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
    def label(self) -> str:
        """The row and seed, as printed."""
        return f"{self.row.label}, seed {self.seed}"

    @property
    def epochs_done(self) -> int:
        """Epochs that are trained."""
        return len(run_folder.read_metrics(self.workdir))

    @property
    def epochs_left(self) -> int:
        """Epochs to train; none where the guard has ended the training."""
        rows = run_folder.read_metrics(self.workdir)
        if validation.is_ended_by_guard(self.config, rows):
            return 0
        return max(self.config.num_epochs - len(rows), 0)

    @property
    def is_trained(self) -> bool:
        """Whether training, and the evaluation at its end, are over."""
        has_results = (self.workdir / run_folder.RESULTS).exists()
        return has_results and not self.epochs_left


@dataclasses.dataclass(frozen=True)
class Plan:
    """The jobs of a table, teachers before their students.

    Attributes:
      table, scale: Table and Scale.
      num_seeds: seeds 0 to num_seeds − 1.
      folder: where the table's files are written.
      jobs: in the order in which they are run.
      dataset: Dataset of all of them.
      commit: of the source, as the plan was made.
    """

    table: catalogue.Table
    scale: catalogue.Scale
    num_seeds: int
    folder: pathlib.Path
    jobs: list[Job]
    dataset: datasets.Dataset
    commit: str

    def wanted(self, mode: str = "frozen") -> dict[str, int]:
        """Returns {column: number of test images} of a batch-norm mode."""
        return {
            column: len(self.dataset.test.take(self._limit(column)))
            for column in self.table.columns_in(mode)
        }

    def missing(self, job: Job) -> dict[str, dict[str, int]]:
        """Returns the columns that a job is still to be evaluated in.

        Returns:
          {batch-norm mode: {column: number of test images}}, no mode empty.
        """
        missing = {}
        for mode in self.table.bn_modes if job.in_table else ():
            # A record without the ledger that it speaks of says nothing.
            is_led = ledger.is_in(job.workdir)
            record = table_records.read(job.workdir, mode) if is_led else None
            columns = table_records.missing(record, self.wanted(mode))
            if columns:
                missing[mode] = columns
        return missing

    def lacks_shift(self, job: Job) -> bool:
        """Returns whether a job's attention shifts are still to be measured."""
        if not (self.table.shift and job.in_table):
            return False
        is_led = ledger.is_in(job.workdir)
        measured = shift_measurement.read(job.workdir) if is_led else None
        wanted = len(self.dataset.test.take(self.scale.shift_images))
        return not shift_measurement.is_current(measured, wanted)

    def has_work(self, job: Job) -> bool:
        """Returns whether a job is still to be trained, judged or measured."""
        if not job.is_trained or self.missing(job):
            return True
        return self.lacks_shift(job)

    def left(self, job: Job) -> dict[str, int]:
        """Returns what is left of a job, and its cost.

        Returns:
          {in words: forward passes of an image, at most: attacks stop at
          images that they break}; empty where the job is done.
        """
        left = {}
        if not job.is_trained:
            epochs = job.epochs_left
            left[f"train {epochs} epochs"] = (
                epochs
                * len(self.dataset.train)
                * training_cost.passes_per_image(job.config)
            )
        for mode, columns in self.missing(job).items():
            left[f"evaluate {mode}"] = self._evaluation_passes(job, columns)
        if self.lacks_shift(job):
            images = len(self.dataset.test.take(self.scale.shift_images))
            columns = {catalogue.SHIFT_COLUMN: images}
            left["measure attention shift"] = self._evaluation_passes(
                job, columns
            )
        return left

    def show(self) -> None:
        """Prints the jobs, what is done and left of each, and the cost."""
        left = [(job, self.left(job)) for job in self.jobs]
        rows = [
            [
                job.label,
                f"{job.epochs_done} of {job.config.num_epochs}",
                ", ".join(costs) or "nothing",
                _millions(costs.values()),
            ]
            for job, costs in left
        ]
        terminal.table(
            f"Plan: {self.table.title}; scale {self.scale.name}",
            ["row", "epochs done", "left", "million passes"],
            rows,
        )
        passes = [cost for _, costs in left for cost in costs.values()]
        screen, data = terminal.console(), self.dataset
        screen.print(
            f"{data.name} ({data.provenance}): {len(data.train):,} training "
            "images; test images: "
            + ", ".join(f"{c} {count:,}" for c, count in self.wanted().items())
        )
        screen.print(
            f"Into {self.folder}: at most {_millions(passes)} million forward "
            "passes of an image. A gradient to the images costs one pass more, "
            "a gradient to the weights two; attacks stop at images that break."
        )

    def _evaluation_passes(self, job: Job, wanted: dict[str, int]) -> int:
        """Returns the forward passes of columns, if no attack succeeds."""
        classes = self.dataset.spec.num_classes
        built = run_build.build_columns(job.config, list(wanted), classes)
        return sum(
            count * (1 + sum(map(stepped.passes, built[column])))
            for column, count in wanted.items()
        )

    def _limit(self, column):
        is_autoattack = column == catalogue.AUTOATTACK
        return self.scale.autoattack_images if is_autoattack else None


def build(
    table: catalogue.Table,
    scale: catalogue.Scale,
    num_seeds: int,
    workdir: str | pathlib.Path,
    data_dir: str | None = None,
    rows: Sequence[str] | None = None,
) -> Plan:
    """Returns the Plan of a table.

    Args:
      table, scale: what is run.
      num_seeds: >= 1.
      workdir: folder of all scales.
      data_dir: of tensorflow-datasets.
      rows: keys of the rows to run; None for all.

    Raises:
      InputError: a row without recipe, a bad config, no data, or run folders
        of another config or of other images.
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
    config = next(iter(jobs.values())).config
    dataset = _dataset(config, data_dir)
    for seed in range(num_seeds):
        for key in table.rows:
            run = table_records.folder_of(folder, config.dataset, key, seed)
            for mode in table.bn_modes:
                record = table_records.read(run, mode)
                _expect_same_data(run, record, dataset.provenance)
    return Plan(
        table,
        scale,
        num_seeds,
        folder,
        list(jobs.values()),
        dataset,
        run_folder.commit(),
    )


def jobs_of_row(
    row: catalogue.Row,
    table: catalogue.Table,
    scale: catalogue.Scale,
    seed: int,
    folder: str | pathlib.Path,
) -> list[Job]:
    """Returns a row's Job, its teacher's before it.

    Args:
      row: a row with a recipe.
      table, scale: what is run.
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


def recipe(
    scale: catalogue.Scale, row: catalogue.Row
) -> ml_collections.ConfigDict | None:
    """Returns a row's config as its recipe has it, None without recipe."""
    if not scale.recipe:
        is_one = row.recipe in recipes.names()
        return recipes.load(row.recipe) if is_one else None
    try:
        return recipes.load(f"{scale.recipe}:{row.recipe}")
    except InputError:  # none of its methods
        return None


def _dataset(config, data_dir):
    try:
        return run_build.load_dataset(config, data_dir)
    except InputError as error:
        raise NoData(str(error)) from error


def _expect_same_data(run, record, data):
    """Raises InputError where a row of the table was judged on other images."""
    expect(
        not record or record["data"] == data,
        f"rows of one table that are judged on the same images, {data}: "
        "another --workdir, or the data that these are of",
        run=str(run),
        data=record and record["data"],
    )


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


def _millions(passes: Iterable[int]) -> str:
    return f"{sum(passes) / 1e6:,.3g}"
