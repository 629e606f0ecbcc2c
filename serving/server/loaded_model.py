"""A model version ready for requests: session, batching options, warm-up."""

import argparse
import functools
import os
import pathlib

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from ..status import StatusError, invalid
from . import batching, prediction, servable

_WARM_UP = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
_MAX_WARM_UP_RECORDS = 1000


class LoadedModel:
    """A servable and how calls to it are merged.

    Attributes:
      signatures: {name: SignatureDef}.
    """

    def __init__(
        self,
        loaded: servable.Servable,
        options: batching.BatchingOptions | None = None,
    ):
        """Takes what is to be run.

        Args:
          loaded: the model.
          options: of batching; None for none.
        """
        self.signatures = loaded.signatures
        self._servable = loaded
        self._options = options
        self._merging = {
            name
            for name, signature in loaded.signatures.items()
            if options and _has_rows(signature)
        }

    def call(
        self, plan: prediction.Plan, finish, deadline: float | None
    ) -> batching.Call:
        """Returns the Call that runs a plan.

        Only calls are merged whose inputs and outputs have rows throughout:
        their first dimensions are unknown.

        Raises:
          StatusError: INVALID_ARGUMENT; it does not fit into a batch.
        """
        kind, options = None, batching.BatchingOptions()
        if plan.signature in self._merging:
            kind = (id(self), plan.signature, plan.fetches)
            options = self._options
        run = functools.partial(_run, self._servable, plan.fetches)
        return batching.Call(kind, run, plan.feeds, finish, options, deadline)

    def run(self, plan: prediction.Plan) -> None:
        """Runs a plan at once, in the caller's thread."""
        self._servable.run(plan.feeds, plan.fetches)

    def close(self) -> None:
        """Frees the session."""
        self._servable.close()


class Loader:
    """Loads versions with what the server's flags say."""

    def __init__(
        self,
        flags: argparse.Namespace,
        options: batching.BatchingOptions | None = None,
    ):
        self._flags = flags
        self._options = options

    def __call__(self, name: str, version: int, path: str) -> LoadedModel:
        """Returns a model that has answered its warm-up requests.

        Raises:
          StatusError: it does not load, or a warm-up request fails.
        """
        flags = self._flags
        loaded = servable.Servable(path, session_config(flags))
        try:
            model = LoadedModel(loaded, self._options)
            if flags.enable_model_warmup:
                warm_up(model, path)
        except BaseException:
            loaded.close()
            raise
        return model


def session_config(flags: argparse.Namespace) -> tf.compat.v1.ConfigProto:
    """Returns what the flags about parallelism mean."""
    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism,
        inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism,
    )


def warm_up(model: LoadedModel, path: str | os.PathLike) -> None:
    """Runs the requests that lie beside a model, so that none is the first.

    Args:
      model: the model.
      path: the version's folder.

    Raises:
      StatusError: the file is damaged or too long, or a request fails.
    """
    file = pathlib.Path(path) / _WARM_UP
    if not file.exists():
        return
    records = tf.compat.v1.io.tf_record_iterator(os.fspath(file))
    try:
        for number, record in enumerate(records, 1):
            if number > _MAX_WARM_UP_RECORDS:
                raise invalid(
                    f"Expected at most {_MAX_WARM_UP_RECORDS} requests in "
                    f"{file}. Received: more."
                )
            request = _request(record, f"warmup record {number} from {file}")
            model.run(prediction.plan_of(model.signatures, request))
    except tf.errors.DataLossError as error:
        raise StatusError(
            "DATA_LOSS",
            f"Expected whole TFRecords in {file}. Received: {error.message}.",
        ) from error


def _request(record, what):
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except Exception as error:
        raise invalid(f"Failed to parse {what}") from error
    kind = log.WhichOneof("log_type")
    if kind != "predict_log":
        raise StatusError(
            "UNIMPLEMENTED", f"Unsupported log_type for warmup: {kind}"
        )
    return log.predict_log.request


def _run(loaded, fetches, feeds, timeout_seconds):
    return loaded.run(feeds, fetches, timeout_seconds)


def _has_rows(signature):
    """Returns whether each tensor has an unknown number of rows."""
    shapes = [
        info.tensor_shape
        for infos in (signature.inputs, signature.outputs)
        for info in infos.values()
    ]
    return bool(signature.inputs) and all(
        not shape.unknown_rank and shape.dim and shape.dim[0].size == -1
        for shape in shapes
    )
