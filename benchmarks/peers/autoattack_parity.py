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

import json
import os
import pathlib
import statistics
import sys

import numpy as np
from absl import app, flags, logging

from benchmarks import command, ratios, surroundings
from benchmarks.peers import compared
from benchmarks.peers import process as peers

_CASES = {
    "standard": lambda *given: compared.run_case("standard", *given),
    "standard_small": lambda *given: compared.run_case("standard", *given),
    "robust": lambda *given: compared.run_case("robust", *given),
    "two": compared.two_classes_case,
    "hundred": compared.hundred_classes_case,
}
# Where some images stand and some fall, and the usual 8/255.
_EPSILON = {
    "standard": 8 / 255,
    "standard_small": 1 / 255,
    "robust": 8 / 255,
    "two": 8 / 255,
    "hundred": 2 / 255,
}
_PARTS = ("apgd_ce", "apgd_t", "fab_t", "square")
_SEQUENCES = {**{part: (part,) for part in _PARTS}, "standard": _PARTS}
_WITHIN = 0.01
# How many times ours should be as fast as the whole of a peer's.
_FASTER = {"torchattacks": ">= 2", "art": ">= 3"}
_WEAKER = "OURS IS WEAKER"

_DATA_DIR = flags.DEFINE_string(
    "data_dir", compared.DATA_DIR, "of tensorflow-datasets, with CIFAR-10"
)
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
_PYTHON = flags.DEFINE_string(
    "peers_python", peers.PYTHON, "interpreter of the peers' environment"
)
_ONEDNN = flags.DEFINE_bool("onednn", True, "TensorFlow's oneDNN kernels")
_JSON = flags.DEFINE_string("json", None, "file for all of the figures")


def compare(case, names, peer, batch_size, steps, repeats=1):
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


def _summed_up(rounds):
    """Returns medians of the rounds, all of their seconds, and verdicts."""
    last = rounds[-1]
    names = [name for name in last if name.endswith("_seconds")]
    every = {name: [each[name] for each in rounds] for name in names}
    medians = {name: statistics.median(every[name]) for name in names}
    ours, theirs = last["our_verdicts"], last.get("their_verdicts")
    row = {"ours": float(ours.mean()), **medians, "rounds": every}
    if theirs is not None:
        row |= {"theirs": float(theirs.mean()), **_disagreement(ours, theirs)}
    return row


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


def _disagreement(ours, theirs):
    difference = float(ours.mean() - theirs.mean())
    verdict = "within 1 point"
    if abs(difference) > _WITHIN + 1e-9:
        verdict = _WEAKER if difference > 0 else "ours is stronger"
    return {
        "difference": difference,
        "verdict": verdict,
        "only_ours_breaks": np.flatnonzero(theirs & ~ours).tolist(),
        "only_theirs_breaks": np.flatnonzero(ours & ~theirs).tolist(),
    }


def comparisons(case, rows, peer):
    """Returns how much faster and how much weaker ours is, see `ratios`."""
    found = []
    for row in rows:
        what = f"{row['attack']}, {case.what}"
        if "not_run" in row:
            found.append(ratios.not_run(what, peer, row["not_run"]))
            continue
        goal = _FASTER[peer] if row["attack"] == "standard" else ""
        faster = ratios.over(
            row["rounds"]["their_seconds"], row["rounds"]["our_seconds"]
        )
        left = 100 * row["difference"]
        found += [
            ratios.comparison(what, peer, faster, goal),
            ratios.comparison(
                f"{what}, left more", peer, [left], "<= 1", "points"
            ),
        ]
    return found


def print_case(case, rows, versions):
    """Prints the table of a case and the images that are disagreed about."""
    from atat_tf.runs import terminal

    terminal.table(
        f"{case.what}, epsilon {case.epsilon * 255:g}/255, "
        f"{rows[0]['right']} of {rows[0]['images']} right, against "
        + ", ".join(f"{name} {v}" for name, v in versions.items()),
        (
            "attack",
            "ours %",
            "theirs %",
            "verdict",
            "ours s",
            "theirs s",
            "theirs / ours",
            "by processor",
        ),
        [_cells(row) for row in rows],
    )
    console = terminal.console()
    for row in rows:
        if "not_run" in row:
            console.print(f"{row['attack']}, NOT RUN: {row['not_run']}")
        for who in ("only_ours_breaks", "only_theirs_breaks"):
            if row.get(who):
                words = who.replace("_", " ")
                console.print(f"{row['attack']}, {words}: {row[who]}")


def _cells(row):
    ours = f"{100 * row['ours']:.1f}"
    if "not_run" in row:
        seconds = f"{row['our_seconds']:.1f}"
        return [row["attack"], ours, "", "NOT RUN", seconds, "", "", ""]
    by_processor = row["their_processor_seconds"] / row["our_processor_seconds"]
    return [
        row["attack"],
        ours,
        f"{100 * row['theirs']:.1f}",
        row["verdict"],
        f"{row['our_seconds']:.1f}",
        f"{row['their_seconds']:.1f}",
        f"{row['their_seconds'] / row['our_seconds']:.2f}",
        f"{by_processor:.2f}",
    ]


def main(argv):
    command.expect_flags_only(argv)
    known = ["standard"] if _PEER.value == "art" else list(_SEQUENCES)
    unknown = {*_ONLY.value} - {*_CASES} | {*_ATTACKS.value} - {*known}
    if unknown:
        sys.exit(
            f"error: expected cases among {', '.join(_CASES)} and, against "
            f"{_PEER.value}, attacks among {', '.join(known)}. Received: "
            f"{', '.join(sorted(unknown))}."
        )
    environment = peers.environment(_ONEDNN.value)
    os.environ.update(environment)
    logging.set_verbosity(logging.ERROR)
    dataset = compared.load_dataset(_DATA_DIR.value)
    steps = dict.fromkeys(_PARTS, _NUM_STEPS.value)
    steps["square"] = _NUM_QUERIES.value
    results, compared_rows = [], []
    try:
        with peers.Peer(_PEER.value, _PYTHON.value, environment) as peer:
            for name in _ONLY.value:
                case = _CASES[name](dataset, _NUM_IMAGES.value, _EPSILON[name])
                given = _ATTACKS.value, peer, _BATCH_SIZE.value, steps
                rows = list(compare(case, *given, _REPEATS.value))
                print_case(case, rows, peer.versions)
                results.append({"case": case.what, "rows": rows})
                compared_rows += comparisons(case, rows, peer.name)
    except peers.NotRun as error:
        sys.exit(f"NOT RUN: {_PEER.value}: {error}")
    if _JSON.value:
        report = {
            "results": results,
            "comparisons": compared_rows,
            "surroundings": surroundings.surroundings(),
        }
        pathlib.Path(_JSON.value).write_text(json.dumps(report, indent=2))
    rows = [row for result in results for row in result["rows"]]
    if any(row.get("verdict") == _WEAKER for row in rows):
        sys.exit("error: an attack of ours left more images than the peer's.")


if __name__ == "__main__":
    app.run(main)
