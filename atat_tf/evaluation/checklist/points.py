"""The points of the checklist: what is compared, with which threshold, why.

Nothing here runs a classifier.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping

import numpy as np

VERDICTS = PASS, FAIL, NOT_RUN = "PASS", "FAIL", "NOT RUN"
# Standard deviations that a figure may be above its threshold.
DEVIATIONS = 2.0


@dataclasses.dataclass(frozen=True)
class Criterion:
    """One line of the table of thresholds.

    Attributes:
      name: identifier.
      compared: the point, in words.
      threshold: the most that its figure may be, in points (hundredths of the
        images); None where it holds or does not.
      reason: where the threshold comes from.
    """

    name: str
    compared: str
    threshold: float | None
    reason: str


CRITERIA = (
    Criterion(
        "logits",
        "finite logits, not probabilities",
        None,
        "a softmax in float32 hides gradients (AutoAttack's flag)",
    ),
    Criterion(
        "repeatable",
        "the same images get the same logits",
        None,
        "random outputs need attacks of their own (AutoAttack's flag)",
    ),
    Criterion(
        "batch_independence",
        "a batch changes no image's logits",
        None,
        "batch statistics answer for the whole batch of attacked images",
    ),
    Criterion(
        "gradients",
        "images without a usable gradient",
        1.0,
        "an attack by gradients cannot move them; trained networks have none",
    ),
    Criterion(
        "single_step",
        "what FGSM breaks beyond PGD",
        0.0,
        "iterative attacks beat single-step ones (Carlini et al. 2019)",
    ),
    Criterion(
        "steps",
        "what twice the steps take away",
        1.0,
        "PGD-20 has converged (Carlini et al. 2019)",
    ),
    Criterion(
        "restarts",
        "what more random starts take away",
        2.0,
        "starts end alike unless the loss is rugged (Mosbach et al. 2018)",
    ),
    Criterion(
        "step_sizes",
        "what another step size takes away",
        2.0,
        "the step was not chosen to be weak (Carlini et al. 2019)",
    ),
    Criterion(
        "margin_loss",
        "what the margin loss takes away",
        4.0,
        "trained networks lose about as much to all of AutoAttack (TLA: 51.6 "
        "to 47.4), masked ones tens",
    ),
    Criterion(
        "radii",
        "largest gain from a larger ε",
        0.0,
        "a larger ball holds the smaller one (Carlini et al. 2019)",
    ),
    Criterion(
        "cliff",
        "what 4 ε takes beyond 20 times what ε takes after ε / 4",
        10.0,
        "accuracy that is flat up to ε and then falls was made for this ε, as "
        "by cut off or rounded scores; trained networks lose images on the way",
    ),
    Criterion(
        "unbounded",
        "accuracy without a bound",
        0.0,
        "any image can become one of another class (Athalye et al. 2018)",
    ),
    Criterion(
        "square",
        "what Square adds to white-box attacks",
        0.5,
        "queries know less than gradients (AutoAttack's flag)",
    ),
    Criterion(
        "transfer",
        "what an undefended network's images break beyond PGD",
        0.0,
        "another network's gradient knows less (Athalye et al. 2018)",
    ),
    Criterion(
        "noise",
        "what random noise breaks beyond PGD",
        0.0,
        "chance knows less than the gradient (Carlini et al. 2019)",
    ),
    Criterion(
        "attention",
        "what attacks on the attention add",
        2.0,
        "beyond the headline; as for restarts, of which the weights are a kind",
    ),
    Criterion(
        "class_sensitivity",
        "how alike maps of different classes are",
        75.0,
        "mean cosine in hundredths: a map that is the same for every class "
        "explains none; trained networks have 31 to 40, Eq. 5 as written 87",
    ),
    Criterion(
        "undefended_twin",
        "accuracy of an undefended network",
        5.0,
        "the attack works, and robustness is the defense's doing (the paper's "
        "standard networks keep 0.00)",
    ),
    Criterion(
        "candidates",
        "adversarial images refuted when alone",
        1.0,
        "inside ball and box, finite, misclassified; rounding decides a few",
    ),
    Criterion(
        "winner",
        "images broken by even scores or by none that is finite",
        1.0,
        "no attack follows such scores, and other rules count them as right; "
        "rounding makes one tie in a million",
    ),
    Criterion(
        "worst_case",
        "the worst case of all attacks is reported",
        None,
        "the mean over images of the worst attack, not the worst of the means "
        "(Carlini et al. 2019)",
    ),
    Criterion(
        "checkpoint",
        "distance from the validation figure",
        0.5,
        "that chose the weights: test images that choose overstate (Rice et "
        "al. 2020); other devices round a few images differently",
    ),
)
_BY_NAME = {criterion.name: criterion for criterion in CRITERIA}

# A real network loses images between ε / 4 and ε: how many times as many it may
# lose beyond ε.
_CLIFF = 20

# Points that ask what attacks take away from another's accuracy: the column
# that is taken for reference, and the group of columns held against it.
_TAKEN_AWAY = (
    ("single_step", "pgd20", "single_step"),
    ("steps", "pgd20", "steps"),
    ("restarts", "pgd20", "restarts"),
    ("step_sizes", "pgd20", "step_sizes"),
    ("margin_loss", "pgd20", "margin_loss"),
    ("square", "white box", "square"),
    ("transfer", "pgd20", "transfer"),
    ("noise", "pgd20", "noise"),
    ("attention", "headline", "attention"),
)


@dataclasses.dataclass(frozen=True)
class Point:
    """A decided point.

    Attributes:
      name: of its criterion, like `compared`, `threshold` and `reason`.
      compared: what the figure is.
      verdict: "PASS", "FAIL" or "NOT RUN".
      figure: points (hundredths of the images); None for points without.
      threshold: the most that the figure may be, in points; None likewise.
      allowance: points that the figure may be above the threshold, DEVIATIONS
        standard deviations of its sampling error; None likewise.
      note: the two accuracies, what is wrong, or why it was not run.
      reason: where the threshold comes from.
    """

    name: str
    compared: str
    verdict: str
    figure: float | None
    threshold: float | None
    allowance: float | None
    note: str
    reason: str


def counted(verdicts: Iterable[str], not_asked: int = 0) -> str:
    """Returns how many points have which verdict.

    Args:
      verdicts: of the points.
      not_asked: how many points there are beside these, as a file of an
        earlier version lacks those that came later.

    Returns:
      As "17 PASS, 0 FAIL, 2 NOT RUN", and then ", 3 not asked" where some are.
    """
    verdicts = [*verdicts]
    counts = [f"{verdicts.count(word)} {word}" for word in VERDICTS]
    return ", ".join(counts + [f"{not_asked} not asked"] * bool(not_asked))


def held(name: str, wrong: str | None, note: str) -> Point:
    """Returns the Point of a criterion without a figure.

    Args:
      name: the criterion.
      wrong: a sentence about what is wrong, or None.
      note: what was seen, where nothing is wrong.
    """
    return _point(name, FAIL if wrong else PASS, note=wrong or note)


def not_run(name: str, why: str) -> Point:
    """Returns the Point of a criterion that was not decided."""
    return _point(name, NOT_RUN, note=why)


def compared(name: str, figure: float, error: float, note: str) -> Point:
    """Returns the Point of a figure: PASS up to the widened threshold.

    PASS where figure <= threshold + DEVIATIONS · error.

    Args:
      name: the criterion.
      figure: a share of images, or a difference of two.
      error: its standard deviation over draws of the images.
      note: what the figure was computed from.
    """
    threshold = _BY_NAME[name].threshold
    if threshold is None:
        raise ValueError(f"expected a threshold, received {name!r}, without")
    figure, allowance = 100 * float(figure), 100 * DEVIATIONS * float(error)
    # Differences of shares are exact only up to rounding.
    limit = threshold + allowance + 1e-9
    verdict = PASS if figure <= limit else FAIL
    return _point(name, verdict, figure, allowance, note)


def share_error(flags: np.ndarray) -> float:
    """Returns the standard deviation of a share of n images.

    sqrt(p (1 − p) / n) with p the share, of a binomial distribution.

    Args:
      flags: bool [n].
    """
    share = np.mean(flags)
    return float(np.sqrt(share * (1 - share) / len(flags)))


def difference_error(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the standard deviation of a difference of shares of n images.

    The images are the same, so the difference is paired: with d_i in
    {-1, 0, 1} and b + c the number of images in which the two differ,
    sqrt((mean(d²) − mean(d)²) / n) = sqrt(((b + c) / n − (b − c)² / n²) / n).

    Args:
      first: bool [n].
      second: bool [n].
    """
    differences = np.asarray(first, float) - np.asarray(second, float)
    variance = np.mean(differences**2) - np.mean(differences) ** 2
    return float(np.sqrt(max(0.0, variance) / len(differences)))


