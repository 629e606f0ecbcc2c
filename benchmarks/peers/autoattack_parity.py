"""Holds our AutoAttack against torchattacks' on the same weights and images.

  python3.11 -m venv .venv-peers
  .venv-peers/bin/pip install -r benchmarks/requirements.txt
  python -m benchmarks.peers.autoattack_parity
  python -m benchmarks.peers.autoattack_parity --cases=robust --json=FILE
  python -m benchmarks.peers.autoattack_parity --attacks=standard --peer=art

Every part of AutoAttack runs alone, on all images that are classified right;
"standard" runs them in order, each on what the one before left. What the peer
returns is judged by our model: inside ball and box, and wrong. Goal: robust
accuracies within 1 point of each other, ours not the higher one. Seconds are
the whole attack's, medians of --repeats rounds, ours with tracing in the first.

The peer, torchattacks 3.5.1: its AutoAttack runs APGD and FAB with 10 steps
and not with 100, seeds from the clock, and targets all wrong classes and not
nine: its parts are called one by one, with 100 steps, 5,000 queries, seed 0 and
at most nine targets. Its parts take a batch whole, to the last step, except for
Square, which leaves broken images out. One square is drawn for all images of a
batch; ours has one for each. Its APGD-T needs four classes. Its networks are in
inference mode, batch norm included.

ART 1.20.1 has an AutoAttack of its own, which is compared as a whole: APGD on
cross-entropy and on the ratio of logits with 5 starts each, DeepFool, Square.
"""

import sys
from collections.abc import Iterator

import numpy as np
from absl import app, flags, logging

from benchmarks import command, ratios
from benchmarks.peers import compared
from benchmarks.peers import process as peers

# Run folders, see compared.RUNS, with the ε where some images stand and some
# fall, and with the usual one.
_CASES = {
    "standard": ("standard", 8 / 255),
    "standard_small": ("standard", 1 / 255),
    "robust": ("robust", 8 / 255),
}
_PARTS = ("apgd_ce", "apgd_t", "fab_t", "square")
_SEQUENCES = {**{part: (part,) for part in _PARTS}, "standard": _PARTS}
_MORE = "<= 1"
# How many times ours should be as fast as the whole of a peer's.
_FASTER = {"torchattacks": ">= 2", "art": ">= 3"}

_ONLY = flags.DEFINE_list("cases", list(_CASES), "classifiers to compare on")
_ATTACKS = flags.DEFINE_list(
    "attacks", list(_PARTS), "parts of AutoAttack, or standard: all in order"
)
_PEER = flags.DEFINE_enum(
    "peer", "torchattacks", ["torchattacks", "art"], "whom to compare with"
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 200, "first test images", lower_bound=1
)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 100, "of APGD and FAB")
_NUM_QUERIES = flags.DEFINE_integer("num_queries", 5000, "of Square")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 200, "of both", lower_bound=1)
_REPEATS = flags.DEFINE_integer(
    "repeats", 1, "rounds of ours and the peer's in turns", lower_bound=1
)


def compare(
    case: compared.Case,
    names: list[str],
    peer: peers.Peer,
    batch_size: int,
    steps: dict[str, int],
    repeats: int = 1,
) -> Iterator[dict]:
    """Yields a row for each attack, ours and the peer's side by side.

    Args:
      case: compared.Case.
      names: of _SEQUENCES.
      peer: peers.Peer that has their parts, or "art" with its own whole.
      batch_size: of both.
      steps: {part: number of steps}.
      repeats: rounds of both in turns; verdicts are the last one's.
    """
    from atat_tf.attacks import columns
    from atat_tf.evaluation import attacker as attacker_lib

    runner = attacker_lib.Attacker(case.classifier, batch_size)
    right = runner.logits(case.images).argmax(-1) == case.labels
    peer.load(case.classifier)
    difference = compared.expect_same_logits(peer, case)
    for name in names:
        attacks = [
            attack
            for part in _SEQUENCES[name]
            for attack in columns.column(
                f"{part}{steps[part]}", case.epsilon, None, case.num_classes
            )
        ]
        parts = {part: {"num_steps": steps[part]} for part in _SEQUENCES[name]}
        if peer.name == "art":
            parts = {"autoattack": {}}
        row = {"attack": name, "images": len(right), "right": int(right.sum())}
        row["logits_differ_by"] = difference
        rounds = []
        for _ in range(repeats):
            rounds.append(_ours(case, attacks, runner, right))
            try:
                rounds[-1] |= _theirs(case, parts, peer, batch_size, right)
            except peers.NotRun as error:
                row["not_run"] = str(error)
                break
        yield row | _summed_up(rounds)


def _ours(case, attacks, runner, right):
    names = "our_verdicts", "our_seconds", "our_processor_seconds"
    found = compared.evaluation(runner, attacks, case, right, only_right=False)
    return dict(zip(names, found, strict=True))


