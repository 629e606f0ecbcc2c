"""The networks that the demo attacks: run folders and a .keras file."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence

import keras

from atat_tf.data import datasets
from atat_tf.errors import InputError, expect
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers
from atat_tf.models import files as model_files
from atat_tf.runs import build, naming
from atat_tf.runs import config as run_config

# Side by side on one page.
MOST = 4
_TRAINED = {
    "standard": "Trained on clean images alone.",
    "at": "Trained on clean and attacked images (adversarial training).",
    "madry": "Trained on attacked images alone (adversarial training).",
    "alp": "Trained on attacked images, with logits paired.",
    "tla": "Trained on attacked images, with a triplet loss.",
    "trades": "Trained to answer the same before and after an attack.",
    "atat": "Trained on attacked images, to look where its teacher looks.",
}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network on the page.

    Attributes:
      title: short; no two on a page have the same.
      about: sentences: how it was trained, and its accuracies.
      classifier: keras.Model, float32 [b, H, W, C] in [0, 1] -> logits.
      layer: the layer whose attention is shown.
      class_names: as many strings as logits.
      score: of `grad_cam.SCORES`, the class score that maps explain.
      run: the Run it is of; None for a .keras file.
    """

    title: str
    about: str
    classifier: keras.Model
    layer: str
    class_names: tuple[str, ...]
    score: str = "logit"
    run: Run | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images that it takes."""
        height, width, channels = self.classifier.input_shape[1:]
        return height, width, channels


def load_all(
    workdirs: Sequence[str],
    model: str | None = None,
    model_range: tuple[float, float] = (0.0, 1.0),
    data_dir: str | None = None,
) -> list[Network]:
    """Returns the networks of run folders and of a .keras file.

    Args:
      workdirs: run folders.
      model: a .keras file, or None.
      model_range: what its model takes for black and for white.
      data_dir: of tensorflow-datasets.

    Raises:
      InputError: none or too many, one is not there, or takes images that are
        neither gray nor RGB.
    """
    count = len(workdirs) + (model is not None)
    expect(1 <= count <= MOST, f"1 to {MOST} networks", networks=count)
    networks = [_of_run(folder, data_dir) for folder in workdirs]
    if model is not None:
        networks.append(_of_file(pathlib.Path(model), model_range))
    for network in networks:
        expect(
            datasets.can_draw(network.image_shape),
            f"in {network.title} a model of gray or RGB images",
            image_shape=network.image_shape,
        )
    return _with_titles_of_their_own(networks)


def _of_run(folder, data_dir):
    run = Run(folder, data_dir)
    if not run.has_weights():
        raise InputError(
            f"Expected trained weights in {str(run.folder)!r}. Received: none; "
            "`atat train` writes them."
        )
    trained = naming.given_as(run.config) or _TRAINED.get(
        naming.recipe(run.config), ""
    )
    classifier = run.classifier()
    layers = build.build_defense(run.config).layers
    return Network(
        naming.called(run.config),
        f"{trained} {_accuracies(run)}".strip(),
        classifier,
        classifiers.shown_layer(classifier, layers),
        run.class_names,
        run_config.score(run.config),
        run,
    )


def _accuracies(run):
    """Returns a sentence of what an evaluation found; "" where none was."""
    results = run.results
    if not results or "clean" not in results["accuracy"]:
        return ""
    found = results["accuracy"]
    text = f"{100 * found['clean']:.0f} % of {results['num_images']:,} test "
    text += "images right"
    if "pgd20" in found:
        text += f", under PGD(20) {100 * found['pgd20']:.0f} %"
    return f"{text}."


def _of_file(path, model_range):
    classifier = model_files.load(path, model_range)
    count = classifier.output_shape[-1]
    return Network(
        path.stem,
        "Your own model.",
        classifier,
        classifiers.attention_layer(classifier),
        tuple(f"class {number}" for number in range(count)),
    )


def _with_titles_of_their_own(networks):
    """Returns the networks; of two with one title both get a number."""
    counts = collections.Counter(network.title for network in networks)
    seen: collections.Counter[str] = collections.Counter()
    titled = []
    for network in networks:
        title = network.title
        if counts[title] > 1:
            seen[title] += 1
            title = f"{title} {seen[network.title]}"
            where = network.run.folder if network.run else "a .keras file"
            about = f"{network.about} ({where})"
            network = dataclasses.replace(network, title=title, about=about)
        titled.append(network)
    return titled
