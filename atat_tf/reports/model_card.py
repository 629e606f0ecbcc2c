"""Writes the model card of a run: what the network is, what is known of it.

Accuracies are counted from the ledger, as a table's record names its lines, or
else are those of results.json.
"""

import importlib.resources
import pathlib

import jinja2
import numpy as np

from atat_tf.attacks import radii
from atat_tf.configs import base
from atat_tf.evaluation import figures, printed_table
from atat_tf.evaluation.attention import explanations
from atat_tf.evaluation.run import Run
from atat_tf.evaluation.statistics import intervals, likeness
from atat_tf.reports.page import data as report_data
from atat_tf.reports.tables import records as table_records
from atat_tf.reports.tables import text as table_text
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.runs import naming

FILE = "MODEL_CARD.md"
_TEMPLATE = "model_card.md.jinja"
_PERCENT = 100.0
# Fields of a config that the card tells in a line of their own, or that move
# no weight. Any other that a recipe changes is told too.
_TOLD = {
    "attention_panels",
    "batch_size",
    "checkpoint_every_steps",
    "class_names",
    "dataset",
    "guard",
    "guard_share",
    "image_shape",
    "image_size",
    "model",
    "model_digest",
    "num_epochs",
    "num_validation",
    "seed",
    "server",
    "teacher",
    "teacher_learning_rate",
    "teacher_num_epochs",
}


def text(workdir: str | pathlib.Path) -> str:
    """Returns the model card as Markdown.

    Args:
      workdir: a run folder with config.json and metrics.jsonl.

    Raises:
      InputError: no run there.
    """
    run = Run(workdir)
    record = table_records.read(workdir, "frozen")
    counts, evaluated = _measured(run, record)
    about = _about(run, record)
    source = importlib.resources.files(__package__) / _TEMPLATE
    template = jinja2.Template(
        source.read_text(encoding="utf-8"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return template.render(
        title=_title(run.config),
        facts=_facts(run, record, about),
        cells=[_cell(column, *of_it) for column, of_it in counts.items()],
        estimates=printed_table.estimated(_estimates(run, about, counts)),
        evaluated=evaluated,
        workdir=run_folder.portable(workdir),
        threat=_threat(run, counts),
        explanations=(
            []
            if likeness.of_others(about, run.checklist or {})
            else _explanations(run.checklist)
        ),
    )


def _estimates(run, about, counts):
    """Returns what results.json estimates of these, beside no full figure."""
    results = run.results or {}
    if likeness.of_others(about, results):
        return {}
    found = results.get("estimates", {})
    return {"estimates": {n: found[n] for n in found if n not in counts}}


def _about(run, record):
    """Returns what the accuracies are of, in the fields of results.json."""
    if not record:
        return run.results or {}
    return {
        "data": record["data"],
        "weights": run.config.evaluation.weights,
        "weights_digest": record["parts"][0]["identity"]["weights"],
    }


def _title(config):
    if naming.is_given(config):
        return f"{run_config.network_name(config)} on {config.dataset}"
    return (
        f"{naming.called(config)} on {config.dataset}, "
        f"{run_config.network_name(config)}, seed {config.seed}"
    )


def _facts(run, record, about):
    """Returns [(what, text)] of the network and its training."""
    config, rows = run.config, run.metrics
    read = run_config.to_dict(config)
    settings = {
        name: ", ".join(f"{key} = {value}" for key, value in pairs)
        for name in ("defense", "attack", "optimizer")
        if (pairs := report_data.flat(read[name]))
    }
    facts = [
        ("network", f"{run_config.network_name(config)}; it returns logits"),
        ("data", about.get("data", config.dataset)),
    ]
    if naming.is_given(config):
        return [*facts, ("training", naming.given_as(config))]
    facts.append(("defense", settings["defense"]))
    if config.defense.name != "standard":
        facts.append(("attack in training", settings["attack"]))
    if config.teacher:
        facts.append(("teacher", f"`{config.teacher}`"))
    facts += [
        ("optimizer", settings["optimizer"]),
        ("batch size", config.batch_size),
        ("epochs", f"{len(rows)} of {config.num_epochs}"),
    ]
    if more := _beside_the_recipe(read):
        facts.append(("beside that", more))
    weights = about.get("weights") or config.evaluation.weights
    kept = run_folder.kept_in_words(rows, weights)
    if kept is not None:
        facts.append(("weights", kept))
    if record:
        facts.append(("digest of the weights", f"`{about['weights_digest']}`"))
    return facts


def _beside_the_recipe(read):
    """Returns the fields of no section that are not the base recipe's."""
    usual = run_config.to_dict(base.get_config())
    differing = {
        name: value
        for name, value in read.items()
        if not isinstance(value, dict)
        and name not in _TOLD
        and value != usual.get(name)
    }
    if not differing.get("extra_images"):
        differing.pop("extra_share", None)
    if read["defense"]["name"] == "standard":  # which has no other start
        differing.pop("student_start", None)
    pairs = report_data.flat(differing)
    return ", ".join(f"{name} = {value}" for name, value in pairs)


def _measured(run, record):
    """Returns {column: (right, images)} and where that is from.

    From the table's record and its ledger, else from results.json.
    """
    if record:
        standing = table_records.standing(run.folder, "frozen")
        counts = {c: (int(np.sum(s)), len(s)) for c, s in standing.items()}
        return counts, (
            "Counted from the ledger; frozen batch-norm statistics; commit "
            f"{record['commit']}; {record['hardware']}."
        )
    results = run.results
    if not results:
        return {}, ""
    count = results["num_images"]
    counts = {
        column: (round(count * share), count)
        for column, share in results["accuracy"].items()
    }
    return counts, (
        f"From results.json; {results['bn_eval']} batch-norm statistics; "
        f"commit {results['commit']}."
    )


def _cell(column, right, count):
    low, high = intervals.wilson(right, count)
    return {
        "column": table_text.column_name(column),
        "count": f"{count:,}",
        "right": f"{right:,}",
        "percent": f"{_PERCENT * right / count:.2f}",
        "interval": f"{_PERCENT * low:.1f}–{_PERCENT * high:.1f}",
    }


def _explanations(checklist):
    """Returns [(what, figure, what is good)] as far as the checklist tells."""
    measured = (checklist or {}).get("explanations", {})
    return [
        (name.replace("_", " "), f"{measured[name]:.2f}", good)
        for name, good in explanations.GOOD.items()
        if name in measured
    ]


def _threat(run, names):
    """Returns what the attacks do, and which columns do something else."""
    beyond = [
        table_text.column_name(name)
        for name in names
        if not figures.in_threat_model(run.config, run.attacks(name))
    ]
    return (
        "Attacks here change each pixel, in [0, 1], by at most ε = "
        f"{radii.written(run.config.attack.epsilon)}"
        f"{', but for ' * bool(beyond)}{', '.join(beyond)}."
    )
