"""The figures of attention: 1, 2, 3, 5 and 6 of the paper, and methods.

Networks and pictures enter; a Figure and the rows of its numbers leave.
"""

import dataclasses

import numpy as np

from atat_tf import (
    attacks,
    attention_shift,
    figures,
    radii,
    tf_keras_vis_maps,
)
from atat_tf.attention_scenes import Scene
from atat_tf.errors import expect, unknown

CRAFTED = ("each", "raw")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all figures of attention share.

    Attributes:
      epsilon, step_size, num_steps: of PGD.
      seed: of its random starts.
      followed: see `attention_scenes.FOLLOWED`.
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
    def attack(self):
        return attacks.pgd(self.epsilon, self.step_size, self.num_steps)

    @property
    def attack_name(self):
        return f"PGD({self.num_steps}), ε = {radii.written(self.epsilon)}"

    def scene(self, source, pictures):
        return Scene(source, pictures, self.seed, self.followed)


def shift(sources, pictures, setting):
    """Returns attention before and after an attack, over networks (Fig. 1, 2).

    Args:
      sources: Sources, side by side.
      pictures: Pictures, one below the other.
      setting: Setting.

    Returns:
      Figure, and a dictionary of numbers for each network and picture.
    """
    lines = [[_plain(picture)] for picture in pictures]
    titles, numbers, steps = ["image"], [], setting.num_steps
    for source in sources:
        scene = setting.scene(source, pictures)
        clean = scene.view()
        attacked = scene.view(scene.attacked(setting.attack, [steps])[steps])
        rows = _numbers(scene, clean, attacked)
        for i, line in enumerate(lines):
            line.append(_panel(scene, clean, i))
            line.append(
                _panel(
                    scene, attacked, i, _distance(rows[i]["cosine_distance"])
                )
            )
        titles += [f"{source.title}: clean", f"{source.title}: attacked"]
        numbers += rows
    title = f"Attention before and after {setting.attack_name}. {setting.data}"
    figure = figures.picture_grid(lines, titles, title, setting.caption)
    return figure, numbers


