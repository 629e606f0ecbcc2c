"""Loads a model version: a session, and the requests that warm it up."""

import argparse
import json
import os
import pathlib

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from ..status import StatusError, invalid
from . import prediction, servable

_CARD = "model_card.json"
_WARM_UP = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
_MAX_WARM_UP_RECORDS = 1000


def load(
    flags: argparse.Namespace, name: str, version: int, path: str
) -> servable.Servable:
    """Returns a model that has answered its warm-up requests.

    Args:
      flags: of the server.
      name, version: for which nothing differs.
      path: the version's folder.

    Raises:
      StatusError: it does not load, or a warm-up request fails.
    """
    del name, version
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism,
        inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism,
    )
    loaded = servable.Servable(path, config)
    try:
        loaded.shift_limit = _shift_limit(pathlib.Path(path) / _CARD)
        if flags.enable_model_warmup:
            _warm_up(loaded, pathlib.Path(path) / _WARM_UP)
    except BaseException:
        loaded.close()
        raise
    return loaded


def _shift_limit(file):
    """Returns the attention shift that one clean image in 100 exceeds.

    None where no model card tells it.
    """
    try:
        card = json.loads(file.read_text())
        return float(card["attention_shift"]["quantiles"]["0.99"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _warm_up(loaded, file):
    """Runs the requests in a file, if there is one."""
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
            request = _request(record, f"record {number} of {file}")
            plan = prediction.plan_of(loaded.signatures, request)
            loaded.run(plan.feeds, plan.fetches)
    except tf.errors.DataLossError as error:
        raise StatusError(
            "DATA_LOSS",
            f"Expected whole TFRecords in {file}. Received: {error.message}.",
        ) from error


def _request(record, what):
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except Exception as error:
        raise invalid(f"Expected a PredictionLog. Received: {what}.") from error
    kind = log.WhichOneof("log_type")
    if kind != "predict_log":
        raise StatusError(
            "UNIMPLEMENTED", f"Expected a predict_log. Received: {kind}."
        )
    return log.predict_log.request
