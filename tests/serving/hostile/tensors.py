"""Tensors that do not fit a model, in predict calls that a server must refuse.

For a server of the model `toy`, as `hostile_calls` says.
"""

import grpc
import numpy as np

from tests.serving.hostile import images as hostile_images
from tests.serving.hostile.calls import (
    IMAGE_SHAPE,
    any_of,
    case,
    images,
    kinds,
    predict,
    tensor,
)

_FLOAT, _STRING = 1, 7
_DECODE = "decode_predict"


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


def compressed_zeros(draw):
    del draw
    value = tensor([1, *IMAGE_SHAPE], tensor_content=bytes(2**24))
    return case(
        predict({"images": value}),
        compression=grpc.Compression.Gzip,
    )


KINDS = kinds(__name__)
