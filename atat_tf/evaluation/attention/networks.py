"""Networks that are looked at: of a run folder, or of a .keras file."""

import dataclasses
import pathlib
from collections.abc import Iterable

import keras

from atat_tf.data import datasets
from atat_tf.errors import expect
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers
from atat_tf.models import files as model_files
from atat_tf.runs import build, naming
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that a figure or the demo's page shows.

    Attributes:
      title: short.
      classifier: keras.Model, float32 [b, H, W, C] in [0, 1] -> logits.
      layer: the layer whose attention is shown.
      class_names: as many strings as logits.
      origin: where it came from, with a digest of the weights.
      score: of `grad_cam.SCORES`, the class score that its maps explain.
      run: the Run it is of; None for others.
      watermark: "untrained" where the weights are random, else "".
      about: sentences for the reader; "" for none.
    """

    title: str
    classifier: keras.Model
    layer: str
    class_names: tuple[str, ...]
    origin: str = ""
    score: str = "logit"
    run: Run | None = None
    watermark: str = ""
    about: str = ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images that it takes."""
        height, width, channels = self.classifier.input_shape[1:]
        return height, width, channels


def of_run(
    run: Run, weights: str | None = None, layer: str | None = None
) -> Network:
    """Returns the Network of a run.

    Args:
      run: any with weights.
      weights: "best", "last" or "ema"; None for the config's own.
      layer: as for `classifiers.shown_layer`.

    Raises:
      InputError: it has no such weights or layer.
    """
    weights = weights or run.config.evaluation.weights
    classifier = run.classifier(weights)
    layers = build.defense_layers(run.config)
    return Network(
        naming.called(run.config),
        classifier,
        classifiers.shown_layer(classifier, layers, layer),
        run.class_names,
        f"{run_folder.portable(run.folder)} {weights} {digest(classifier)}",
        run_config.score(run.config),
        run,
    )


def of_file(
    path: str, pixel_range: tuple[float, float], layer: str | None = None
) -> Network:
    """Returns the Network of a .keras file; its classes are numbered.

    Args:
      path: the file.
      pixel_range: what its model takes for black and for white.
      layer: as for `classifiers.attention_layer`.

    Raises:
      InputError: it is no such file, or has no such layer.
    """
    classifier = model_files.load(path, pixel_range)
    return Network(
        pathlib.Path(path).stem,
        classifier,
        classifiers.attention_layer(classifier, layer),
        numbered(classifier.output_shape[-1]),
        f"{path} {digest(classifier)}",
    )


def expect_drawable(networks: Iterable[Network]) -> None:
    """Refuses networks of images that are neither gray nor RGB."""
    for network in networks:
        expect(
            datasets.can_draw(network.image_shape),
            f"in {network.title} a network of gray or RGB images, to draw them",
            image_shape=network.image_shape,
        )


def numbered(count: int) -> tuple[str, ...]:
    """Returns names of classes of which only the number is known."""
    return tuple(f"class {number}" for number in range(count))


def digest(classifier: keras.Model) -> str:
    """Returns the beginning of the digest of a classifier's weights."""
    return classifiers.weights_digest(classifier)[: len("sha256:") + 12]
