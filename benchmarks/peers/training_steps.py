"""Times adversarial training steps, ours beside the peers', from one start.

  python3.11 -m venv .venv-peers
  .venv-peers/bin/pip install -r benchmarks/requirements.txt
  python -m benchmarks.peers.training_steps
  python -m benchmarks.peers.training_steps --networks=16-1 --json=FILE

PGD with 7 steps of 2/255 within 8/255 from the image itself, so that the first
losses can be compared; every row has the same weights at the start and takes
the same batch of random images again and again, one step a round. Rows:

  ATAT            7 attack gradients, teacher, student on clean and adversarial
  AT              the same without a teacher
  AT, Madry       adversarial images only, what the peers do

The peers: CleverHans' TF2 tutorial loop, ART's AdversarialTrainerMadryPGD, a
plain PyTorch loop, each in its fastest form (see `benchmarks.peers.training`).
Steps differ in their passes, so ratios are of images/s times passes: seconds
of the peer's step for each forward and backward pass over ours. A pass over
both clean and adversarial images counts as two. A student's backward pass costs
about two of an attack's, and ours has more of them: counting both alike does
not flatter ours. Goal: ATAT 1.3 times as fast as the fastest peer.

oneDNN's kernels are on for ours and for the TensorFlow peers (--noonednn,
--nopeers_onednn). A peer whose first loss is another than ours is not run.
"""

import contextlib
import functools
import time

from absl import app, flags, logging

from benchmarks import command, ratios
from benchmarks.peers import process as peers

_PEERS = ("cleverhans", "art", "torch")
_ATAT, _MIXTURE, _MADRY = "ATAT", "AT", "AT, Madry"
_RECIPES = {_ATAT: "atat", _MIXTURE: "at", _MADRY: "at"}
_GOAL = ">= 1.3"
_LEARNING_RATE = 1e-6
# Signs of gradients near zero differ between libraries.
_SAME_LOSS = 0.01
# Besides the first step of all.
_UNTIMED = 1

_NETWORKS = flags.DEFINE_list(
    "networks", ["16-1", "16-4"], "Wide ResNets, as DEPTH-WIDTH"
)
_NAMES = flags.DEFINE_list("peers", list(_PEERS), "whom to compare with")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "of all", lower_bound=1)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 7, "of PGD", lower_bound=1)
_REPEATS = flags.DEFINE_integer(
    "repeats", 5, "rounds, each of every row once", lower_bound=1
)


def measure(
    depth: int,
    width: int,
    batch_size: int,
    num_steps: int,
    repeats: int,
    open_peers: dict[str, peers.Peer],
) -> tuple[dict[str, dict], dict[str, str]]:
    """Returns the rows of a network, and why a peer has none.

    Args:
      depth, width: of the Wide ResNet.
      batch_size: b.
      num_steps: of PGD.
      repeats: number of rounds.
      open_peers: {name: Peer}.

    Returns:
      {row: {"seconds", "processor_seconds", "passes", "first_loss"}} and
      {peer: reason}.
    """
    import keras

    from benchmarks import timings

    configs = {
        name: _config(name, (depth, width, batch_size), num_steps)
        for name in _RECIPES
    }
    split = timings.random_split(batch_size)
    keras.utils.set_random_seed(0)
    start = timings.classifier(configs[_MADRY])
    steps = {
        name: _ours(
            timings.training_step(config, split, weights=start.get_weights())
        )
        for name, config in configs.items()
    }
    passes = {name: timings.passes(c) for name, c in configs.items()}
    losses = {name: step().loss for name, step in steps.items()}
    not_run = {}
    for name, peer in open_peers.items():
        try:
            peer.load(start)
            losses[name] = _prepared(
                peer, configs[_MADRY], split, losses[_MADRY]
            )
        except peers.NotRun as error:
            not_run[name] = str(error)
            continue
        steps[name] = functools.partial(peer.step, split.images, split.labels)
        passes[name] = passes[_MADRY]
    rows = _rounds(steps, repeats)
    for name, row in rows.items():
        row |= {"passes": passes[name], "first_loss": losses[name]}
    return rows, not_run


