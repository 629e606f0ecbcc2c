"""The training step: attack, forward, attention, loss, gradients, metrics.

`AdversarialTrainer` wraps a student as a Keras model with a train_step of its
own, so that `compile`, `fit` and tf.distribute work as everywhere.
"""

import keras
import tensorflow as tf

from atat_tf import attacks, micro_batches, models, recomputation
from atat_tf.errors import expect


class AdversarialTrainer(keras.Model):
    """Trains a student against an attack, with or without a teacher.

    Under a tf.distribute strategy, build it (and the models) inside
    `strategy.scope()`. One replica and several give the same weights: losses
    are summed and divided once by the global batch, random starts come from
    (seed, step, index in the global batch). Batch-norm statistics are per
    replica unless the layers are `synchronized`.

    Args:
      student: functional keras.Model, float32 images -> logits.
      defense: one of defenses.DEFENSES' objects.
      attack: an attacks.LinfAttack; None where the defense needs none.
      teacher: a model like the student; None where the defense needs none. It
        is frozen, and runs in inference mode.
      seed: integer in [0, 2**31), the root of every random start.
      micro_batch_size: images of a replica that go through the networks at a
        time; their gradients are added up, batch-norm statistics are those of
        each micro-batch. 0: the replica's whole batch.
      attack_batch_size: images that are attacked at a time, with the same
        result; 0: as many as a micro-batch has.
      remat: whether activations below the lowest attention layer are computed
        again for the gradient instead of kept, see `recomputation`.

    Raises:
      InputError: micro-batches with `synchronized` batch norm, an attack or a
        teacher is missing, the attack maximises another loss than the defense
        needs, or a layer is unknown.
    """

    def __init__(
        self,
        student,
        defense,
        attack=None,
        teacher=None,
        seed=0,
        micro_batch_size=0,
        attack_batch_size=0,
        remat=False,
    ):
        super().__init__(name="adversarial_trainer")
        expect(
            attack is not None or not defense.needs_attack,
            f"an attack for {type(defense).__name__}",
            attack=attack,
        )
        expect(
            teacher is not None or not defense.needs_teacher,
            f"a teacher for {type(defense).__name__}",
            teacher=teacher,
        )
        expect_fitting_attack(defense, attack)
        self.student = student
        self.defense = defense
        self.attack = attack
        self.seed = seed
        self._student = models.with_taps(student, defense.layers)
        self._micro_batch_size = micro_batch_size
        self._attack_batch_size = attack_batch_size or micro_batch_size
        if micro_batch_size:
            micro_batches.expect_own_statistics(self.student)
        if remat:
            layers = defense.layers
            self._student = recomputation.Recomputed(self._student, layers)
        self._teacher = None
        if defense.needs_teacher:
            teacher.trainable = False
            self._teacher = models.with_taps(teacher, defense.layers)
        self._loss = keras.metrics.Mean(name="loss")
        self._terms = {
            name: keras.metrics.Mean(name=name) for name in defense.terms
        }
        self._accuracies = {"clean": _accuracy("clean")}
        if attack is not None:
            self._accuracies["adversarial"] = _accuracy("adversarial")
        self.built = True

    def compile(self, optimizer="sgd", jit_compile=None, **kwargs):
        """Configures training; XLA on GPUs only unless told otherwise.

        On CPUs XLA runs convolutions inside a loop many times slower than the
        plain graph does.
        """
        if jit_compile is None:
            jit_compile = bool(tf.config.list_physical_devices("GPU"))
        super().compile(optimizer, jit_compile=jit_compile, **kwargs)
        # Variables born inside a replica's traced step are not initialised.
        self.optimizer.build(self.student.trainable_variables)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras' own takes a first batch apart to build what is missing, and
        # breaks on the per-replica batches of tf.distribute. Nothing is
        # missing here.
        pass

    def call(self, images, training=False):
        return self.student(as_pixels(images), training=training)

    def train_step(self, data):
        images, labels, weights = self._unpack(data)
        replicas = _Replicas(labels)

        adversarial = self._attack(images, labels, replicas)

        def objective_of(images, labels, weights, adversarial=None):
            objective = self.defense(
                self._student, self._teacher, images, adversarial, labels
            )
            loss = tf.cast(objective.loss, keras.config.floatx())
            share = tf.reduce_sum(weights * loss) / replicas.global_batch
            return objective, share

        rows = images, labels, weights
        gradients, objective = micro_batches.gradients(
            objective_of,
            lambda: self._regularization() / replicas.count,
            self.student,
            rows if adversarial is None else (*rows, adversarial),
            self._micro_batch_size,
            self.defense.terms,
        )
        variables = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))

        return self._measure(
            objective.loss,
            objective.terms,
            labels,
            clean=objective.clean_logits,
            adversarial=objective.adversarial_logits,
        )

    def test_step(self, data):
        images, labels, _ = self._unpack(data)
        replicas = _Replicas(labels)
        logits = {"clean": self._inference(images)}
        if self.attack is not None:
            adversarial = self._attack(images, labels, replicas, step=0)
            logits["adversarial"] = self._inference(adversarial)
        return self._measure(None, {}, labels, **logits)

    @property
    def metrics(self):
        return [
            self._loss,
            *self._terms.values(),
            *self._accuracies.values(),
        ]

    def _unpack(self, data):
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
        if weights is None:
            weights = tf.ones(tf.shape(labels))
        weights = tf.reshape(tf.cast(weights, keras.config.floatx()), [-1])
        return as_pixels(images), labels, weights

    def _inference(self, images):
        return self.student(images, training=False)

    def _attack(self, images, labels, replicas, step=None):
        if self.attack is None or not self.defense.needs_attack:
            return None
        step = self.optimizer.iterations if step is None else step
        seeds = attacks.example_seeds(self.seed, step, replicas.indices)
        _, adversarial = micro_batches.in_pieces(
            lambda rows, _: ((), self.attack(self._inference, *rows)),
            (images, labels, seeds),
            self._attack_batch_size,
            images.shape[1:],
        )
        return adversarial

    def _regularization(self):
        # Keras' own `losses` of a model called twice is ambiguous: the
        # penalty is a function of the kernels alone.
        penalties = [
            variable.regularizer(variable)
            for variable in self.student.trainable_variables
            if variable.regularizer is not None
        ]
        return tf.add_n(penalties) if penalties else 0.0

    def _measure(self, loss, terms, labels, **logits):
        if loss is not None:
            self._loss.update_state(loss)
        for name, values in terms.items():
            self._terms[name].update_state(values)
        for name, metric in self._accuracies.items():
            if logits.get(name) is not None:
                metric.update_state(labels, logits[name])
        return {metric.name: metric.result() for metric in self.metrics}


