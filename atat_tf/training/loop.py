"""The training loop: from a run folder's last checkpoint to its last epoch."""

import math
import pathlib
import time

import keras
import ml_collections
import tensorflow as tf
from rich import filesize

from atat_tf.data import batches as training_batches
from atat_tf.data import datasets, extra, stored, training_data
from atat_tf.errors import InputError, TrainingError, expect
from atat_tf.models import files as model_files
from atat_tf.models import graphs
from atat_tf.runs import build, terminal
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.training import build as training_build
from atat_tf.training import checkpoints, cost, validation
from atat_tf.training.machines import workers
from atat_tf.training.records import files

# What is printed of the validation: (heading, field of the epoch's line, how).
_VALIDATED = (
    ("clean", "validation_clean_accuracy", ".1%"),
    ("under PGD", "validation_pgd_accuracy", ".1%"),
    ("averaged", "validation_averaged_pgd_accuracy", ".1%"),
    ("averaged", "validation_averaged_clean_accuracy", ".1%"),
    ("shift", "validation_attention_shift", ".3f"),
)


class TrainingLoop:
    """One training of one classifier.

    Args:
      config: resolved.
      workdir: the run folder; what it holds is gone on from.
      dataset: with the training and validation images.
      strategy: the tf.distribute.Strategy.
      teacher: classifier, or None where the config needs none.
      memory_budget: of extra images, as for `extra.load`.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: pathlib.Path,
        dataset: datasets.Dataset,
        strategy: tf.distribute.Strategy,
        teacher: keras.Model | None = None,
        memory_budget: float | None = None,
    ):
        self._config = config
        self._workdir = workdir
        self._dataset = dataset
        self._group = workers.WorkerGroup(strategy)
        self._extra = None
        if config.extra_images:
            self._extra = extra.load(
                config.extra_images, dataset.spec, memory_budget
            )
        self._steps_per_epoch = len(dataset.train) // config.batch_size
        self._num_steps = config.num_epochs * self._steps_per_epoch
        keras.utils.set_random_seed(config.seed)
        with strategy.scope():
            student = build.build_classifier(config, dataset.spec)
            if config.model and config.student_start == "random":
                student = model_files.with_random_weights(student)
            if config.student_start == "teacher":
                if teacher is None:
                    raise InputError(
                        "Expected a teacher, whose weights the student starts "
                        "from. Received: none."
                    )
                student.set_weights(teacher.get_weights())
            self._trainer = training_build.build_trainer(
                config, student, teacher, self._steps_per_epoch
            )
        self._train_step = self._group.train_function(self._trainer)
        self._validation = validation.Validation(
            config, student, dataset, self._group
        )
        self._files = files.TrainingFiles(
            workdir, config, self._trainer, self._group
        )
        self._has_heading = False

    @property
    def _console(self):
        return terminal.console(quiet=not self._group.is_chief)

    def run(self) -> None:
        """Trains what is left to train.

        Raises:
          Busy: another process trains in the folder.
          FloatingPointError: the loss or a weight is no longer finite.
          TrainingError: the config's guard has stopped the training.
          OSError: a file could not be written.
        """
        if not self._group.is_chief:
            self._resume()
            return
        with run_folder.held(self._workdir / checkpoints.FOLDER):
            self._files.begin()
            self._resume()

    def _resume(self):
        progress = self._files.restore()
        data = self._dataset.provenance
        expect(
            progress.data in ("", data),
            f"the data that the run began with ({progress.data}), or another "
            "--workdir",
            data=data,
        )
        progress.data = data
        name = self._config.defense.name
        if self._ended_by_guard(progress):
            return
        if progress.step >= self._num_steps or (
            not progress.step
            and self._files.is_whole_without_checkpoints(self._num_steps)
        ):
            self._console.print(f"{name}: trained already, in {self._workdir}")
            return
        if progress.step:
            self._console.print(f"{name}: going on from step {progress.step}")
        self._announce(self._num_steps - progress.step)
        self._train_from(progress)

    def _train_from(self, progress):
        config = self._config
        batches = iter(self._batches(progress.step))
        started = time.monotonic()
        with (
            self._files.events() as events,
            terminal.bar(
                # Until the first step has been traced and taken.
                f"{config.defense.name}: tracing the step",
                self._num_steps,
                config.batch_size,
                progress.step,
                quiet=not self._group.is_chief,
            ) as advance,
        ):
            while progress.step < self._num_steps:
                with training_data.sentences():
                    for _ in range(config.gradient_accumulation_steps or 1):
                        self._train_step(batches)
                progress.step += 1
                figures = self._figures()
                _expect_finite(progress.step, figures["loss"])
                epoch = math.ceil(progress.step / self._steps_per_epoch)
                title = f"{config.defense.name} epoch {epoch}/"
                title += f"{config.num_epochs}"
                first = ("loss", "adversarial_accuracy", "clean_accuracy")
                advance(title, **{f: figures[f] for f in first if f in figures})
                if progress.step % self._steps_per_epoch == 0:
                    seconds = time.monotonic() - started
                    advance(f"{config.defense.name}: validating", units=0)
                    row, picture = self._epoch_row(progress, figures, seconds)
                    started = time.monotonic()
                    score = row[self._validation.score]
                    self._files.end_epoch(progress, row, score)
                    self._print_epoch(row)
                    files.log_epoch(events, row, picture)
                    self._trainer.reset_metrics()
                elif not self._time_for_checkpoint(progress.step):
                    continue
                self._files.save(progress)
                if self._ended_by_guard(progress):
                    break

    @property
    def _flips(self):
        """Whether an image is mirrored in half of the epochs."""
        flip = self._config.flip
        return self._dataset.spec.flip if flip is None else flip

    def _batches(self, first_step):
        """Returns the batches of all steps from one on.

        With gradient accumulation each comes in parts, one after the other.
        """
        config, dataset = self._config, self._dataset
        own_parts = None
        if config.gradient_accumulation_steps:
            own_parts = workers.parts(
                config.batch_size, config.gradient_accumulation_steps
            )

        def make_batches(parts):
            return training_batches.batches(
                dataset.train,
                config.batch_size,
                config.seed,
                first_step,
                self._num_steps - first_step,
                self._flips,
                parts or own_parts,
                config.augmentation,
                self._extra,
                config.extra_share,
            )

        return self._group.batches(make_batches, config.batch_size)

    def _figures(self):
        # Read here and not inside the step: across replicas the metrics' own
        # sums are added, whereas the step's logs are a mean of means. What
        # saw no image, as clean accuracy in adversarial-only AT, is no zero.
        return {
            metric.name: float(metric.result())
            for metric in self._trainer.metrics
            if tf.convert_to_tensor(metric.count) > 0
        }

    def _epoch_row(self, progress, figures, seconds):
        """Returns the epoch's {field: figure}, and its picture or None."""
        row = {
            "epoch": len(progress.epochs) + 1,
            "step": progress.step,
            "seconds": round(seconds, 2),
        }
        row |= {f"train_{name}": value for name, value in figures.items()}
        validated, picture = self._validation.figures()
        row |= validated
        if self._config.optimizer.ema:
            with self._files.averaged_weights():
                row |= self._validation.accuracies(averaged=True)
        row["learning_rate"] = float(self._trainer.optimizer.learning_rate)
        return row, picture

    def _time_for_checkpoint(self, step):
        every = self._config.checkpoint_every_steps
        return every > 0 and step % every == 0

    def _ended_by_guard(self, progress):
        """Returns whether the guard has ended the run after these epochs.

        It looks at the epochs' figures alone, so that a run which was killed
        before or after it acted ends in the same way.
        """
        config = self._config
        if not validation.is_ended_by_guard(config, progress.epochs):
            return False
        scores = [row[self._validation.score] for row in progress.epochs]
        sentence = validation.collapse_sentence(scores)
        if config.guard == "stop":
            raise TrainingError(
                f"{sentence} The same command with --config.guard=rollback "
                "ends there, with --config.guard=off it goes on. The run is "
                f"in {self._workdir}."
            )
        self._files.roll_back(progress)
        self._console.print(f"{config.defense.name}: {sentence}")
        self._console.print("  Training ends with these weights.")
        return True

    def _announce(self, num_steps):
        config, data = self._config, self._dataset
        passes = cost.passes_per_image(config)
        student = self._trainer.student
        images = data.train.images
        is_stored, size = isinstance(images, stored.Images), images.nbytes
        gflop = graphs.flops_per_image(student) / 1e9
        self._console.print(
            f"{config.defense.name}: {run_config.network_name(config)} on "
            f"{config.dataset} ({data.provenance}), "
            f"{len(data.train):,} training images"
            + ", mirrored at random (--config.flip)"
            * self._flips
        )
        self._console.print(
            f"  {student.count_params():,} parameters; {gflop:.3g} GFLOP an "
            f"image forward, {passes * gflop:.3g} in a training step "
            f"({passes:g} forward equivalents)"
        )
        self._console.print(
            f"  {num_steps:,} steps of {config.batch_size} images, "
            + ("read as they are needed" if is_stored else "held in memory")
            + f" ({filesize.decimal(size)})"
        )

    def _print_epoch(self, row):
        """Prints an epoch's figures in columns, under a heading."""
        columns = {
            "epoch": f"{row['epoch']}/{self._config.num_epochs}",
            "time": terminal.duration(row["seconds"]),
            "loss": f"{row['train_loss']:.3f}",
        }
        for head, field, shown in _VALIDATED:
            if field in row and head not in columns:
                columns[head] = format(row[field], shown)
        if not self._has_heading:
            heads = "  ".join(f"{head:>11}" for head in columns)
            self._console.print(heads)
            self._has_heading = True
        self._console.print("  ".join(f"{v:>11}" for v in columns.values()))


def _expect_finite(step, loss):
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"Expected a finite loss. Received: {loss} at step {step}. "
            "Training has diverged; the last checkpoint is from before. "
            "A smaller --config.optimizer.learning_rate may help."
        )
