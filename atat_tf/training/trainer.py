"""The training step: attack, forward, attention, loss, gradients, metrics.

`AdversarialTrainer` wraps a student as a Keras model with a train_step of its
own, so that `compile`, `fit`, callbacks and tf.distribute work as everywhere.
"""

import warnings
from typing import Any

import keras
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import randomness
from atat_tf.defenses import objective
from atat_tf.errors import InputError, expect, with_checked_types
from atat_tf.models import checks, classifiers, compilation, frozen, graphs
from atat_tf.training import batch, fitted, weight_perturbation


class AdversarialTrainer(fitted.FittedModel):
    """Trains a student against an attack, with or without a teacher.

    Under a tf.distribute strategy, build it (and the models) inside
    `strategy.scope()`. One replica and several give the same weights: losses
    are summed and divided once by the global batch, random starts come from
    (seed, step, index in the global batch). Batch-norm statistics are per
    replica unless the layers are `synchronized`.

    Labels are integers, one-hot, or shares of the classes (label smoothing,
    mixup), whose cross-entropy is minimised, while attacks and maps take the
    class of the largest share. Images are uint8, or floats within the attack's
    bounds. Losses and maps are float32 whatever the layers compute in, and
    the loss is scaled where they compute in float16. What is saved and
    exported is the student alone.

    Args:
      student: keras.Model (functional, sequential or subclassed), images ->
        logits, or softmax, which is taken off: see `student` below. It is
        trained: the weights are shared.
      defense: one of defenses.atat.DEFENSES' objects.
      attack: an attacks.LinfAttack; None where the defense needs none. Its
        `bounds` are the range of the pixels, [0, 1] without an attack. Every
        defense is validated under it, also one that trains without.
      teacher: a model like the student; None where the defense needs none. It
        is frozen, and runs in inference mode.
      seed: in [0, 2**31), the root of every random start.
      num_steps: calls of `train_step` in the whole training; only a defense
        whose weights follow a schedule reads it.
      statistics_momentum: of an average over steps of the batch-norm
        statistics, to go with averaged weights; 0 keeps none.
      weight_perturbation: γ of adversarial weight perturbation, on one device;
        0 for none.
      teacher_momentum: in [0, 1), what the teacher keeps of itself after each
        step, beside the student's weights and statistics: it becomes their
        running average, on one device. 0 leaves it as it is.

    Attributes:
      student: functional keras.Model, images -> logits, that is trained: the
        one given, or one of its layers (`classifiers.logits_model`).
      teacher: functional keras.Model, images -> logits; None where the defense
        needs none.
      steps_taken: keras.Variable, int64: calls of `train_step` so far. Random
        starts depend on it. The optimizer's `iterations` stands still while
        gradients are accumulated, and starts would repeat.
      averaged_statistics: pairs of a batch-norm statistic of the student and
        its average over steps and replicas, both Keras variables; empty
        without a momentum.

    Raises:
      InputError: an attack or a teacher is missing, the attack maximises
        another loss than the defense needs, a layer is unknown, a classifier
        is random, has no gradient or no logits.
    """

    @with_checked_types
    def __init__(
        self,
        student: keras.Model,
        defense: objective.Defense,
        attack: Any = None,
        teacher: keras.Model | None = None,
        seed: int = 0,
        num_steps: int | None = None,
        statistics_momentum: float = 0.0,
        weight_perturbation: float = 0.0,
        teacher_momentum: float = 0.0,
    ):
        super().__init__("adversarial_trainer")
        _expect_parts(defense, attack, teacher, num_steps, teacher_momentum)
        _expect_shares(
            weight_perturbation=weight_perturbation,
            teacher_momentum=teacher_momentum,
            statistics_momentum=statistics_momentum,
        )
        self._num_steps = num_steps if _is_scheduled(defense) else None
        self._weight_perturbation = weight_perturbation
        self._teacher_momentum = teacher_momentum
        self._statistics_momentum = statistics_momentum
        self.student = classifiers.logits_model(student)
        expect(
            self.student.trainable_variables,
            "a student with a trainable layer (layer.trainable = True)",
            trainable_variables=0,
        )
        if objective.compares_images(defense):
            checks.expect_one_image(self.student)
        self.defense = defense
        self.attack = attack
        self.seed = seed
        self.bounds = getattr(attack, "bounds", (0.0, 1.0))
        _warn_of_tiny_ball(attack)
        checks.expect_range_used(self.student, self.bounds[1] - self.bounds[0])
        self._student = graphs.with_taps(self.student, defense.layers)
        checks.expect_trainable(self._student, self.bounds)
        self._attacked = frozen.refreshed(self.student)
        self.teacher = self._teacher = None
        if defense.needs_teacher:
            self.teacher = classifiers.logits_model(teacher)
            self._teacher = self._frozen(self.teacher)
        self.steps_taken = keras.Variable(
            0,
            dtype="int64",
            trainable=False,
            aggregation="only_first_replica",
            name="steps_taken",
        )
        self._loss = keras.metrics.Mean(name="loss")
        self._terms = {
            name: keras.metrics.Mean(name=name) for name in defense.terms
        }
        self._accuracies = {"clean": _accuracy("clean")}
        if attack is not None:
            self._accuracies["adversarial"] = _accuracy("adversarial")
        self.averaged_statistics = []
        if statistics_momentum:
            self.averaged_statistics = [
                (statistic, _average_of(statistic))
                for layer in self.student._flatten_layers(include_self=False)
                if isinstance(layer, keras.layers.BatchNormalization)
                for statistic in (layer.moving_mean, layer.moving_variance)
            ]
        self.built = True

    def _frozen(self, teacher):
        tapped = graphs.with_taps(teacher, self.defense.layers)
        checks.expect_pair(self._student, tapped, self.defense.layers)
        checks.expect_trainable(tapped, self.bounds)
        own = [weight.shape for weight in self.student.weights]
        its = [weight.shape for weight in teacher.weights]
        expect(
            not self._teacher_momentum or own == its,
            "teacher_momentum=0 beside a teacher of another network",
            teacher_momentum=self._teacher_momentum,
        )
        teacher.trainable = False
        return tapped

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "sgd",
        jit_compile: bool | None = None,
        auto_scale_loss: bool = True,
        **kwargs: Any,
    ) -> None:
        """Configures training; `jit_compile` None means XLA on GPUs alone.

        On CPUs XLA runs convolutions inside a loop many times slower than the
        plain graph does. An optimizer with `gradient_accumulation_steps`
        works on one device, outside of a mirrored strategy. `metrics` see the
        labels as they are given and the logits of clean images, in training
        of adversarial ones where the defense has no others.

        Raises:
          InputError: a loss, which is the defense's, or gradient accumulation
            in a mirrored strategy.
        """
        for name in ("loss", "loss_weights"):
            expect(
                kwargs.get(name) is None,
                f"no {name} in compile: the defense has them",
                **{name: kwargs.get(name)},
            )
        if jit_compile is None:
            jit_compile = compilation.by_xla()
        try:
            optimizer = keras.optimizers.get(optimizer)
        except ValueError as error:
            raise InputError(
                "Expected an optimizer of Keras or its name. Received: "
                f"optimizer={optimizer!r}."
            ) from error
        scaled = keras.optimizers.LossScaleOptimizer
        if (
            auto_scale_loss
            and _computes_in_float16(self.student)
            and not isinstance(optimizer, scaled)
        ):
            optimizer = scaled(optimizer)
        super().compile(optimizer, jit_compile=jit_compile, **kwargs)
        mirrored = isinstance(
            tf.distribute.get_strategy(),
            tf.distribute.MirroredStrategy
            | tf.distribute.MultiWorkerMirroredStrategy,
        )
        # Keras' optimizers would fail in the first step, in other words.
        expect(
            not (mirrored and self.optimizer.gradient_accumulation_steps),
            "no gradient_accumulation_steps in a mirrored strategy (one device "
            "has tf.distribute.OneDeviceStrategy)",
            steps=self.optimizer.gradient_accumulation_steps,
        )
        for name, value in (
            ("weight_perturbation", self._weight_perturbation),
            ("teacher_momentum", self._teacher_momentum),
        ):
            expect(
                not (mirrored and value),
                f"no {name} in a mirrored strategy (one device has "
                "tf.distribute.OneDeviceStrategy)",
                **{name: value},
            )
            expect(
                not (value and self.optimizer.gradient_accumulation_steps),
                f"no {name} with gradient_accumulation_steps, whose parts of a "
                "batch would each move the weights",
                **{name: value},
            )
        # Variables born inside a replica's traced step are not initialised.
        self.optimizer.build(self.student.trainable_variables)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Takes one step; returns the means since the metrics' last reset."""
        images, labels, weights = self._unpack(data)
        replicas = batch.Replicas(labels)
        adversarial = None
        if self.defense.needs_attack:
            adversarial = self._attack(
                images, labels, replicas, self.steps_taken
            )

        given = images, adversarial, labels, weights
        own = []
        if self._weight_perturbation:
            own = weight_perturbation.moved(
                self.student,
                lambda: tf.reduce_mean(self._objective_of(*given)[1]),
                self._weight_perturbation,
            )
        with tf.GradientTape() as tape:
            objective, loss = self._objective_of(*given)
            # Replicas' gradients are summed: together this is the mean over
            # the global batch, and the penalty once.
            total = tf.reduce_sum(loss) / replicas.global_batch
            total += self._penalties() / replicas.count
            total = self.optimizer.scale_loss(total)
        variables = self.student.trainable_variables
        gradients = tape.gradient(total, variables)
        for variable, value in own:
            variable.assign(value)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._average_statistics()
        self._move_teacher()
        self.steps_taken.assign_add(1)

        return self._measure(
            loss,
            objective.terms,
            labels,
            weights,
            clean=objective.clean_logits,
            adversarial=objective.adversarial_logits,
        )

    def _objective_of(self, images, adversarial, labels, weights):
        """Returns the defense's Objective, and its weighted loss, [b]."""
        objective = self.defense(
            self._student,
            self._teacher,
            images,
            adversarial,
            labels,
            **self._progress(),
        )
        return objective, weights * tf.cast(
            objective.loss, keras.config.floatx()
        )

    def _progress(self):
        """Returns what a defense with a schedule is called with beside all."""
        if not self._num_steps:
            return {}
        done = tf.cast(self.steps_taken, keras.config.floatx())
        return {"progress": done / self._num_steps}

    def _average_statistics(self):
        # As Keras averages the weights: the first step's values are the
        # first average.
        later = tf.cast(self.steps_taken > 0, keras.config.floatx())
        keep = self._statistics_momentum * later
        for statistic, average in self.averaged_statistics:
            average.assign(keep * average + (1.0 - keep) * statistic)

    def _move_teacher(self):
        keep = self._teacher_momentum
        if self.teacher is None or not keep:
            return
        pairs = zip(self.teacher.weights, self.student.weights, strict=True)
        for average, weight in pairs:
            average.assign(keep * average + (1.0 - keep) * weight)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Returns accuracies, and as `loss` the cross-entropy under attack."""
        images, labels, weights = self._unpack(data)
        replicas = batch.Replicas(labels)
        logits = {"clean": self._inference(images)}
        if self.attack is not None:
            adversarial = self._attack(images, labels, replicas, step=0)
            logits["adversarial"] = self._inference(adversarial)
        worst = logits.get("adversarial", logits["clean"])
        loss = losses.cross_entropy(labels, worst)
        loss = weights * tf.cast(loss, keras.config.floatx())
        return self._measure(loss, {}, labels, weights, **logits)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*self._own_metrics(), *self._compiled_metrics()]

    def _own_metrics(self):
        return [
            self._loss,
            *self._terms.values(),
            *self._accuracies.values(),
        ]

    def _modes(self):
        accuracies = [metric.name for metric in self._accuracies.values()]
        return dict.fromkeys(self._terms, "min") | dict.fromkeys(
            accuracies, "max"
        )

    def _compiled_metrics(self):
        """Returns what `compile` was given, without Keras' tracker of a loss.

        There is none: the loss is the defense's.
        """
        own = {id(metric) for metric in (*self._own_metrics(), self._unfit)}
        return [
            metric
            for metric in super().metrics
            if id(metric) not in own and metric.name != "loss"
        ]

    def _inference(self, images):
        return self._student(images, training=False)["logits"]

    def _attack(self, images, labels, replicas, step):
        seeds = randomness.example_seeds(self.seed, step, replicas.indices)
        classes = losses.classes(labels)
        return self.attack(self._attacked(), images, classes, seeds)

    def _penalties(self):
        """Returns what layers add to the loss in their last call, the tape's.

        Regularizers of weights and of activities, and `add_loss`.
        """
        penalties = [
            tf.cast(penalty, keras.config.floatx())
            for penalty in self._student.losses
        ]
        return tf.add_n(penalties) if penalties else 0.0

    def _measure(self, loss, terms, labels, weights, **logits):
        self._loss.update_state(loss)
        seen = [self._loss]
        for name, values in terms.items():
            self._terms[name].update_state(values)
            seen.append(self._terms[name])
        for name, metric in self._accuracies.items():
            if logits.get(name) is not None:
                metric.update_state(losses.classes(labels), logits[name])
                seen.append(metric)
        # Those alone: what was not measured is no zero.
        results = {metric.name: metric.result() for metric in seen}
        compiled = self._compiled_metrics()
        if compiled:
            clean, adversarial = logits.get("clean"), logits.get("adversarial")
            shown = adversarial if clean is None else clean
            self.compute_metrics(None, labels, shown, weights)
        for metric in compiled:
            results |= metric.result()
        return results


def _expect_parts(defense, attack, teacher, num_steps, teacher_momentum):
    """Raises InputError unless a defense has all that it needs."""
    objective.expect_defense(defense)
    name = type(defense).__name__
    expect(
        attack is not None or not defense.needs_attack,
        f"an attack for {name}",
        attack=attack,
    )
    expect(
        teacher is not None or not defense.needs_teacher,
        f"a teacher for {name}",
        teacher=teacher,
    )
    objective.expect_fitting_attack(defense, attack)
    expect(
        num_steps or not _is_scheduled(defense),
        "num_steps for a defense whose weights follow a schedule",
        num_steps=num_steps,
    )
    expect(
        not teacher_momentum or defense.needs_teacher,
        f"teacher_momentum=0 for {name}, which has no teacher",
        teacher_momentum=teacher_momentum,
    )


def _expect_shares(**named):
    for name, value in named.items():
        expect(0 <= value < 1, f"{name} in [0, 1)", **{name: value})


def _is_scheduled(defense):
    return getattr(defense, "is_scheduled", False)


def _warn_of_tiny_ball(attack):
    """Warns of an ε in another unit than the bounds."""
    if not hasattr(attack, "bounds"):
        return
    low, high = attack.bounds
    if attack.epsilon < 0.1 / 255 * (high - low):
        warnings.warn(
            f"epsilon={attack.epsilon:g} is less than a tenth of a gray level "
            f"of pixels from {low:g} to {high:g}: it is in their unit",
            stacklevel=3,
        )


def _computes_in_float16(model):
    """Returns whether a layer, of a model inside too, computes in float16."""
    return any(
        _computes_in_float16(layer)
        if isinstance(layer, keras.Model)
        else layer.compute_dtype == "float16"
        for layer in model.layers
    )


def _average_of(statistic):
    return keras.Variable(
        statistic,
        trainable=False,
        dtype=statistic.dtype,
        aggregation="mean",
        name=f"{statistic.name}_average",
    )


def _accuracy(name):
    """Returns the metric of the images for which `losses.is_right` holds.

    Keras' own counts even scores as right: a training that is judged by it
    would keep the weights of an epoch in which scores tie.
    """
    return keras.metrics.MeanMetricWrapper(_right, name=f"{name}_accuracy")


def _right(labels, logits):
    return tf.cast(losses.is_right(labels, logits), tf.float32)
