"""What the client's command leaves: lines, JSON and pictures."""

import itertools
import json
import os
import pathlib
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import TextIO

import numpy as np
from PIL import Image

from . import images
from .errors import expect

_TOP = 5  # classes printed for an image


def overlay_paths(
    paths: Sequence[pathlib.Path], folder: str | pathlib.Path | None
) -> list[pathlib.Path | None]:
    """Returns where each image's overlay goes: None without a folder.

    Two images never share a path, and no overlay takes an image's place.
    """
    if folder is None:
        return [None] * len(paths)
    folder = pathlib.Path(folder)
    # Some file systems take A.png and a.png for the same.
    taken = {str(path.resolve()).casefold() for path in paths}
    targets: list[pathlib.Path | None] = []
    for path in paths:
        for number in itertools.count(1):
            suffix = "" if number == 1 else f"-{number}"
            target = folder / f"{path.stem}_attention{suffix}.png"
            key = str(target.resolve()).casefold()
            if key not in taken:
                break
        taken.add(key)
        targets.append(target)
    return targets


def results(
    answer: dict[str, np.ndarray],
    paths: Sequence[pathlib.Path],
    names: Sequence[str] | None,
    label: int | None,
) -> list[dict]:
    """Returns each image's JSON object; `write` notes the overlay in it.

    Args:
      answer: arrays [n, ...] by output.
      paths: of the n images.
      names: of the classes, or None.
      label: class whose attention was asked for; None for the predicted one.
    """
    objects = []
    for i, path in enumerate(paths):
        number = int(answer["classes"][i])
        result = {
            "file": str(path),
            "class": number,
            "name": names[number] if names else None,
            "probabilities": _numbers(answer["probabilities"][i]),
            "label": number if label is None else label,
            "attention": None,
            "overlay": None,
        }
        for output in ("attention", "attention_shift"):
            if output in answer:
                result[output] = _numbers(answer[output][i])
        objects.append(result)
    return objects


def write(
    results: Sequence[dict],
    batch_images: Sequence[np.ndarray],
    targets: Sequence[pathlib.Path | None],
    names: Sequence[str] | None,
) -> None:
    """Writes the overlays, each whole or not at all, and notes their paths."""
    for result, image, target in zip(
        results, batch_images, targets, strict=True
    ):
        if target is not None:
            texts = _overlay_texts(result, names)
            pixels = images.overlay(image, result["attention"], texts)
            _replace(target, pixels)
            result["overlay"] = str(target)


def _overlay_texts(result, names):
    """Returns class and confidence, and whose attention is shown."""
    number, label = result["class"], result["label"]
    share = f"{100 * result['probabilities'][number]:.0f} %"
    attended = f"attention of {_class(label, names)}"
    return f"{_class(number, names)}, {share}", attended


def _replace(target, pixels):
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            Image.fromarray(pixels).save(temporary, "PNG")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        received = f"{str(target)!r} ({error.strerror or error})"
        expect(False, "a picture that can be written", received)


def show(
    results: Sequence[dict],
    batch_images: Sequence[np.ndarray],
    names: Sequence[str] | None,
    as_json: bool,
) -> None:
    """Prints the results, as JSON lines or for reading."""
    for result, image in zip(results, batch_images, strict=True):
        if as_json:
            print(json.dumps(result))
        else:
            print("\n".join(_lines(result, image, names)), end="\n\n")


def colours(stream: TextIO, environment: Mapping[str, str]) -> int:
    """Returns how many colours a stream shows: TRUE_COLOUR, 256, or 0.

    Args:
      stream: that is written to; a file shows none.
      environment: of the process; NO_COLOR there means none.
    """
    if not stream.isatty() or environment.get("NO_COLOR"):
        return 0
    try:
        "▀".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return 0
    if environment.get("COLORTERM") in ("truecolor", "24bit"):
        return images.TRUE_COLOUR
    return 256 if "256color" in environment.get("TERM", "") else 0


def _map(attention, image):
    """Returns the lines of a map, and how many columns they take."""
    if attention is None:
        return [], 0
    known = colours(sys.stdout, os.environ)
    if known:
        lines = images.colour_map(image, attention, known)
        return lines, images.colour_map_width(image)
    lines = images.text_map(attention, _shades())
    return lines, len(lines[0])


def _lines(result, image, names):
    """Returns the lines of an image: heading, then map beside classes."""
    heading = f"{_printable(result['file'])}: {_class(result['class'], names)}"
    if result["label"] != result["class"]:
        heading += f", attention of {_class(result['label'], names)}"
    if "attention_shift" in result:
        heading += f", attention shift {result['attention_shift']:.3f}"
    probabilities = np.array(result["probabilities"])
    top = np.argsort(-probabilities, kind="stable")[:_TOP]
    labels = [_class(number, names) for number in top]
    width = max(map(len, labels))
    table = [
        f"{label:<{width}}  {probabilities[number]:.3f}"
        for label, number in zip(labels, top, strict=True)
    ]
    cells, columns = _map(result["attention"], image)
    blank = " " * columns
    beside = itertools.zip_longest(cells, table, fillvalue="")
    gap = "  " if cells else ""
    lines = [f"  {cell or blank}{gap}{row}".rstrip() for cell, row in beside]
    return [heading, *lines]


def _class(number, names):
    name = names[number] if names else str(number)
    if name == str(number):
        return f"class {number}"
    return f"{number} {_printable(name)}"


def _printable(text):
    """Returns a text that a terminal shows and does not obey."""
    return "".join(
        one if one.isprintable() else ascii(one)[1:-1] for one in text
    )


def _shades():
    try:
        images.BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return images.ASCII
    return images.BLOCKS


def _numbers(values):
    return np.asarray(values, np.float64).tolist()
