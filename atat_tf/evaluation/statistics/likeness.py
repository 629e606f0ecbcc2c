"""Whether figures may stand side by side: of which images and attacks they are.

The printed table, cards, reports and comparisons ask here, so that a figure
that does not compare with its neighbours is marked, or left out.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Basis(NamedTuple):
    """What a figure is of, besides the network.

    Attributes:
      images: the data set and its split.
      bn_eval: "frozen" or "batch" statistics.
      attacks: their descriptions; none where there are none, or where they are
        not known.
    """

    images: str = ""
    bn_eval: str = "frozen"
    attacks: tuple[str, ...] = ()

    def is_like(self, other: "Basis") -> bool:
        """Returns whether figures of both compare, as far as is known."""
        are_known = self.attacks and other.attacks
        return self[:2] == other[:2] and (
            not are_known or self.attacks == other.attacks
        )


def bases(results: Mapping[str, Any]) -> dict[str, Basis]:
    """Returns {column: Basis} of what a results.json holds."""
    names = (*results["accuracy"], *results.get("estimates", ()))
    return {name: basis(results, name) for name in names}


def basis(results: Mapping[str, Any], column: str = "clean") -> Basis:
    """Returns the Basis of a column that a results.json holds."""
    estimate = results.get("estimates", {}).get(column, {})
    attacks = results.get("attacks", {}).get(column) or estimate.get("attacks")
    images = f"{results['data']}, {results.get('split', 'test')}"
    return Basis(images, results["bn_eval"], tuple(attacks or ()))


def of_others(figures: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """Returns in what two files of one run differ, "" where in nothing.

    Args:
      figures, others: what results.json and checklist.json hold. What one of
        them does not tell differs in nothing.

    Returns:
      As "other images and other weights".
    """
    words = {"data": "other images", "weights_digest": "other weights"}
    return " and ".join(
        words[name]
        for name in words
        if {name} <= figures.keys() & others.keys()
        and figures[name] != others[name]
    )


def notes(named: Sequence[tuple[str, Mapping[str, Basis]]]) -> list[str]:
    """Returns sentences on what of a table does not compare.

    Args:
      named: what a row is called, and {column: Basis} of its figures.
    """
    found = [
        f"{name}: batch-norm statistics of the attacked batch "
        "(bn_eval=batch), not a claim of robustness."
        for name, of_row in named
        if any(basis.bn_eval == "batch" for basis in of_row.values())
    ]
    # A row's columns have their images in common.
    images = [(n, next(iter(of.values())).images) for n, of in named if of]
    found += _differing("The images differ", images)
    for column in dict.fromkeys(name for _, of_row in named for name in of_row):
        rows = [(name, of[column]) for name, of in named if column in of]
        attacks = [(n, basis.attacks) for n, basis in rows if basis.attacks]
        found += _differing(f"{column}: the attacks differ", _told(attacks))
    return found


def _differing(what, rows):
    """Returns a sentence on rows that are not all alike, in a list, or []."""
    if len({words for _, words in rows}) < 2:
        return []
    told = "; ".join(f"{name} has {words}" for name, words in rows)
    return [f"{what}: {told}."]


def _told(rows):
    """Returns [(row, what tells its attacks from others')], ε if that does.

    Otherwise the attacks that not all rows have: AutoAttack is of twenty.
    """
    radii = [
        (name, "ε = " + ", ".join(dict.fromkeys(_radii(attacks))))
        for name, attacks in rows
    ]
    if len({words for _, words in radii}) > 1:
        return radii
    all_attacks = [{*attacks} for _, attacks in rows]
    shared = set.intersection(*all_attacks) if all_attacks else set()
    return [
        (name, _first([a for a in attacks if a not in shared]))
        for name, attacks in rows
    ]


def _first(attacks):
    """Returns the first of some attacks, and how many more there are."""
    if len(attacks) < 2:
        return "".join(attacks) or "no others"
    return f"{attacks[0]} and {len(attacks) - 1} more"


def _radii(attacks):
    return re.findall(r"\bepsilon=([^,)]+)", " ".join(attacks))
