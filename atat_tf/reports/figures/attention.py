"""Draws the paper's figures of attention: Fig. 1, 2, 3, 5 and 6."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from atat_tf import grad_cam
from atat_tf.attacks import linf, radii
from atat_tf.data import images as image_files
from atat_tf.errors import expect, unknown
from atat_tf.evaluation.views import Scene, View
from atat_tf.reports.figures import drawing
from atat_tf.reports.figures.networks import Network
from atat_tf.reports.figures.pictures import Picture

CRAFTED = ("each", "raw")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all figures of attention share.

    Attributes:
      epsilon, step_size, num_steps: of PGD.
      seed: of its random starts.
      followed: see `views.FOLLOWED`.
      data: where the pictures came from, in the title.
      caption: the small text at the foot.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    num_steps: int = 20
    seed: int = 0
    followed: str = "label"
    data: str = ""
    caption: str = ""

    @property
    def attack(self) -> linf.LinfAttack:
        return linf.pgd(self.epsilon, self.step_size, self.num_steps)

    @property
    def attack_name(self) -> str:
        return f"PGD({self.num_steps}), ε = {radii.written(self.epsilon)}"

    def scene(self, network: Network, pictures: Sequence[Picture]) -> Scene:
        return Scene(network, pictures, self.seed, self.followed)


def shift(
    networks: Sequence[Network],
    pictures: Sequence[Picture],
    setting: Setting,
) -> tuple[Figure, list[dict[str, Any]]]:
    """Returns attention before and after an attack, over networks (Fig. 1, 2).

    Args:
      networks: side by side.
      pictures: one below the other.
      setting: what all figures share.

    Returns:
      Figure, and a dictionary of numbers for each network and picture.
    """
    lines = [[plain(picture)] for picture in pictures]
    titles, numbers, steps = ["image"], [], setting.num_steps
    for network in networks:
        scene = setting.scene(network, pictures)
        clean = scene.view()
        attacked = scene.view(scene.attacked(setting.attack, [steps])[steps])
        rows = distance_numbers(scene, clean, attacked)
        for i, line in enumerate(lines):
            line.append(attended(scene, clean, i))
            line.append(attended(scene, attacked, i, distance_text(rows[i])))
        titles += [f"{network.title}: clean", f"{network.title}: attacked"]
        numbers += rows
    title = f"Attention before and after {setting.attack_name}. {setting.data}"
    figure = drawing.picture_grid(lines, titles, title, setting.caption)
    return figure, numbers


def rounds(
    networks: Sequence[Network],
    pictures: Sequence[Picture],
    setting: Setting,
    numbers_of_steps: Sequence[int] = (0, 2, 8, 16),
) -> tuple[Figure, list[dict[str, Any]]]:
    """Returns attention after more and more steps of one attack (Fig. 3).

    Args:
      networks, pictures, setting: as for `shift`; num_steps is not read.
      numbers_of_steps: ascending, >= 0.

    Returns:
      Figure, and a dictionary of numbers for each network, picture and round.
    """
    expect(
        numbers_of_steps and min(numbers_of_steps) >= 0,
        "--rounds as numbers of steps, 0 or more",
        rounds=numbers_of_steps,
    )
    lines, row_titles, numbers = [], [], []
    for network in networks:
        scene = setting.scene(network, pictures)
        images = scene.attacked(setting.attack, numbers_of_steps)
        clean = scene.view()
        begun = [[plain(picture)] for picture in pictures]
        for number in numbers_of_steps:
            view = scene.view(images[number])
            rows = distance_numbers(scene, clean, view)
            for i, line in enumerate(begun):
                line.append(attended(scene, view, i, distance_text(rows[i])))
            numbers += [{"rounds": number, **row} for row in rows]
        lines += begun
        row_titles += [network.title] * len(pictures)
    title = (
        f"Attention after rounds of PGD, ε = {radii.written(setting.epsilon)}, "
        f"step {radii.written(setting.step_size)}. {setting.data}"
    )
    titles = ["image", *(f"{n} rounds" for n in numbers_of_steps)]
    figure = drawing.picture_grid(
        lines, titles, title, setting.caption, row_titles
    )
    return figure, numbers


def ablation(
    networks: Sequence[Network],
    pictures: Sequence[Picture],
    setting: Setting,
    crafted: str = "each",
) -> tuple[Figure, list[dict[str, Any]]]:
    """Returns attention of raw and defended networks, attacked (Fig. 5, 6).

    Args:
      networks: side by side, the raw one first.
      pictures, setting: as for `shift`.
      crafted: "each": every network is attacked itself (white box); "raw": all
        see the images that fool the raw one, an easier test.

    Returns:
      Figure, and a dictionary of numbers for each network and picture, with
      whether the raw network's attacked prediction was rectified.
    """
    if crafted not in CRAFTED:
        raise unknown("--crafted", crafted, CRAFTED)
    scenes = [setting.scene(network, pictures) for network in networks]
    attacked = _attacked_views(scenes, setting, crafted)
    wrong = [
        view.predictions != scene.labels
        for scene, view in zip(scenes, attacked, strict=True)
    ]
    lines = [[plain(picture)] for picture in pictures]
    titles, numbers = ["image"], []
    for scene, view, stays in zip(scenes, attacked, wrong, strict=True):
        rectified = wrong[0] & ~stays
        rows = distance_numbers(scene, scene.view(), view)
        for i, line in enumerate(lines):
            word = "rectified" if rectified[i] else ""
            line.append(attended(scene, view, i, word))
            numbers.append({**rows[i], "rectified": bool(rectified[i])})
        titles.append(f"{scene.network.title}, {rectified.sum()} rectified")
    titles[1] = f"{networks[0].title} (raw)"
    against = {"each": "on each network itself", "raw": "on the raw network"}
    title = (
        f"Attention under {setting.attack_name}, crafted {against[crafted]}. "
        f"{setting.data}"
    )
    figure = drawing.picture_grid(lines, titles, title, setting.caption)
    return figure, numbers


def _attacked_views(scenes, setting, crafted):
    """Returns each network's View of what is crafted on it, or on the first."""
    expect(
        crafted == "each"
        or len({scene.network.image_shape for scene in scenes}) == 1,
        "networks of one image size with --crafted=raw",
        sizes=[scene.network.image_shape for scene in scenes],
    )
    steps, views = setting.num_steps, []
    for scene in scenes:
        if crafted == "each" or not views:
            images = scene.attacked(setting.attack, [steps])[steps]
        views.append(scene.view(images))
    return views


