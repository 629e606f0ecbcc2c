"""One loaded version of a SavedModel, run as TensorFlow Serving runs it.

Through a C++ session: the same path, and therefore the same refusals in the
same words, as the genuine server.
"""

import gc
import os
import pathlib
import stat
from collections.abc import Mapping, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.python.client import pywrap_tf_session

from ..status import StatusError, invalid

DEFAULT_SIGNATURE = "serving_default"
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Servable:
    """A SavedModel in a session of its own.

    Attributes:
      path: the version's folder.
      signatures: {name: SignatureDef}.
      mergeable: names of the signatures whose calls may be run together: the
        first dimension of each input and output is unknown.
      shift_limit: an attention shift that few clean images exceed, or None.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        session_config: tf.compat.v1.ConfigProto | None = None,
    ):
        """Loads the SavedModel and its variables.

        Args:
          path: folder with saved_model.pb.
          session_config: None for TensorFlow's own choice.

        Raises:
          StatusError: it cannot be loaded.
        """
        self.path = str(path)
        self.shift_limit: float | None = None
        _expect_files(path)
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=session_config)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(
                    self._session, ["serve"], self.path
                )
            self.signatures = dict(meta_graph.signature_def)
            self.mergeable = {
                name
                for name, signature in self.signatures.items()
                if _has_rows(signature)
            }
            self._tensors = {
                name: graph.get_tensor_by_name(name)._as_tf_output()
                for name in _tensor_names(self.signatures)
            }
        except Exception as error:  # TensorFlow raises many kinds here
            self._session.close()
            raise _status(error) from error

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        fetches: Sequence[str],
        timeout_seconds: float | None = None,
    ) -> list[np.ndarray]:
        """Returns the values of tensors.

        Shapes are not compared with the signature's: what the graph takes is
        taken, as by the genuine server. May be called from many threads.

        Args:
          feeds: {tensor name: array}; names as in the signatures.
          fetches: tensor names.
          timeout_seconds: of the session's own; None for none.

        Raises:
          StatusError: what the graph or the session objected to.
        """
        session, known = self._session, self._tensors
        if session is None:
            raise StatusError("CANCELLED", "Session has been closed.")
        try:
            inputs = {known[name]: v for name, v in feeds.items()}
            outputs = [known[name] for name in fetches]
        except KeyError as error:
            raise invalid(
                f"Tried to fetch data for {error.args[0]!r}, which produces "
                "no output."
            ) from error
        options = None
        if timeout_seconds is not None:
            milliseconds = max(1, round(1000 * timeout_seconds))
            if milliseconds < 2**31:
                options = pywrap_tf_session.TF_NewBufferFromString(
                    tf.compat.v1.RunOptions(
                        timeout_in_ms=milliseconds
                    ).SerializeToString()
                )
        try:
            # Not Session.run, which compares shapes, and copies.
            return pywrap_tf_session.TF_SessionRun_wrapper(
                session._session,
                options,
                inputs,
                outputs,
                [],
                None,
            )
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise _status(error) from error
        finally:
            if options is not None:
                pywrap_tf_session.TF_DeleteBuffer(options)

    def close(self) -> None:
        """Frees the variables; no call may be under way."""
        self._session.close()
        self._session = None
        self._tensors = {}
        # A graph refers to itself: left to Python, the memory of several
        # versions is kept before it looks.
        gc.collect()


def _expect_files(path):
    """Raises for a pipe or device: reading one might never end."""
    for folder, _, names in os.walk(path):
        for name in names:
            file = pathlib.Path(folder, name)
            if file.exists() and not stat.S_ISREG(file.stat().st_mode):
                raise invalid(f"Expected a file. Received: {file}.")


def _tensor_names(signatures):
    for signature in signatures.values():
        for infos in (signature.inputs, signature.outputs):
            for info in infos.values():
                # The op that initialises the graph stands among the outputs
                # and is no tensor; sparse ones have no name.
                if ":" in info.name:
                    yield info.name


def _has_rows(signature):
    shapes = [
        info.tensor_shape
        for infos in (signature.inputs, signature.outputs)
        for info in infos.values()
    ]
    return bool(signature.inputs) and all(
        not shape.unknown_rank and shape.dim and shape.dim[0].size == -1
        for shape in shapes
    )


def _status(error):
    if isinstance(error, StatusError):
        return error
    if isinstance(error, tf.errors.OpError):
        code = _CODES.get(error.error_code, "UNKNOWN")
        return StatusError(code, error.message)
    if isinstance(error, OSError):
        # TensorFlow's C++ reads such a file to its end, and says so.
        is_corrupt = str(error).startswith("Cannot parse")
        code = "OUT_OF_RANGE" if is_corrupt else "NOT_FOUND"
        return StatusError(code, str(error))
    kinds = (ValueError, TypeError, RuntimeError)
    code = "INVALID_ARGUMENT" if isinstance(error, kinds) else "UNKNOWN"
    return StatusError(code, str(error))
