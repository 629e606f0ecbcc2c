"""The client's time, retries, readiness, TLS and concurrency."""

import asyncio
import os
import subprocess
import tempfile
import threading
import time
from concurrent import futures

import grpc
import numpy as np
from absl.testing import absltest, parameterized

from serving import client as serving_client
from serving.client import AsyncClient, Client, channel
from tests.serving import small_server
from tests.serving.small_server import random_images as _images

_UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "out for lunch")
_EXHAUSTED = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "Server Threadpool Exhausted",
)


@parameterized.named_parameters(*small_server.KINDS)
class TimeTest(small_server.ServerTest):
    def test_tried_again_while_the_server_is_away_or_full(self, kind):
        for fault in (_UNAVAILABLE, _EXHAUSTED):
            self.server.faults = [fault] * 3
            self.server.predictions.clear()
            answer = self.connected(kind).predict(_images(2))
            self.assertEqual(answer["classes"].shape, (2,))
            self.assertLen(self.server.predictions, 4)

    def test_reason_after_the_last_attempt(self, kind):
        self.server.faults = [_EXHAUSTED] * 1000
        with self.assertRaisesRegex(
            serving_client.ResourceExhausted, "Server Threadpool Exhausted"
        ):
            self.connected(kind, timeout=0.5).predict(_images(1))
        self.assertBetween(len(self.server.predictions), 2, 20)

    def test_too_large_is_not_tried_again(self, kind):
        text = "Sent message larger than max (9 vs. 4)"
        self.server.faults = [(grpc.StatusCode.RESOURCE_EXHAUSTED, text)] * 9
        with self.assertRaises(serving_client.ResourceExhausted):
            self.connected(kind).predict(_images(1))
        self.assertLen(self.server.predictions, 1)

    def test_slow_answer(self, kind):
        self.server.delay = 1.0
        asked = self.connected(kind)
        asked.metadata()
        with self.assertRaises(serving_client.DeadlineExceeded):
            asked.predict(_images(1), timeout=0.2)

    def test_deadline_covers_all_parts(self, kind):
        self.server.delay = 0.2
        with self.assertRaises(serving_client.DeadlineExceeded):
            self.connected(kind, timeout=0.7, max_batch_size=1).predict(
                _images(20)
            )
        self.assertBetween(len(self.server.predictions), 1, 4)

    def test_metadata_is_fetched_once(self, kind):
        asked = self.connected(kind)
        for _ in range(3):
            asked.predict(_images(1))
        self.assertLen(self.server.metadata_calls, 1)

    def test_metadata_is_fetched_again_after_another_version(self, kind):
        asked = self.connected(kind)
        asked.predict(_images(1))
        self.server.version = 2
        asked.predict(_images(1))  # its answer names the version
        asked.predict(_images(1))
        asked.predict(_images(1))
        self.assertLen(self.server.metadata_calls, 2)

    def test_new_signature_is_found(self, kind):
        asked = self.connected(kind)
        echo = self.server.signatures.pop("echo")
        with self.assertRaises(serving_client.FailedPrecondition):
            asked.call("echo", {"x": [[1.0]]})
        self.server.signatures["echo"] = echo
        self.assertEqual(asked.call("echo", {"x": [[1.0]]})["y"], 1)

    def test_metadata_is_forgotten_when_the_server_refuses(self, kind):
        asked = self.connected(kind)
        asked.predict(_images(1))
        code = grpc.StatusCode.FAILED_PRECONDITION
        self.server.faults = [(code, 'Serving signature key "p" not found.')]
        with self.assertRaises(serving_client.FailedPrecondition):
            asked.predict(_images(1))
        asked.predict(_images(1))
        self.assertLen(self.server.metadata_calls, 2)


@parameterized.named_parameters(*small_server.KINDS)
class ReadinessTest(small_server.ServerTest):
    def test_waits_for_the_port_and_then_for_the_model(self, kind):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        server = small_server.SmallServer()
        server.state = 20  # LOADING
        target = f"unix:{folder}/socket"
        asked = self.connected(kind, target)
        done = threading.Event()

        def serve():
            time.sleep(0.3)
            with server.running(target):
                time.sleep(0.3)
                server.state = 30
                done.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            self.assertEqual(asked.wait_until_ready(20), 1)
            self.assertEqual(server.state, 30)
        finally:
            done.set()
            thread.join()

    def test_how_it_stands_after_the_time(self, kind):
        self.server.state = 50
        with self.assertRaisesRegex(
            serving_client.DeadlineExceeded,
            "Expected model 'm' ready at localhost.* within 0.3 s. Received: "
            "version 1 END no saved_model.pb.",
        ):
            self.connected(kind).wait_until_ready(0.3)

    def test_no_server(self, kind):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        asked = self.connected(kind, f"unix:{folder}/none", timeout=2.0)
        with self.assertRaisesRegex(
            serving_client.DeadlineExceeded, "UNAVAILABLE"
        ):
            asked.wait_until_ready()
        with self.assertRaises(serving_client.Unavailable):
            asked.predict(_images(1))

    def test_label(self, kind):
        asked = self.connected(kind, label="stable")
        self.assertEqual(asked.wait_until_ready(5), 1)
        with self.assertRaisesRegex(
            serving_client.DeadlineExceeded, "version label"
        ):
            self.connected(kind, label="canary").wait_until_ready(0.3)