def rounds(sources, pictures, setting, numbers_of_steps=(0, 2, 8, 16)):
    """Returns attention after more and more steps of one attack (Fig. 3).

    Args:
      sources, pictures, setting: as for `shift`; num_steps is not read.
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
    for source in sources:
        scene = setting.scene(source, pictures)
        images = scene.attacked(setting.attack, numbers_of_steps)
        clean = scene.view()
        begun = [[_plain(picture)] for picture in pictures]
        for number in numbers_of_steps:
            view = scene.view(images[number])
            rows = _numbers(scene, clean, view)
            for i, line in enumerate(begun):
                line.append(
                    _panel(
                        scene, view, i, _distance(rows[i]["cosine_distance"])
                    )
                )
            numbers += [{"rounds": number, **row} for row in rows]
        lines += begun
        row_titles += [source.title] * len(pictures)
    title = (
        f"Attention after rounds of PGD, ε = {radii.written(setting.epsilon)}, "
        f"step {radii.written(setting.step_size)}. {setting.data}"
    )
    titles = ["image", *(f"{n} rounds" for n in numbers_of_steps)]
    figure = figures.picture_grid(
        lines, titles, title, setting.caption, row_titles
    )
    return figure, numbers


def ablation(sources, pictures, setting, crafted="each"):
    """Returns attention of raw and defended networks, attacked (Fig. 5, 6).

    Args:
      sources: Sources, the raw network first.
      pictures, setting: as for `shift`.
      crafted: "each": every network is attacked itself (white box); "raw": all
        see the images that fool the raw one, an easier test.

    Returns:
      Figure, and a dictionary of numbers for each network and picture, with
      whether the raw network's attacked prediction was rectified.
    """
    if crafted not in CRAFTED:
        raise unknown("--crafted", crafted, CRAFTED)
    scenes = [setting.scene(source, pictures) for source in sources]
    attacked = _attacked_views(scenes, setting, crafted)
    wrong = [
        view.predictions != scene.labels
        for scene, view in zip(scenes, attacked, strict=True)
    ]
    lines = [[_plain(picture)] for picture in pictures]
    titles, numbers = ["image"], []
    for scene, view, stays in zip(scenes, attacked, wrong, strict=True):
        rectified = wrong[0] & ~stays
        rows = _numbers(scene, scene.view(), view)
        for i, line in enumerate(lines):
            word = "rectified" if rectified[i] else ""
            line.append(_panel(scene, view, i, word))
            numbers.append({**rows[i], "rectified": bool(rectified[i])})
        titles.append(f"{scene.source.title}, {rectified.sum()} rectified")
    titles[1] = f"{sources[0].title} (raw)"
    against = {"each": "on each network itself", "raw": "on the raw network"}
    title = (
        f"Attention under {setting.attack_name}, crafted {against[crafted]}. "
        f"{setting.data}"
    )
    figure = figures.picture_grid(lines, titles, title, setting.caption)
    return figure, numbers


def methods(source, pictures, setting, names):
    """Returns our attention beside other methods', clean and attacked.

    Args:
      source: Source.
      pictures, setting: as for `shift`.
      names: keys of `tf_keras_vis_maps.METHODS`.

    Returns:
      Figure, and a dictionary for each picture, clean and attacked: 1 − cos of
      our map and each method's where both are of one size, and with Grad-CAM
      the largest difference of the maps as they are, over our largest value.
    """
    tf_keras_vis_maps.expect_known(names)
    scene, steps = setting.scene(source, pictures), setting.num_steps
    attacked = scene.attacked(setting.attack, [steps])[steps]
    lines, numbers, row_titles = [], [], []
    for state, images in (("clean", scene.images), ("attacked", attacked)):
        drawn, rows = _by_methods(scene, images, names, setting.followed)
        lines += drawn
        numbers += [{"state": state, **row} for row in rows]
        row_titles += [f"{picture.name}, {state}" for picture in pictures]
    labels = [tf_keras_vis_maps.METHODS[name] for name in names]
    figure = figures.picture_grid(
        lines,
        ["image", "ours (Eq. 3)", *labels],
        f"{source.title}, layer {source.layer!r}, {setting.attack_name}. "
        f"{setting.data}",
        setting.caption,
        row_titles,
    )
    return figure, numbers


def _by_methods(scene, images, names, followed):
    """Returns lines of Panels and dictionaries of numbers, one a picture."""
    view, source = scene.view(images), scene.source
    labels = scene.labels if followed == "label" else view.predictions
    maps = {
        name: tf_keras_vis_maps.attention_map(
            name, source.classifier, source.layer, images, labels
        )
        for name in names
    }
    lines, rows = [], []
    for i, picture in enumerate(scene.pictures):
        ours, mark = view.maps[i], source.watermark
        line = [figures.Panel(images[i], text=_verdict(scene, view, i))]
        line.append(figures.Panel(images[i], ours, watermark=mark))
        row = {"image": picture.name}
        for name in names:
            theirs = maps[name][i]
            row |= _compared(name, ours, theirs)
            text = _distance(row.get(f"{name}_cosine_distance"))
            line.append(figures.Panel(images[i], theirs, text, mark))
        lines.append(line)
        rows.append(row)
    return lines, rows


def _compared(name, ours, theirs):
    """Returns numbers of our map and a method's; none where sizes differ."""
    if ours.shape != theirs.shape:
        return {}
    distance = attention_shift.cosine_distance(ours[None], theirs[None])[0]
    row = {f"{name}_cosine_distance": float(distance)}
    if name == "gradcam":
        largest = max(float(ours.max()), np.finfo(np.float32).tiny)
        row["gradcam_difference"] = float(abs(ours - theirs).max() / largest)
    return row


def _attacked_views(scenes, setting, crafted):
    """Returns the View of each network: of what is crafted on it, or on the

    first.
    """
    expect(
        crafted == "each"
        or len({scene.source.image_shape for scene in scenes}) == 1,
        "networks of one image size with --crafted=raw",
        sizes=[scene.source.image_shape for scene in scenes],
    )
    steps, views = setting.num_steps, []
    for scene in scenes:
        if crafted == "each" or not views:
            images = scene.attacked(setting.attack, [steps])[steps]
        views.append(scene.view(images))
    return views


def _numbers(scene, clean, attacked):
    """Returns a dictionary of numbers for each picture."""
    shifts = attention_shift.numbers(clean.maps, attacked.maps)
    distances = np.abs(attacked.images - clean.images)
    return [
        {
            "model": scene.source.title,
            "image": picture.name,
            "label": scene.class_name(scene.labels[i]),
            "clean_prediction": scene.class_name(clean.predictions[i]),
            "attacked_prediction": scene.class_name(attacked.predictions[i]),
            "linf": float(distances[i].max()),
            **{name: float(values[i]) for name, values in shifts.items()},
        }
        for i, picture in enumerate(scene.pictures)
    ]


def _distance(value):
    return "" if value is None else f"1 − cos = {value:.2f}"


def _verdict(scene, view, i):
    right = view.predictions[i] == scene.labels[i]
    return f"{scene.class_name(view.predictions[i])} {'✓' if right else '✗'}"


def _plain(picture):
    text = picture.name
    if picture.class_name:
        text += f"\n{picture.class_name}"
    return figures.Panel(picture.preview(), text=text)


def _panel(scene, view, i, more=""):
    words = [_verdict(scene, view, i), more]
    if not view.maps[i].any():
        words.append("the map is empty")
    return figures.Panel(
        view.images[i],
        view.maps[i],
        "\n".join(word for word in words if word),
        scene.source.watermark,
    )
