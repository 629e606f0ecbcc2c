"""The trained networks that come with the package, by name."""

import os
import pathlib

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# Inside of a wheel; beside the package in a checkout, with all other archives.
_INSIDE = _PACKAGE / "results"
ARCHIVE = _INSIDE if _INSIDE.is_dir() else _PACKAGE.parent / "results"
# {name: where it is below ARCHIVE}. pyproject.toml puts them into the wheel.
NETWORKS = {
    "undefended": "reference_small_atat/teacher",
    "reference": "reference",
    "reference_small": "reference_small",
    "reference_small_atat": "reference_small_atat",
}


def found(named: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the run folder that a path or a name stands for.

    Args:
      named: the path of a run folder, which comes first; or a name of
        `NETWORKS`.

    Returns:
      The network's folder where a name is given and there is no such run, else
      the path as it is.
    """
    path = pathlib.Path(named).expanduser()
    name = os.fspath(named)
    if name not in NETWORKS or (path / "config.json").exists():
        return path
    return ARCHIVE / NETWORKS[name]
