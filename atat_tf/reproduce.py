"""Reproduces a table of the paper, or a question about it, row by row.

  atat reproduce --table=1 --dry_run
  atat reproduce --table=1 --scale=small --data_dir=../shared/tfds
  atat reproduce --table=ablation --seeds=1
  atat reproduce --table=ours --scale=small --workdir=results

Run it again to go on after any interruption, or beside itself, on another core
or GPU, to share the rows: `taskset -c 1 atat reproduce ...`.
"""

import shlex
import sys

from absl import flags

from atat_tf.errors import expect, expect_known
from atat_tf.reports.tables import catalogue
from atat_tf.runs import command_line

# No others of these: the table decides on data and seeds.
flags.declare_key_flag("workdir")
flags.declare_key_flag("data_dir")
flags.declare_key_flag("plugin")
_TABLE = flags.DEFINE_string(
    "table",
    None,
    "1, 2 (the paper's), ablation, protocol or shift; ours: the screening of "
    "our own setting, which tools/screen.sh trains; final: what went on, with "
    "--scale=final",
)
_SCALE = flags.DEFINE_string(
    "scale",
    "tiny",
    "tiny: digits, WRN-10-1; small: CIFAR-10 on two CPU cores; paper: "
    "WRN-34-10, the paper's protocol; final: of the table final alone",
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "how many seeds, 0 being the first")
_ROWS = flags.DEFINE_list(
    "rows", None, "rows to run; others stay as they are (default: all)"
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "print the plan: what is done, what is left and its cost, and stop",
)
_PAGE = flags.DEFINE_string(
    "page", None, "a Markdown page whose section of this table is replaced"
)


def main(argv):
    del argv
    names = "--table=1, 2, ablation, protocol, shift, ours or final"
    expect(_TABLE.value, names, table="")
    expect_known("a table", _TABLE.value, [*catalogue.TABLES, "ours"])
    for name, value in (
        ("dataset", command_line.dataset()),
        ("seed", command_line.seed()),
    ):
        rule = f"no --{name}: the table and --scale, --seeds decide"
        expect(value is None, rule, **{name: value})
    command = shlex.join(["python", "-m", "atat_tf.reproduce", *sys.argv[1:]])
    if _TABLE.value == "ours":
        _show_screening(command)
        return
    table, scale = catalogue.table(_TABLE.value), catalogue.scale(_SCALE.value)
    chosen = [row.key for row in catalogue.chosen_rows(table, _ROWS.value)]
    workdir = command_line.workdir("runs/reproduce", is_new=True)
    data_dir = command_line.data_dir()

    with command_line.quiet_start():
        from atat_tf.reports.tables import reproduction

    reproduction.reproduce(
        table,
        scale,
        _SEEDS.value,
        workdir,
        data_dir,
        chosen,
        _DRY_RUN.value,
        _PAGE.value,
        command,
    )


def _show_screening(command):
    """Prints what was judged of the screening, and puts it into --page."""
    catalogue.scale(_SCALE.value)
    expect(
        _SCALE.value == "small" and not _ROWS.value and not _DRY_RUN.value,
        "--table=ours with --scale=small, and neither --rows nor --dry_run: it "
        "trains nothing",
        scale=_SCALE.value,
        rows=_ROWS.value,
        dry_run=_DRY_RUN.value,
    )
    with command_line.quiet_start():
        from atat_tf.reports.tables import files, screening

    if _PAGE.value:
        files.expect_marks(_PAGE.value, screening.SECTION)
    sections = screening.sections(command_line.workdir("results", is_new=True))
    files.show(sections)
    if _PAGE.value:
        written = files.markdown(sections, command)
        files.insert(_PAGE.value, screening.SECTION, written)


if __name__ == "__main__":
    command_line.run(main, recipes=False)