class TlsTest(small_server.ServerTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        _make_certificates(cls.folder)

    def _file(self, name):
        return os.path.join(self.folder, name)

    def _bytes(self, name):
        with open(self._file(name), "rb") as file:
            return file.read()

    def _served(self, mutual):
        credentials = grpc.ssl_server_credentials(
            [(self._bytes("server.key"), self._bytes("server.pem"))],
            self._bytes("ca.pem") if mutual else None,
            mutual,
        )
        server = small_server.SmallServer()
        return self.enterContext(server.running(credentials=credentials))

    @parameterized.named_parameters(*small_server.KINDS)
    def test_mutual(self, kind):
        server = self._served(mutual=True)
        for source in (self._file, self._bytes):
            asked = self.connected(
                kind,
                server.target,
                ca=source("ca.pem"),
                certificate=source("client.pem"),
                key=source("client.key"),
                server_name="server.test",
            )
            self.assertEqual(asked.predict(_images(1))["classes"].shape, (1,))
        nobody = self.connected(
            kind,
            server.target,
            ca=self._file("ca.pem"),
            server_name="server.test",
            timeout=0.5,
        )
        with self.assertRaises(serving_client.Unavailable):
            nobody.predict(_images(1))

    @parameterized.named_parameters(*small_server.KINDS)
    def test_server_must_be_who_it_says(self, kind):
        server = self._served(mutual=False)
        trusted = {"ca": self._file("ca.pem"), "server_name": "server.test"}
        asked = self.connected(kind, server.target, **trusted)
        self.assertEqual(asked.wait_until_ready(5), 1)
        for wrong in (
            {"server_name": "other.test"},
            {"ca": self._file("other.pem")},
        ):
            asked = self.connected(
                kind, server.target, timeout=0.5, **{**trusted, **wrong}
            )
            with self.assertRaises(serving_client.Unavailable):
                asked.predict(_images(1))


class ConcurrencyTest(small_server.ServerTest):
    def test_threads_share_a_client(self):
        asked = self.connected(Client, max_batch_size=2)
        batches = [_images(1 + seed % 5, seed) for seed in range(60)]
        with futures.ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(asked.predict, batches))
        for images, answer in zip(batches, answers, strict=True):
            np.testing.assert_allclose(
                answer["logits"], images.sum((1, 2)), rtol=1e-5
            )

    def test_tasks_share_a_client(self):
        self.server.faults = [_UNAVAILABLE, _EXHAUSTED] * 3
        batches = [_images(1 + seed % 5, seed) for seed in range(30)]

        async def ask():
            async with AsyncClient(self.server.target, "m") as asked:
                return await asyncio.gather(*map(asked.predict, batches))

        for images, answer in zip(batches, asyncio.run(ask()), strict=True):
            np.testing.assert_allclose(
                answer["logits"], images.sum((1, 2)), rtol=1e-5
            )

    def test_cancelled_task_is_cancelled(self):
        self.server.delay = 0.5

        async def ask():
            async with AsyncClient(self.server.target, "m") as asked:
                await asked.metadata()
                task = asyncio.create_task(asked.predict(_images(1)))
                await asyncio.sleep(0.1)
                task.cancel()
                await task

        with self.assertRaises(asyncio.CancelledError):
            asyncio.run(ask())

    def test_closing_ends_calls_under_way(self):
        self.server.delay = 1.0

        async def ask():
            asked = AsyncClient(self.server.target, "m")
            await asked.metadata()
            task = asyncio.create_task(asked.predict(_images(1)))
            await asyncio.sleep(0.2)
            await asked.close()
            await task

        with self.assertRaisesRegex(serving_client.ServingError, "CANCELLED"):
            asyncio.run(ask())
        asked = Client(self.server.target, "m")
        asked.metadata()
        with futures.ThreadPoolExecutor(1) as threads:
            call = threads.submit(asked.predict, _images(1))
            time.sleep(0.2)
            asked.close()
            with self.assertRaisesRegex(
                serving_client.ServingError, "CANCELLED"
            ):
                call.result(timeout=30)


class PauseTest(absltest.TestCase):
    def test_pauses_double_and_fit_into_what_is_left(self):
        error = serving_client.Unavailable("UNAVAILABLE", "away")
        for attempt, longest in ((0, 0.05), (1, 0.1), (3, 0.4), (99, 2.0)):
            for _ in range(50):
                seconds = channel.pause(error, attempt, left=60)
                self.assertBetween(seconds, longest / 2, longest)
                short = channel.pause(error, attempt, left=seconds)
                self.assertTrue(short is None or short < seconds)
        self.assertIsNone(channel.pause(error, 0, left=0.0))


def _make_certificates(folder):
    """Writes ca, server (for server.test), client and a stranger's CA."""

    def openssl(*words):
        subprocess.run(
            ["openssl", *words], cwd=folder, check=True, capture_output=True
        )

    key = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
    for name in ("ca", "other"):
        subject = ["-subj", f"/CN={name}", "-keyout", f"{name}.key"]
        openssl("req", "-x509", *key, *subject, "-out", f"{name}.pem")
    for name in ("server", "client"):
        extension = f"subjectAltName=DNS:{name}.test"
        openssl(
            *("req", "-x509", *key, "-subj", f"/CN={name}"),
            *("-addext", extension, "-addext", "basicConstraints=CA:FALSE"),
            *("-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )


if __name__ == "__main__":
    absltest.main()
