"""A command's words: its recipe, its flags, and their help."""

import os
import re
import sys
import textwrap
from collections.abc import Collection, Sequence

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from atat_tf import __version__
from atat_tf.attacks import radii
from atat_tf.errors import InputError, expect, unknown
from atat_tf.runs import recipes

_DEFAULT_RECIPE = "atat"
# The words that name a recipe, as they were given.
_recipe_words: list[str] = []


class RadiusParser(flags.ArgumentParser):
    """Parses the value of a flag for an ε or a step: 8/255 or 0.031."""

    def parse(self, argument: str | float) -> float:
        return radii.parsed(argument)

    def flag_type(self) -> str:
        return "radius"


def parsed(
    argv: Sequence[str], has_recipe: bool = True, unlisted: Collection[str] = ()
) -> list[str]:
    """Returns the words that are no flags, and fills absl's FLAGS.

    Ends the process after a question (--help, --version, --fields), and at a
    word that fits no flag.

    Args:
      argv: the command's words, its own name first.
      has_recipe: whether it reads one, and has the --config flags.
      unlisted: names of flags that the help leaves out.
    """
    read = _with_recipe if has_recipe else _flags
    return read(argv, unlisted)


def recipe_given() -> bool:
    """Returns whether the command names a recipe with --config=PATH."""
    return bool(_recipe_words)


def _with_recipe(argv, unlisted):
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
    return _flags(words, unlisted)


def _flags(argv, unlisted):
    words = {*argv[1:]}
    if words & {"-h", "-help", "--help"}:
        _show_and_exit(_help(argv[0], unlisted))
    if words & {"-version", "--version"}:
        _show_and_exit(f"atat {__version__}")
    try:
        rest = flags.FLAGS(argv)
        _expect_numbers()
        return rest
    except (flags.Error, InputError, TypeError, ValueError) as error:
        _exit_with(error)


def _expect_numbers():
    """Raises InputError for a flag that is NaN, which no bound refuses."""
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        is_nan = isinstance(value, float) and value != value
        expect(not is_nan, f"a number for --{name}", **{name: value})


def _show_and_exit(text):
    try:
        print(text, flush=True)
    except BrokenPipeError:  # as under `head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _help(name, unlisted):
    """Returns what a command is for, and its flags.

    Args:
      name: of the main module, as absl knows it: the first word.
      unlisted: names of flags to leave out.
    """
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), "", "Flags"]
    own = flags.FLAGS.get_key_flags_for_module(name)
    for flag in sorted(own, key=lambda flag: flag.name):
        if flag.name in unlisted:
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
        return ",".join(map(str, flag.default))
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
