"""Models that come and go under a server, and calls that it merges."""

import contextlib
import pathlib
import tempfile
import threading

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    prediction_log_pb2,
)

from tests.serving import exports as serving_runs
from tests.serving.server import calls as server_calls


class LifeCycleTest(server_calls.ServerTest):
    """Models and versions that come and go under a server."""

    def test_reload(self):
        first = self.folder_of_numbers(1, 2)
        second = self.folder_of_numbers(10)
        _, calls = self.started(f"--model_base_path={first}", "--model_name=m")
        request = server_calls.reload_request(m=first, other=second)
        model = request.config.model_config_list.config[0]
        model.model_version_policy.all.SetInParent()
        self.assertEqual(calls.reload(request).status.error_code, 0)
        # It has waited for the new model.
        answer = calls.predict(
            server_calls.predict_request(server_calls.numbers([[2]]), "other")
        )
        self.assertEqual(server_calls.outputs(answer)["y"], 11)
        self.awaited(
            lambda: (
                server_calls.states(calls)
                == [(2, "AVAILABLE"), (1, "AVAILABLE")]
            )
        )
        model.version_labels["old"] = 1
        calls.reload(request)
        labelled = server_calls.predict_request(
            server_calls.numbers([[2]]), spec={"version_label": "old"}
        )
        self.assertEqual(server_calls.outputs(calls.predict(labelled))["y"], 2)
        model.version_labels["old"] = 99
        self.assert_refused("FAILED_PRECONDITION", calls.reload, request)
        self.assertEqual(server_calls.outputs(calls.predict(labelled))["y"], 2)
        calls.reload(server_calls.reload_request(other=second))
        self.awaited(
            lambda: server_calls.states(calls) == [(2, "END"), (1, "END")]
        )
        gone = server_calls.predict_request(server_calls.numbers([[2]]))
        self.assert_refused("NOT_FOUND", calls.predict, gone)

    def test_reload_waits_as_long_as_the_caller(self):
        base = self.folder_of_numbers(1)
        empty = serving_runs.temporary_folder(self)
        _, calls = self.started(f"--model_base_path={base}", "--model_name=m")
        self.assert_too_late(
            calls.reload, server_calls.reload_request(m=base, other=empty)
        )
        # Without a deadline it waits until a version is there.
        late = serving_runs.temporary_folder(self)
        waiting = calls.reload.future(
            server_calls.reload_request(m=base, late=late)
        )
        serving_runs.copy_version(base / "1", late, 4)
        self.assertEqual(
            waiting.result(server_calls.PATIENCE_SECONDS).status.error_code, 0
        )
        self.assertEqual(server_calls.states(calls, "late"), [(4, "AVAILABLE")])

    def test_warm_up(self):
        base = self.folder_of_numbers(1, 2, 3)
        good = prediction_log_pb2.PredictionLog()
        good.predict_log.request.CopyFrom(
            server_calls.predict_request(server_calls.numbers([[1]]))
        )
        bad = prediction_log_pb2.PredictionLog()
        bad.predict_log.request.CopyFrom(
            server_calls.predict_request({"z": server_calls.floats([1])})
        )
        _write_warm_up(base / "1", [good, good])
        damaged = _write_warm_up(base / "2", [good])
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
        _write_warm_up(base / "3", [good, bad])
        for bad_version in ("2", "3"):  # to come when 1 is there
            (base / bad_version).rename(base / f"later-{bad_version}")
        models = server_calls.file(
            base,
            "models.config",
            "model_config_list { "
            + server_calls.model_config(
                "m", base, "model_version_policy { all {} }"
            )
            + "}",
        )
        with server_calls.runs() as runs:
            _, calls = self.started(
                f"--model_config_file={models}",
                "--max_num_load_retries=0",
            )
            for bad_version in ("2", "3"):
                (base / f"later-{bad_version}").rename(base / bad_version)
            self.awaited(
                lambda: (
                    server_calls.states(calls)
                    == [(3, "END"), (2, "END"), (1, "AVAILABLE")]
                )
            )
        # Version 1: both records; version 3: the first.
        self.assertLen(runs, 2 + 1)
        third, second, first = calls.status(
            server_calls.status_request()
        ).model_version_status
        self.assertEqual(first.status.error_code, 0)
        self.assertIn("TFRecord", second.status.error_message)
        self.assertIn("Expected the inputs x", third.status.error_message)


def _write_warm_up(version, logs):
    """Returns the file with the requests that a version is warmed up with."""
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())
    return file


class BatchingTest(server_calls.ServerTest):
    """One thread, and a timer of a minute that nothing waits for."""

    parameters = (
        "num_batch_threads { value: 1 } max_batch_size { value: 8 } "
        "batch_timeout_micros { value: 60000000 }"
    )

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        stack = cls.enterClassContext(contextlib.ExitStack())
        folder = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory())
        )
        serving_runs.save_numbers(folder / "1")
        file = server_calls.file(folder, "batching.config", cls.parameters)
        cls.server = stack.enter_context(
            serving_runs.serving(
                f"--model_base_path={folder}",
                "--model_name=m",
                f"--batching_parameters_file={file}",
            )
        )

    def setUp(self):
        super().setUp()
        self.calls = self.connected(f"127.0.0.1:{self.server.port}")

    def answers(self, requests):
        """Returns outputs, or errors, and sizes of runs of what waits.

        The only thread is busy until all requests have come.
        """
        let_go = threading.Event()
        self.addCleanup(let_go.set)
        first = server_calls.predict_request(server_calls.numbers([[1]]))
        with server_calls.runs(let_go) as runs:
            busy = self.calls.predict.future(first)
            self.awaited(lambda: runs)
            sent = [self.calls.predict.future(request) for request in requests]
            # Each connection's calls come in order.
            self.calls.status(server_calls.status_request())
            let_go.set()
            busy.result(server_calls.PATIENCE_SECONDS)
            errors = [
                call.exception(server_calls.PATIENCE_SECONDS) for call in sent
            ]
        outputs = [
            error or server_calls.outputs(call.result())
            for call, error in zip(sent, errors, strict=True)
        ]
        return outputs, server_calls.sizes(runs[1:])

    def test_what_waits_is_merged(self):
        requests = [
            server_calls.predict_request(
                server_calls.numbers([[n, n], [-n, n]])
            )
            for n in range(4)
        ]
        answers, sizes = self.answers(requests)
        self.assertEqual(sizes, [8])
        for n, answer in enumerate(answers):
            np.testing.assert_allclose(
                answer["y"], [[n / 2 + 2] * 2, [-n / 2 + 2, n / 2 + 2]], 1e-5
            )
