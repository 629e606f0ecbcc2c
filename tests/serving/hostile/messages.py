"""Messages that are none, and calls of what a server does not have.

For a server of the model `toy`, as `calls` says.
"""

from tests.serving.hostile.calls import (
    PREDICTION,
    any_of,
    case,
    images,
    kinds,
    predict,
)

_MODEL = "/tensorflow.serving.ModelService/"
_METHODS = (
    PREDICTION + "Predict",
    PREDICTION + "GetModelMetadata",
    _MODEL + "GetModelStatus",
)
# What gRPC itself says of bytes that are no message.
_NO_MESSAGE = "INTERNAL"


def random_bytes(draw):
    right = _NO_MESSAGE, "INVALID_ARGUMENT", "NOT_FOUND"
    payload = draw.bytes(int(draw.integers(1, 2000)))
    return case(payload, *right, method=any_of(draw, *_METHODS))


def truncated_message(draw):
    whole = predict({"images": images(draw)}).SerializeToString()
    right = _NO_MESSAGE, "INVALID_ARGUMENT"
    return case(whole[: draw.integers(len(whole))], *right)


def flipped_bits(draw):
    # Most bits are those of pixels, so that the request may stay a good one.
    payload = bytearray(predict({"images": images(draw)}).SerializeToString())
    for place in draw.integers(0, len(payload), int(draw.integers(1, 20))):
        payload[place] ^= 1 << draw.integers(8)
    right = "OK", _NO_MESSAGE, "INVALID_ARGUMENT", "NOT_FOUND"
    return case(bytes(payload), *right, "FAILED_PRECONDITION")


def long_names(draw):
    name = any_of(draw, "x", "\0", "é", "\n") * int(any_of(draw, 1000, 500_000))
    return any_of(
        draw,
        case(predict({}, model=name), "NOT_FOUND"),
        case(predict({}, name), "FAILED_PRECONDITION"),
        case(predict({name: images(draw)})),
    )


def unknown_method(draw):
    name = any_of(draw, PREDICTION + "Nope", "/x.Y/Z", "/a", _MODEL + "../..")
    return case(b"", "UNIMPLEMENTED", method=name)


def large_metadata(draw):
    headers = [("x-header", "x" * int(any_of(draw, 20_000, 200_000)))]
    request = predict({"images": images(draw)})
    return case(request, "RESOURCE_EXHAUSTED", metadata=headers)


def hurried(draw):
    request = predict({"images": images(draw)})
    right = "OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"
    return case(request, *right, timeout=float(draw.uniform(0, 2e-3)))


KINDS = kinds(__name__)
