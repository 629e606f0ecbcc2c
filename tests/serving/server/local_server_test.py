"""The command `python -m serving.local_server`."""

import re
import signal
import socket
import subprocess
import sys
import threading

import grpc
import pytest

from serving import local_server
from serving.server import config_files
from serving.server import flags as server_flags
from tests.serving import exports as serving_runs
from tests.serving import process as serving_process
from tests.serving.server import calls as server_calls

_DEPLOY = serving_runs.ROOT / "serving/deploy"
_PATIENCE_SECONDS = 120  # bounds what is done at once, or never
_MODEL = "--model_base_path=/none"
_COMMAND = (sys.executable, "-m", "serving.local_server")
# Runs refused command lines, and tells whether TensorFlow was loaded.
_WATCHED = """
import sys
from serving import local_server
for words in ["--help"], ["--version"], [], ["--model_base_path=relative"]:
    print("status:", local_server.main(words))
sys.exit("tensorflow" in sys.modules)
"""


@pytest.fixture
def models(tmp_path):
    """An empty folder of versions."""
    (tmp_path / "m").mkdir()
    return tmp_path / "m"


@pytest.fixture
def start(models):
    """start(*words): a process, which ends with the test, and its port."""
    processes = []

    def started(*words):
        port = serving_process.free_port()
        named = "--model_name=m", f"--model_base_path={models}"
        process = subprocess.Popen(
            [*_COMMAND, *named, f"--port={port}", *words],
            cwd=serving_runs.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # What it prints is waited for; a silent one must end, too.
        watch = threading.Timer(_PATIENCE_SECONDS, process.kill)
        watch.start()
        processes.append((process, watch))
        return process, port

    yield started
    for process, watch in processes:
        watch.cancel()
        process.kill()
        process.communicate()


def _line(stream, text):
    """Returns the next line with a text in it."""
    return next(line for line in stream if text in line)


def test_a_refused_command_loads_no_tensorflow():
    ended = subprocess.run(
        [sys.executable, "-c", _WATCHED],
        cwd=serving_runs.ROOT,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
    )
    assert ended.returncode == 0
    statuses = re.findall(r"(?m)^status: (\d+)", ended.stdout)
    assert statuses == ["0", "0", "1", "255"]
    named = f"--model_base_path={serving_runs.ROOT / 'relative'}"
    assert f"Expected an absolute path, {named}. " in ended.stderr
    assert "usage: atat serve " in ended.stdout


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("--port=many", _MODEL), 1, "--port"),
        (("--port=0", _MODEL), 1, "--rest_api_port"),
        ((_MODEL, "--max_connections=100000000"), 255, "ulimit -n"),
        ((_MODEL, "--batching_parameters_file=/none"), 255, "/none"),
        (("--model_config_file=/none",), 255, "Received: No such file"),
    ],
)
def test_refused(capsys, words, status, text):
    assert local_server.main(words) == status
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert text in errors


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_port_in_use(capsys, flag):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        words = ["--port=0", "--rest_api_port=0", f"--{flag}={port}", _MODEL]
        assert local_server.main(words) == 255
    assert f"free port. Received: 127.0.0.1:{port}" in capsys.readouterr().err


def test_model_that_does_not_load(start, models):
    (models / "1").mkdir()
    (models / "1" / "saved_model.pb").write_bytes(b"no model")
    process, _ = start("--max_num_load_retries=0")
    output, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    assert (process.returncode, output) == (255, "")
    (error,) = re.findall("(?m)^error: .*", errors)
    assert "Expected models that load" in error
    assert "Traceback" not in errors


def test_waits_for_a_version_and_drains(start, models, tmp_path):
    # Requests that wait together are one batch, which counts to the largest.
    process, port = start("--modle_name=x", "--enable_batching=false")
    unknown = process.stderr.readline()
    assert unknown == "unknown argument: --modle_name=x\n"
    # The last that is said before the wait.
    complaint = _line(process.stderr, "No versions of servable m found")
    assert str(models) in complaint
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    serving_runs.save_numbers(tmp_path / "ready")
    serving_runs.copy_version(tmp_path / "ready", models, 1)
    greeting = process.stdout.readline()
    assert greeting == f"Serving gRPC on 127.0.0.1:{port}.\n"

    def steps(response):
        return server_calls.outputs(response)["n"].item()

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        predict = server_calls.Calls(channel).predict
        under_way = predict.future(server_calls.count(100_000))
        # Came later, is answered: the other one is under way.
        assert steps(predict(server_calls.count(3))) == 3
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "Draining.\n"
        with grpc.insecure_channel(f"127.0.0.1:{port}") as late:
            late_predict = server_calls.Calls(late).predict
            # The ports close after the word: a call or two may come between.
            with pytest.raises(grpc.RpcError) as raised:
                while not under_way.done():
                    late_predict(server_calls.count(3))
        # CANCELLED: gRPC had accepted the connection before it closed the port.
        assert raised.value.code().name in ("UNAVAILABLE", "CANCELLED")
        assert steps(under_way.result()) == 100_000
    assert process.wait(_PATIENCE_SECONDS) == 0


def test_ends_while_it_waits_for_a_version(start):
    process, _ = start()
    _line(process.stderr, "No versions of servable m found")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    assert (process.returncode, output) == (0, "Draining.\n")
    assert "Traceback" not in errors


def test_files_for_the_genuine_server_start_this_one(tmp_path):
    exported = serving_runs.exported()
    text, count = re.subn(
        'base_path: ".*"',
        f'base_path: "{exported.parent}"',
        (_DEPLOY / "models.config").read_text(),
    )
    assert count == 1
    (tmp_path / "models.config").write_text(text)
    request = server_calls.predict_request(
        {"images": serving_runs.test_images(3)},
        "atat",
        {"version_label": "stable"},
    )
    with (
        serving_runs.serving(
            f"--model_config_file={tmp_path / 'models.config'}",
            "--allow_version_labels_for_unavailable_models",
            f"--batching_parameters_file={_DEPLOY / 'batching.config'}",
            f"--monitoring_config_file={_DEPLOY / 'monitoring.config'}",
        ) as running,
        grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        response = server_calls.Calls(channel).predict(request)
    assert len(server_calls.outputs(response)["classes"]) == 3


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        ((), ""),
        (("--bind=0.0.0.0",), "gRPC is open on 0.0.0.0 without TLS"),
        (
            ("--port=0", "--rest_api_port=1", "--bind=0.0.0.0"),
            "REST is open on 0.0.0.0",
        ),
        (
            (f"--monitoring_config_file={_DEPLOY / 'monitoring.config'}",),
            "Metrics are served on the REST port",
        ),
    ],
)
def test_warnings(words, warning):
    flags, _ = server_flags.parse([_MODEL, *words])
    found = local_server.warnings(flags, config_files.read_all(flags))
    assert len(found) == bool(warning)
    assert "".join(found).startswith(warning)
