"""Times PGD-20 evaluation, ours beside the peers', on the same weights.

  python3.11 -m venv .venv-peers
  .venv-peers/bin/pip install -r benchmarks/requirements.txt
  python -m benchmarks.attacks
  python -m benchmarks.attacks --models=robust --repeats=9 --json=FILE

ℓ∞, ε = 8/255, α = 2/255, 20 steps for all. All start at the image itself, the
one start that every peer takes; with --random_start all start at random, each
with its own draws. Every round runs every row once on the same images, so that
what else the machine does meets all alike; the first, untimed, is a batch.
What the peers find is judged by our model: inside ball and box, and wrong. So
the table also says whether they find more than our PGD does with the same
budget; goal: no more than 1 point.

"ours" is an evaluation as `atat_tf.evaluate` does it: misclassified images do
not enter, broken ones leave. "ours, no compaction" takes all images through all
steps, as the peers do. Both judge every point on the way and check candidates
once more, alone in a batch of one; the time of a peer is its attack and one
forward pass over what it returned.

TensorFlow leaves its oneDNN kernels off on processors without AVX-512. They are
on for ours and for the TensorFlow peers alike (--noonednn, --nopeers_onednn for
off). Peers get their fastest form, see `benchmarks.peers.attacks`. Goals, on
the robust model: 2 times the fastest peer with compaction, 1.2 times without.
"""

import contextlib
import json
import os
import pathlib
import sys

from absl import app, flags, logging

from benchmarks import command, ratios, surroundings
from benchmarks.peers import compared
from benchmarks.peers import process as peers

_EPSILON, _STEP_SIZE = 8 / 255, 2 / 255
_COMPACT, _WHOLE = "ours", "ours, no compaction"
_MODELS = {
    "random": lambda dataset, n: compared.random_case(
        dataset, n, _EPSILON, 16, 1
    ),
    "robust": lambda dataset, n: compared.run_case(
        "robust", dataset, n, _EPSILON
    ),
}
_PEERS = ("cleverhans", "foolbox", "art", "torchattacks")
_GOALS = {_COMPACT: 2.0, _WHOLE: 1.2}

_DATA_DIR = flags.DEFINE_string(
    "data_dir", compared.DATA_DIR, "of tensorflow-datasets, with CIFAR-10"
)
_ONLY = flags.DEFINE_list("models", list(_MODELS), "classifiers to attack")
_NAMES = flags.DEFINE_list("peers", list(_PEERS), "whom to compare with")
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 1024, "first test images", lower_bound=1
)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 20, "of PGD", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "of all", lower_bound=1)
_REPEATS = flags.DEFINE_integer(
    "repeats", 5, "rounds, each of every row once", lower_bound=1
)
_RANDOM_START = flags.DEFINE_bool(
    "random_start", False, "start at random in the ball, not at the image"
)
_PYTHON = flags.DEFINE_string(
    "peers_python", peers.PYTHON, "interpreter of the peers' environment"
)
_ONEDNN = flags.DEFINE_bool("onednn", True, "oneDNN's kernels for ours")
_PEERS_ONEDNN = flags.DEFINE_bool(
    "peers_onednn", True, "oneDNN's kernels for the TensorFlow peers"
)
_JSON = flags.DEFINE_string("json", None, "file for all of the figures")


def measure(case, open_peers, num_steps, batch_size, repeats, random_start):
    """Returns {row: (stands bool [n], [seconds], [processor seconds])}.

    Args:
      case: compared.Case.
      open_peers: {name: Peer}; one that fails is taken out.
      num_steps: of PGD.
      batch_size: of all.
      repeats: number of rounds.
      random_start: whether to start at random in the ball.

    Returns:
      The rows, and {peer: why it was not run}.
    """
    rows = _our_rows(case, num_steps, batch_size, random_start)
    not_run = {}
    for name, peer in open_peers.items():
        try:
            peer.load(case.classifier)
            compared.expect_same_logits(peer, case)
            row = _peer_row(case, peer, num_steps, batch_size, random_start)
            row(batch_size)
        except peers.NotRun as error:
            not_run[name] = str(error)
        else:
            rows[name] = row
    for name in (_COMPACT, _WHOLE):
        rows[name](batch_size)
    measured = {name: (None, [], []) for name in rows}
    for _ in range(repeats):
        for name, row in rows.items():
            stands, seconds, processor = row(len(case.images))
            _, clock, by_processor = measured[name]
            clock.append(seconds)
            by_processor.append(processor)
            measured[name] = stands, clock, by_processor
    return measured, not_run


def _our_rows(case, num_steps, batch_size, random_start):
    """Returns {row: function of a number of images}."""
    import numpy as np

    from atat_tf.attacks import linf
    from atat_tf.evaluation import attacker as attacker_lib

    factory = linf.pgd if random_start else linf.ifgsm
    attack = linf.Steps(factory(_EPSILON, _STEP_SIZE, num_steps))

    def row(compact):
        runner = attacker_lib.Attacker(
            case.classifier, batch_size, compact=compact
        )

        def run(count):
            entering = np.arange(len(case.images)) < count
            return compared.evaluation(
                runner, [attack], case, entering, only_right=compact
            )

        return run

    return {_COMPACT: row(True), _WHOLE: row(False)}


