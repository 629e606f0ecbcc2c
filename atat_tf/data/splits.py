"""Names that people give to splits, and the draw of validation images."""

from collections.abc import Iterable

import numpy as np

from atat_tf.errors import expect

SPLITS = ("train", "validation", "test")
_SPELLINGS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


def expect_several_classes(labels: np.ndarray, data: str) -> None:
    """Raises InputError for training labels that are all of one class.

    Args:
      labels: integers [n], or shares of the classes [n, k].
      data: what they belong to, in words.
    """
    if labels.ndim == 2:
        present = np.flatnonzero(np.any(labels > 0, axis=0))
    else:
        present = np.unique(labels)
    expect(
        len(present) >= 2,
        f"images of two classes at least in {data}: a network that is trained "
        "on one class has nothing to tell apart, and no attack can break it "
        "(add images of what is not of that class, with a label of their own)",
        images=len(labels),
        classes=present.tolist(),
    )


def meant(names: Iterable[str]) -> dict[str, str]:
    """Returns {split of SPLITS: the name that means it}, of those given.

    Capital letters make no difference.

    Raises:
      InputError: two names mean one split.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        for split, spellings in _SPELLINGS.items():
            if name.lower() not in spellings:
                continue
            expect(
                split not in found,
                f"one name of the split {split}",
                names=[found.get(split), name],
            )
            found[split] = name
    return found


def uniform(
    labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ascending indices that stay, and `count` that are drawn.

    Args:
      labels: int32 [n].
      count: how many are drawn, below n.
      seed: of the draw.
    """
    order = np.random.default_rng([seed, 1]).permutation(len(labels))
    # Sorted, so that a split keeps the order of the files.
    return np.sort(order[count:]), np.sort(order[:count])


def stratified(
    labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `uniform` does, with the same share of every class drawn.

    Of each class at least one image stays.

    Args:
      labels: int32 [n].
      count: how many are drawn.
      seed: of the draw.

    Raises:
      InputError: so many are not there.
    """
    order = np.random.default_rng([seed, 1]).permutation(len(labels))
    places, sizes = np.empty(len(labels)), np.bincount(labels)
    for label in range(len(sizes)):
        mine = order[labels[order] == label]
        # The k-th of n images of a class is drawn once a share k / n is.
        places[mine] = (np.arange(len(mine)) + 0.5) / max(1, len(mine))
        places[mine[-1:]] = np.inf
    most = int(np.isfinite(places).sum())
    expect(
        most,
        "a class with two images to train and validate with (of a folder "
        "without test/ one image of each class is kept for tests: three then)",
        images=len(labels),
        classes=len(sizes),
    )
    expect(
        count <= most,
        f"num_validation up to {most} (an image of each class stays)",
        num_validation=count,
    )
    ranked = order[np.argsort(places[order], kind="stable")]
    return np.sort(ranked[count:]), np.sort(ranked[:count])
