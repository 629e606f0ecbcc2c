"""What a training writes: checkpoints, weights, metrics and event files."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

import keras
import ml_collections
import numpy as np

from atat_tf.errors import expect
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.training import checkpoints
from atat_tf.training.machines import workers
from atat_tf.training.records import event_log


@dataclasses.dataclass
class Progress:
    """How far a training is.

    Attributes:
      step: updates of the weights that are done.
      epochs: {field: figure} of each epoch that is done, as in metrics.jsonl.
      best: the highest validation accuracy so far; -1 before the first.
      data: the provenance of the data set; "" where none was noted.
    """

    step: int = 0
    epochs: list[dict] = dataclasses.field(default_factory=list)
    best: float = -1.0
    data: str = ""


class TrainingFiles:
    """The files of one training, which the chief worker alone writes.

    All workers make the same calls: reading a variable may need all of them.

    Args:
      workdir: the run folder.
      config: resolved.
      trainer: compiled AdversarialTrainer; its state is what checkpoints hold.
      group: the `workers.WorkerGroup`.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        config: ml_collections.ConfigDict,
        trainer: keras.Model,
        group: workers.WorkerGroup,
    ):
        self._workdir = workdir
        self._config = config
        self._student = trainer.student
        self._optimizer = trainer.optimizer
        self._variables = [
            *trainer.student.variables,
            *trainer.optimizer.variables,
            *(v for metric in trainer.metrics for v in metric.variables),
            trainer.steps_taken,
            *(average for _, average in trainer.averaged_statistics),
            *(trainer.teacher.weights if config.teacher_momentum else ()),
        ]
        self._averaged_statistics = trainer.averaged_statistics
        self._group = group

    def begin(self) -> None:
        """Makes the folder, with what rebuilds the classifier."""
        run_folder.create(self._workdir)
        if self._config.model:
            run_folder.keep_model(self._config.model, self._workdir)
        run_folder.write_json(
            self._workdir / run_folder.CONFIG, run_config.to_dict(self._config)
        )

    def restore(self) -> Progress:
        """Puts the newest checkpoint's state back, if there is one.

        metrics.jsonl is written anew then: a kill may have come before it.
        """
        facts = self._group.restore(self._workdir, self._variables)
        if facts is None:
            return Progress()
        progress = Progress(**facts)
        self._write_metrics(progress)
        return progress

    def is_whole_without_checkpoints(self, num_steps: int) -> bool:
        """Returns whether metrics.jsonl tells of all steps of the training.

        As of an archived run, or one whose checkpoints were removed.

        Args:
          num_steps: of the whole training.

        Raises:
          InputError: it tells of some.
        """
        rows = []
        if self._group.is_chief:
            rows = run_folder.read_metrics(self._workdir)
        done = rows[-1].get("step", num_steps) if rows else 0
        is_whole = done >= num_steps or "rolled_back_to" in (rows or [{}])[-1]
        expect(
            is_whole or not done,
            f"a checkpoint of the training in {self._workdir}, to go on from "
            "(the same command begins anew with another --workdir, or once "
            "this folder is removed)",
            steps_done=done,
            readable_checkpoints=0,
        )
        return bool(self._group.sum(int(is_whole)))

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint, and the metrics of the epochs so far.

        Raises:
          FloatingPointError: a variable is not finite.
          OSError: a file cannot be written.
        """
        checkpoints.save(
            self._workdir,
            progress.step,
            self._variables,
            dataclasses.asdict(progress),
            writes=self._group.is_chief,
        )
        self._write_metrics(progress)

    def end_epoch(self, progress: Progress, row: dict, score: float) -> None:
        """Adds an epoch to the progress, and writes the weights after it.

        Args:
          progress: it is changed.
          row: {field: figure} of the epoch.
          score: the validation accuracy that chooses the best weights.
        """
        progress.epochs.append(row)
        if score > progress.best:
            progress.best = score
            self._save_weights("best")
        self._save_weights("last")
        if self._config.optimizer.ema:
            with self.averaged_weights():
                self._save_weights("ema")

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Gives the student its averages, and its own back at the end."""
        weights = self._student.trainable_variables
        statistics = [pair[0] for pair in self._averaged_statistics]
        averaged = [*weights, *statistics]
        kept = checkpoints.capture(averaged)
        self._optimizer.finalize_variable_values(weights)
        for statistic, average in self._averaged_statistics:
            statistic.assign(average)
        try:
            yield
        finally:
            checkpoints.assign(averaged, kept)

    def roll_back(self, progress: Progress) -> None:
        """Makes the best weights the last ones, and their average.

        The last epoch's line in metrics.jsonl says so.
        """
        rows = progress.epochs
        rows[-1]["rolled_back_to"] = run_folder.kept_epoch(rows)
        self._write_metrics(progress)
        self._group.load_weights(self._workdir, "best", self._student)
        self._save_weights("last")
        if self._config.optimizer.ema:
            self._save_weights("ema")

    def events(self) -> contextlib.closing[event_log.EventLog]:
        """Returns the run's TensorBoard log, closed when its context ends."""
        return contextlib.closing(
            event_log.EventLog(
                self._workdir / "tensorboard", writes=self._group.is_chief
            )
        )

    def _save_weights(self, which):
        if self._group.is_chief:
            run_folder.save_weights(self._workdir, which, self._student)

    def _write_metrics(self, progress):
        if self._group.is_chief:
            run_folder.write_metrics(self._workdir, progress.epochs)


def log_epoch(
    log: event_log.EventLog, row: dict, picture: np.ndarray | None
) -> None:
    """Writes an epoch to TensorBoard: train_loss is its train/loss.

    Args:
      log: EventLog.
      row: {field: figure}, `step` among them.
      picture: uint8 [H, W, 3] of attention, or None.
    """
    for name, value in row.items():
        log.scalar(name.replace("_", "/", 1), value, row["step"])
    if picture is not None:
        log.picture("validation/attention", picture, row["step"])
    log.flush()
