"""The demo page of small networks, behind its real server on loopback."""

import contextlib
import functools

from atat_tf.runs import config as run_config
from serving.demo_page import answers, application, networks, samples
from serving.server.rest import http
from tests.reports.page import report_runs
from tests.support import loops, runs, shared

NUM_STEPS = 3


def workdirs():
    """Returns two run folders on digits, of ATAT and of its teacher."""
    folder = shared.folder("demo_runs", _write)
    return [str(folder / name) for name in ("standard", "atat")]


def _write(folder):
    config = run_config.resolve(
        runs.config("atat", backbone__name="wide_resnet")
    )
    teacher = run_config.teacher_config(config)
    report_runs.write_weights(folder / "standard", teacher, 1)
    report_runs.write_weights(folder / "atat", config, 0)


@functools.cache
def demo():
    """Returns the Demo of `workdirs`, a sentence, and its samples."""
    loaded = networks.load_all(workdirs())
    return answers.Demo(loaded, NUM_STEPS), *samples.offered(loaded)


@contextlib.contextmanager
def serving():
    """Yields the port on loopback where the page is served."""
    app = application.Application(*demo())
    listener = http.Listener(
        app, "127.0.0.1", 0, max_connections=32, arrival_seconds=10.0
    )
    with loops.running() as do:
        do(listener.start()).result(60)
        try:
            yield listener.port
        finally:
            do(listener.stop(0)).result(60)
            app.close()
