"""Where a Keras classifier looks, by Grad-CAM.

The examples have `model`, `x` and `y` of `robustness`.
"""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from atat_tf import grad_cam
from atat_tf.api import arrays
from atat_tf.api import classifier as classifiers
from atat_tf.api.pixels import Bounds, labels_of, pixel_range
from atat_tf.attacks import linf
from atat_tf.data import images as image_files
from atat_tf.errors import expect, expect_known, with_checked_types
from atat_tf.evaluation.attention import explanations
from atat_tf.evaluation.attention.views import Viewer
from atat_tf.models.classifiers import attention_layer

_SHOWN = 8


@dataclasses.dataclass(frozen=True, repr=False)
class Attention:
    """Attention maps of images.

    Attributes:
      maps: float32 [n, h, w], Eq. 3, >= 0, in the unit of the class score.
      classes: int [n], whose score each map explains.
      predictions: int [n], what the model takes each image for.
      layer: the layer of the maps.
      images: uint8 [n, H, W, C], the images.
      network: functional keras.Model, float32 images in [0, 1] -> logits, whose
        maps these are.
      score: of a class, "logit", "centred" or "margin".
    """

    maps: NDArray[np.float32]
    classes: NDArray[np.integer]
    predictions: NDArray[np.integer]
    layer: str
    images: NDArray[np.uint8]
    network: keras.Model
    score: str = "logit"

    @with_checked_types
    def quality(
        self, epsilon: float | None = None, seed: int = 0
    ) -> dict[str, float]:
        """Returns what these maps are worth as explanations, means of images.

        Example:
          >>> worth = atat.attention(model, x, y).quality()
          >>> 0 < worth["class_sensitivity"] < 1
          True

        Args:
          epsilon: ε of PGD(20), of pixels in [0, 1], under which `stability`
            is measured; None leaves that out.
          seed: of its random starts, and of the random network.

        Returns:
          {name: number} of "class_sensitivity", "deletion", "insertion",
          "stability" and "parameter_randomisation", each as
          `evaluation.attention.explanations` defines it; without what no
          image has.

        Raises:
          InputError: bad arguments.
        """
        attack = None
        if epsilon is not None:
            attack = linf.pgd(epsilon, epsilon / 4, 20)
        return explanations.quality(
            self.network,
            self.layer,
            self.images / np.float32(255),
            self.classes,
            attack,
            self.score,
            seed,
        ).means()

    def overlay(self) -> NDArray[np.uint8]:
        """Returns the images in gray under their maps in colours.

        Each map is divided by its maximum and enlarged bilinearly.

        Returns:
          uint8 [n, H, W, 3].

        Raises:
          InputError: the images have not 1 or 3 channels.
        """
        expect(
            self.images.shape[-1] in (1, 3),
            "images of 1 or 3 channels to draw",
            shape=self.images.shape,
        )
        pairs = zip(self.images, self.maps, strict=True)
        return np.stack([image_files.overlaid(*pair) for pair in pairs])

    @with_checked_types
    def plot(self, columns: int = _SHOWN) -> Figure:
        """Returns a figure of the overlays, with the classes above.

        Args:
          columns: overlays in a row, >= 1.
        """
        expect(columns >= 1, "columns >= 1", columns=columns)
        count = len(self.maps)
        columns = min(columns, count)
        rows = -(-count // columns)
        figure = Figure(figsize=(1.6 * columns, 1.8 * rows), layout="tight")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.axis("off")
        for i, drawn in enumerate(self.overlay()):
            axes[i].imshow(drawn)
            axes[i].set_title(self._caption(i), fontsize=8)
        return figure

    def __repr__(self) -> str:
        height, width = self.maps.shape[1:]
        return (
            f"Attention of {len(self.maps):,} images at {self.layer!r}, "
            f"maps of {height} × {width}"
        )

    def _repr_html_(self) -> str:
        pictures = "".join(
            '<figure style="display:inline-block;margin:4px">'
            f'<img src="{image_files.data_uri(picture)}" height="96" '
            f'alt="" style="image-rendering:pixelated"><figcaption>'
            f"{self._caption(i)}</figcaption></figure>"
            for i, picture in enumerate(self.overlay()[:_SHOWN])
        )
        return f"<p>{html.escape(repr(self))}</p>{pictures}"

    def _caption(self, i):
        """Returns whose score a map explains, and what was predicted."""
        number, predicted = self.classes[i], self.predictions[i]
        if number == predicted:
            return f"class {number}, predicted"
        return f"class {number}; predicted: {predicted}"


@with_checked_types
def attention(
    model: Any,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    layer: str = "deepest",
    bounds: Bounds = (0, 1),
    score: str = "logit",
    batch_size: int = 100,
    class_names: Sequence[str] | None = None,
) -> Attention:
    """Returns where a classifier looks.

    Eq. 3: ATT^c(x) = ReLU(Σ_k GAP(∂y^c / ∂A_k) A_k(x)), Grad-CAM (Selvaraju
    et al. 2017) without its enlargement.

    Example:
      >>> looked = atat.attention(model, x, y)
      >>> looked.maps.shape, looked.layer
      ((20, 4, 4), 'maps')
      >>> looked.overlay().shape
      (20, 8, 8, 3)

    Args:
      model: keras.Model, as for `robust_accuracy`.
      x: images [n, H, W, C], as there.
      y: the classes whose score is followed, as there; None for the predicted
        ones.
      layer: the name of a layer with a spatial map; "deepest" is the last.
      bounds, batch_size, class_names: as there.
      score: "logit" (y^c), "centred" (less the mean of all) or "margin" (less
        the largest other).

    Returns:
      Attention.

    Raises:
      InputError: bad arguments, or a model without such a layer.
    """
    expect_known("a class score", score, grad_cam.SCORES)
    pixels = pixel_range(bounds)
    arrays.expect_settings(batch_size)
    images = pixels.in_unit(x)
    height, width, channels = images.shape[1:]
    shape = height, width, channels
    classifier = classifiers.as_classifier(model, pixels, shape)
    expect(
        classifier.is_keras,
        "a Keras model that is a graph of layers, whose maps can be read",
        model=type(model),
    )
    labels = None
    if y is not None:
        labels = labels_of(y, len(images), classifier.num_classes, class_names)
    name = attention_layer(classifier.network, layer)
    if images.dtype == np.uint8:
        as_bytes, images = images, images / np.float32(255)
    else:
        as_bytes = image_files.as_uint8(images)
    view = Viewer(
        classifier.network, name, batch_size=batch_size, score=score
    ).view(images, labels)
    classes = view.predictions if labels is None else labels
    return Attention(
        view.maps,
        classes,
        view.predictions,
        name,
        as_bytes,
        classifier.network,
        score,
    )
