"""Draws the paper's figures of attention: Fig. 1, 2, 3, 5 and 6."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from atat_tf import grad_cam
from atat_tf.attacks import linf, radii
from atat_tf.data import images as image_files
from atat_tf.errors import expect, expect_known
from atat_tf.evaluation.attention.networks import Network
from atat_tf.evaluation.attention.views import View, verdict
from atat_tf.reports.figures import drawing
from atat_tf.reports.figures.pictures import Picture
from atat_tf.reports.figures.scenes import Scene

CRAFTED = ("each", "raw")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all figures of attention share.

    Attributes:
      epsilon, step_size, num_steps: of PGD.
      seed: of its random starts.
      followed: see `views.FOLLOWED`.
      caption: the text at the foot: which images these are.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    num_steps: int = 20
    seed: int = 0
    followed: str = "label"
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
      networks: one below the other, for each picture.
      pictures: the first with all networks, then the next.
      setting: what all figures share.

    Returns:
      Figure, and a dictionary of numbers for each network and picture.
    """
    numbers, steps = [], setting.num_steps
    lines: list[list] = [[] for _ in pictures]
    for network in networks:
        scene = setting.scene(network, pictures)
        clean = scene.view()
        attacked = scene.view(scene.attacked(setting.attack, [steps])[steps])
        rows = distance_numbers(scene, clean, attacked)
        for i, of_picture in enumerate(lines):
            moved = distance_text(rows[i])
            of_picture.append(
                [
                    plain(scene, clean, i),
                    attended(scene, clean, i),
                    plain(scene, attacked, i),
                    attended(scene, attacked, i, moved),
                ]
            )
        numbers += rows
    radius = radii.written(setting.epsilon)
    figure = drawing.picture_grid(
        [line for of_picture in lines for line in of_picture],
        ["image", "attention", f"attacked, ε = {radius}", "attention now"],
        f"Attention before and after {setting.attack_name}",
        setting.caption,
        [network.title for _ in pictures for network in networks],
    )
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
        begun = [[plain(scene, clean, i)] for i in range(len(pictures))]
        for number in numbers_of_steps:
            view = scene.view(images[number])
            rows = distance_numbers(scene, clean, view)
            for i, line in enumerate(begun):
                line.append(answered(scene, view, i, distance_text(rows[i])))
            numbers += [{"rounds": number, **row} for row in rows]
        lines += begun
        row_titles += [network.title] * len(pictures)
    title = (
        f"Attention after more and more steps of PGD, "
        f"ε = {radii.written(setting.epsilon)}"
    )
    titles = ["image", *(f"after {n} steps" for n in numbers_of_steps)]
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
    expect_known("--crafted", crafted, CRAFTED)
    scenes = [setting.scene(network, pictures) for network in networks]
    attacked = _attacked_views(scenes, setting, crafted)
    wrong = [
        view.predictions != scene.labels
        for scene, view in zip(scenes, attacked, strict=True)
    ]
    lines = [[shown(picture)] for picture in pictures]
    titles, numbers = ["image"], []
    for scene, view, stays in zip(scenes, attacked, wrong, strict=True):
        rectified = wrong[0] & ~stays
        rows = distance_numbers(scene, scene.view(), view)
        for i, line in enumerate(lines):
            word = "rectified" if rectified[i] else ""
            line.append(answered(scene, view, i, word))
            numbers.append({**rows[i], "rectified": bool(rectified[i])})
        titles.append(f"{scene.network.title}, {rectified.sum()} rectified")
    titles[1] = f"{networks[0].title}, undefended"
    against = {"each": "on each network itself", "raw": "on the raw network"}
    title = f"Attention under {setting.attack_name}, crafted {against[crafted]}"
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


def shown(picture: Picture) -> drawing.Panel:
    """Returns the Panel of a picture itself, with its true class."""
    return drawing.Panel(
        picture.preview(), text=picture.class_name or picture.name
    )


def plain(scene: Scene, view: View, i: int) -> drawing.Panel:
    """Returns the Panel of a picture without its map, with the prediction."""
    text, is_right = _verdict(scene, view, i)
    pixels = image_files.as_uint8(view.images[i])
    return drawing.Panel(pixels, text=text, is_right=is_right)


def attended(scene: Scene, view: View, i: int, text: str = "") -> drawing.Panel:
    """Returns the Panel of a picture under its map, with a text."""
    return drawing.Panel(
        image_files.as_uint8(view.images[i]),
        view.maps[i],
        text if view.maps[i].any() else "the map is empty",
        watermark=scene.network.watermark,
    )


def answered(scene: Scene, view: View, i: int, more: str = "") -> drawing.Panel:
    """Returns the Panel of a picture under its map, with the prediction."""
    text, is_right = _verdict(scene, view, i)
    panel = attended(scene, view, i, more)
    if panel.text:
        text += f"\n{panel.text}"
    return dataclasses.replace(panel, text=text, is_right=is_right)


def _verdict(scene, view, i):
    return verdict(view, i, scene.labels[i], scene.network.class_names)
