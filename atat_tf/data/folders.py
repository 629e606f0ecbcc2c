"""Data sets of a user's own: a folder for each class, image files inside."""

import concurrent.futures
import dataclasses
import hashlib
import logging
import pathlib

import numpy as np

from atat_tf.data import images as image_files
from atat_tf.errors import InputError, expect, expect_known, unknown

PREFIX = "folder:"
BAD_IMAGES = ("stop", "skip")
_SPLITS = ("train", "validation", "test")
_SUFFIXES = (".jpeg", ".jpg", ".png")
_NAMED = 5  # bad files in a message
# Held out where there is no folder of the split's name.
_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Listing:
    """What lies in a folder, before a file is opened.

    Attributes:
      root: its path.
      class_names: names of the sub-folders, sorted: class c is the c-th.
      files: {split: [(path, label), ...]}, of the splits that are there;
        images in no split's folder are all in "train".
      digest: "sha256:..." of every file's name and size.
    """

    root: pathlib.Path
    class_names: tuple[str, ...]
    files: dict
    digest: str

    @property
    def provenance(self) -> str:
        """What is recorded with every result."""
        count = sum(len(files) for files in self.files.values())
        return f"folder {self.root.name}, {count} files, {self.digest[:23]}"


def is_folder(name: str) -> bool:
    """Returns whether a data set's name is `folder:PATH`."""
    return name.startswith(PREFIX)


def absolute(name: str) -> str:
    """Returns `folder:PATH` with the whole path, other names as they are."""
    if not is_folder(name):
        return name
    path = pathlib.Path(name.removeprefix(PREFIX)).expanduser()
    return f"{PREFIX}{path.resolve()}"


def listing(name: str) -> Listing:
    """Returns the Listing of `folder:PATH`.

    Either PATH/CLASS/*.jpg, or PATH/train/CLASS/*.jpg, with validation/ and
    test/ beside train/ or without. Sub-folders of a class belong to it; files
    of other kinds and hidden ones are passed over.

    Raises:
      InputError: no such folder, fewer than two classes, a class without
        images, or one that train/ does not have.
    """
    root = pathlib.Path(absolute(name).removeprefix(PREFIX))
    expect(root.is_dir(), "a folder of images", dataset=name)
    roots = {s: root / s for s in _SPLITS if (root / s).is_dir()}
    if "train" not in roots:
        roots = {"train": root}
    names = _class_names(roots["train"])
    files = {s: _files(path, names) for s, path in roots.items()}
    digest = hashlib.sha256()
    for split, pairs in files.items():
        for path, _ in pairs:
            where = path.relative_to(root)
            digest.update(f"{split} {where} {path.stat().st_size}\n".encode())
    return Listing(root, names, files, f"sha256:{digest.hexdigest()}")


def splits(
    pictures: Listing,
    image_shape: tuple[int, int, int],
    bad_images: str = "stop",
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """Returns {split: (images, labels)} of a Listing, always with "test".

    Where there is no test/, a tenth of each class is held out for it, drawn
    by a fixed seed.

    Args:
      pictures: Listing.
      image_shape: (H, W, C), C of 1 or 3, to which every image is resized,
        see `images.load`.
      bad_images: "stop" at files that cannot be decoded, or "skip" them.

    Returns:
      {"train", "test", maybe "validation": (uint8 [n, H, W, C], int32 [n])},
      and the number of files that were skipped.

    Raises:
      InputError: a file cannot be decoded; it is named. Or a class has no
        image left.
    """
    expect_known("bad_images", bad_images, BAD_IMAGES)
    files = dict(pictures.files)
    if "test" not in files:
        files["train"], files["test"] = _held_out(files["train"])
    decoded, bad = {}, []
    for split, pairs in files.items():
        images, labels, damaged = _decoded(pairs, image_shape)
        bad += damaged
        decoded[split] = images, labels
    if bad:
        _report(bad, bad_images)
    left = set(decoded["train"][1])
    for label, name in enumerate(pictures.class_names):
        expect(label in left, "a training image of each class", without=name)
    return decoded, len(bad)


def _class_names(folder):
    names = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    expect(
        len(names) >= 2,
        f"a sub-folder for each of at least 2 classes in {str(folder)!r}",
        folders=names,
    )
    return tuple(names)


def _files(folder, names):
    """Returns [(path, label)], sorted by class and name."""
    extra = set(_class_names(folder)) - set(names)
    if extra:
        raise unknown(f"a class of {str(folder)!r}", min(extra), names)
    pairs = []
    for label, name in enumerate(names):
        paths = sorted(
            path
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in _SUFFIXES
            and not path.name.startswith(".")
            and path.is_file()
        )
        # A validation or test folder need not have every class.
        expect(
            paths or folder.name in _SPLITS[1:],
            f"JPEG or PNG files in {str(folder / name)!r}",
            files=0,
        )
        pairs += [(path, label) for path in paths]
    return pairs


def _held_out(pairs):
    """Returns the pairs without, and a tenth of each class by itself."""
    draw = np.random.default_rng(0)
    kept: list[tuple[pathlib.Path, int]] = []
    held: list[tuple[pathlib.Path, int]] = []
    for label in sorted({label for _, label in pairs}):
        mine = [pair for pair in pairs if pair[1] == label]
        expect(
            len(mine) >= 2,
            "at least 2 images a class, one of them to test on",
            only=str(mine[0][0]),
        )
        count = max(1, round(_SHARE * len(mine)))
        chosen = set(draw.permutation(len(mine))[:count])
        for number, pair in enumerate(mine):
            (held if number in chosen else kept).append(pair)
    return kept, held


def _decoded(pairs, image_shape):
    """Returns images, labels and the files that could not be decoded.

    The latter as sentences, path first.
    """
    images = np.empty((len(pairs), *image_shape), np.uint8)
    whole = np.ones(len(pairs), bool)
    bad = []

    def decode(number):
        path = pairs[number][0]
        try:
            images[number] = image_files.load(path, image_shape)
        except InputError as error:
            whole[number] = False
            bad.append(str(error).partition("Received: ")[2].rstrip("."))

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(decode, range(len(pairs))))
    labels = np.array([label for _, label in pairs], np.int32)
    if not whole.all():
        images = images[whole]
    return images, labels[whole], sorted(bad)


def _report(bad, bad_images):
    """Raises InputError for bad files, or warns of them."""
    shown = "; ".join(bad[:_NAMED])
    if len(bad) > _NAMED:
        shown += f"; and {len(bad) - _NAMED} more"
    if bad_images == "stop":
        raise InputError(
            "Expected whole JPEG and PNG files (--bad_images=skip leaves "
            f"others out). Received: {shown}."
        )
    logging.warning("Skipping %d files: %s", len(bad), shown)