def distance_numbers(
    scene: Scene, clean: View, attacked: View
) -> list[dict[str, Any]]:
    """Returns a dictionary of numbers for each picture."""
    shifts = grad_cam.shift_numbers(clean.maps, attacked.maps)
    distances = np.abs(attacked.images - clean.images)
    return [
        {
            "model": scene.network.title,
            "image": picture.name,
            "label": scene.class_name(scene.labels[i]),
            "clean_prediction": scene.class_name(clean.predictions[i]),
            "attacked_prediction": scene.class_name(attacked.predictions[i]),
            "linf": float(distances[i].max()),
            **{name: float(values[i]) for name, values in shifts.items()},
        }
        for i, picture in enumerate(scene.pictures)
    ]


def distance_text(row: Mapping[str, Any], name: str = "cosine_distance") -> str:
    """Returns a row's 1 − cos as text; "" where it has none."""
    return f"1 − cos = {row[name]:.2f}" if name in row else ""


def verdict(scene: Scene, view: View, i: int) -> str:
    """Returns the predicted class of a picture and whether it is right."""
    right = view.predictions[i] == scene.labels[i]
    return f"{scene.class_name(view.predictions[i])} {'✓' if right else '✗'}"


def plain(picture: Picture) -> drawing.Panel:
    """Returns the Panel of a picture itself."""
    text = picture.name
    if picture.class_name:
        text += f"\n{picture.class_name}"
    return drawing.Panel(picture.preview(), text=text)


def attended(scene: Scene, view: View, i: int, more: str = "") -> drawing.Panel:
    """Returns the Panel of a picture under its map, with the prediction."""
    words = [verdict(scene, view, i), more]
    if not view.maps[i].any():
        words.append("the map is empty")
    return drawing.Panel(
        image_files.as_uint8(view.images[i]),
        view.maps[i],
        "\n".join(word for word in words if word),
        scene.network.watermark,
    )
