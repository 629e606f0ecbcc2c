"""What TensorFlow reads when it loads, for tests and the commands they start.

Quiet start-up; and one choice of kernels, the embedded server's, so that a run
in a process of its own has the bits of one in this process.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
