"""The reference of the site, written from the code that it describes."""

import inspect
import pathlib
import re
import subprocess
import sys

import atat_tf

_ROOT = pathlib.Path(__file__).parents[1]
# What a person looks for -> the public names of it. Every name has one place.
_GROUPS = {
    "Measure": (
        "robust_accuracy",
        "Robustness",
        "RobustnessCurve",
        "attack",
        "checklist",
        "Checklist",
    ),
    "See": ("attention", "Attention"),
    "Harden": ("harden", "AdversarialTrainer"),
    "Defenses": (
        "ATAT",
        "AdversarialTraining",
        "LogitPairing",
        "TLA",
        "TRADES",
        "Standard",
    ),
    "Attacks": (
        "LinfAttack",
        "pgd",
        "trades",
        "fgsm",
        "ifgsm",
        "n_fgsm",
        "fgsm_rs",
    ),
    "Runs, data and names": ("load", "Run", "Data", "register", "InputError"),
}


def write(folder: pathlib.Path) -> None:
    """Writes the generated pages.

    Args:
      folder: of the site's sources.
    """
    target = folder / "reference" / "generated"
    target.mkdir(exist_ok=True)
    pages = {
        "api": _api(),
        "command_line": _command_line(),
        "config_fields": _config_fields(),
        **_models(target),
    }
    for name, text in pages.items():
        page = target / f"{name}.md"
        # An unchanged page is not built again.
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def _api():
    named = [name for names in _GROUPS.values() for name in names]
    missing = set(atat_tf.__all__) ^ set(named)
    if missing:
        raise ValueError(
            f"Expected each public name in one group. Received: {missing}."
        )
    text = "# The public API\n\n`import atat_tf as atat`\n"
    for group, names in _GROUPS.items():
        text += f"\n## {group}\n"
        for name in names:
            is_class = inspect.isclass(getattr(atat_tf, name))
            kind = "autoclass" if is_class else "autofunction"
            text += f"\n```{{eval-rst}}\n.. {kind}:: atat_tf.{name}\n"
            if is_class and name not in ("InputError", "AdversarialTrainer"):
                text += "   :members:\n"
            text += "```\n"
    return text


def _command_line():
    text = (
        "# Commands\n\nThe help of every command, as it prints it.\n\n"
        f"```text\n{_printed('--help')}```\n"
    )
    for name in re.findall(r"(?m)^  (\w+)  +\w", _printed("--help")):
        text += f"\n## {name}\n\n```text\n{_printed(name, '--help')}```\n"
    return text


def _config_fields():
    return (
        "# Fields of a recipe\n\n`atat train --config=atat --fields` prints "
        "them. Each is a flag: `--config.attack.num_steps=10`.\n\n"
        f"```text\n{_printed('train', '--config=atat', '--fields')}```\n"
    )


def _models(target):
    """Returns {page: text}: one for each archived network, and their index."""
    pages, listed = {}, ""
    for card in sorted(_ROOT.glob("results/**/MODEL_CARD.md")):
        name = card.parent.relative_to(_ROOT / "results").as_posix()
        page = f"model-{name.replace('/', '-')}"
        pages[page] = card.read_text()
        # Titles of cards are alike; the folder tells them apart.
        listed += f"{name} <{page}>\n"
    for old in target.glob("model-*.md"):
        if old.stem not in pages:
            old.unlink()
    pages["models"] = (
        "# Models and their cards\n\nEvery network of `results/`, with the "
        "figures that were counted from its ledger.\n`atat.load(FOLDER)` reads "
        f"one.\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}```\n"
    )
    return pages


def _printed(*words):
    done = subprocess.run(
        [sys.executable, "-m", "atat_tf", *words],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.replace(str(_ROOT), ".").rstrip() + "\n"
