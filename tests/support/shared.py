"""Folders that all processes of a test session share, each made once.

The processes of pytest-xdist take tests by class, so that what a file caches
would be made by several of them.
"""

import atexit
import fcntl
import os
import pathlib
import shutil
import tempfile

_SESSION = "ATAT_TEST_SESSION"


def begin():
    """Makes the session's folder, for this process and those it starts.

    In a process that was started within a session, nothing happens.
    """
    if _SESSION not in os.environ:
        os.environ[_SESSION] = tempfile.mkdtemp(prefix="atat_tests_")
        atexit.register(shutil.rmtree, os.environ[_SESSION], ignore_errors=True)


def folder(name, make):
    """Returns a folder of the session, which is not to be changed.

    Args:
      name: of the folder.
      make: function of the path to fill, called by the first process to ask.
    """
    begin()
    path = pathlib.Path(os.environ[_SESSION]) / name
    with open(path.with_name(f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = path.with_name(f"{name}.done")
        if not done.exists():
            shutil.rmtree(path, ignore_errors=True)
            make(path)
            done.touch()
    return path
