"""Images that are read as they are asked for, where memory cannot hold them.

Such images stand in the place of an array uint8 [n, H, W, C]: an index, a slice
or an array of indices reads those. Whether a data set is held in memory or read
so makes no difference to its pixels, nor to what is trained on them.
"""

import abc
import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Callable

import numpy as np
import psutil
import tensorflow as tf

from atat_tf.data import images as image_files
from atat_tf.errors import expect

_CGROUP = pathlib.Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Returns how many bytes this process can still take, without swapping.

    A container's own limit counts, which the machine's figures do not show.
    """
    free = psutil.virtual_memory().available
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - used))


def stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Returns what changes when a file does: time in ns and size in bytes.

    Raises:
      OSError: there is no such file.
    """
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size


def _expect_unchanged(path, before):
    """Raises InputError unless a file has the stamp that it had before."""
    try:
        now = stamp(path)
    except OSError:
        now = None
    expect(
        now == before,
        "the files of the data set as they were when they were opened",
        file=path,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Images(abc.ABC):
    """Images on a disk.

    Attributes:
      places: [n], where each of them is.
      image_shape: (H, W, C).
    """

    places: np.ndarray
    image_shape: tuple[int, int, int]

    dtype = np.dtype(np.uint8)

    @abc.abstractmethod
    def read(self, places: np.ndarray) -> np.ndarray:
        """Returns the images at some places, uint8 [b, H, W, C].

        Raises:
          InputError: one of them cannot be read any more.
        """

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, H, W, C)."""
        return (len(self.places), *self.image_shape)

    @property
    def nbytes(self) -> int:
        """What they would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        places = self.places[index]
        if np.ndim(places) == self.places.ndim:
            return self.read(places)
        return self.read(np.array([places]))[0]

    def subset(self, indices: slice | np.ndarray) -> "Images":
        """Returns the images at some indices, unread."""
        return dataclasses.replace(self, places=self.places[indices])

    def gather(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the images at some indices, in a graph.

        Args:
          indices: integers [b].

        Returns:
          uint8 [b, H, W, C].
        """
        images = tf.numpy_function(
            self.__getitem__, [indices], tf.uint8, stateful=False
        )
        return tf.ensure_shape(images, [indices.shape[0], *self.image_shape])


@dataclasses.dataclass(frozen=True, eq=False)
class Files(Images):
    """Image files.

    Attributes:
      places: their numbers.
      files: [N], their paths.
      stamps: int64 [N, 2], of each, from `stamp`.
    """

    files: np.ndarray
    stamps: np.ndarray

    def read(self, places: np.ndarray) -> np.ndarray:
        images = np.empty((len(places), *self.image_shape), np.uint8)

        def load(number):
            place = places[number]
            path = str(self.files[place])
            _expect_unchanged(path, tuple(self.stamps[place]))
            images[number] = image_files.load(path, self.image_shape)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(load, range(len(places))))
        return images


@dataclasses.dataclass(frozen=True, eq=False)
class Rows(Images):
    """Rows of an array that is mapped from a file.

    Attributes:
      places: their numbers.
      array: uint8 [N, H, W, C], a numpy.memmap.
      stamp: of its file, from `stamp`.
    """

    array: np.memmap
    stamp: tuple[int, int]

    def read(self, places: np.ndarray) -> np.ndarray:
        # Behind its end the mapping of a file ends the process.
        _expect_unchanged(str(self.array.filename), self.stamp)
        return np.asarray(self.array[places])


@dataclasses.dataclass(frozen=True, eq=False)
class Records(Images):
    """Examples in files of records.

    Attributes:
      places: int64 [n, 3]: the number of the file, the byte at which the
        example begins, and its length.
      files: paths.
      stamps: of each, from `stamp`.
      decode: function of an example, a string tensor, to uint8 [H, W, C].
    """

    files: tuple[str, ...]
    stamps: list[tuple[int, int]]
    decode: Callable[[tf.Tensor], tf.Tensor]

    def read(self, places: np.ndarray) -> np.ndarray:
        return self._decoded(tf.constant(self._examples(places))).numpy()

    def gather(self, indices: tf.Tensor) -> tf.Tensor:
        examples = tf.numpy_function(
            lambda chosen: self._examples(self.places[chosen]),
            [indices],
            tf.string,
            stateful=False,
        )
        return self._decoded(tf.ensure_shape(examples, indices.shape))

    def _examples(self, places):
        """Returns the bytes of examples, an array of objects [b]."""
        examples = np.empty(len(places), object)
        for number, (file, start, length) in enumerate(places):
            _expect_unchanged(self.files[file], self.stamps[file])
            with open(self.files[file], "rb") as opened:
                opened.seek(start)
                examples[number] = opened.read(length)
        return examples

    @tf.function(reduce_retracing=True)
    def _decoded(self, examples):
        signature = tf.TensorSpec(self.image_shape, tf.uint8)
        return tf.map_fn(self.decode, examples, fn_output_signature=signature)


def records(path: str | os.PathLike[str]) -> np.ndarray:
    """Returns where the records of a TFRecord file are.

    A record is its length (8 bytes), a check of it (4), its bytes, and a check
    of those (4).

    Args:
      path: of the file.

    Returns:
      int64 [n, 2]: the byte at which each begins, and its length.
    """
    found, start, size = [], 0, os.path.getsize(path)
    with open(path, "rb") as file:
        while start < size:
            file.seek(start)
            length = int.from_bytes(file.read(8), "little")
            found.append((start + 12, length))
            start += length + 16
    return np.array(found, np.int64).reshape(-1, 2)


def reader(images: "np.ndarray | Images") -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function of indices [b] to images [b, H, W, C], for graphs."""
    if isinstance(images, Images):
        return images.gather
    held = tf.constant(images)
    return lambda indices: tf.gather(held, indices)
