"""The exceptions with a sentence for the user, and how one is put.

InputError is for bad input; TrainingError for a training that went wrong.
"""

import difflib


class InputError(ValueError):
    """Something the caller gave is wrong; the text says what to do.

    Command lines print it as one sentence, without a traceback.
    """


class TrainingError(RuntimeError):
    """A training has ended early; the text says why, and how to go on."""


def expect(holds, rule, **received):
    """Raises InputError with the rule and what was received instead.

    Args:
      holds: whether the rule holds.
      rule: completes "Expected ...".
      **received: name=value of what was checked.

    Raises:
      InputError: `holds` is false.
    """
    if not holds:
        values = ", ".join(f"{k}={v!r}" for k, v in received.items())
        raise InputError(f"Expected {rule}. Received: {values}.")


def unknown(kind, name, known):
    """Returns the InputError for a name outside a registry.

    Args:
      kind: what the name should name, as in "Expected a backbone among ...".
      name: what was received.
      known: the names there are; near misses are suggested.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, 1, 0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(
        f"Expected {kind} among {', '.join(known)}. Received: {name!r}.{hint}"
    )
