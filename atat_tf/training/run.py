"""Training from a config to a run folder: teacher, student, evaluation.

Runs can be killed at any moment: the same command goes on from the last
checkpoint, on CPU to the same bits.
"""

import math
import pathlib
import time

import keras
import tensorflow as tf

from atat_tf.data import batches as training_batches
from atat_tf.errors import TrainingError
from atat_tf.evaluation import evaluate_run
from atat_tf.models import files as model_files
from atat_tf.models import graphs
from atat_tf.runs import build, terminal
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.training import build as training_build
from atat_tf.training import (
    checkpoints,
    event_log,
    machines,
    validation,
    workers,
)
from atat_tf.training import cost as training_cost
from atat_tf.training import teacher as training_teacher


def train_and_evaluate(config, workdir, data_dir=None, num_devices=None):
    """Trains what the config names, and its teacher, and evaluates it.

    Args:
      config: a recipe's ConfigDict; it is resolved and validated here.
      workdir: the run folder; an earlier run of the same config goes on.
      data_dir: of tensorflow-datasets.
      num_devices: as for `training_build.build_strategy`.

    Returns:
      The results, as results.json holds them; None on a worker that is not
      the chief.

    Raises:
      InputError: bad config, data, teacher or workdir; nothing was started.
      Busy: another process trains in the folder, or its teacher's.
      FloatingPointError: the loss is no longer finite.
      TrainingError: the config's guard has stopped the training.
      OSError: a file could not be written.
      ConnectionError: another worker is gone; see `machines`.
    """
    members = machines.from_environment()
    workdir = pathlib.Path(workdir)
    strategy = None
    if members.count > 1:
        # Before TensorFlow has run anything, as a saved model's config does.
        strategy = workers.build_strategy(members, num_devices)
    with machines.watched(members):
        config = run_config.resolve(config)
        run_checks.validate(config, data_dir)
        if members.is_chief:
            run_checks.expect_same_config(workdir, config)
            if config.teacher:
                run_checks.expect_fitting_teacher(config)
        strategy = strategy or training_build.build_strategy(num_devices)
        if not tf.config.list_physical_devices("GPU"):
            # A resumed run repeats the killed one to the bit; on GPUs it
            # would cost speed, and no such promise is made.
            tf.config.experimental.enable_op_determinism()
        dataset = evaluate_run.load_dataset(config, data_dir)
        trained = _train(config, workdir, dataset, strategy)
    if not members.is_chief:
        return None
    if not trained and (workdir / run_folder.RESULTS).exists():
        return run_folder.read_json(workdir / run_folder.RESULTS)
    return evaluate_run.evaluate_run(
        workdir, data_dir=data_dir, dataset=dataset
    )


def _train(config, workdir, dataset, strategy):
    """Returns whether there was anything left to train."""
    team = workers.Team(strategy)
    team.expect_same(f"{config.to_json()} {dataset.provenance}")
    run_checks.expect_a_batch(config, dataset, strategy)
    with strategy.scope():
        graphs.with_taps(
            build.build_classifier(config, dataset.spec),
            build.build_defense(config).layers,
        )
    if team.is_chief:
        run_folder.create(workdir)
    teacher = None
    if run_config.needs_teacher(config):
        teacher = _teacher(config, workdir, dataset, strategy)
    trained = _Run(config, workdir, dataset, strategy, teacher).train()
    team.total(0)  # all leave together: who is missing earlier is lost
    return trained


def _teacher(config, workdir, dataset, strategy):
    if config.teacher:
        source = pathlib.Path(config.teacher)
    else:
        source = workdir / "teacher"
        teacher_config = run_config.teacher_config(config)
        is_chief = workers.Team(strategy).is_chief
        if is_chief:
            run_checks.expect_same_config(source, teacher_config)
        if not config.model:
            _Run(
                teacher_config,
                source,
                dataset,
                strategy,
                None,
                followed_by=config,
            ).train()
        elif is_chief:
            training_teacher.write_teacher(config, source, dataset)
    with strategy.scope():
        teacher = build.build_classifier(config, dataset.spec)
        workers.Team(strategy).load_weights(source, "best", teacher)
    return teacher


