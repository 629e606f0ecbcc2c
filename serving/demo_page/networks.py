"""The networks that the demo attacks: run folders and a .keras file."""

import collections
import dataclasses
from collections.abc import Sequence

from atat_tf.errors import expect
from atat_tf.evaluation.attention import networks
from atat_tf.evaluation.attention.networks import Network
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers
from atat_tf.runs import naming

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
    loaded = [_of_run(folder, data_dir) for folder in workdirs]
    if model is not None:
        own = networks.of_file(model, model_range)
        loaded.append(dataclasses.replace(own, about="Your own model."))
    networks.expect_drawable(loaded)
    return _with_titles_of_their_own(loaded)


def _of_run(folder, data_dir):
    run = Run(folder, data_dir)
    trained = naming.given_as(run.config) or _TRAINED.get(
        naming.recipe(run.config), ""
    )
    network = networks.of_run(run)
    about = f"{trained} {_accuracies(run, network)}".strip()
    return dataclasses.replace(network, about=about)


def _accuracies(run, network):
    """Returns a sentence of what was found of these weights; "" for nothing."""
    results = run.results
    if not results or "clean" not in results["accuracy"]:
        return ""
    digest = classifiers.weights_digest(network.classifier)
    is_of_these = results.get("weights_digest", digest) == digest
    if not is_of_these or results["bn_eval"] != "frozen":
        return ""
    found = results["accuracy"]
    text = f"{100 * found['clean']:.0f} % of {results['num_images']:,} test "
    text += "images right"
    if "pgd20" in found:
        text += f", under PGD(20) {100 * found['pgd20']:.0f} %"
    return f"{text}."


def _with_titles_of_their_own(loaded):
    """Returns the networks; of two with one title both get a number."""
    counts = collections.Counter(network.title for network in loaded)
    seen: collections.Counter[str] = collections.Counter()
    titled = []
    for network in loaded:
        title = network.title
        if counts[title] > 1:
            seen[title] += 1
            title = f"{title} {seen[network.title]}"
            where = network.run.folder if network.run else "a .keras file"
            about = f"{network.about} ({where})"
            network = dataclasses.replace(network, title=title, about=about)
        titled.append(network)
    return titled
