"""A running server and clients of it, for the client's tests."""

import asyncio

import pytest

from serving.client import AsyncClient, Client
from tests.serving import small_server


class _Awaited:
    """An AsyncClient whose calls are waited for, to share `Client`'s tests."""

    def __init__(self, *args, **kwargs):
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(*args, **kwargs)

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def waited(*args, **kwargs):
            return self._loop.run_until_complete(method(*args, **kwargs))

        return waited

    def end(self):
        self.close()
        self._loop.close()


@pytest.fixture
def server():
    """A running SmallServer."""
    with small_server.SmallServer().running() as running:
        yield running


@pytest.fixture(params=["blocking", "async"])
def connect(request, server):
    """connect(target, name, **kwargs): a client, closed after the test.

    Every test that takes it runs with both kinds of client.
    """

    def connected(target=None, name="m", **kwargs):
        if request.param == "blocking":
            client = Client(target or server.target, name, **kwargs)
            request.addfinalizer(client.close)
        else:
            client = _Awaited(target or server.target, name, **kwargs)
            request.addfinalizer(client.end)
        return client

    return connected