def from_standing(
    stands: Mapping[str, Mapping[str, np.ndarray]], absent: Mapping[str, str]
) -> dict[str, Point]:
    """Returns the points that compare who stands, {name: Point}.

    Args:
      stands: {group: {column: bool [n]}}. The group "reference" holds
        "clean", "pgd20", "headline" and "white box", "radii" those of
        ε / 4, ε / 2, ε and larger ones, ascending, and "undefended_twin" the
        twin's under PGD, under APGD and without a bound.
      absent: {group: why it was not run}.
    """
    reference = stands["reference"]
    points = {
        name: _taken_away(name, of, reference[of], stands[group])
        for name, of, group in _TAKEN_AWAY
        if group in stands
    }
    points["radii"] = _radii(reference["clean"], stands["radii"])
    points["cliff"] = _cliff(stands["radii"])
    if "unbounded" in stands:
        ((column, flags),) = stands["unbounded"].items()
        points["unbounded"] = compared(
            "unbounded",
            np.mean(flags),
            share_error(flags),
            f"{_percent(flags)} under {column}",
        )
    if "undefended_twin" in stands:
        points["undefended_twin"] = _undefended_twin(
            reference["white box"], stands["undefended_twin"]
        )
    return points | {name: not_run(name, why) for name, why in absent.items()}


