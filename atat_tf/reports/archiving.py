"""Archives a finished run: a few small files, enough to use it from.

What evaluation, figures, tables, reports and serving read is kept: config,
metrics, results, the weights, records, the whole ledger packed, a model card,
and the same of a teacher inside the run folder. Checkpoints and TensorBoard's
files are left behind.
"""

import pathlib
import shutil

from atat_tf.errors import InputError, expect
from atat_tf.evaluation import ledger
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers
from atat_tf.reports import model_card
from atat_tf.reports.tables import records as table_records
from atat_tf.reports.tables import shift as shift_measurement
from atat_tf.runs import build, terminal
from atat_tf.runs import folder as run_folder

_TEACHER = "teacher"
_KEPT = (
    run_folder.CONFIG,
    run_folder.METRICS,
    run_folder.RESULTS,
    run_folder.CHECKLIST,
    run_folder.MODEL,
    shift_measurement.FILE,
    "evaluation_*.json",
)


def archive(
    workdir: str | pathlib.Path, output: str | pathlib.Path
) -> dict[str, int]:
    """Writes a run's lasting files into a folder, which may be the run's own.

    Args:
      workdir: the folder of a run whose training is over.
      output: the folder to write; made if absent.

    Returns:
      {name: bytes} of what was written.

    Raises:
      InputError: no trained run there, or a served model's, figures of weights
        that are no longer there, or `output` holds another run.
    """
    workdir, output = pathlib.Path(workdir), pathlib.Path(output)
    rows = run_folder.read_metrics(workdir)
    config = run_folder.read_json(workdir / run_folder.CONFIG)
    expect(
        not config.get("server"),
        "a run with weights: a served model has none to archive",
        workdir=str(workdir),
        server=config.get("server"),
    )
    own = config.get("evaluation", {}).get("weights", "best")
    weights = {
        w: run_folder.weights_path(workdir, w) for w in run_folder.WEIGHTS
    }
    weights = {w: path for w, path in weights.items() if path.exists()}
    # A run that its guard ended has fewer epochs, and its results.
    has_results = (workdir / run_folder.RESULTS).exists()
    is_over = has_results or len(rows) >= config["num_epochs"]
    expect(
        {"best", own} <= weights.keys() and is_over,
        f"a run whose {config['num_epochs']} epochs are over",
        workdir=str(workdir),
        epochs=len(rows),
    )
    _expect_no_other_run(output, config)
    _expect_figures_of_weights(workdir)
    run_folder.create(output)
    names = [p.name for kept in _KEPT for p in sorted(workdir.glob(kept))]
    names += [path.name for path in weights.values()]
    if output.resolve() != workdir.resolve():
        for name in names:
            with run_folder.replacing(output / name) as temporary:
                shutil.copyfile(workdir / name, temporary)
    if ledger.is_in(workdir):
        terminal.stage(f"packing the ledger of {workdir}")
        ledger.pack(workdir, output)
        names.append(ledger.PACKED)
    run_folder.write_text(output / model_card.FILE, model_card.text(output))
    names.append(model_card.FILE)
    sizes = {name: (output / name).stat().st_size for name in names}
    if (workdir / _TEACHER / run_folder.CONFIG).exists():
        of_teacher = archive(workdir / _TEACHER, output / _TEACHER)
        sizes |= {f"{_TEACHER}/{n}": size for n, size in of_teacher.items()}
    return sizes


def _expect_figures_of_weights(workdir):
    """Raises InputError where figures are of weights that are not there now."""
    if (workdir / _TEACHER / run_folder.CONFIG).exists():
        _expect_figures_of_weights(workdir / _TEACHER)
    run = Run(workdir)
    results = run.read(run_folder.RESULTS) or {}  # of validation too
    own = run.config.evaluation.weights
    told = {(results.get("weights") or own, results.get("weights_digest"))}
    for mode in ("frozen", "batch"):
        record = table_records.read(workdir, mode) or {"parts": ()}
        told |= {(own, part["identity"]["weights"]) for part in record["parts"]}
    path = workdir / run_folder.MODEL
    try:
        network = build.build_classifier(run.config, run.spec, path)
    except InputError:  # its plugin or data is not here: nobody can tell
        return
    for weights, digest in told:
        if digest is None:  # nothing was evaluated
            continue
        run_folder.load_weights(workdir, weights, network)
        found = classifiers.weights_digest(network)
        expect(
            found == digest,
            "figures of the weights that are there: evaluate again",
            weights=weights,
            weights_digest=found,
            of_the_figures=digest,
        )


def _expect_no_other_run(output, config):
    path = output / run_folder.CONFIG
    if path.exists():
        expect(
            run_folder.read_json(path) == config,
            "an empty folder, or one with an archive of the same run",
            output=str(output),
        )
