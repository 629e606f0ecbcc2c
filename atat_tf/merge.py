"""Puts together what `evaluate --shard` has found, and prints the table.

for i in 0 1 2 3; do
  atat evaluate --workdir=runs/demo --shard=$i/4
done
atat merge --workdir=runs/demo
"""

from absl import flags

from atat_tf.evaluation import sharding
from atat_tf.runs import command_line

for _name in ("workdir", "data_dir", "plugin"):
    flags.declare_key_flag(_name)
_WORKDIRS = flags.DEFINE_list(
    "workdirs", [], "several run folders, comma-separated: a row for each"
)


def main(argv):
    del argv
    workdirs = command_line.workdirs(_WORKDIRS.value)
    workdirs = workdirs or [str(command_line.workdir())]
    data_dir = command_line.data_dir()
    command_line.expect_runs(workdirs)
    for workdir in workdirs:
        sharding.finished(workdir)

    with command_line.quiet_start():
        from atat_tf.evaluation import printed_table, shards
        from atat_tf.runs import config as run_config
        from atat_tf.runs import naming

    printed_table.print_table(
        [
            (
                naming.called(run_config.read(workdir)),
                shards.merge(workdir, data_dir),
            )
            for workdir in workdirs
        ]
    )


if __name__ == "__main__":
    command_line.run(main, recipes=False)
