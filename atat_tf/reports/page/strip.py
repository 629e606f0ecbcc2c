"""Makes a report's strip: a few images, attacked at several radii.

Each network is attacked itself, and its attention is shown before and after.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atat_tf import grad_cam
from atat_tf.attacks import columns, linf
from atat_tf.attacks import radii as attack_radii
from atat_tf.data import images as image_files
from atat_tf.evaluation.attention.views import View
from atat_tf.evaluation.opening import OpenRun
from atat_tf.reports.page import pictures
from atat_tf.runs import terminal

_RADII = (0, 1, 2, 4, 8, 16)  # 255 ε


@dataclasses.dataclass(frozen=True)
class Strip:
    """What the page shows of a few images.

    Attributes:
      attack: at the run's own radius, with its parameters.
      radii: texts, ascending, as "8/255".
      own: the place of the run's own radius among them.
      images: dictionaries {index, name, networks}; a network is {title, clean,
        attacked}, "clean" a look and "attacked" a look for each radius; a look
        is {uri, map, name, confidence, is_right, is_empty, shift}.
    """

    attack: str
    radii: list[str]
    own: int
    images: list[dict[str, Any]]


def right_by_all(runs: Mapping[str, OpenRun], count: int) -> list[int]:
    """Returns the first images that every network classifies right.

    Args:
      runs: {title: OpenRun} on the same images.
      count: how many at most.
    """
    right = np.ones(min(len(run.split) for run in runs.values()), bool)
    for run in runs.values():
        split = run.split.take(len(right))
        pixels = split.images[:] / np.float32(255)
        view = pictures.viewer(run).view(pixels, split.labels)
        right &= view.predictions == split.labels
    return np.flatnonzero(right)[:count].tolist()


def strip(
    runs: Mapping[str, OpenRun],
    attack: linf.LinfAttack,
    indices: Sequence[int],
) -> Strip:
    """Returns the Strip of some test images.

    Args:
      runs: {title: OpenRun} on the same images, one row each.
      attack: at the run's own radius; of several starts the first is drawn.
      indices: positions of the images.
    """
    attack = dataclasses.replace(attack, restarts=1)
    radii = sorted({attack.epsilon, *(radius / 255 for radius in _RADII)})
    rows = {
        title: _looks(run, attack, radii, indices)
        for title, run in runs.items()
    }
    first = next(iter(runs.values()))
    names = first.dataset.class_names
    return Strip(
        columns.in_words(attack),
        [attack_radii.written(radius) for radius in radii],
        radii.index(attack.epsilon),
        [
            {
                "index": index,
                "name": names[first.split.labels[index]],
                "networks": [
                    {"title": title, "clean": looks[0][i]}
                    | {"attacked": [at[i] for at in looks]}
                    for title, looks in rows.items()
                ],
            }
            for i, index in enumerate(indices)
        ],
    )


def _looks(opened, attack, radii, indices):
    """Returns the looks of one network, a list for each radius, 0 first."""
    pixels = opened.split.images[indices] / np.float32(255)
    labels = opened.split.labels[indices]
    if not len(indices):
        return [[] for _ in radii]
    terminal.stage(
        f"attacking {opened.run.folder} at the slider's {len(radii)} radii"
    )
    views = pictures.viewer(opened).attacked_at(
        attack, pixels, labels, radii, np.asarray(indices)
    )
    names = opened.dataset.class_names
    return [_of_view(view, views[0], labels, names) for view in views]


def _of_view(view: View, clean: View, labels, names):
    shares = grad_cam.scaled_for_reading(view.maps).numpy()
    shift = grad_cam.cosine_distance(clean.maps, view.maps)
    drawn, tinted = (
        image_files.as_uint8(view.images),
        image_files.tinted(shares),
    )
    return [
        {
            "uri": image_files.data_uri(drawn[i]),
            "map": image_files.data_uri(tinted[i]),
            "name": names[view.predictions[i]],
            "confidence": f"{100 * view.confidences[i]:.0f} %",
            "is_right": bool(view.predictions[i] == labels[i]),
            "is_empty": not view.maps[i].any(),
            "shift": f"{shift[i]:.2f}",
        }
        for i in range(len(labels))
    ]
