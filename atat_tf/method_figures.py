"""Our attention beside that of other methods, as tf-keras-vis has them.

A network and pictures enter; a Figure and the rows of its numbers leave.
"""

import numpy as np

from atat_tf import attention_panels as panels
from atat_tf import attention_shift, figures, tf_keras_vis_maps


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
        line = [figures.Panel(images[i], text=panels.verdict(scene, view, i))]
        line.append(figures.Panel(images[i], ours, watermark=mark))
        row = {"image": picture.name}
        for name in names:
            theirs = maps[name][i]
            row |= _compared(name, ours, theirs)
            text = panels.distance_text(row.get(f"{name}_cosine_distance"))
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
