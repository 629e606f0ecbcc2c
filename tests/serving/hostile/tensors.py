"""Tensors that do not fit a model, in predict calls that a server must refuse.

For a server of the model `toy`, as `hostile_calls` says.
"""

import grpc
import numpy as np

from tests.serving.hostile import images as hostile_images
from tests.serving.hostile.calls import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    any_of,
    case,
    images,
    kinds,
    predict,
    tensor,
)

_FLOAT, _STRING = 1, 7
_DECODE = "decode_predict"


def wrong_type(draw):
    kinds = np.float64, np.float16, np.int32, np.uint8, np.bool_, np.complex64
    array = images(draw).astype(any_of(draw, *kinds, np.int64, np.uint64))
    return case(predict({"images": array}))


def wrong_rank(draw):
    array = images(draw)
    right = any_of(draw, array[0], array[..., None], array.ravel(), array[0, 0])
    return case(predict({"images": right}))


def wrong_shape(draw):
    shape = list(IMAGE_SHAPE)
    shape[draw.integers(3)] += int(any_of(draw, -1, 1, 24, 1000))
    return case(predict({"images": images(draw, 1, shape)}))


def huge_shape(draw):
    shape = any_of(
        draw,
        [2**40],
        [2**40, 8, 8, 3],
        [2**20, 8, 8, 3],
        [2**32, 2**32],
        [2**62, 4],
        [2**63 - 1, 2],
        [2**63 - 1, 0],
        [2**62, 2**62, 0],
        [0, 2**62, 8, 3],
        [1] * 60,
        [1] * 300,
        [2] * 254,
        [0] * 254,
    )
    value = tensor(shape, **any_of(draw, {}, {"float_val": [0.5]}))
    return case(predict({"images": value}))


def negative_shape(draw):
    shape = any_of(
        draw, [-1, 8, 8, 3], [1, -8, -8, 3], [-(2**63)], [1, 8, 8, -3]
    )
    return case(predict({"images": tensor(shape, float_val=[0.5])}))


def content_of_wrong_length(draw):
    content = images(draw).tobytes()
    wrong = any_of(
        draw, content[:-1], content + b"\0", content[:4], content * 9
    )
    value = tensor([1, *IMAGE_SHAPE], tensor_content=wrong)
    return case(predict({"images": value}))


def bad_pixels(draw):
    array = images(draw)
    bad = any_of(draw, np.nan, np.inf, -np.inf, 255.0, -1e-6, 1.001, 3e38)
    array.flat[draw.integers(array.size)] = bad
    signature = any_of(draw, "", "predict", "explain")
    inputs = {"images": array}
    if signature == "explain":
        inputs["labels"] = np.zeros(1, np.int64)
    return case(predict(inputs, signature))


def lying_strings(draw):
    count = int(draw.integers(1, 4))
    content = any_of(
        draw,
        b"\x05abc",
        b"\x01\x01\x01",
        b"\xff\xff\xff\xff\x0f",
        b"\x80" * 20,
        b"\x03abcd",
    )
    value = tensor([count + 3], _STRING, tensor_content=content)
    return case(predict({"image_bytes": value}, "decode_predict"))


def many_strings(draw):
    del draw
    value = tensor([2**30], _STRING, tensor_content=b"\x00" * 50)
    return case(predict({"image_bytes": value}, "decode_predict"))


def broken_image(draw):
    files = np.array([hostile_images.file(draw)], object)
    return case(predict({"image_bytes": files}, _DECODE))


def broken_among_good(draw):
    files = [hostile_images.good(draw) for _ in range(4)]
    files[draw.integers(4)] = hostile_images.file(draw)
    return case(predict({"image_bytes": np.array(files, object)}, _DECODE))


def inflating_image(draw):
    files = np.array([hostile_images.inflating(draw)], object)
    return case(
        predict({"image_bytes": files}, _DECODE),
        "OK",
        "INVALID_ARGUMENT",
    )


def bad_labels(draw):
    labels = any_of(draw, [-1], [NUM_CLASSES], [2**62], [-(2**63)], [0, 1], [])
    inputs = {
        "images": images(draw),
        "labels": np.array(labels, np.int64),
    }
    return case(predict(inputs, "explain"))


def labels_of_wrong_kind(draw):
    labels = any_of(draw, np.zeros(1, np.int32), np.zeros((1, 1), np.int64))
    return case(predict({"images": images(draw), "labels": labels}, "explain"))


def compressed_zeros(draw):
    del draw
    value = tensor([1, *IMAGE_SHAPE], tensor_content=bytes(2**24))
    return case(
        predict({"images": value}),
        compression=grpc.Compression.Gzip,
    )


KINDS = kinds(__name__)
