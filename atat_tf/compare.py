"""Writes several runs side by side as one HTML file that works offline.

atat compare --workdirs=runs/a,runs/b --output=compare.html
"""

import pathlib

from absl import flags
from rich import filesize

from atat_tf.errors import expect
from atat_tf.runs import command_line

flags.declare_key_flag("data_dir")
_WORKDIRS = flags.DEFINE_list(
    "workdirs", [], "run folders on one data set, two to six, comma-separated"
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images",
    64,
    "pictures are looked for among the first so many test images; 0: none, "
    "and neither the data nor the weights are needed",
    lower_bound=0,
)
_OUTPUT = flags.DEFINE_string("output", "compare.html", "the file to write")

_MOST_RUNS = 6  # as many as there are kinds of lines


def main(argv):
    del argv
    workdirs = command_line.workdirs(_WORKDIRS.value)
    data_dir = command_line.data_dir()
    output = pathlib.Path(_OUTPUT.value)
    command_line.expect_runs(workdirs)
    expect(
        2 <= len(workdirs) <= _MOST_RUNS,
        f"two to {_MOST_RUNS} run folders, --workdirs=A,B",
        workdirs=workdirs,
    )
    expect(
        output.parent.is_dir() and not output.is_dir(),
        "a file in an existing folder",
        output=str(output),
    )

    with command_line.quiet_start():
        from atat_tf.reports.page import compared
        from atat_tf.runs import folder as run_folder

    page = compared.compared(workdirs, data_dir, _NUM_IMAGES.value)
    run_folder.write_text(output, page)
    size = filesize.decimal(output.stat().st_size)
    print(f"{output}: {size}, opens in any browser")


if __name__ == "__main__":
    command_line.run(main, recipes=False)
