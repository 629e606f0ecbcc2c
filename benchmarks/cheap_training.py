"""Times training with a cheap inner attack against PGD-7.

  python -m benchmarks.cheap_training
  python -m benchmarks.cheap_training --cheap=num_steps=1,step_size=8/255
  python -m benchmarks.cheap_training --runs=runs/pgd7,runs/cheap --json=FILE

Both train ATAT by `configs/small.py`, which differs in the attack's fields:
one step of 10/255 from a random start is FGSM-RS (Wong et al. 2020). A round is
a step and a validation batch of both. An epoch is 49,000 images of CIFAR-10 in
steps and 1,000 in validation under the same attack; its input pipeline, its
files and its start are left out. Goal: 1.9 times less at equal epochs.

With --runs=PGD,CHEAP, two trained run folders, what they took and withstood is
printed beside: seconds of their epochs from metrics.jsonl, accuracies of the
weights chosen on validation from results.json.
"""

import fractions
import json
import logging
import pathlib
import sys

from absl import app, flags

from benchmarks import ratios, surroundings

_FULL, _CHEAP = "PGD-7", "cheap attack"
_GOAL = ">= 1.9"

_ATTACK = flags.DEFINE_list(
    "cheap",
    ["num_steps=1", "step_size=10/255"],
    "fields of config.attack, as FIELD=NUMBER",
)
_DEPTH = flags.DEFINE_integer("depth", 10, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 1, "of the Wide ResNet")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "b", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "rounds", lower_bound=1)
_RUNS = flags.DEFINE_list("runs", [], "run folders: PGD's, the cheap one's")
_JSON = flags.DEFINE_string("json", None, "file for all of the figures")


def measure(depth, width, batch_size, repeats, fields):
    """Returns {attack: {"step": [seconds], "epoch": [seconds]}}.

    Args:
      depth, width: of the Wide ResNet.
      batch_size: b.
      repeats: number of rounds.
      fields: {field: number} of the cheap attack.
    """
    from benchmarks import timings

    configs = {
        name: timings.resolved_config("atat", depth, width, batch_size)
        for name in (_FULL, _CHEAP)
    }
    configs[_CHEAP].attack.update(fields)
    split = timings.random_split(batch_size)
    timed = {}
    for name, config in configs.items():
        timed[name, "step"] = timings.training_step(config, split)
        timed[name, "validation"] = timings.validation(config)
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
    """Returns how many times less the cheap attack takes, see `ratios`."""
    return [
        ratios.comparison(
            f"{_CHEAP}, {part}, {network}",
            _FULL,
            ratios.over(seconds[_FULL][part], seconds[_CHEAP][part]),
            _GOAL if part == "epoch" else "",
        )
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
    goal = _GOAL if full["epochs"] == cheap["epochs"] else ">= 3"
    return ratios.comparison(
        f"trained student, {cheap['epochs']} epochs, {cheap['folder']}",
        f"{full['epochs']} epochs, {full['folder']}",
        [seconds[0] / seconds[1]],
        goal,
    )


def print_runs(runs):
    """Prints what trained runs withstand."""
    from atat_tf import progress

    columns = list(dict.fromkeys(c for run in runs for c in run["accuracy"]))
    progress.table(
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


def _fields(words):
    """Returns {field: number} of words like step_size=10/255.

    Raises:
      ValueError: a word is no such thing.
    """
    found = {}
    for word in words:
        field, _, number = word.partition("=")
        value = fractions.Fraction(number)
        found[field] = int(value) if field == "num_steps" else float(value)
    return found


def main(argv):
    if len(argv) > 1:
        sys.exit(f"error: expected flags only. Received: {argv[1:]}.")
    if len(_RUNS.value) not in (0, 2):
        sys.exit(f"error: expected two run folders. Received: {_RUNS.value}.")
    from atat_tf import command_line

    with command_line.quiet_start():  # TensorFlow: not for --help
        import tensorflow  # noqa: F401
    logging.getLogger().setLevel(logging.WARNING)
    sizes = _DEPTH.value, _WIDTH.value, _BATCH_SIZE.value
    network = f"WRN-{sizes[0]}-{sizes[1]}, b = {sizes[2]}"
    try:
        runs = [run_figures(folder) for folder in _RUNS.value]
        fields = _fields(_ATTACK.value)
        seconds = measure(*sizes, _REPEATS.value, fields)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")
    results = {"sizes": sizes, "attack": fields, "seconds": seconds}
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
