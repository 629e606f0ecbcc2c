"""Messages that are none, and calls of what a server does not have.

For a server of the model `toy`, as `calls` says.
"""

from tensorflow_serving.apis import (
    model_management_pb2,
)

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


def extra_inputs(draw):
    value = images(draw)
    names = [f"x{number}" for number in range(any_of(draw, 1, 1000))]
    return case(predict(dict.fromkeys(("images", *names), value)))


def long_names(draw):
    name = any_of(draw, "x", "\0", "é", "\n") * int(any_of(draw, 1000, 500_000))
    return any_of(
        draw,
        case(predict({}, model=name), "NOT_FOUND"),
        case(predict({}, name), "FAILED_PRECONDITION"),
        case(predict({name: images(draw)})),
    )


def large_filter(draw):
    request = predict({"images": images(draw)})
    names = ["logits"] * 10_000
    if draw.integers(2):
        names = [f"output{number}" for number in range(10_000)]
    request.output_filter.extend(names)
    return case(request)


def bad_config(draw):
    request = model_management_pb2.ReloadConfigRequest()
    models = request.config.model_config_list.config
    kind = draw.integers(4)
    if kind == 0:
        request.config.custom_model_config.type_url = "x"
    elif kind == 1:
        models.add(name="toy", base_path="relative/path")
    elif kind == 2:
        models.add(name="new", base_path="/nowhere/at/all")
    else:
        for _ in range(1000):
            models.add(name="toy", base_path="/tmp")
    return case(request, method=_MODEL + "HandleReloadConfigRequest")


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
