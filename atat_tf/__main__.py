"""One command for all: `atat COMMAND`, or `python -m atat_tf COMMAND`.

Each is a module of its own too, as `python -m atat_tf.train`.
"""

import importlib.util
import runpy
import sys
from collections.abc import Sequence

from atat_tf import __version__
from atat_tf.errors import InputError, registered

# {heading: {command: (module, words that go before, what it does)}}
COMMANDS: dict[str, dict[str, tuple[str, tuple[str, ...], str]]] = {
    "Harden": {
        "train": ("atat_tf.train", (), "train a classifier against attacks"),
    },
    "Prove": {
        "evaluate": ("atat_tf.evaluate", (), "measure accuracy under attack"),
        "merge": (
            "atat_tf.merge",
            (),
            "put the shards of an evaluation together",
        ),
        "check": (
            "atat_tf.evaluate",
            ("--checklist",),
            "decide whether the robustness can be believed",
        ),
        "reproduce": ("atat_tf.reproduce", (), "print the paper's tables"),
    },
    "See": {
        "inspect": (
            "atat_tf.inspect_attention",
            (),
            "draw where networks look, clean and attacked",
        ),
        "landscape": ("atat_tf.landscape", (), "draw the loss around an image"),
        "report": ("atat_tf.report", (), "write a run as one page"),
        "demo": (
            "atat_tf.serving.demo",
            (),
            "attack networks live on a web page",
        ),
        "compare": ("atat_tf.compare", (), "write several runs as one page"),
    },
    "Serve": {
        "export": ("atat_tf.serving.export", (), "write a SavedModel version"),
        "serve": (
            "atat_tf.serving.local_server",
            (),
            "host exported models by gRPC and REST",
        ),
        "client": ("atat_tf.serving.client", (), "ask a server about images"),
        "archive": ("atat_tf.archive", (), "pack a run into a small folder"),
    },
}

_EXAMPLES = """\
  atat demo                                            networks attacked live
  atat train --dataset=digits --workdir=runs/digits    two minutes on a laptop
  atat train --model=my.keras --dataset=folder:photos  your own model and images
  atat evaluate --workdir=runs/digits --attacks=clean,pgd20,autoattack
  atat inspect --workdir=runs/digits
  atat export --workdir=runs/digits --output=models/digits
"""

_COMPLETION = """\
# bash: eval "$(atat --completion)"
# zsh:  autoload -U +X bashcompinit && bashcompinit, and the same
_atat() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W "{commands} --help --version" -- "$word"))
  elif [[ $word == -* ]]; then
    local flags
    flags=$(atat "${{COMP_WORDS[1]}}" --help 2>/dev/null |
      sed -nE 's/^  --(\\[no\\])?([a-z_]+).*/--\\2/p')
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  fi
}}
complete -o default -F _atat atat
"""


def usage() -> str:
    """Returns the commands in groups, and examples."""
    lines = [
        "atat: harden a Keras classifier, prove it, see it, serve it.",
        "",
        "usage: atat COMMAND [--flag=value ...]",
        "       (or python -m atat_tf COMMAND, where it is not installed)",
        "",
    ]
    for heading, group in COMMANDS.items():
        lines.append(heading)
        for name, (_, _, what) in group.items():
            lines.append(f"  {name:<10} {what}")
        lines.append("")
    lines += ["Examples", _EXAMPLES.rstrip(), ""]
    lines += [
        "atat COMMAND --help lists a command's flags; atat --completion prints",
        "what completes them in bash and zsh; atat --version.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first word names.

    Args:
      argv: the words; None for those of the process.

    Raises:
      SystemExit: with the command's status.
    """
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "-help", "--help", "help"):
        print(usage())
        return
    if name in ("-version", "--version"):
        print(f"atat {__version__}")
        return
    known = {n: c for group in COMMANDS.values() for n, c in group.items()}
    if name == "--completion":
        print(_COMPLETION.format(commands=" ".join(known)), end="")
        return
    try:
        module, before, _ = registered("a command", name, known)
        _expect_installed(module)
    except InputError as error:
        sys.exit(f"error: {error} (atat --help lists the commands)")
    words = ["--help" if word == "-h" else word for word in words]
    if name == "train" and not words:
        # The paper's own protocol is a year of one CPU core.
        words = ["--help"]
    sys.argv = [f"atat {name}", *before, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _expect_installed(module):
    if importlib.util.find_spec(module) is None:
        raise InputError(f"Expected {module}. Received: no such module.")


if __name__ == "__main__":
    main()
