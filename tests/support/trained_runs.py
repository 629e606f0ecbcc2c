"""A trained run that the tests of a session share."""

import functools

from atat_tf.training import run as training_run
from tests.support import runs, shared


def finished():
    """Returns the folder of a run of ATAT with EMA; not to be changed."""
    config = runs.config(**runs.AVERAGED)
    return shared.folder(
        "finished", functools.partial(training_run.train_and_evaluate, config)
    )
