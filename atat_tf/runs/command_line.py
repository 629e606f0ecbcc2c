"""What every command shares: flags, quiet start-up, errors as one sentence."""

import contextlib
import functools
import importlib
import logging
import os
import pathlib
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from atat_tf.errors import (
    InputError,
    TrainingError,
    expect,
    missing_extra,
)
from atat_tf.runs import parsing, shipped

_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "the run folder; a command that reads one also takes a network that comes "
    f"with the package: {', '.join(shipped.NETWORKS)}",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "where tensorflow-datasets keeps its files (default: TFDS_DATA_DIR, else "
    "~/tensorflow_datasets); a missing data set is downloaded into it",
)
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "cifar10, cifar100, digits, any image-classification set of "
    "tensorflow-datasets, folder:PATH with a sub-folder for each class, or an "
    ".npz file of x_train, y_train, x_test, y_test",
)
_PLUGIN = flags.DEFINE_list(
    "plugin",
    [],
    "modules to import first, comma-separated, that register attacks, "
    "defenses, backbones or data sets (atat.register)",
)
_SEED = flags.DEFINE_integer(
    "seed",
    None,
    "root of every random draw",
    lower_bound=0,
    upper_bound=2**31 - 1,
)


def run(
    main: Callable[[list[str]], Any],
    recipes: bool = True,
    unlisted: Collection[str] = (),
    resumes: bool = False,
) -> None:
    """Runs a command's main(argv); bad input becomes one sentence and exit 1.

    Args:
      main: function of the words that are no flags; only flags are allowed.
      recipes: whether the command reads a recipe, and has the --config flags.
      unlisted: names of flags that the help leaves out.
      resumes: whether the same command goes on from what it left in its run
        folders, once it has been stopped.
    """

    def guarded(argv):
        logging.getLogger().setLevel(logging.WARNING)
        absl_logging.set_verbosity(absl_logging.WARNING)
        try:
            if len(argv) > 1:
                raise InputError(
                    "Expected flags only, as --name=value. Received: "
                    f"{' '.join(argv[1:])!r}."
                )
            _import_plugins()
            main(argv)
        except (
            InputError,
            TrainingError,
            FloatingPointError,
            OSError,
        ) as error:
            sys.exit(f"error: {error}")
        except ModuleNotFoundError as error:
            sentence = missing_extra(error)
            if not sentence:
                raise
            sys.exit(f"error: {sentence}")
        except KeyboardInterrupt:
            kept = _what_is_kept() if resumes else ""
            print(f"\nStopped. {kept}".rstrip(), file=sys.stderr)
            sys.exit(130)

    app.run(
        guarded,
        flags_parser=functools.partial(
            parsing.parsed, has_recipe=recipes, unlisted=unlisted
        ),
    )


def _import_plugins():
    """Imports the modules of --plugin, from the working folder too."""
    if not _PLUGIN.value:
        return
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with quiet_start():
        for name in _PLUGIN.value:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if error.name != name:
                    raise
                raise InputError(
                    "Expected the name of a module, as my_defenses for "
                    f"my_defenses.py. Received: --plugin={name}."
                ) from error


