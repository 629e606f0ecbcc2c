"""A user's own arrays: an .npz file as Keras' own data sets are written.

`numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...)`, images
uint8 [n, H, W, C] or [n, H, W], and labels from 0, [n] or [n, 1].
"""

import functools
import hashlib
import pathlib

import numpy as np

from atat_tf.errors import InputError, expect

_SUFFIX = ".npz"
_NAMES = ("x_train", "y_train", "x_test", "y_test")
_Pair = tuple[np.ndarray, np.ndarray]


def is_file(name: str) -> bool:
    """Returns whether a data set's name is the path of an .npz file."""
    return name.endswith(_SUFFIX)


def absolute(name: str) -> str:
    """Returns the whole path of an .npz file, other names as they are."""
    if not is_file(name):
        return name
    return str(pathlib.Path(name).expanduser().resolve())


def about(name: str) -> tuple[int, tuple[int, int, int]]:
    """Returns the number of classes and the images' (H, W, C).

    Args:
      name: path of the file.

    Raises:
      InputError: as for `load`.
    """
    _, (images, labels), _ = load(name)
    height, width, channels = images.shape[1:]
    return int(labels.max()) + 1, (height, width, channels)


def load(name: str) -> tuple[str, _Pair, _Pair]:
    """Returns provenance, training and test images with their labels.

    Args:
      name: path of the file.

    Returns:
      What is recorded with every result, and twice (uint8 [n, H, W, C], int32
      [n]).

    Raises:
      InputError: no such file, or other arrays.
    """
    path = pathlib.Path(absolute(name))
    expect(path.is_file(), "an .npz file of images", dataset=name)
    return _read(path, path.stat().st_mtime_ns)


# What a data set is, and its images, are asked for one after the other.
@functools.lru_cache(maxsize=1)
def _read(path, changed):
    del changed
    try:
        with np.load(path) as file:
            found = {key: file[key] for key in _NAMES}
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise InputError(
            f"Expected an .npz file with arrays {', '.join(_NAMES)}. "
            f"Received: {str(path)!r} ({error})."
        ) from error
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    train = _pair(found["x_train"], found["y_train"], "train")
    test = _pair(found["x_test"], found["y_test"], "test")
    expect(
        train[0].shape[1:] == test[0].shape[1:],
        "training and test images of one shape",
        x_train=train[0].shape,
        x_test=test[0].shape,
    )
    return f"file {path.name}, sha256:{digest[:16]}", train, test


def _pair(images, labels, split):
    """Returns uint8 [n, H, W, C] and int32 [n], or raises InputError."""
    if images.ndim == 3:
        images = images[..., None]
    expect(
        images.dtype == np.uint8 and images.ndim == 4 and len(images),
        f"x_{split} of bytes, pixels from 0 to 255, [n, H, W, C]",
        dtype=images.dtype,
        shape=images.shape,
    )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    expect(
        labels.shape == (len(images),)
        and np.issubdtype(labels.dtype, np.integer)
        and labels.min() >= 0,
        f"y_{split} of whole numbers from 0, one an image",
        dtype=labels.dtype,
        shape=labels.shape,
        smallest=float(labels.min(initial=0)),
    )
    return images, labels.astype(np.int32)
