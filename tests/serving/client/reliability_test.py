"""The client's time, retries, readiness, TLS and concurrency."""

import asyncio
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

from serving import client as serving_client
from serving.client import AsyncClient, Client, channel
from tests.serving import small_server
from tests.serving.small_server import random_images
from tests.support import certificates

_ONE = random_images(1)
_UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "out for lunch")
_EXHAUSTED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Threadpool Exhausted")
# The second where the machine is too busy to shake hands in time.
_NO_CONNECTION = (serving_client.Unavailable, serving_client.DeadlineExceeded)
_TOO_LARGE = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "Sent message larger than max (9 vs. 4)",
)


@pytest.mark.parametrize("fault", [_UNAVAILABLE, _EXHAUSTED])
def test_tried_again_while_the_server_is_away_or_full(server, connect, fault):
    server.faults = [fault] * 3
    assert connect().predict(_ONE)["classes"].shape == (1,)
    assert len(server.predictions) == 4


def test_reason_after_the_last_attempt(server, connect):
    server.faults = [_EXHAUSTED] * 1000
    with pytest.raises(serving_client.ResourceExhausted, match="Threadpool"):
        connect(timeout=2.0).predict(_ONE)
    assert 2 <= len(server.predictions) <= 80


def test_too_large_is_not_tried_again(server, connect):
    server.faults = [_TOO_LARGE] * 9
    with pytest.raises(serving_client.ResourceExhausted):
        connect().predict(_ONE)
    assert len(server.predictions) == 1


def test_slow_answer(server, connect):
    server.delay = 1.0
    client = connect()
    client.metadata()
    with pytest.raises(serving_client.DeadlineExceeded):
        client.predict(_ONE, timeout=0.2)


def test_deadline_covers_all_parts(server, connect):
    server.delay = 0.2
    client = connect(timeout=0.7, max_batch_size=1)
    with pytest.raises(serving_client.DeadlineExceeded):
        client.predict(random_images(20))
    assert 1 <= len(server.predictions) <= 4


def test_metadata_is_fetched_again_after_another_version(server, connect):
    client = connect()
    client.predict(_ONE)
    client.predict(_ONE)
    assert len(server.metadata_calls) == 1
    server.version = 2
    client.predict(_ONE)  # its answer names the version
    client.predict(_ONE)
    client.predict(_ONE)
    assert len(server.metadata_calls) == 2


def test_new_signature_is_found(server, connect):
    client = connect()
    echo = server.signatures.pop("echo")
    with pytest.raises(serving_client.FailedPrecondition):
        client.call("echo", {"x": [[1.0]]})
    server.signatures["echo"] = echo
    assert client.call("echo", {"x": [[1.0]]})["y"] == 1


def test_metadata_is_forgotten_when_the_server_refuses(server, connect):
    client = connect()
    client.predict(_ONE)
    server.faults = [(grpc.StatusCode.FAILED_PRECONDITION, "no such key")]
    with pytest.raises(serving_client.FailedPrecondition):
        client.predict(_ONE)
    client.predict(_ONE)
    assert len(server.metadata_calls) == 2


def test_waits_for_the_port_and_then_for_the_model(connect, tmp_path):
    server = small_server.SmallServer()
    server.state = 20  # LOADING
    target = f"unix:{tmp_path}/socket"
    client = connect(target)
    done = threading.Event()

    def serve():
        time.sleep(0.3)
        with server.running(target):
            time.sleep(0.3)
            server.state = 30
            done.wait(30)

    with futures.ThreadPoolExecutor(1) as threads:
        threads.submit(serve)
        try:
            assert client.wait_until_ready(20) == 1
            assert server.state == 30
        finally:
            done.set()


def test_how_it_stands_after_the_time(server, connect):
    server.state = 50
    with pytest.raises(
        serving_client.DeadlineExceeded,
        match="'m' ready at localhost.* 1.5 s. .*1 END no saved_model.pb",
    ):
        connect().wait_until_ready(1.5)


