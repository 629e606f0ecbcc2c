"""Data sets of a user's own: a folder for each class, image files inside."""

import concurrent.futures
import dataclasses
import hashlib
import logging
import math
import pathlib

import numpy as np

from atat_tf.data import images as image_files
from atat_tf.data import splits as split_names
from atat_tf.data import stored
from atat_tf.errors import InputError, expect, expect_known, unknown

PREFIX = "folder:"
BAD_IMAGES = ("stop", "skip")
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
        """What is recorded with every result.

        "shuffled" tells the verdicts on images in this order from those of
        versions that left them class by class.
        """
        count = sum(len(files) for files in self.files.values())
        return (
            f"folder {self.root.name}, {count} files, {self.digest[:23]}, "
            "shuffled"
        )


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
    test/ beside train/ or without, under any of the names in `splits`. A
    folder of such a name with images right inside is a class. Sub-folders of a
    class belong to it; files of other kinds and hidden ones are passed over.
    Folders beside the splits are not used, which is logged.

    Raises:
      InputError: no such folder, fewer than two classes, a class without
        images, or one that train/ does not have; names of splits that may mean
        two things.
    """
    root = pathlib.Path(absolute(name).removeprefix(PREFIX))
    expect(root.is_dir(), "a folder of images", dataset=name)
    roots = _roots(root)
    names = _class_names(roots["train"])
    files = {
        split: _files(path, names, may_lack=split != "train")
        for split, path in roots.items()
    }
    digest = hashlib.sha256()
    for split, pairs in files.items():
        for path, _ in pairs:
            where = path.relative_to(root)
            digest.update(f"{split} {where} {path.stat().st_size}\n".encode())
    return Listing(root, names, files, f"sha256:{digest.hexdigest()}")


def _roots(root):
    """Returns {split: its folder}, {"train": root} where there are none."""
    folders = [path for path in root.iterdir() if _is_visible_folder(path)]
    meant = split_names.meant(
        path.name for path in folders if not _has_images(path)
    )
    if not meant:
        return {"train": root}
    expect(
        "train" in meant,
        f"a folder train/ beside {', '.join(sorted(meant.values()))}/, or "
        "other names of the classes",
        dataset=str(root),
    )
    unused = sorted({path.name for path in folders} - {*meant.values()})
    ambiguous = [name for name in unused if _has_images(root / name)]
    expect(
        not ambiguous,
        f"splits ({', '.join(meant.values())}) or classes with images, not "
        f"both in {str(root)!r}",
        with_images=ambiguous,
    )
    if unused:
        logging.warning("%s: not used: %s", root, ", ".join(unused))
    return {
        split: root / meant[split]
        for split in split_names.SPLITS
        if split in meant
    }


def _is_visible_folder(path):
    return path.is_dir() and not path.name.startswith(".")


def _has_images(folder):
    """Returns whether image files lie right inside a folder."""
    return any(_is_image(path) for path in folder.iterdir())


def _is_image(path):
    return (
        path.suffix.lower() in _SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )


def _is_hidden(path):
    """Returns whether a part of a path begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def splits(
    pictures: Listing,
    image_shape: tuple[int, int, int],
    bad_images: str = "stop",
    memory_budget: float = math.inf,
) -> tuple[dict[str, tuple[np.ndarray | stored.Images, np.ndarray]], int]:
    """Returns {split: (images, labels)} of a Listing, always with "test".

    Where there is no test/, a tenth of each class is held out for it, drawn
    by a fixed seed. The images of a split are in an order drawn by a fixed
    seed, so that the first so many are of all classes.

    Args:
      pictures: Listing.
      image_shape: (H, W, C), C of 1 or 3, to which every image is resized,
        see `images.load`.
      bad_images: "stop" at files that cannot be decoded, or "skip" them.
      memory_budget: bytes; images that take more are decoded once to find
        such files, and again as they are asked for.

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
    size = sum(map(len, files.values())) * math.prod(image_shape)
    decoded, bad = {}, []
    for split, pairs in files.items():
        order = np.random.default_rng(0).permutation(len(pairs))
        pairs = [pairs[i] for i in order]
        images, labels, damaged = _decoded(
            pairs, image_shape, size <= memory_budget
        )
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
        entry.name for entry in folder.iterdir() if _is_visible_folder(entry)
    )
    expect(
        len(names) >= 2,
        f"a sub-folder for each of at least 2 classes in {str(folder)!r} (a "
        "network that is trained on one class has nothing to tell apart)",
        folders=names,
    )
    return tuple(names)


def _files(folder, names, may_lack):
    """Returns [(path, label)], sorted by class and name."""
    extra = set(_class_names(folder)) - set(names)
    if extra:
        raise unknown(f"a class of {str(folder)!r}", min(extra), names)
    pairs = []
    for label, name in enumerate(names):
        inside = folder / name
        paths = sorted(
            path
            for path in inside.rglob("*")
            if _is_image(path) and not _is_hidden(path.relative_to(inside))
        )
        # A validation or test folder need not have every class.
        expect(
            paths or may_lack,
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


def _decoded(pairs, image_shape, is_held):
    """Returns images, labels and the files that could not be decoded.

    The latter as sentences, path first.
    """
    held = np.empty((len(pairs) * is_held, *image_shape), np.uint8)
    whole = np.ones(len(pairs), bool)
    bad = []

    def decode(number):
        path = pairs[number][0]
        try:
            pixels = image_files.load(path, image_shape)
        except InputError as error:
            whole[number] = False
            bad.append(str(error).partition("Received: ")[2].rstrip("."))
            return
        if is_held:
            held[number] = pixels

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(decode, range(len(pairs))))
    labels = np.array([label for _, label in pairs], np.int32)
    if is_held:
        images = held if whole.all() else held[whole]
        return images, labels[whole], sorted(bad)
    paths = np.array([str(path) for path, _ in pairs])
    stamps = np.array([stored.stamp(path) for path in paths], np.int64)
    unread = stored.Files(np.flatnonzero(whole), image_shape, paths, stamps)
    return unread, labels[whole], sorted(bad)


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
