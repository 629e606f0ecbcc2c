"""Which ledgers are read while something runs."""

import contextlib
from unittest import mock

from atat_tf.evaluation import ledger


@contextlib.contextmanager
def read():
    """Yields a list to which the path of a ledger is added at each reading."""
    paths, texts = [], ledger._texts

    def noted(path):
        paths.append(path)
        return texts(path)

    ledger._index.cache_clear()
    with mock.patch.object(ledger, "_texts", noted):
        yield paths