def _theirs(case, parts, peer, batch_size, right):
    """Returns who stands after the peer's parts, each on what was left."""
    stands, seconds, processor = right.copy(), 0.0, 0.0
    for part, arguments in parts.items():
        entering = np.flatnonzero(stands)
        if not len(entering):
            break
        attacked = peer.attack(
            part,
            case.images[entering],
            case.labels[entering],
            batch_size,
            epsilon=case.epsilon,
            **arguments,
        )
        adversarial = case.images.astype(np.float32) / np.float32(255)
        adversarial[entering] = attacked.adversarial
        stands &= ~compared.broken(case, adversarial)
        seconds += attacked.seconds
        processor += attacked.processor_seconds
    return {
        "their_verdicts": stands,
        "their_seconds": seconds,
        "their_processor_seconds": processor,
    }


def _summed_up(rounds):
    """Returns the seconds of all rounds, and the last one's verdicts."""
    last = rounds[-1]
    ours, theirs = last["our_verdicts"], last.get("their_verdicts")
    row = {
        name: [each.get(name) for each in rounds]
        for name in last
        if name.endswith("_seconds")
    }
    row["ours"] = float(ours.mean())
    if theirs is not None:
        row |= {
            "theirs": float(theirs.mean()),
            "difference": float(ours.mean() - theirs.mean()),
            "only_ours_breaks": np.flatnonzero(theirs & ~ours).tolist(),
            "only_theirs_breaks": np.flatnonzero(ours & ~theirs).tolist(),
        }
    return row


def comparisons(case: compared.Case, rows: list[dict], peer: str) -> list[dict]:
    """Returns how much faster and how much weaker ours is, see `ratios`."""
    found = []
    for row in rows:
        what = f"{row['attack']}, {case.what}"
        if "not_run" in row:
            found.append(ratios.not_run(what, peer, row["not_run"]))
            continue
        for field, words, goal in (
            ("seconds", "", _FASTER[peer]),
            ("processor_seconds", ", by processor seconds", ""),
        ):
            faster = ratios.over(row[f"their_{field}"], row[f"our_{field}"])
            if row["attack"] != "standard":
                goal = ""
            found.append(
                ratios.comparison(f"{what}{words}", peer, faster, goal)
            )
        left = [100 * row["difference"]]
        found.append(
            ratios.comparison(f"{what}, left more", peer, left, _MORE, "points")
        )
    return found


def print_case(
    case: compared.Case, rows: list[dict], versions: dict[str, str]
) -> None:
    """Prints who stands, and the images that are disagreed about."""
    from atat_tf.runs import terminal

    terminal.table(
        f"{case.what}, epsilon {case.epsilon * 255:g}/255, "
        f"{rows[0]['right']} of {rows[0]['images']} right, against "
        + ", ".join(f"{name} {v}" for name, v in versions.items()),
        ("attack", "ours", "theirs", "only ours breaks", "only theirs"),
        [
            (
                row["attack"],
                f"{row['ours']:.1%}",
                f"{row['theirs']:.1%}" if "theirs" in row else "NOT RUN",
                str(row.get("only_ours_breaks", "")),
                str(row.get("only_theirs_breaks", "")),
            )
            for row in rows
        ],
    )


def main(argv: list[str]) -> None:
    known = ["standard"] if _PEER.value == "art" else list(_SEQUENCES)
    command.expect_names("cases", _ONLY.value, _CASES)
    command.expect_names("attacks", _ATTACKS.value, known)
    about = command.begin(argv, peers.ONEDNN.value)
    logging.set_verbosity(logging.ERROR)
    dataset = compared.load_dataset()
    steps = dict.fromkeys(_PARTS, _NUM_STEPS.value)
    steps["square"] = _NUM_QUERIES.value
    results = {"surroundings": about, "rows": {}, "comparisons": []}
    try:
        with peers.Peer(_PEER.value) as peer:
            for name in _ONLY.value:
                run, epsilon = _CASES[name]
                images = _NUM_IMAGES.value
                case = compared.run_case(run, dataset, images, epsilon)
                given = _ATTACKS.value, peer, _BATCH_SIZE.value, steps
                rows = list(compare(case, *given, _REPEATS.value))
                print_case(case, rows, peer.versions)
                results["rows"][case.what] = rows
                results["comparisons"] += comparisons(case, rows, peer.name)
    except peers.NotRun as error:
        sys.exit(f"NOT RUN: {_PEER.value}: {error}")
    command.finish("Times faster than, and how many more stand", results)
    weaker = [c for c in results["comparisons"] if c["goal"] == _MORE]
    if any(ratios.verdict(each) == "not met" for each in weaker):
        sys.exit("error: an attack of ours left more images than the peer's.")


if __name__ == "__main__":
    app.run(main)
