"""Made-up ledgers that tests of tables share: every line by hand."""

import pathlib
import shutil
import tempfile

from atat_tf.evaluation import ledger
from atat_tf.reports.tables import catalogue
from atat_tf.reports.tables import records as table_records
from atat_tf.runs import folder as run_folder

# A table and a scale of digits that train in seconds.
TABLE = catalogue.Table(
    "1",
    "Table 1: CIFAR-10",
    "cifar10",
    {"standard": "standard", "at": "at", "trades": "", "atat": "atat"},
    ("clean", "pgd20"),
)
SCALE = catalogue.Scale(
    "smoke",
    changes={
        "batch_size": 64,
        "num_epochs": 1,
        "teacher_num_epochs": 1,
        "num_validation": 1117,
        "attack.num_steps": 1,
        "backbone.depth": 10,
        "backbone.width": 1,
        "evaluation.attacks": ("clean",),
    },
    data_sets={"cifar10": "digits"},
    autoattack_images=4,
    shift_images=40,
)


def temporary_folder(test):
    """Returns a folder that is gone after the test."""
    folder = tempfile.mkdtemp()
    test.addCleanup(shutil.rmtree, folder)
    return pathlib.Path(folder)


def identity(seed=0, bn_eval="frozen", weights="w"):
    """Returns what marks a ledger's lines."""
    return {
        "weights": weights,
        "data": "made up, test",
        "bn_eval": bn_eval,
        "seed": seed,
        "batch": None if bn_eval == "frozen" else [100, 4],
    }


def lines(broken):
    """Returns a ledger's lines of images 0, 1, ...; None has no line."""
    return [
        {"index": index, "broken": value, "margin": 1.0}
        for index, value in enumerate(broken)
        if value is not None
    ]


def write(folder, key, clean, pgd20, seed=0, bn_eval="frozen", commit="c0ffee"):
    """Writes a run folder with a ledger by hand, and its record.

    Args:
      folder: of the scale.
      key: of the row.
      clean, pgd20: whether each image was broken; None where there is no line.
      seed: of the run.
      bn_eval: of the evaluation.
      commit: as recorded.

    Returns:
      The run folder.
    """
    workdir = pathlib.Path(folder) / "digits" / key / f"seed{seed}"
    run_folder.create(workdir)
    backbone = {"name": "wide_resnet", "depth": 10, "width": 1}
    config = {"num_epochs": 6, "backbone": backbone}
    run_folder.write_json(workdir / "config.json", config)
    run_folder.write_metrics(workdir, [{"seconds": 50.0}, {"seconds": 40.0}])
    mark = identity(seed, bn_eval)
    book = ledger.Ledger(workdir / ledger.FILE, mark)
    book.append("none", lines(clean))
    book.append("PGD", lines(pgd20))
    part = {
        "num_images": len(clean),
        "identity": mark,
        "columns": {"clean": [], "pgd20": ["PGD"]},
    }
    facts = {"data": "made up", "commit": commit, "hardware": "an abacus"}
    table_records.add(workdir, bn_eval, [part], facts)
    return workdir