class _Replicas:
    """Where this replica's examples lie in the global batch.

    Attributes:
      count: number of replicas.
      global_batch: examples over all of them, as a float.
      indices: int64 [b], positions of this replica's examples.
    """

    def __init__(self, labels):
        context = tf.distribute.get_replica_context()
        batch = tf.shape(labels, tf.int64)[0]
        self.count = context.num_replicas_in_sync
        offset = tf.constant(0, tf.int64)
        total = batch
        if self.count > 1:
            mine = context.replica_id_in_sync_group
            # Batches may be unequal, so every replica tells its size.
            sizes = context.all_reduce(
                "sum", batch * tf.one_hot(mine, self.count, dtype=tf.int64)
            )
            offset = tf.reduce_sum(sizes[:mine])
            total = tf.reduce_sum(sizes)
        self.global_batch = tf.cast(total, keras.config.floatx())
        self.indices = offset + tf.range(batch)


def expect_fitting_attack(defense, attack):
    """Raises InputError where a defense names a loss that its attack must

    maximise, as TRADES does, and the attack maximises another.
    """
    needed = getattr(defense, "attack_loss", None)
    expect(
        needed is None or getattr(attack, "loss_fn", None) is needed,
        f"an attack that maximises {getattr(needed, '__name__', needed)} for "
        f"{type(defense).__name__}",
        attack=attack,
    )


def as_pixels(images):
    """Returns float images in [0, 1]; uint8 ones are divided by 255."""
    pixels = tf.cast(images, keras.config.floatx())
    return pixels / 255.0 if images.dtype == tf.uint8 else pixels


def _accuracy(name):
    return keras.metrics.SparseCategoricalAccuracy(name=f"{name}_accuracy")
