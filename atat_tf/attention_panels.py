"""The pictures, words and numbers that figures of attention are made of."""

import numpy as np

from atat_tf import attention_shift, figures


def numbers(scene, clean, attacked):
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


def shift_text(row):
    """Returns the distance in a dictionary from `numbers`, as text."""
    return distance_text(row["cosine_distance"])


def distance_text(value):
    """Returns 1 − cos as text; "" for None."""
    return "" if value is None else f"1 − cos = {value:.2f}"


def verdict(scene, view, i):
    """Returns the predicted class of a picture and whether it is right."""
    right = view.predictions[i] == scene.labels[i]
    return f"{scene.class_name(view.predictions[i])} {'✓' if right else '✗'}"


def plain(picture):
    """Returns the Panel of a picture itself."""
    text = picture.name
    if picture.class_name:
        text += f"\n{picture.class_name}"
    return figures.Panel(picture.preview(), text=text)


def attended(scene, view, i, more=""):
    """Returns the Panel of a picture under its map, with the prediction."""
    words = [verdict(scene, view, i), more]
    if not view.maps[i].any():
        words.append("the map is empty")
    return figures.Panel(
        view.images[i],
        view.maps[i],
        "\n".join(word for word in words if word),
        scene.source.watermark,
    )
