"""Data-parallel training on many machines: one strategy, one global batch.

`build_strategy` connects the workers. `WorkerGroup` gives each its part of a
batch, and has the collective operations: sums, broadcasts, a barrier.
"""

import json
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context as eager

from atat_tf.errors import InputError, expect
from atat_tf.runs import folder as run_folder
from atat_tf.runs import terminal
from atat_tf.training import checkpoints
from atat_tf.training.machines import membership

# How long a start waits for all workers: container images are pulled then.
START_SECONDS = 600
# A worker that has been silent for longer, stopped or cut off, is lost.
HEARTBEAT_SECONDS = 20


def build_strategy(
    cluster: membership.Cluster, num_devices: int | None = None
) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Returns a strategy over all workers of a cluster, once all have come.

    TensorFlow must not have run anything in this process before.

    Args:
      cluster: of several workers.
      num_devices: GPUs of this worker; None for all of them.

    Raises:
      InputError: more devices than there are.
      ConnectionError: a worker did not come.
    """
    gpus = tf.config.list_physical_devices("GPU")
    available = max(len(gpus), 1)
    expect(
        num_devices is None or 1 <= num_devices <= available,
        f"num_devices from 1 to {available} on this worker of several",
        num_devices=num_devices,
    )
    if gpus and num_devices:
        tf.config.set_visible_devices(gpus[:num_devices], "GPU")
    terminal.console().print(
        f"{cluster.names([cluster.mine])} of {cluster.count} waits for the "
        "others"
    )
    jobs = [job for job, _, _ in cluster.tasks]
    # Before the strategy does it with its defaults: it would wait an hour for
    # a worker that does not come.
    eager.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{jobs[0]}/replica:0/task:0",
        cluster_register_timeout_in_ms=1000 * START_SECONDS,
        heartbeat_timeout_in_ms=1000 * HEARTBEAT_SECONDS,
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(
                name=job, num_tasks=jobs.count(job)
            )
            for job in sorted(set(jobs))
        ],
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except membership.LOSSES as error:
        missing = cluster.lost() or [0]
        raise ConnectionError(
            f"Expected all {cluster.count} workers within {START_SECONDS} s. "
            f"Received: no answer from {cluster.names(missing)}."
        ) from error


def parts(batch_size: int, count: int) -> list[tuple[int, int]]:
    """Returns (start, stop) of each of `count` parts of a batch."""
    bounds = [batch_size * number // count for number in range(count + 1)]
    return list(zip(bounds[:-1], bounds[1:], strict=True))


class WorkerGroup:
    """This process and the other workers of a strategy.

    All workers make the same calls in the same order. In a process that is
    alone nothing is communicated.

    Args:
      strategy: from `build_strategy`, or any other for one process.

    Attributes:
      cluster: the Cluster.
      is_chief: whether this process writes files and talks to the terminal.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        several = isinstance(
            strategy, tf.distribute.MultiWorkerMirroredStrategy
        )
        self._strategy = strategy
        self.cluster = (
            membership.from_environment() if several else membership.Cluster()
        )
        self.is_chief = self.cluster.is_chief

    def batches(
        self, make_batches: Callable[..., tf.data.Dataset], batch_size: int
    ) -> Iterable:
        """Returns distributed batches, each worker making its own part.

        Args:
          make_batches: function of `parts` as `training_batches.batches`
            takes them, None for the whole batch.
          batch_size: the global batch.
        """
        if self.cluster.count == 1:
            whole = make_batches(None)
            return self._strategy.experimental_distribute_dataset(whole)
        replicas = self._strategy.num_replicas_in_sync
        local = replicas // self.cluster.count
        first = self.cluster.mine * local
        own = parts(batch_size, replicas)[first : first + local]
        return self._strategy.distribute_datasets_from_function(
            lambda _: make_batches(own)
        )

    def train_function(self, trainer: keras.Model) -> Callable[[Iterator], Any]:
        """Returns a function of an iterator that takes one training step.

        In a process that is alone it is Keras' own. Keras' fails on several
        workers: it reduces their logs along an axis that they do not have.
        There this function returns no logs, which the metrics hold as well,
        and XLA does not compile it.

        Args:
          trainer: compiled AdversarialTrainer.
        """
        if self.cluster.count == 1:
            trainer.make_train_function()
            return trainer.train_function

        @tf.function(reduce_retracing=True, autograph=False)
        def step(batch):
            self._strategy.run(trainer.train_step, (batch,))

        return lambda iterator: step(next(iterator))

    def sum(self, values: Any) -> np.ndarray:
        """Returns the sums over all workers of some integers, int64."""
        (sums,) = self._summed([np.asarray(values, np.int64)])
        return sums

    def barrier(self) -> None:
        """Returns once all workers have come here."""
        self.sum(0)

    def broadcast(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the chief's arrays; the others give the same shapes."""
        if not self.is_chief:
            values = [np.zeros_like(value) for value in values]
        return self._summed(values)

    def restore(
        self, workdir: pathlib.Path, variables: Sequence[keras.Variable]
    ) -> dict | None:
        """Gives every worker's variables the chief's newest checkpoint.

        Returns:
          The facts saved with it, or None; see `checkpoints.read`.
        """
        newest = checkpoints.read(workdir, variables) if self.is_chief else None
        facts, values = newest or (None, None)
        facts = json.loads(self._broadcast_text(json.dumps(facts)))
        if facts is None:
            return None
        if values is None:
            values = [
                np.zeros(v.shape, tf.as_dtype(v.dtype).as_numpy_dtype)
                for v in variables
            ]
        checkpoints.assign(variables, self.broadcast(values))
        return facts

    def load_weights(
        self, workdir: pathlib.Path, which: str, model: keras.Model
    ) -> None:
        """Gives every worker's model the weights that the chief reads."""
        if self.is_chief:
            run_folder.load_weights(workdir, which, model)
        if self.cluster.count > 1:
            values = checkpoints.capture(model.variables)
            checkpoints.assign(model.variables, self.broadcast(values))

    def expect_same(self, text: str) -> None:
        """Raises InputError on all workers where one has another text.

        Args:
          text: the config and the data, as far as they decide the run.
        """
        digests = np.zeros(self.cluster.count, np.int64)
        digests[self.cluster.mine] = zlib.crc32(text.encode())
        digests = self.sum(digests)
        for number in np.flatnonzero(digests != digests[0]):
            raise InputError(
                "Expected the same flags and data on every worker. Received: "
                f"others on {self.cluster.names([int(number)])} than on the "
                "chief."
            )

    def _broadcast_text(self, text):
        letters = np.frombuffer(text.encode(), np.uint8)
        (size,) = self.broadcast([np.array(len(letters))])
        if not self.is_chief:
            letters = np.zeros(size, np.uint8)
        (letters,) = self.broadcast([letters])
        return letters.tobytes().decode()

    def _summed(self, values):
        if self.cluster.count == 1:
            return values
        results: list[Any] = [None] * len(values)
        kinds = [_wide(value.dtype) for value in values]
        # One operation for all values of a type.
        for kind in sorted(set(kinds), key=str):
            numbers = [n for n, other in enumerate(kinds) if other == kind]
            flat = [np.ravel(values[n]).astype(kind) for n in numbers]
            total = self._sum_of_flat(np.concatenate(flat))
            ends = np.cumsum([values[n].size for n in numbers])[:-1]
            for n, part in zip(numbers, np.split(total, ends), strict=True):
                part = part.reshape(values[n].shape)
                results[n] = part.astype(values[n].dtype)
        return results

    def _sum_of_flat(self, values):
        replicas = self._strategy.num_replicas_in_sync
        local = replicas // self.cluster.count

        @tf.function
        def total(values):
            replica = tf.distribute.get_replica_context()
            # A worker's replicas all have its values: one of them counts.
            counts = replica.replica_id_in_sync_group % local == 0
            values = tf.where(counts, values, tf.zeros_like(values))
            return replica.all_reduce("sum", values)

        sums = self._strategy.run(total, (tf.constant(values),))
        return self._strategy.experimental_local_results(sums)[0].numpy()


def _wide(dtype):
    """Returns a dtype that collectives can add and that holds all values."""
    if dtype == np.float64:
        return np.float64
    # float32, and bfloat16, which is of no kind that NumPy knows.
    return np.int64 if dtype.kind in "biu" else np.float32
