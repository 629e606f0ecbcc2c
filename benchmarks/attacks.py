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
from collections.abc import Callable

from absl import app, flags, logging

from benchmarks import command, ratios
from benchmarks.peers import compared
from benchmarks.peers import process as peers

_EPSILON, _STEP_SIZE = 8 / 255, 2 / 255
_COMPACT, _WHOLE = "ours", "ours, no compaction"
_PEERS = ("cleverhans", "foolbox", "art", "torchattacks")
_GOALS = {_COMPACT: ">= 2", _WHOLE: ">= 1.2"}

_ONLY = flags.DEFINE_list(
    "models", ["robust"], f"run folders, among {', '.join(compared.RUNS)}"
)
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


def measure(
    case: compared.Case, open_peers: dict[str, peers.Peer]
) -> tuple[dict[str, dict], dict[str, str]]:
    """Returns {row: what it found and took}, and {peer: why it was not run}.

    A row: "stands", bool [n], and of each round "seconds" and
    "processor_seconds".
    """
    rows, not_run = _our_rows(case), {}
    for name, peer in open_peers.items():
        try:
            peer.load(case.classifier)
            compared.expect_same_logits(peer, case)
            rows[name] = _peer_row(case, peer)
            rows[name](_BATCH_SIZE.value)
        except peers.NotRun as error:
            not_run[name] = str(error)
            rows.pop(name, None)
    for name in (_COMPACT, _WHOLE):
        rows[name](_BATCH_SIZE.value)
    measured = {n: {"seconds": [], "processor_seconds": []} for n in rows}
    for _ in range(_REPEATS.value):
        for name, row in rows.items():
            stands, seconds, processor = row(len(case.images))
            measured[name]["stands"] = stands
            measured[name]["seconds"].append(seconds)
            measured[name]["processor_seconds"].append(processor)
    return measured, not_run


def _our_rows(case) -> dict[str, Callable]:
    """Returns {row: function of a number of images}."""
    import numpy as np

    from atat_tf.attacks import linf
    from atat_tf.evaluation import attacker as attacker_lib

    factory = linf.pgd if _RANDOM_START.value else linf.ifgsm
    attack = linf.Steps(factory(_EPSILON, _STEP_SIZE, _NUM_STEPS.value))

    def row(compact):
        runner = attacker_lib.Attacker(
            case.classifier, _BATCH_SIZE.value, compact=compact
        )

        def run(count):
            entering = np.arange(len(case.images)) < count
            return compared.evaluation(
                runner, [attack], case, entering, only_right=compact
            )

        return run

    return {_COMPACT: row(True), _WHOLE: row(False)}


def _peer_row(case, peer):
    def run(count):
        attacked = peer.attack(
            "pgd",
            case.images[:count],
            case.labels[:count],
            _BATCH_SIZE.value,
            epsilon=_EPSILON,
            step_size=_STEP_SIZE,
            num_steps=_NUM_STEPS.value,
            random_start=_RANDOM_START.value,
        )
        stands = ~compared.broken(case.first(count), attacked.adversarial)
        return stands, attacked.seconds, attacked.processor_seconds

    return run


def comparisons(
    what: str, measured: dict[str, dict], not_run: dict[str, str]
) -> list[dict]:
    """Returns how many times faster ours is than each peer, see `ratios`."""
    found = []
    for ours, goal in _GOALS.items():
        for field in ("seconds", "processor_seconds"):
            is_clock = field == "seconds"
            name = f"PGD-{_NUM_STEPS.value} evaluation, {what}"
            name += f", {ours}" * (ours == _WHOLE)
            found += ratios.against_peers(
                name if is_clock else f"{name}, by processor seconds",
                measured[ours][field],
                {n: measured[n][field] for n in measured if n not in _GOALS},
                goal if is_clock else "",
                not_run if is_clock and ours == _COMPACT else {},
            )
    return found


def print_case(case: compared.Case, measured: dict[str, dict]) -> None:
    """Prints who stands, and images a second."""
    from atat_tf.runs import terminal

    ours, count = measured[_COMPACT]["stands"], len(case.images)
    rows = []
    for name, row in measured.items():
        stands = row["stands"]
        alone = int((ours & ~stands).sum()), int((stands & ~ours).sum())
        rates = ratios.figures([count / seconds for seconds in row["seconds"]])
        rows.append((name, f"{stands.mean():.2%}", *map(str, alone), *rates))
    terminal.table(
        f"PGD-{_NUM_STEPS.value}, {case.what}, {count} images, batch "
        f"{_BATCH_SIZE.value}, medians of {_REPEATS.value} rounds",
        ("who", "robust", "only it breaks", "only ours", "images/s", "range"),
        rows,
    )


def main(argv: list[str]) -> None:
    command.expect_names("models", _ONLY.value, compared.RUNS)
    command.expect_names("peers", _NAMES.value, _PEERS)
    about = command.begin(argv, peers.ONEDNN.value)
    logging.set_verbosity(logging.ERROR)
    dataset = compared.load_dataset()
    results = {"surroundings": about, "rows": {}, "comparisons": []}
    with contextlib.ExitStack() as stack:
        found, absent = peers.opened(stack, _NAMES.value)
        for name in _ONLY.value:
            images = _NUM_IMAGES.value
            case = compared.run_case(name, dataset, images, _EPSILON)
            measured, failed = measure(case, found)
            print_case(case, measured)
            results["comparisons"] += comparisons(
                case.what, measured, absent | failed
            )
            for row in measured.values():
                row["accuracy"] = float(row.pop("stands").mean())
            results["rows"][case.what] = measured
        results["versions"] = {n: peer.versions for n, peer in found.items()}
    command.finish("Times faster than", results)


if __name__ == "__main__":
    app.run(main)