def _taken_away(name, of, reference, columns):
    """Returns the Point of what the strongest of some columns takes away."""
    column, flags = min(columns.items(), key=lambda item: np.mean(item[1]))
    return compared(
        name,
        np.mean(reference) - np.mean(flags),
        difference_error(reference, flags),
        f"{_percent(reference)} under {of}, {_percent(flags)} under {column}",
    )


def _undefended_twin(own, columns):
    """Returns the Point of what an undefended network keeps.

    Of a small ε it keeps images, as it should: that decides nothing where the
    run withstands more. But the attack must be no reason: APGD, which chooses
    its steps, takes no more than another step size may, and without a bound
    nothing is left.

    Args:
      own: who stands of the run under all white-box attacks, bool [n].
      columns: of the twin: PGD, APGD and PGD without a bound.
    """
    (_, kept), (_, by_apgd), (_, unbounded) = columns.items()
    note = ", ".join(f"{_percent(f)} under {c}" for c, f in columns.items())
    point = compared("undefended_twin", np.mean(kept), share_error(kept), note)
    ahead = np.mean(own) - np.mean(kept)
    is_ahead = ahead > DEVIATIONS * difference_error(own, kept)
    is_strong = compared(
        "step_sizes",
        np.mean(kept) - np.mean(by_apgd),
        difference_error(kept, by_apgd),
        "",
    )
    if (
        point.verdict == PASS
        or not is_ahead
        or is_strong.verdict == FAIL
        or np.any(unbounded)
    ):
        return point
    return not_run(
        "undefended_twin",
        f"{note}: ε is too small to break an undefended network; all "
        f"white-box attacks leave {_percent(own)} here",
    )


def _radii(clean, columns):
    """Returns the Point of the largest rise from one radius to the next."""
    ascending = [("clean", clean), *columns.items()]
    (_, smaller), (column, larger) = max(
        itertools.pairwise(ascending),
        key=lambda pair: np.mean(pair[1][1]) - np.mean(pair[0][1]),
    )
    return compared(
        "radii",
        np.mean(larger) - np.mean(smaller),
        difference_error(larger, smaller),
        f"{', '.join(_percent(flags) for _, flags in ascending)}; least "
        f"fall at {column}",
    )


def _cliff(columns):
    """Returns the Point of a fall beyond ε that nothing before it announces.

    With a(r) the accuracy at radius r and R the largest radius,
    (a(ε) − a(R)) − 20 (a(ε / 4) − a(ε)).
    """
    (_, quarter), _, (_, own), *larger = columns.items()
    if not larger:
        return not_run("cliff", "no radius above ε is inside the box")
    column, last = larger[-1]
    quarter, own, last = (
        np.asarray(flags, float) for flags in (quarter, own, last)
    )
    terms = (own - last) - _CLIFF * (quarter - own)
    return compared(
        "cliff",
        np.mean(terms),
        np.std(terms) / np.sqrt(len(terms)),
        f"{_percent(quarter)}, {_percent(own)} and then {_percent(last)} at "
        f"{column}",
    )


def _percent(flags):
    return f"{100 * np.mean(flags):.1f} %"


def _point(name, verdict, figure=None, allowance=None, note=""):
    criterion = _BY_NAME[name]
    return Point(
        name,
        criterion.compared,
        verdict,
        figure,
        criterion.threshold,
        allowance,
        note,
        criterion.reason,
    )
