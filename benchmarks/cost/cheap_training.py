"""Times training with cheap inner attacks against PGD-7.

  python -m benchmarks.cost.cheap_training
  python -m benchmarks.cost.cheap_training --attacks=n_fgsm --json=FILE

All train ATAT by the network of `configs/small.py`, with another attack inside:
N-FGSM (de Jorge et al. 2022), FGSM-RS (Wong et al. 2020), one gradient each. A
round is a step and a validation batch of each. An epoch is 49,000 images of
CIFAR-10 in steps and 1,000 in validation, under PGD-7 whatever trains; its
input pipeline, files and start are left out. Goal: 1.9 times less at equal
epochs.

With --runs=PGD,CHEAP, two trained run folders, what they took and withstood is
printed beside: seconds of their epochs from metrics.jsonl, accuracies of the
weights chosen on validation from results.json. Goal with fewer epochs: 3 times.
"""

import json
import pathlib
import sys

from absl import app, flags

from benchmarks import command, ratios, surroundings

_PGD = "pgd"
_GOAL, _FEWER_EPOCHS_GOAL = ">= 1.9", ">= 3"

_ATTACKS = flags.DEFINE_list(
    "attacks", ["n_fgsm", "fgsm_rs"], "cheap ones, as config.attack.name"
)
_DEPTH = flags.DEFINE_integer("depth", 10, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 1, "of the Wide ResNet")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "b", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "rounds", lower_bound=1)
_RUNS = flags.DEFINE_list("runs", [], "run folders: PGD's, the cheap one's")
_JSON = flags.DEFINE_string("json", None, "file for all of the figures")


def measure(depth, width, batch_size, repeats, names):
    """Returns {attack: {"step": [seconds], "epoch": [seconds]}}.

    Args:
      depth, width: of the Wide ResNet.
      batch_size: b.
      repeats: number of rounds.
      names: of the cheap attacks; PGD comes by itself.

    Raises:
      InputError: there is no such attack, or no such network.
    """
    from benchmarks.cost import timings

    split = timings.random_split(batch_size)
    timed, configs = {}, {}
    for name in (_PGD, *names):
        config = timings.resolved_config("atat", depth, width, batch_size)
        config.attack.name = name
        timed[name, "step"] = timings.training_step(config, split)
        timed[name, "validation"] = timings.validation(config)
        configs[name] = config
    seconds, _ = timings.round_robin(timed, repeats)
    return {
        name: {
            "step": seconds[name, "step"],
            "epoch": [
                timings.epoch_seconds(config, *each)
                for each in zip(
                    seconds[name, "step"],
                    seconds[name, "validation"],
                    strict=True,
                )
            ],
        }
        for name, config in configs.items()
    }


def comparisons(network, seconds):
    """Returns how many times less a cheap attack takes, see `ratios`."""
    return [
        ratios.comparison(
            f"ATAT {part} with {name}, {network}",
            "PGD-7",
            ratios.over(seconds[_PGD][part], seconds[name][part]),
            _GOAL if part == "epoch" else "",
        )
        for name in seconds
        if name != _PGD
        for part in ("step", "epoch")
    ]


def run_figures(folder):
    """Returns a run's epochs, their seconds, and accuracies, from its files."""
    folder = pathlib.Path(folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    results = json.loads((folder / "results.json").read_text())
    return {
        "folder": str(folder),
        "epochs": len(epochs),
        "seconds": [epoch["seconds"] for epoch in epochs],
        "accuracy": results["accuracy"],
    }


def run_comparison(full, cheap):
    """Returns how many times less a trained run took, epochs and all."""
    seconds = [sum(run["seconds"]) for run in (full, cheap)]
    goal = _GOAL if full["epochs"] == cheap["epochs"] else _FEWER_EPOCHS_GOAL
    return ratios.comparison(
        f"trained student, {cheap['epochs']} epochs, {cheap['folder']}",
        f"{full['epochs']} epochs, {full['folder']}",
        [seconds[0] / seconds[1]],
        goal,
    )


def print_runs(runs):
    """Prints what trained runs withstand."""
    from atat_tf.runs import terminal

    columns = list(dict.fromkeys(c for run in runs for c in run["accuracy"]))
    terminal.table(
        "Accuracy, %",
        ("run", "epochs", "seconds", *columns),
        [
            (
                run["folder"],
                str(run["epochs"]),
                f"{sum(run['seconds']):,.0f}",
                *(
                    f"{100 * run['accuracy'][c]:.2f}"
                    if c in run["accuracy"]
                    else "not run"
                    for c in columns
                ),
            )
            for run in runs
        ],
    )


def main(argv):
    command.begin(argv)
    if len(_RUNS.value) not in (0, 2):
        sys.exit(f"error: expected two run folders. Received: {_RUNS.value}.")
    from atat_tf.errors import InputError

    sizes = _DEPTH.value, _WIDTH.value, _BATCH_SIZE.value
    network = f"WRN-{sizes[0]}-{sizes[1]}, b = {sizes[2]}"
    try:
        runs = [run_figures(folder) for folder in _RUNS.value]
        seconds = measure(*sizes, _REPEATS.value, _ATTACKS.value)
    except (InputError, KeyError, OSError) as error:
        sys.exit(f"error: {error}")
    results = {"sizes": sizes, "seconds": seconds}
    results["comparisons"] = comparisons(network, seconds)
    if runs:
        results["runs"] = runs
        results["comparisons"].append(run_comparison(*runs))
        print_runs(runs)
    results["surroundings"] = surroundings.surroundings()
    ratios.print_table("Times faster than", results["comparisons"])
    surroundings.print_sentences(results["surroundings"])
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    app.run(main)