def _peer_row(case, peer, num_steps, batch_size, random_start):
    def run(count):
        attacked = peer.attack(
            "pgd",
            case.images[:count],
            case.labels[:count],
            batch_size,
            epsilon=_EPSILON,
            step_size=_STEP_SIZE,
            num_steps=num_steps,
            random_start=random_start,
        )
        stands = ~compared.broken(case.first(count), attacked.adversarial)
        return stands, attacked.seconds, attacked.processor_seconds

    return run


def figures(measured, num_images):
    """Returns one row a timed thing: accuracy, images/s, and our ratios.

    The ratios are seconds of the row over ours, round by round.
    """
    ours = measured[_COMPACT]

    def against(name, index, row):
        return ratios.summary(ratios.over(row[index], measured[name][index]))

    return [
        {
            "what": name,
            "accuracy": float(row[0].mean()),
            "only_it_breaks": int((ours[0] & ~row[0]).sum()),
            "only_ours_breaks": int((row[0] & ~ours[0]).sum()),
            "images_per_second": ratios.summary(
                [num_images / seconds for seconds in row[1]]
            ),
            "over_ours": against(_COMPACT, 1, row),
            "over_no_compaction": against(_WHOLE, 1, row),
            "over_ours_by_processor": against(_COMPACT, 2, row),
            "over_no_compaction_by_processor": against(_WHOLE, 2, row),
        }
        for name, row in measured.items()
    ]


def comparisons(case, measured, not_run):
    """Returns how many times faster ours is than each peer, see `ratios`."""
    what = f"PGD-{_NUM_STEPS.value} evaluation, {case.what}"
    theirs = {n: row[1] for n, row in measured.items() if n not in _GOALS}
    return [
        each
        for ours, words in ((_COMPACT, what), (_WHOLE, f"{what}, {_WHOLE}"))
        for each in ratios.against_peers(
            words,
            measured[ours][1],
            theirs,
            f">= {_GOALS[ours]:g}",
            not_run if ours == _COMPACT else {},
        )
    ]


def print_case(case, rows, compared_rows):
    """Prints the table of a case, and how far it is from the goals."""
    from atat_tf.runs import terminal

    terminal.table(
        f"PGD-{_NUM_STEPS.value}, {case.what}, {len(case.images)} images, "
        f"batch {_BATCH_SIZE.value}, medians of {_REPEATS.value} rounds",
        (
            "who",
            "robust %",
            "only it breaks",
            "only ours",
            "images/s",
            "range",
            "ours is faster",
            "no compaction",
            "by processor",
            "no compaction",
        ),
        [_cells(row) for row in rows],
    )
    ratios.print_table("Times faster than", compared_rows)


def _cells(row):
    rate = row["images_per_second"]
    return [
        row["what"],
        f"{100 * row['accuracy']:.2f}",
        str(row["only_it_breaks"]),
        str(row["only_ours_breaks"]),
        f"{rate['median']:.1f}",
        f"{rate['min']:.1f}..{rate['max']:.1f}",
        _times(row["over_ours"]),
        _times(row["over_no_compaction"]),
        f"{row['over_ours_by_processor']['median']:.2f}",
        f"{row['over_no_compaction_by_processor']['median']:.2f}",
    ]


def _times(ratio):
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}..{ratio['max']:.2f})"


def _opened(stack, environment):
    """Returns {name: Peer} of those that start, and why the others do not."""
    found, not_run = {}, {}
    for name in _NAMES.value:
        try:
            peer = peers.Peer(name, _PYTHON.value, environment)
        except peers.NotRun as error:
            not_run[name] = str(error)
        else:
            found[name] = stack.enter_context(peer)
    return found, not_run


def main(argv):
    command.expect_flags_only(argv)
    unknown = {*_ONLY.value} - {*_MODELS} | {*_NAMES.value} - {*_PEERS}
    if unknown:
        sys.exit(
            f"error: expected models among {', '.join(_MODELS)} and peers "
            f"among {', '.join(_PEERS)}. Received: {', '.join(unknown)}."
        )
    os.environ.update(peers.environment(_ONEDNN.value))
    logging.set_verbosity(logging.ERROR)
    dataset = compared.load_dataset(_DATA_DIR.value)
    results, compared_rows = [], []
    with contextlib.ExitStack() as stack:
        found, absent = _opened(stack, peers.environment(_PEERS_ONEDNN.value))
        for name in _ONLY.value:
            case = _MODELS[name](dataset, _NUM_IMAGES.value)
            measured, failed = measure(
                case,
                found,
                _NUM_STEPS.value,
                _BATCH_SIZE.value,
                _REPEATS.value,
                _RANDOM_START.value,
            )
            rows = figures(measured, len(case.images))
            compared_rows += comparisons(case, measured, absent | failed)
            print_case(case, rows, compared_rows)
            results.append({"case": case.what, "rows": rows})
        versions = {name: peer.versions for name, peer in found.items()}
    if _JSON.value:
        report = {
            "results": results,
            "comparisons": compared_rows,
            "versions": versions,
            "surroundings": surroundings.surroundings(),
        }
        pathlib.Path(_JSON.value).write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    app.run(main)
