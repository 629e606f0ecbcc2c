"""A model version ready for requests: session, batching, warm-up."""

import concurrent.futures
import os
import pathlib

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from ..status import StatusError, invalid
from . import batching, config_files, example_tasks, prediction, servable

_WARM_UP = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
_MAX_WARM_UP_RECORDS = 1000
_PER_MODEL_BATCHING = "batching_params.pbtxt"


class LoadedModel:
    """A servable, and queues in front of it where batching is on.

    Attributes:
      signatures: {name: SignatureDef}.
      checks_method_names: whether a signature's method_name must fit the call.
    """

    def __init__(
        self, loaded, batching_options=None, workers=None, checks_names=False
    ):
        """Takes what is to be run.

        Args:
          loaded: Servable.
          batching_options: config_files.BatchingOptions; None for no batching.
          workers: Executor that runs the batches.
          checks_names: `checks_method_names`.
        """
        self.signatures = loaded.signatures
        self.checks_method_names = checks_names
        self._servable = loaded
        self._batchers = {}
        if batching_options:
            for signature in loaded.signatures.values():
                key = _key(*_tensor_names(signature))
                run = _fetching(loaded, key[1])
                self._batchers[key] = batching.Batcher(
                    run, batching_options, workers
                )

    def run(self, feeds, fetches, timeout_seconds=None):
        """Returns tensors' values; see `Servable.run`.

        Only calls of a whole signature are batched: for fewer outputs there
        is no queue, as in the genuine server.
        """
        batcher = self._batchers.get(_key(feeds, fetches))
        if batcher is None:
            return self._servable.run(feeds, fetches, timeout_seconds)
        outputs = batcher(feeds, timeout_seconds)
        by_name = dict(zip(_key(feeds, fetches)[1], outputs, strict=True))
        return [by_name[name] for name in fetches]

    def close(self):
        """Frees the session."""
        for batcher in self._batchers.values():
            batcher.hurry()
        self._servable.close()


class Loader:
    """Loads versions with what the server's flags say.

    Args:
      flags: as from `server_flags.parse`.
    """

    def __init__(self, flags):
        self._flags = flags
        self._options = None
        threads = config_files.num_cpus()
        if flags.enable_batching:
            parameters = config_files.BatchingParameters()  # all defaults
            if flags.batching_parameters_file:
                parameters = config_files.read_batching(
                    flags.batching_parameters_file
                )
            self._options = config_files.batching_options(parameters)
            threads = self._options.num_batch_threads
        # Threads start when they are needed.
        self._workers = concurrent.futures.ThreadPoolExecutor(
            threads, "batching"
        )

    def __call__(self, name, version, path):
        """Returns a LoadedModel that has answered its warm-up requests.

        Raises:
          StatusError: it does not load, or a warm-up request fails.
        """
        flags = self._flags
        loaded = servable.Servable(
            path,
            tuple(flags.saved_model_tags.split(",")),
            session_config(flags),
        )
        try:
            model = LoadedModel(
                loaded,
                self._batching_options(path),
                self._workers,
                flags.enable_signature_method_name_check,
            )
            if flags.enable_model_warmup:
                repeats = flags.num_request_iterations_for_warmup or 1
                warm_up(model, path, repeats)
        except BaseException:
            loaded.close()
            raise
        return model

    def close(self):
        """Ends the threads of batching once the queues are empty."""
        # Whoever still waits there is told by the closed session.
        self._workers.shutdown(wait=False)

    def _batching_options(self, path):
        own = pathlib.Path(path, _PER_MODEL_BATCHING)
        if self._flags.enable_per_model_batching_parameters and own.exists():
            parameters = config_files.read_batching(own)
            config_files.check_batching(parameters)
            return config_files.batching_options(parameters)
        return self._options


def session_config(flags):
    """Returns the ConfigProto that the flags about parallelism mean."""
    both = flags.tensorflow_session_parallelism
    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism
        or both,
        inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism
        or both,
    )


def warm_up(model, path, repeats=1):
    """Runs the requests that lie beside a model, so that none is the first.

    Args:
      model: LoadedModel.
      path: the version's folder.
      repeats: how often each request is run.

    Raises:
      StatusError: the file is damaged or too long, or a request fails.
    """
    file = pathlib.Path(path) / _WARM_UP
    if not file.exists():
        return
    records = tf.compat.v1.io.tf_record_iterator(os.fspath(file))
    number = 0
    while True:
        try:
            record = next(records, None)
        except tf.errors.DataLossError as error:
            raise StatusError(
                "DATA_LOSS",
                f"{error.message}. Please verify your warmup data is in "
                "TFRecord format.",
            ) from error
        if record is None:
            return
        number += 1
        if number > _MAX_WARM_UP_RECORDS:
            raise invalid(
                "Number of warmup records exceeds the maximum "
                f"({_MAX_WARM_UP_RECORDS}) at {file}"
            )
        log = prediction_log_pb2.PredictionLog()
        try:
            log.ParseFromString(record)
        except Exception as error:
            raise invalid(
                f"Failed to parse warmup record {number} from {file}"
            ) from error
        for _ in range(repeats):
            _replay(model, log)


def _replay(model, log):
    kind = log.WhichOneof("log_type")
    functions = {
        "predict_log": prediction.predict,
        "classify_log": example_tasks.classify,
        "regress_log": example_tasks.regress,
        "multi_inference_log": example_tasks.multi_inference,
    }
    if kind not in functions:
        raise StatusError(
            "UNIMPLEMENTED", f"Unsupported log_type for warmup: {kind}"
        )
    functions[kind](model, getattr(log, kind).request, None)


def _fetching(loaded, fetches):
    return lambda feeds, timeout: loaded.run(feeds, fetches, timeout)


def _key(feeds, fetches):
    return tuple(sorted(feeds)), tuple(sorted(set(fetches)))


def _tensor_names(signature):
    return (
        {info.name for info in signature.inputs.values()},
        {info.name for info in signature.outputs.values()},
    )