@contextlib.contextmanager
def quiet_start(onednn: bool = True) -> Iterator[None]:
    """Says that TensorFlow loads, and keeps back what its libraries say.

    They write to the file descriptor before any log level is read. If the
    import fails, what was held back is printed.

    What TensorFlow reads once, when it loads, is set here too.

    Args:
      onednn: whether it has oneDNN's kernels. By itself it has them on where
        there is AVX-512 only; with AVX2 they are the faster ones as well.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", str(int(onednn)))
    sys.stderr.flush()
    screen = os.dup(2)
    if "tensorflow" not in sys.modules:
        # A terminal has the line until TensorFlow is there, a file keeps it.
        end = b"\r" if os.isatty(screen) else b"\n"
        os.write(screen, b"loading TensorFlow ..." + end)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except Exception:
            held_back.seek(0)
            os.write(screen, held_back.read())
            raise
        finally:
            os.dup2(screen, 2)
            if os.isatty(screen):
                os.write(screen, b"\x1b[2K")  # the line is empty again
            os.close(screen)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def config(**plain_flags: Any) -> ConfigDict:
    """Returns the recipe's ConfigDict with --dataset and --seed in it.

    Args:
      **plain_flags: {field: value} of a command's own such flags, a field of
        a section as section.field; None where the flag was not given.

    Raises:
      InputError: one of them contradicts an explicit --config.<same>.
    """
    values = flags.FLAGS.config
    values.unlock()
    for name, value in {
        "dataset": _DATASET.value,
        "seed": _SEED.value,
        **plain_flags,
    }.items():
        if value is None:
            continue
        explicit = overrides().get(name, value)
        if explicit != value:
            raise InputError(
                f"Expected one value of {name}. Received: --{name}={value} "
                f"and --config.{name}={explicit}."
            )
        values.update_from_flattened_dict({name: value})
    return values.lock()


def overrides() -> dict[str, Any]:
    """Returns {field: value} of the --config.FIELD=VALUE flags."""
    return config_flags.get_override_values(flags.FLAGS["config"])


def workdir(
    default: str | os.PathLike[str] | None = None, is_new: bool = False
) -> pathlib.Path:
    """Returns --workdir, or a default.

    Args:
      default: the folder where the flag is not given.
      is_new: whether the command makes it, so that it is a path and never the
        name of a network that comes with the package.

    Raises:
      InputError: neither, or several folders.
    """
    value = _WORKDIR.value or default
    if not value:
        raise InputError("Expected --workdir=RUN_FOLDER. Received: none.")
    path = pathlib.Path(value).expanduser()
    if _WORKDIR.value and "," in str(path) and not path.is_dir():
        raise InputError(
            "Expected one run folder in --workdir; the commands that take "
            f"several have --workdirs=A,B for them. Received: --workdir={path}."
        )
    return path if is_new else shipped.found(path)


def workdirs(several: Sequence[str]) -> list[str]:
    """Returns the run folders that a command was given, none perhaps.

    Args:
      several: its --workdirs.

    Raises:
      InputError: --workdir is there too, or holds several folders.
    """
    if not _WORKDIR.value:
        return [str(shipped.found(folder)) for folder in several]
    if several:
        raise InputError(
            "Expected --workdir=A for one run or --workdirs=A,B for several. "
            "Received: both."
        )
    return [str(workdir())]


def expect_runs(folders: Iterable[str | os.PathLike[str]]) -> None:
    """Raises InputError unless folders are runs, before TensorFlow loads.

    Whether a run's files can be read is for what reads them.

    Args:
      folders: paths.
    """
    for folder in folders:
        expect(
            (pathlib.Path(folder) / "config.json").is_file(),
            "a run folder with config.json",
            workdir=str(folder),
        )


def integers(name: str, words: Iterable[str]) -> list[int]:
    """Returns the words of a list flag as integers.

    Args:
      name: of the flag.
      words: its value.

    Raises:
      InputError: one is no whole number >= 0.
    """
    for word in words:
        if not re.fullmatch(r"\s*\d+\s*", word):
            raise InputError(
                f"Expected --{name} as whole numbers, 0,1,2. "
                f"Received: {word!r}."
            )
    return [int(word) for word in words]


def model_range(
    words: Sequence[str] | None, models: Iterable[str | None]
) -> tuple[float, float]:
    """Returns what saved models take for black and for white.

    Args:
      words: the value of --model_range; None where it was not given.
      models: what is looked at; the range is that of .keras files alone.

    Raises:
      InputError: there is no such file, or no two ascending numbers.
    """
    if words is None:
        return 0.0, 1.0
    expect(
        any(str(name).endswith(".keras") for name in models),
        "--model_range with a .keras file alone; a run has its own",
        model_range=",".join(words),
    )
    try:
        low, high = map(float, words)
    except ValueError:
        low = high = 0.0
    expect(
        low < high,
        "two ascending numbers, as --model_range=0,255",
        model_range=",".join(words),
    )
    return low, high


def command() -> str:
    """Returns the command line, to repeat what a file shows."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name if spec else pathlib.Path(sys.argv[0]).name
    return shlex.join(["python", "-m", name, *sys.argv[1:]])


def data_dir() -> str | None:
    """Returns --data_dir, or TFDS_DATA_DIR, or None.

    Raises:
      InputError: the folder does not exist.
    """
    value = _DATA_DIR.value or os.environ.get("TFDS_DATA_DIR")
    if _DATA_DIR.value and not os.path.isdir(_DATA_DIR.value):
        raise InputError(
            f"Expected an existing folder. Received: data_dir={value!r}."
        )
    return value


def dataset() -> str | None:
    """Returns --dataset, or None."""
    return _DATASET.value


def seed() -> int | None:
    """Returns --seed, or None."""
    return _SEED.value


def _what_is_kept():
    """Returns a sentence, where the same command would not begin anew."""
    folders = [_WORKDIR.value] if _WORKDIR.value else []
    if "workdirs" in flags.FLAGS:
        folders += flags.FLAGS.workdirs
    for folder in folders:
        path = pathlib.Path(folder)
        kept = ("checkpoints", "teacher/checkpoints", "ledger.jsonl")
        if any((path / name).exists() for name in kept):
            return f"The same command goes on from what is in {path}."
    return ""
