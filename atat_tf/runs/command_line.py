"""What every command shares: flags, quiet start-up, errors as one sentence."""

import contextlib
import importlib
import logging
import os
import pathlib
import re
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

from atat_tf import __version__
from atat_tf.attacks import radii
from atat_tf.errors import (
    InputError,
    TrainingError,
    expect,
    missing_extra,
    unknown,
)
from atat_tf.runs import recipes, shipped

_DEFAULT_RECIPE = "atat"
# The words that name a recipe, as they were given.
_recipe_words: list[str] = []
# Flags of the command that its help leaves out.
_unlisted: set[str] = set()

_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "the run folder, or a network that comes with the package: "
    f"{', '.join(shipped.NETWORKS)}",
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
    "seed", None, "root of every random draw", lower_bound=0
)


class RadiusParser(flags.ArgumentParser):
    """Parses the value of a flag for an ε or a step: 8/255 or 0.031."""

    def parse(self, argument: str | float) -> float:
        return radii.parsed(argument)

    def flag_type(self) -> str:
        return "radius"


def run(
    main: Callable[[list[str]], Any],
    recipes: bool = True,
    unlisted: Iterable[str] = (),
) -> None:
    """Runs a command's main(argv); bad input becomes one sentence and exit 1.

    Args:
      main: function of the words that are no flags; only flags are allowed.
      recipes: whether the command reads a recipe, and has the --config flags.
      unlisted: names of flags that the help leaves out.
    """
    _unlisted.clear()  # of another command in this process
    _unlisted.update(unlisted)

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
            print(f"\nStopped. {_what_is_kept()}".rstrip(), file=sys.stderr)
            sys.exit(130)

    app.run(guarded, flags_parser=_parse if recipes else _parse_flags)


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


def recipe_given() -> bool:
    """Returns whether the command names a recipe with --config=PATH."""
    return bool(_recipe_words)


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
    path = pathlib.Path(value)
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


def _parse(argv):
    try:
        words, recipe = _without_recipe(argv)
        values = recipes.load(recipe)
        _expect_fields(words, values)
        words = _with_decimals(words, values)
    except InputError as error:
        _exit_with(error)
    config_flags.DEFINE_config_dict(
        "config",
        values,
        f"recipe: {', '.join(recipes.names())}, small:NAME, or a Python file "
        "with get_config; any field of it by --config.FIELD=VALUE, and "
        "--fields lists them",
        sys_argv=words,
    )
    flags.FLAGS.register_key_flag_for_module(argv[0], flags.FLAGS["config"])
    if "--fields" in words:
        _show_and_exit(recipes.described(values))
    return _parse_flags(words)


def _parse_flags(argv):
    words = {*argv[1:]}
    if words & {"-h", "-help", "--help"}:
        _show_and_exit(_help(argv[0]))
    if words & {"-version", "--version"}:
        _show_and_exit(f"atat {__version__}")
    try:
        return flags.FLAGS(argv)
    except (flags.Error, InputError, TypeError, ValueError) as error:
        _exit_with(error)


def _show_and_exit(text):
    try:
        print(text, flush=True)
    except BrokenPipeError:  # as under `head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _help(name):
    """Returns what a command is for, and its flags.

    Args:
      name: of the main module, as absl knows it: the first word.
    """
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), "", "Flags"]
    own = flags.FLAGS.get_key_flags_for_module(name)
    for flag in sorted(own, key=lambda flag: flag.name):
        if flag.name in _unlisted:
            continue
        choices = getattr(flag.parser, "enum_values", None)
        value = "|".join(choices) if choices else "VALUE"
        shown = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}="
        lines.append(f"  {shown}{'' if flag.boolean else value}")
        # absl begins the help of a choice with its values, which stand above.
        text = re.sub(r"^<[^>]*>: ", "", flag.help or "")
        default = _default(flag)
        if default and "(default" not in text:
            text += f" (default: {default})"
        lines += textwrap.wrap(
            text, 79, initial_indent="      ", subsequent_indent="      "
        )
    return "\n".join(lines)


def _default(flag):
    """Returns a flag's default as a person would type it, "" for none."""
    if flag.name == "config":
        return _DEFAULT_RECIPE
    if flag.default is None or flag.boolean:
        return ""
    if isinstance(flag.parser, RadiusParser):
        return radii.written(flag.default)
    if isinstance(flag.default, list):
        return ",".join(flag.default)
    return str(flag.default)


def _exit_with(error):
    # Some of absl's errors are many lines long, the last one says it.
    sentence = str(error).strip().split("\n")[-1]
    sys.exit(f"error: {sentence} (--help lists the flags)")


def _with_decimals(argv, values):
    """Returns the words with --config.FIELD=8/255 as a decimal number.

    Args:
      argv: the words.
      values: the recipe; only fields that hold a float there are looked at.
    """
    words = []
    for before, word in zip(["", *argv], argv, strict=False):
        head, _, value = word.rpartition("=")
        flag = head or before  # --config.FIELD=8/255 or --config.FIELD 8/255
        match = re.fullmatch(r"--?config\.([\w.]+)", flag)
        if match and re.fullmatch(r"[\d.]+ */ *[\d.]+", value):
            if config_path.get_type(match[1], values) is float:
                decimal = repr(radii.parsed(value))
                word = f"{head}={decimal}" if head else decimal
        words.append(word)
    return words


def _without_recipe(argv):
    """Returns the words without --config=RECIPE, and the recipe."""
    words, recipe = [], _DEFAULT_RECIPE
    _recipe_words.clear()  # of another command in this process
    remaining = iter(argv)
    for word in remaining:
        match = re.fullmatch(r"--?config(=(.*))?", word)
        if not match:
            words.append(word)
            continue
        recipe = match[2] if match[1] else next(remaining, "")
        _recipe_words.append(recipe)
    return words, recipe


def _expect_fields(argv, values):
    """Raises InputError where --config.FIELD names no field of the recipe.

    The flags' own parser would end in a traceback.
    """
    for word in argv:
        match = re.match(r"--?(?:no)?config\.([\w.]+)", word)
        section, name = values, "config"
        for field in match[1].split(".") if match else ():
            if not hasattr(section, "keys") or field not in section:
                known = section.keys() if hasattr(section, "keys") else ()
                raise unknown(f"a field of {name}", field, known)
            section, name = section[field], f"{name}.{field}"