def _config(name, sizes, num_steps):
    from benchmarks import timings

    config = timings.resolved_config(_RECIPES[name], *sizes)
    config.attack.random_start = False
    config.attack.num_steps = num_steps
    if name == _MADRY:
        config.defense.clean_weight = 0.0
    return config


def _ours(step):
    def stepped():
        begin = time.perf_counter(), time.process_time()
        loss = step()
        seconds = time.perf_counter() - begin[0]
        return peers.Stepped(loss, seconds, time.process_time() - begin[1])

    return stepped


def _prepared(peer, config, split, loss):
    """Returns the loss of a peer's first step, which is the one expected."""
    peer.prepare(
        epsilon=config.attack.epsilon,
        step_size=config.attack.step_size,
        num_steps=config.attack.num_steps,
        learning_rate=_LEARNING_RATE,
    )
    first = peer.step(split.images, split.labels).loss
    if not abs(first - loss) <= _SAME_LOSS * loss:
        raise peers.NotRun(f"its first loss is {first:.4f}, ours {loss:.4f}")
    return first


def _rounds(steps, repeats):
    rounds = [
        {name: step() for name, step in steps.items()}
        for _ in range(_UNTIMED + repeats)
    ]
    return {
        name: {
            field: [getattr(each[name], field) for each in rounds[_UNTIMED:]]
            for field in ("seconds", "processor_seconds")
        }
        for name in steps
    }


def comparisons(
    network: str, rows: dict[str, dict], not_run: dict[str, str]
) -> list[dict]:
    """Returns images/s times passes, ours over the peers', see `ratios`."""
    each = {
        name: [seconds / sum(row["passes"]) for seconds in row["seconds"]]
        for name, row in rows.items()
    }
    theirs = {n: values for n, values in each.items() if n not in _RECIPES}
    return [
        compared
        for name in _RECIPES
        for compared in ratios.against_peers(
            f"{name} step, WRN-{network}, at the same passes",
            each[name],
            theirs,
            _GOAL if name == _ATAT else "",
            not_run if name == _ATAT else {},
        )
    ]


def print_rows(network: str, rows: dict[str, dict], batch_size: int) -> None:
    """Prints what was timed."""
    from atat_tf.runs import terminal

    terminal.table(
        f"WRN-{network}, b = {batch_size}",
        ("who", "ms", "images/s", "range", "forward + backward", "first loss"),
        [
            (
                name,
                ratios.figures(row["seconds"], 1e3)[0],
                *ratios.figures([batch_size / s for s in row["seconds"]]),
                "{} + {}".format(*row["passes"]),
                f"{row['first_loss']:.4f}",
            )
            for name, row in rows.items()
        ],
    )


def main(argv: list[str]) -> None:
    command.expect_names("peers", _NAMES.value, _PEERS)
    about = command.begin(argv, peers.ONEDNN.value)
    logging.set_verbosity(logging.ERROR)
    results = {"surroundings": about, "rows": {}, "comparisons": []}
    with contextlib.ExitStack() as stack:
        found, absent = peers.opened(stack, _NAMES.value, "_training")
        for network in _NETWORKS.value:
            depth, width = map(int, network.split("-"))
            sizes = depth, width, _BATCH_SIZE.value
            rows, failed = measure(
                *sizes, _NUM_STEPS.value, _REPEATS.value, found
            )
            print_rows(network, rows, _BATCH_SIZE.value)
            results["rows"][network] = rows
            results["comparisons"] += comparisons(
                network, rows, absent | failed
            )
        results["peers"] = {n: peer.versions for n, peer in found.items()}
    command.finish("Times faster than", results)


if __name__ == "__main__":
    app.run(main)
