"""Packs a finished run into a small folder that can be kept or shared.

  atat archive --workdir=runs/demo --output=archives/demo

Evaluation, figures, tables, reports and serving work from it without training.
Without --output the files are written into the run folder itself.
"""

from absl import flags
from rich import filesize

from atat_tf.runs import command_line

flags.declare_key_flag("workdir")
_OUTPUT = flags.DEFINE_string(
    "output", None, "the folder to write (default: the run folder)"
)


def main(argv):
    del argv
    workdir = command_line.workdir()
    output = _OUTPUT.value or workdir
    command_line.expect_runs([workdir])

    with command_line.quiet_start():
        from atat_tf.reports import archiving

    for name, size in archiving.archive(workdir, output).items():
        print(f"{output}/{name}: {filesize.decimal(size)}")


if __name__ == "__main__":
    command_line.run(main, recipes=False)