class _Run:
    """One training, from its folder's last checkpoint to its last epoch."""

    def __init__(
        self, config, workdir, dataset, strategy, teacher, followed_by=None
    ):
        self.config = config
        self.followed_by = followed_by
        self.workdir = workdir
        self.dataset = dataset
        self.strategy = strategy
        self.team = workers.Team(strategy)
        self.steps_per_epoch = len(dataset.train) // config.batch_size
        self.total_steps = config.num_epochs * self.steps_per_epoch
        keras.utils.set_random_seed(config.seed)
        with strategy.scope():
            self.student = build.build_classifier(config, dataset.spec)
            if config.model and config.student_start == "random":
                self.student = model_files.with_random_weights(self.student)
            if config.student_start == "teacher":
                self.student.set_weights(teacher.get_weights())
            self.trainer = training_build.build_trainer(
                config, self.student, teacher, self.steps_per_epoch
            )
        self.step = self.team.train_function(self.trainer)
        self.optimizer = self.trainer.optimizer
        self.variables = [
            *self.student.variables,
            *self.optimizer.variables,
            *(v for m in self.trainer.metrics for v in m.variables),
        ]
        self.validation = validation.Validation(
            config, self.student, dataset.validation, self.team
        )
        self.console = terminal.console(quiet=not self.team.is_chief)

    def train(self):
        """Returns whether there was anything left to train."""
        if not self.team.is_chief:
            return self._train()
        with run_folder.held(self.workdir / checkpoints.FOLDER):
            self._begin()
            return self._train()

    def _train(self):
        facts = self.team.restore(self.workdir, self.variables)
        facts = facts or {"step": 0, "epochs": [], "best": -1.0}
        self._write_metrics(facts["epochs"])
        name = self.config.defense.name
        if self._ended_by_guard(facts["epochs"]):
            return False
        if facts["step"] >= self.total_steps:
            self.console.print(f"{name}: trained already, in {self.workdir}")
            return False
        if facts["step"]:
            self.console.print(f"{name}: going on from step {facts['step']}")
        self._announce(facts["step"])
        self._train_from(facts)
        return True

    def _begin(self):
        """Makes the folder, with what rebuilds the classifier."""
        run_folder.create(self.workdir)
        if self.config.model:
            run_folder.keep_model(self.config.model, self.workdir)
        run_folder.write_json(
            self.workdir / run_folder.CONFIG, run_config.to_dict(self.config)
        )

    def _train_from(self, facts):
        step, rows, best = facts["step"], facts["epochs"], facts["best"]
        config = self.config
        iterator = iter(self._batches(step, self.total_steps - step))
        log = event_log.EventLog(
            self.workdir / "tensorboard", writes=self.team.is_chief
        )
        started = time.monotonic()
        with terminal.bar(
            config.defense.name,
            self.total_steps,
            config.batch_size,
            step,
            quiet=not self.team.is_chief,
        ) as advance:
            while step < self.total_steps:
                self.step(iterator)
                step += 1
                figures = self._figures()
                self._expect_finite(step, figures["loss"])
                epoch = math.ceil(step / self.steps_per_epoch)
                advance(
                    f"{config.defense.name} epoch {epoch}/{config.num_epochs}",
                    **figures,
                )
                if step % self.steps_per_epoch == 0:
                    row, picture = self._row(epoch, step, figures, started)
                    started = time.monotonic()
                    rows.append(row)
                    best = self._keep_weights(row, best)
                    self._report(row, picture, log)
                    self.trainer.reset_metrics()
                elif not self._time_for_checkpoint(step):
                    continue
                checkpoints.save(
                    self.workdir,
                    step,
                    self.variables,
                    {"step": step, "epochs": rows, "best": best},
                    writes=self.team.is_chief,
                )
                self._write_metrics(rows)
                if self._ended_by_guard(rows):
                    break
        log.close()

    def _ended_by_guard(self, rows):
        """Returns whether the guard has ended the run after these epochs.

        It looks at the epochs' lines alone, so that a run which was killed
        before or after it acted ends in the same way.
        """
        scores = [row[self.validation.score] for row in rows]
        config = self.config
        if config.guard == "off" or not validation.has_collapsed(
            scores, config.guard_share
        ):
            return False
        if config.guard == "stop":
            raise TrainingError(
                f"{validation.collapse_sentence(scores)} The same command with "
                "--config.guard=rollback ends there, with --config.guard=off "
                f"it goes on. The run is in {self.workdir}."
            )
        self.team.load_weights(self.workdir, "best", self.student)
        self._save_weights("last")
        if config.optimizer.ema:
            self._save_weights("ema")
        self.console.print(
            f"{config.defense.name}: {validation.collapse_sentence(scores)}"
        )
        self.console.print("  Training ends with these weights.")
        return True

    def _time_for_checkpoint(self, step):
        every = self.config.checkpoint_every_steps
        return every > 0 and step % every == 0

    def _write_metrics(self, rows):
        if self.team.is_chief:
            run_folder.write_metrics(self.workdir, rows)

    def _save_weights(self, which):
        if self.team.is_chief:
            run_folder.save_weights(self.workdir, which, self.student)

    def _batches(self, first_step, num_steps, batch_size=None):
        config = self.config
        batch_size = batch_size or config.batch_size

        def batches(parts):
            return training_batches.batches(
                self.dataset.train,
                batch_size,
                config.seed,
                first_step,
                num_steps,
                self.dataset.spec.flip if config.flip is None else config.flip,
                parts,
            )

        return self.team.batches(batches, batch_size)

    def _figures(self):
        # Read here and not inside the step: across replicas the metrics' own
        # sums are added, whereas the step's logs are a mean of means. What
        # saw no image, as clean accuracy in adversarial-only AT, is no zero.
        return {
            metric.name: float(metric.result())
            for metric in self.trainer.metrics
            if tf.convert_to_tensor(metric.count) > 0
        }

    def _expect_finite(self, step, loss):
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"Expected a finite loss. Received: {loss} at step {step}. "
                "Training has diverged; the last checkpoint is from before. "
                "A smaller --config.optimizer.learning_rate may help."
            )

    def _row(self, epoch, step, figures, started):
        seconds = time.monotonic() - started
        row = {"epoch": epoch, "step": step, "seconds": round(seconds, 2)}
        row |= {f"train_{name}": value for name, value in figures.items()}
        validated, picture = self.validation.figures()
        row |= validated
        row["learning_rate"] = float(self.optimizer.learning_rate)
        return row, picture

    def _keep_weights(self, row, best):
        score = row[self.validation.score]
        if score > best:
            best = score
            self._save_weights("best")
        self._save_weights("last")
        if self.config.optimizer.ema:
            averaged = self.student.trainable_variables
            kept = checkpoints.capture(averaged)
            self.optimizer.finalize_variable_values(averaged)
            self._save_weights("ema")
            checkpoints.assign(averaged, kept)
        return best

    def _report(self, row, picture, log):
        words = [
            f"{name.replace('_', ' ')} {value:.3f}"
            for name, value in row.items()
            if name not in ("epoch", "step", "seconds", "learning_rate")
        ]
        self.console.print(
            f"{self.config.defense.name} epoch {row['epoch']}/"
            f"{self.config.num_epochs} ({terminal.duration(row['seconds'])}): "
            + ", ".join(words)
        )
        for name, value in row.items():
            log.scalar(name.replace("_", "/", 1), value, row["step"])
        if picture is not None:
            log.picture("validation/attention", picture, row["step"])
        log.flush()

    def _announce(self, step):
        flops = training_cost.flops_per_image(self.config, self.student)
        for line in training_cost.announcement(
            self.config,
            self.student,
            self.dataset,
            self.total_steps - step,
            self._seconds_per_step(flops),
            self.followed_by,
        ):
            self.console.print(line)

    def _seconds_per_step(self, flops_per_image):
        """Measures a few steps and puts every variable back."""
        kept = checkpoints.capture(self.variables)
        batch = self.config.batch_size
        accelerated = bool(tf.config.list_physical_devices("GPU"))
        replicas = self.strategy.num_replicas_in_sync
        # A step of more than some 10 s is measured on fewer images.
        if not accelerated and flops_per_image * batch > 1e12:
            batch = max(2 * replicas, int(2e11 / flops_per_image))
        iterator = iter(self._batches(0, 3, batch))
        times = []
        for _ in range(3):
            begin = time.monotonic()
            self.step(iterator)
            float(self.trainer.metrics[0].result())
            times.append(time.monotonic() - begin)
        checkpoints.assign(self.variables, kept)
        return min(times[1:]) * self.config.batch_size / batch
