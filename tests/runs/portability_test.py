"""Every module of the package imports where a system has no POSIX locks."""

import subprocess
import sys

from absl.testing import absltest

from tests.support import runs

# As on Windows and macOS: no fcntl, no way to ask for the process's cores.
_PROGRAM = """
import importlib, os, pkgutil, sys
import tensorflow, tensorflow_datasets  # theirs is not the question
for name in [n for n in sys.modules if n.partition(".")[0] == "filelock"]:
    del sys.modules[name]
sys.modules["fcntl"] = None
if hasattr(os, "sched_getaffinity"):
    del os.sched_getaffinity
import atat_tf
from absl import flags
count = 0
for module in pkgutil.walk_packages(atat_tf.__path__[:1], "atat_tf."):
    importlib.import_module(module.name)
    count += 1
    if module.name.count(".") == 1:  # commands share names of flags
        defined = flags.FLAGS.flags_by_module_dict().get(module.name, ())
        for flag in list(defined):
            delattr(flags.FLAGS, flag.name)
from atat_tf.reports.tables import reproduction
print(count, reproduction.hardware())
"""


class PortabilityTest(absltest.TestCase):
    def test_without_fcntl_and_sched_getaffinity(self):
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            cwd=runs.ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        count, _, cores = done.stdout.partition(" ")
        self.assertGreater(int(count), 80)
        self.assertRegex(cores, r"^\d+ cores? of ")
