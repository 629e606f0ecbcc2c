"""Pixels of any range, and labels of any kind, as evaluation takes them.

Inside, pixels are in [0, 1] and labels are integers. What callers give and get
is in their own range, `bounds`.
"""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from atat_tf.data import training_data
from atat_tf.errors import expect

# Of the range, the smallest radius that is taken for one in its unit.
_TENTH_OF_A_LEVEL = 0.1 / 255

# (low, high), two numbers, or two arrays of a number for each channel.
Bounds = Sequence[ArrayLike] | np.ndarray


@dataclasses.dataclass(frozen=True)
class PixelRange:
    """What a model takes for black and for white.

    p = low + u · (high − low), with u in [0, 1].

    Attributes:
      low, high: float64, [] or [C].
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def width(self) -> NDArray[np.float64]:
        """high − low, [] or [C]."""
        return self.high - self.low

    @property
    def is_unit(self) -> bool:
        """Whether it is [0, 1] itself."""
        return bool(np.all(self.low == 0) and np.all(self.high == 1))

    @property
    def is_one_pair(self) -> bool:
        """Whether all channels have the same range."""
        return self.low.ndim == 0

    def epsilon_in_unit(self, epsilon: float, norm: str = "linf") -> float:
        """Returns a radius, given as the API documents it, in [0, 1]'s unit.

        Args:
          epsilon: in the unit of the pixels where bounds are one pair, in that
            of pixels in [0, 1] where they are given for each channel.
          norm: "linf", where it is at most the range, or "l2".

        Raises:
          InputError: it is not in the range, or in another unit.
        """
        width = float(self.width) if self.is_one_pair else 1.0
        is_number = isinstance(epsilon, int | float | np.number)
        is_number &= not isinstance(epsilon, bool)
        expect(
            is_number and 0 < epsilon < np.inf,
            "epsilon > 0, a number",
            epsilon=epsilon,
        )
        expect(
            norm != "linf" or epsilon <= width,
            f"epsilon in (0, {width:g}], the range of the pixels",
            epsilon=epsilon,
        )
        expect(
            width == 1 or epsilon >= _TENTH_OF_A_LEVEL * width,
            f"epsilon in the unit of bounds, as {8 / 255 * width:.3g} for "
            f"8/255 of pixels from {float(np.min(self.low)):g} to "
            f"{float(np.max(self.high)):g}",
            epsilon=epsilon,
        )
        return float(epsilon) / width

    def in_unit(self, given: ArrayLike) -> np.ndarray:
        """Returns images in [0, 1].

        Args:
          given: images [n, H, W, C]: uint8, of which 0 is black and 255 is
            white whatever the bounds are, or numbers within the bounds.

        Returns:
          uint8 as it is, or float32 in [0, 1].

        Raises:
          InputError: no images, or numbers outside of the bounds.
        """
        images = _array(given, "images")
        expect(
            images.ndim == 4 and len(images) > 0 and images.shape[-1] > 0,
            "images [n, height, width, channels], n >= 1",
            shape=images.shape,
        )
        expect(
            self.is_one_pair or len(self.low) == images.shape[-1],
            f"bounds of {images.shape[-1]} channels",
            channels=self.low.shape,
        )
        if images.dtype == np.uint8:
            smallest, largest = int(images.min()), int(images.max())
            expect(
                training_data.use_range(smallest, largest, 0, 255),
                "bytes from 0 to 255 (bytes of 0 and 1 are all but black; "
                "floats are taken as they are)",
                largest=largest,
            )
            return images
        expect(
            np.issubdtype(images.dtype, np.number)
            and not np.issubdtype(images.dtype, np.complexfloating),
            "images of uint8 or of floats",
            dtype=str(images.dtype),
        )
        self._expect_inside(images)
        if self.is_unit:
            return images.astype(np.float32).clip(0, 1)
        unit = (images.astype(np.float64) - self.low) / self.width
        return unit.clip(0, 1).astype(np.float32)

    def from_unit(self, pixels: np.ndarray) -> np.ndarray:
        """Returns float32 images within the bounds.

        Args:
          pixels: uint8, or float in [0, 1], [n, H, W, C].
        """
        if pixels.dtype == np.uint8:
            pixels = pixels / np.float32(255)
        if self.is_unit:
            return pixels.astype(np.float32)
        images = self.low + pixels.astype(np.float64) * self.width
        return images.astype(np.float32).clip(self.low, self.high, dtype="f4")

    def layer(self) -> keras.layers.Layer:
        """Returns the layer from [0, 1] to the bounds."""
        width, low = self.width.tolist(), self.low.tolist()
        return keras.layers.Rescaling(width, low, name="from_unit_range")

    def _expect_inside(self, images):
        smallest = images.min(axis=(0, 1, 2)).astype(np.float64)
        largest = images.max(axis=(0, 1, 2)).astype(np.float64)
        room = training_data.TOLERANCE * self.width
        received = {
            "smallest": float(smallest.min()),
            "largest": float(largest.max()),
        }
        # False for NaN too.
        expect(
            np.all(smallest >= self.low - room)
            and np.all(largest <= self.high + room),
            f"pixels within bounds=({self.low.tolist()}, {self.high.tolist()})",
            **received,
        )
        expect(
            training_data.use_range(smallest, largest, self.low, self.high),
            "pixels that use the range from "
            f"{float(np.min(self.low)):g} to {float(np.max(self.high)):g} "
            "(bounds=(0, 1) where they are from 0 to 1; images that were "
            "divided by 255 twice are all but black)",
            **received,
        )


def pixel_range(bounds: Bounds) -> PixelRange:
    """Returns the PixelRange of (low, high).

    Args:
      bounds: two numbers, or two sequences of a number for each channel, as
        ((0 − mean) / deviation, (1 − mean) / deviation) of images that were
        normalised.

    Raises:
      InputError: it is no such pair, or not ascending.
    """
    try:
        low, high = (np.asarray(value) for value in bounds)
        if not {low.dtype.kind, high.dtype.kind} <= {*"iuf"}:
            raise TypeError  # a text would be read, and True be 1
        low, high = np.broadcast_arrays(
            low.astype(np.float64), high.astype(np.float64)
        )
    except (TypeError, ValueError):
        low = high = np.zeros(())
    expect(
        low.ndim <= 1
        and np.all(np.isfinite(high - low))
        and np.all(low < high),
        "bounds (low, high), low < high, two numbers or two of each channel",
        bounds=bounds,
    )
    return PixelRange(np.array(low), np.array(high))


def labels_of(
    given: ArrayLike,
    count: int,
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> NDArray[np.int32]:
    """Returns class numbers.

    Args:
      given: integers [n] or [n, 1], one-hot [n, k], or strings [n].
      count: n, the images.
      num_classes: k, the outputs of the model.
      class_names: k strings in the order of the outputs; None for the names
        among them in alphabetical order, as Keras' readers have them.

    Returns:
      int32 [n], in [0, k).

    Raises:
      InputError: they are none of these, or other classes.
    """
    labels = _array(given, "labels")
    expect(
        labels.ndim >= 1 and len(labels) == count,
        f"a label for each of {count} images",
        labels=labels.shape,
    )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "O" and all(
        isinstance(label, int | np.integer) and abs(int(label)) < 1 << 63
        for label in labels.flat
    ):
        labels = labels.astype(np.int64)  # a column of a table
    if labels.dtype.kind in "USO":
        return _numbers_of_names(labels, num_classes, class_names)
    if labels.ndim == 2:
        expect(
            labels.shape[1] == num_classes
            and np.all(np.isin(labels, (0, 1)))
            and np.all(labels.sum(1) == 1),
            f"one-hot labels of {num_classes} classes, or integers",
            labels=labels.shape,
        )
        return labels.argmax(1).astype(np.int32)
    expect(
        labels.ndim == 1
        and labels.dtype.kind in "iufb"
        and np.all(labels == np.floor(labels)),
        "labels as whole numbers [n], one-hot [n, classes], or names [n]",
        labels=labels.shape,
        dtype=str(labels.dtype),
    )
    expect(
        labels.min() >= 0 and labels.max() < num_classes,
        f"labels from 0 to {num_classes - 1}: the model has {num_classes} "
        "outputs",
        smallest=labels.min().item(),
        largest=labels.max().item(),
    )
    return labels.astype(np.int32)


def targets_of(
    given: ArrayLike,
    count: int,
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> NDArray[np.int32] | NDArray[np.float32]:
    """Returns class numbers, or shares of the classes.

    Args:
      given: as for `labels_of`, or shares, [n, k], >= 0, that sum to 1.
      count, num_classes, class_names: as for `labels_of`.

    Returns:
      int32 [n], or float32 [n, k].

    Raises:
      InputError: they are none of these, or other classes.
    """
    shares = _array(given, "labels")
    if shares.shape == (count, num_classes) and shares.dtype.kind == "f":
        # False for NaN too.
        expect(
            np.all(shares >= 0) and np.allclose(shares.sum(1), 1, atol=1e-3),
            "shares of the classes, >= 0, that sum to 1",
            smallest=float(shares.min()),
            sums=[float(shares.sum(1).min()), float(shares.sum(1).max())],
        )
        return shares.astype(np.float32)
    return labels_of(given, count, num_classes, class_names)


def _numbers_of_names(labels, num_classes, class_names):
    if class_names is None:
        class_names = sorted({*map(str, labels)})
    names = [str(name) for name in class_names]
    expect(
        len({*names}) == len(names) == num_classes,
        f"{num_classes} names of classes, the outputs of the model "
        "(class_names gives them in their order)",
        names=names[:20],
    )
    number_of = {name: number for number, name in enumerate(names)}
    strange = sorted({*map(str, labels)} - number_of.keys())
    expect(not strange, f"labels among {names[:20]}", labels=strange[:5])
    return np.array([number_of[str(name)] for name in labels], np.int32)


def _array(values, what):
    """Returns an array of what may be a list, a tensor or another's array."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        expect(False, f"{what} as one array", received=str(error)[:100])
        raise
