"""Writes all that is known of a run as one HTML file that works offline.

atat report --workdir=runs/demo
"""

import pathlib

from absl import flags
from rich import filesize

from atat_tf.errors import expect
from atat_tf.runs import command_line

flags.declare_key_flag("workdir")
flags.declare_key_flag("data_dir")
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images",
    64,
    "the first so many test images are shown; 0: none, and neither the data "
    "nor the weights are needed",
    lower_bound=0,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "the file to write (default: WORKDIR/report.html)"
)


def main(argv):
    del argv
    workdir = command_line.workdir()
    data_dir = command_line.data_dir()
    output = pathlib.Path(_OUTPUT.value or workdir / "report.html")
    _expect_place(workdir, output)

    with command_line.quiet_start():
        from atat_tf.reports.page import page as report_page
        from atat_tf.runs import folder as run_folder

    page = report_page.page(workdir, data_dir, _NUM_IMAGES.value)
    run_folder.write_text(output, page)
    size = filesize.decimal(output.stat().st_size)
    print(f"{output}: {size}, opens in any browser")


def _expect_place(workdir, output):
    """Raises InputError where there is no run, or no place for the file."""
    command_line.expect_runs([workdir])
    expect(
        output.parent.is_dir() and not output.is_dir(),
        "a file in an existing folder",
        output=str(output),
    )


if __name__ == "__main__":
    command_line.run(main, recipes=False)
