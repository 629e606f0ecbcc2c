"""The demo's ASGI application: one page, its two files, and answers.

It is meant for the person at this machine. Pages of other origins and names
that are rebound to loopback are refused, and all that is sent is bounded.
"""

import asyncio
import contextlib
import functools
import io
import logging
from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from atat_tf.data import images as image_files
from atat_tf.errors import InputError, expect

from ..server import threads
from . import page
from .answers import EPSILONS, Demo
from .samples import Sample

# Of a picture that is sent.
MOST_BYTES = 4 * 2**20
MOST_PIXELS = 4096 * 4096
# Questions that wait for the one that is being answered.
MOST_WAITING = 4
_ARRIVAL_SECONDS = 10.0
# What is left of a picture that is too large is read for so long, and dropped:
# a connection that is closed before would take the answer with it.
_DROPPED_SECONDS = 1.0
_MOST_DROPPED = 8 * MOST_BYTES
_MOST_OF_NAME = 100
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self'; "
        "script-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Refused(Exception):
    """A request that is not answered.

    Args:
      status: of HTTP.
      sentence: for the reader.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Application(Starlette):
    """The page and what it asks for.

    Answers are made one at a time by one thread of its own.

    Args:
      demo: the networks.
      about: a sentence on the samples.
      samples: pictures that can be chosen.
    """

    def __init__(
        self, demo: Demo, about: str, samples: Sequence[Sample]
    ) -> None:
        self._demo, self._samples = demo, tuple(samples)
        self._worker = threads.Worker("attacks")
        self._num_waiting = 0
        texts = {
            "/": (page.live(demo, about, samples), "text/html"),
            "/page.css": (page.text("page.css"), "text/css"),
            "/page.js": (page.text("page.js"), "text/javascript"),
        }
        routes = [
            Route(path, _constant(*text), methods=["GET"])
            for path, text in texts.items()
        ]
        routes.append(Route("/answer", self._answer, methods=["POST"]))
        local = Middleware(
            TrustedHostMiddleware,
            allowed_hosts=["127.0.0.1", "localhost"],
            www_redirect=False,
        )
        super().__init__(routes=routes, middleware=[local])

    def close(self) -> None:
        """Ends the thread once it has answered."""
        self._worker.close()

    async def _answer(self, request: Request) -> Response:
        try:
            networks = await self._networks(request)
            return JSONResponse({"networks": networks}, headers=_HEADERS)
        except Refused as refused:
            status, text = refused.status, refused.sentence
        except InputError as error:
            status, text = 400, str(error)
        except ClientDisconnect:
            status, text = 400, "The caller has gone."
        except Exception as error:
            logging.exception("A question failed in a way that it should not")
            status, text = 500, f"Internal error: {type(error).__name__}."
        # What is left of a body is not read.
        headers = {**_HEADERS, "connection": "close"}
        return JSONResponse({"error": text}, status, headers)

    async def _networks(self, request):
        _expect_own_page(request)
        epsilon = _number(request, "epsilon")
        expect(
            epsilon in EPSILONS,
            f"epsilon among {', '.join(map(str, EPSILONS))}",
            epsilon=request.query_params.get("epsilon"),
        )
        explained = request.query_params.get("explained") or None
        if explained is not None and explained not in self._demo.class_names:
            raise InputError(
                "Expected a class of one of the networks. Received: "
                f"explained={explained[:100]!r}."
            )
        if self._num_waiting > MOST_WAITING:
            raise Refused(
                503, "Expected fewer questions at once. Try again in a moment."
            )
        # Counted while its body arrives: that takes memory, too.
        self._num_waiting += 1
        try:
            if "sample" in request.query_params:
                sample = self._sample(_number(request, "sample"))
                ask = functools.partial(self._demo.answer, sample)
            else:
                name = request.query_params.get("name") or "your picture"
                ask = functools.partial(
                    self._of_file, await _body(request), name[:_MOST_OF_NAME]
                )
            return await self._worker.do(False, ask, epsilon, explained)
        finally:
            self._num_waiting -= 1

    def _sample(self, number):
        expect(
            number is not None and 0 <= number < len(self._samples),
            f"a sample from 0 to {len(self._samples) - 1}",
            sample=number,
        )
        return self._samples[number]

    def _of_file(self, content, name, epsilon, explained):
        pixels = image_files.decoded(io.BytesIO(content), name, MOST_PIXELS)
        sample = Sample(name, None, pixels)
        return self._demo.answer(sample, epsilon, explained)


def _constant(
    text: str, media_type: str
) -> Callable[[Request], Awaitable[Response]]:
    """Returns what answers every request with one text."""

    async def answer(request):
        return Response(text, 200, _HEADERS, media_type)

    return answer


def _expect_own_page(request: Request) -> None:
    """Raises Refused for a request that another site's page has sent."""
    origin = request.headers.get("origin")
    if origin and origin.partition("://")[2] != request.headers["host"]:
        raise Refused(403, "Expected a question of this page's own.")


def _number(request: Request, name: str) -> int | None:
    """Returns a parameter as a number, or None where it is none."""
    text = request.query_params.get(name, "")
    # int() takes digits of any script, and any number of them.
    return (
        int(text)
        if text.isascii() and text.isdigit() and len(text) < 9
        else None
    )


async def _body(request: Request) -> bytes:
    """Returns the bytes of a picture.

    Raises:
      Refused: too many, or they take too long to come.
      InputError: none.
    """
    too_long = Refused(
        413,
        f"Expected a picture of at most {MOST_BYTES // 2**20} MiB. Received: "
        "a larger one.",
    )
    chunks = request.stream()
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > MOST_BYTES:
        await _drop(chunks)
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(_ARRIVAL_SECONDS):
            async for chunk in chunks:
                body += chunk
                if len(body) > MOST_BYTES:
                    break
    except TimeoutError:
        raise Refused(408, "The picture did not arrive in time.") from None
    if len(body) > MOST_BYTES:
        await _drop(chunks)
        raise too_long
    expect(body, "a sample or a picture", bytes=0)
    return bytes(body)


async def _drop(chunks):
    """Reads some of what is left of a request's body."""
    dropped = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DROPPED_SECONDS):
            async for chunk in chunks:
                dropped += len(chunk)
                if dropped > _MOST_DROPPED:
                    return
