"""What tests and the processes that they start have in common.

Quiet start-up; one choice of kernels, the embedded server's, so that a run in a
process of its own has the bits of one in this process; folders made once.
"""

import os

from tests.support import shared

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
shared.begin()
# Who starts the tests may be a terminal of any width.
os.environ.pop("COLUMNS", None)


def pytest_collection_modifyitems(items):
    """Workers take classes in this order: those that take longest go first."""
    items.sort(key=lambda item: item.get_closest_marker("early") is None)