def test_no_server(connect, tmp_path):
    client = connect(f"unix:{tmp_path}/none", timeout=1.0)
    with pytest.raises(serving_client.DeadlineExceeded, match="UNAVAILABLE"):
        client.wait_until_ready()
    with pytest.raises(serving_client.Unavailable):
        client.predict(_ONE)


def test_label_that_is_ready(connect):
    assert connect(label="stable").wait_until_ready(5) == 1
    with pytest.raises(serving_client.DeadlineExceeded, match="version label"):
        connect(label="canary").wait_until_ready(6)


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A folder of ca, server (for server.test), client and a stranger's CA."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        certificates.write(folder, name)
    for name in ("server", "client"):
        host = f"subjectAltName=DNS:{name}.test"
        certificates.write(folder, name, host, authority="ca")
    return folder


@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize("given_as", [str, lambda path: path.read_bytes()])
def test_tls(connect, certified, given_as, mutual):
    key, chain, ca = (
        (certified / name).read_bytes()
        for name in ("server.key", "server.crt", "ca.crt")
    )
    credentials = grpc.ssl_server_credentials(
        [(key, chain)], ca if mutual else None, mutual
    )
    right = {
        "ca": given_as(certified / "ca.crt"),
        "server_name": "server.test",
    }
    wrongs = [{"server_name": "a.test"}, {"ca": certified / "other.crt"}]
    if mutual:
        right["certificate"] = given_as(certified / "client.crt")
        right["key"] = given_as(certified / "client.key")
        wrongs.append({"certificate": None, "key": None})
    with small_server.SmallServer().running(credentials=credentials) as server:
        client = connect(server.target, **right)
        assert client.predict(_ONE)["classes"].shape == (1,)
        for wrong in wrongs:
            client = connect(server.target, timeout=0.5, **{**right, **wrong})
            with pytest.raises(_NO_CONNECTION):
                client.predict(_ONE)


def _expect_sums(batches, answers):
    for images, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(
            answer["logits"], images.sum((1, 2)), rtol=1e-5
        )


def test_tasks_share_a_client(server):
    server.faults = [_UNAVAILABLE, _EXHAUSTED] * 3
    batches = [random_images(1 + seed % 5, seed) for seed in range(30)]

    async def ask():
        async with AsyncClient(server.target, "m") as client:
            return await asyncio.gather(*map(client.predict, batches))

    _expect_sums(batches, asyncio.run(ask()))


def test_cancelled_task_is_cancelled(server):
    server.delay = 0.5

    async def ask():
        async with AsyncClient(server.target, "m") as client:
            await client.metadata()
            task = asyncio.create_task(client.predict(_ONE))
            await asyncio.sleep(0.1)
            task.cancel()
            await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ask())


def test_closing_ends_tasks_under_way(server):
    server.delay = 1.0

    async def ask():
        client = AsyncClient(server.target, "m")
        await client.metadata()
        task = asyncio.create_task(client.predict(_ONE))
        await asyncio.sleep(0.2)
        await client.close()
        await task

    with pytest.raises(serving_client.ServingError, match="CANCELLED"):
        asyncio.run(ask())


def test_closing_ends_calls_under_way(server):
    server.delay = 1.0
    client = Client(server.target, "m")
    client.metadata()
    with futures.ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.predict, _ONE)
        time.sleep(0.2)
        client.close()
        with pytest.raises(serving_client.ServingError, match="CANCELLED"):
            call.result(timeout=30)


def test_pauses_double_and_fit_into_what_is_left():
    error = serving_client.Unavailable("UNAVAILABLE", "away")
    for attempt, longest in ((0, 0.05), (1, 0.1), (3, 0.4), (99, 2.0)):
        for _ in range(50):
            seconds = channel.pause(error, attempt, left=60)
            assert longest / 2 <= seconds <= longest
            short = channel.pause(error, attempt, left=seconds)
            assert short is None or short < seconds
    assert channel.pause(error, 0, left=0.0) is None
