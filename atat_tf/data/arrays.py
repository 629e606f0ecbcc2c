"""A user's own arrays: an .npz file as Keras' own data sets are written.

`numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...)`, images
uint8 [n, H, W, C] or [n, H, W], and labels from 0, [n] or [n, 1].
"""

import functools
import hashlib
import math
import os
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
from rich import filesize

from atat_tf.data import stored, training_data
from atat_tf.errors import InputError, expect

# Enough to tell bytes of 0 to 255 from those of 0 and 1.
_FIRST_IMAGES = 1024
_SUFFIX = ".npz"
_PIECE = 2**20  # bytes that are read at once
_NAMES = ("x_train", "y_train", "x_test", "y_test")
_Pair = tuple[np.ndarray | stored.Images, np.ndarray]


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


def load(
    name: str, memory_budget: float = math.inf
) -> tuple[str, _Pair, _Pair]:
    """Returns provenance, training and test images with their labels.

    Args:
      name: path of the file.
      memory_budget: bytes; images that take more are read from the file as
        they are asked for.

    Returns:
      What is recorded with every result, and twice (uint8 [n, H, W, C], int32
      [n]).

    Raises:
      InputError: no such file, or other arrays; or they are compressed, and
        larger than the memory budget.
    """
    path = pathlib.Path(absolute(name))
    expect(path.is_file(), "an .npz file of images", dataset=name)
    provenance, *pairs = _read(path, path.stat().st_mtime_ns)
    size = sum(images.nbytes for images, _ in pairs)
    train, test = (
        (held(images) if size <= memory_budget else unread(images), labels)
        for images, labels in pairs
    )
    return provenance, train, test


def held(images: np.ndarray) -> np.ndarray:
    """Returns images in memory, which may have been mapped from a file."""
    return np.array(images) if isinstance(images, np.memmap) else images


def unread(images: np.ndarray) -> stored.Rows:
    """Returns images mapped from a file as `stored.Images`.

    Raises:
      InputError: they are in memory, since the file is compressed.
    """
    if isinstance(images, np.memmap):
        shape = images.shape[1:]
        stamp = stored.stamp(str(images.filename))
        return stored.Rows(np.arange(len(images)), shape, images, stamp)
    raise InputError(
        "Expected an .npz file that is not compressed (numpy.savez), of arrays "
        "in C order, or a larger --memory_budget than its images. Received: "
        f"{filesize.decimal(images.nbytes)} of images."
    )


# What a data set is, and its images, are asked for one after the other.
@functools.lru_cache(maxsize=1)
def _read(path, changed):
    del changed
    found = members(path, _NAMES)
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


def members(
    path: str | os.PathLike[str], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file, mapped where it is not compressed.

    Args:
      path: of the file.
      names: of the arrays that it must have.

    Raises:
      InputError: it has not, or is no .npz file.
    """
    try:
        with np.load(path) as file:
            return {name: _mapped(file, path, name) for name in names}
    except (
        OSError,
        KeyError,
        ValueError,
        EOFError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(
            f"Expected an .npz file with arrays {', '.join(names)}. "
            f"Received: {os.fspath(path)!r} ({error})."
        ) from error


def _mapped(file, path, name):
    """Returns one array of an opened .npz file.

    Its file inside of the archive begins behind a header of 30 bytes and two
    texts, whose lengths are the last two numbers of that header.
    """
    inside = file.zip.getinfo(f"{name}.npy")
    if inside.compress_type != zipfile.ZIP_STORED:
        return file[name]
    # Read to its end once, for its checksum: what is mapped has none.
    with file.zip.open(inside) as content:
        while content.read(_PIECE):
            pass
    with open(path, "rb") as whole:
        whole.seek(inside.header_offset + 26)
        lengths = np.frombuffer(whole.read(4), "<u2")
        whole.seek(int(lengths.sum()), os.SEEK_CUR)
        version = np.lib.format.read_magic(whole)
        headers = np.lib.format
        read = {(1, 0): headers.read_array_header_1_0}.get(
            version, headers.read_array_header_2_0
        )
        shape, is_fortran, dtype = read(whole)
        if is_fortran or not np.prod(shape) or dtype.hasobject:
            return file[name]
        return np.memmap(path, dtype, "r", whole.tell(), shape)


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
    first = images[:_FIRST_IMAGES]
    smallest, largest = int(first.min()), int(first.max())
    expect(
        training_data.use_range(smallest, largest, 0, 255),
        f"x_{split} of bytes from 0 to 255 (bytes of 0 and 1 are all but "
        "black: multiply them by 255)",
        largest=largest,
    )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    expect(
        labels.shape == (len(images),)
        and np.issubdtype(labels.dtype, np.integer)
        and 0 <= labels.min() <= labels.max() < 2**31,
        f"y_{split} of whole numbers from 0, one an image",
        dtype=labels.dtype,
        shape=labels.shape,
        first=labels.ravel()[:5].tolist(),
    )
    return images, labels.astype(np.int32)
