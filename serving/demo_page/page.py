"""The demo's page as HTML, live or as one file with its answers inside."""

import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

import jinja2

from atat_tf import __version__
from atat_tf.data import images as image_files
from atat_tf.runs import terminal

from .answers import EPSILONS, Demo
from .samples import Sample

_FILES = importlib.resources.files(__package__)
# The radius that the page begins with.
FIRST_EPSILON = 8


def text(name: str) -> str:
    """Returns the text of a file of this folder."""
    return _FILES.joinpath(name).read_text(encoding="utf-8")


def live(demo: Demo, about: str, samples: Sequence[Sample]) -> str:
    """Returns the page that asks this program for its answers.

    Args:
      demo: whose networks are on it.
      about: a sentence on the samples.
      samples: what can be chosen.
    """
    return _rendered(demo, about, samples, None)


def exported(demo: Demo, about: str, samples: Sequence[Sample]) -> str:
    """Returns the page as one file that holds the answers for its samples.

    Args:
      demo, about, samples: as for `live`.
    """
    answers = []
    with terminal.bar("attacking the samples", len(samples), 1) as advance:
        for sample in samples:
            answers.append(_at_all_radii(demo, sample))
            advance()
    return _rendered(demo, about, samples, answers)


def _at_all_radii(demo: Demo, sample: Sample) -> dict[str, Any]:
    """Returns {ε: answer}, in which the clean half is at ε = 0 alone."""
    found = {epsilon: demo.answer(sample, epsilon) for epsilon in EPSILONS}
    for epsilon, networks in found.items():
        for network in networks if epsilon else ():
            del network["clean"]
    return {str(epsilon): networks for epsilon, networks in found.items()}


def _rendered(demo, about, samples, answers):
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.from_string(text("page.html.jinja"))
    sizes = (network.image_shape[:2] for network in demo.networks)
    seen = dict.fromkeys(f"{width} × {height}" for height, width in sizes)
    return template.render(
        version=__version__,
        networks=demo.networks,
        num_steps=demo.num_steps,
        class_names=demo.class_names,
        size=" or ".join(seen),
        epsilons=EPSILONS,
        first_radius=EPSILONS.index(FIRST_EPSILON),
        first_sample=demo.first(samples),
        about=about,
        samples=[
            {"name": sample.name, "uri": _thumbnail(sample)}
            for sample in samples
        ],
        answers=answers and json.dumps(answers, separators=(",", ":")),
        style=text("page.css") if answers else None,
        script=text("page.js") if answers else None,
    )


def _thumbnail(sample):
    small = image_files.resized(
        sample.pixels, *(min(64, size) for size in sample.pixels.shape[:2])
    )
    return image_files.data_uri(small)
