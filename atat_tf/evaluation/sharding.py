"""One shard of an evaluation: its images, its name and its folder.

Nothing here loads TensorFlow: a command reads the name before it does.
"""

import dataclasses
import pathlib
import re

from atat_tf.errors import expect
from atat_tf.runs import folder as run_folder

FOLDER = "shards"


@dataclasses.dataclass(frozen=True)
class Shard:
    """Every `count`-th image, from image `index` on.

    Attributes:
      index: in [0, count), as array jobs count their tasks.
      count: of all shards.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    def folder(self, workdir: run_folder.Path) -> pathlib.Path:
        """Returns where the shard of a run has its files."""
        return pathlib.Path(workdir) / FOLDER / str(self)


def parsed(text: str) -> Shard:
    """Returns the Shard that is called so.

    Args:
      text: "3/16", the fourth of sixteen: the first is 0/16.

    Raises:
      InputError: it is called otherwise.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = Shard(*map(int, found.groups())) if found else Shard(0, 0)
    expect(
        shard.index < shard.count,
        "a shard as 3/16, of which the first is 0/16 and the last 15/16",
        shard=text,
    )
    return shard
