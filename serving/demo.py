"""Shows on a web page how attacks change what networks see.

  atat demo                       # networks that come along
  atat demo --workdirs=runs/demo/teacher,runs/demo
  atat demo --model=my.keras --model_range=0,255
  atat demo --export=demo         # demo/index.html, no server

Opens on 127.0.0.1 alone, and answers until Ctrl-C. Each network is attacked
for itself by PGD, on the picture that is chosen, dropped or pasted.
"""

import asyncio

from absl import flags
from rich import filesize

from atat_tf.errors import InputError
from atat_tf.runs import command_line, shipped

from . import ports

_HOST = "127.0.0.1"
# Of those that come with the package: networks of one size.
_SHIPPED = "undefended", "reference_small", "reference_small_atat"
# A browser opens six at a time.
_MOST_CONNECTIONS = 32
_ARRIVAL_SECONDS = 10.0

flags.declare_key_flag("workdir")
flags.declare_key_flag("data_dir")
_WORKDIRS = flags.DEFINE_list(
    "workdirs",
    [],
    "several run folders, comma-separated, four at most (default: the three "
    "networks of CIFAR-10 that come with the package)",
)
_MODEL = flags.DEFINE_string(
    "model", None, "a .keras file: images -> logits or softmax"
)
_MODEL_RANGE = flags.DEFINE_list(
    "model_range",
    None,
    "with --model: what the model takes for black and white, as 0,255 "
    "(default: 0,1)",
)
_NUM_STEPS = flags.DEFINE_integer(
    "num_steps", 20, "steps of PGD", lower_bound=1, upper_bound=100
)
_PORT = flags.DEFINE_integer(
    "port", 8600, "0 for any that is free", lower_bound=0, upper_bound=65535
)
_EXPORT = flags.DEFINE_string(
    "export",
    None,
    "write the page into this folder, with its answers for the sample "
    "pictures, as one file that needs nothing else; and serve nothing",
)


def main(argv: list[str]) -> None:
    del argv
    workdirs = _workdirs()
    command_line.expect_runs(workdirs)
    model_range = command_line.model_range(_MODEL_RANGE.value, [_MODEL.value])
    data_dir = command_line.data_dir()
    if _PORT.value and not _EXPORT.value:
        _expect_free_port()

    with command_line.quiet_start():  # TensorFlow: not for --help
        from atat_tf.runs import folder as run_folder
        from atat_tf.runs import terminal

        from .demo_page import answers, networks, page, samples

    if _EXPORT.value:
        run_folder.create(_EXPORT.value)
    loaded = networks.load_all(workdirs, _MODEL.value, model_range, data_dir)
    about, offered = samples.offered(loaded)
    demo = answers.Demo(loaded, _NUM_STEPS.value)
    if _EXPORT.value:
        _export(_EXPORT.value, page.exported(demo, about, offered))
        return
    terminal.stage(f"attacking {len(loaded)} networks")
    # Traces the attacks that the page begins with, and shows that they work.
    demo.answer(offered[0], page.FIRST_EPSILON)
    asyncio.run(_serve(demo, about, offered))


def _workdirs():
    """Returns the run folders that are named, or those that are shipped."""
    workdirs = command_line.workdirs(_WORKDIRS.value)
    if workdirs or _MODEL.value:
        return workdirs
    folders = [shipped.found(name) for name in _SHIPPED]
    if not all(folder.is_dir() for folder in folders):
        raise InputError(
            "Expected --workdirs=RUN_FOLDERS or --model=FILE.keras, since "
            "there are no networks beside this program. Received: neither; "
            "`atat train --dataset=digits --workdir=runs/digits` trains two in "
            "two minutes, for --workdirs=runs/digits/teacher,runs/digits."
        )
    return [str(folder) for folder in folders]


def _expect_free_port():
    try:
        ports.expect_free(_HOST, _PORT.value)
    except OSError as error:
        raise InputError(f"{error.strerror} --port=0 takes any.") from None


def _export(folder, text):
    from atat_tf.runs import folder as run_folder

    path = run_folder.create(folder) / "index.html"
    run_folder.write_text(path, text)
    print(f"Wrote {path}, {filesize.decimal(path.stat().st_size)}.")


async def _serve(demo, about, samples):
    from .demo_page import application as demo_application
    from .server.rest import http

    application = demo_application.Application(demo, about, samples)
    listener = http.Listener(
        application,
        _HOST,
        _PORT.value,
        max_connections=_MOST_CONNECTIONS,
        arrival_seconds=_ARRIVAL_SECONDS,
    )
    await listener.start()
    print(f"Open http://{_HOST}:{listener.port} (Ctrl-C ends it).", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        application.close()
        await listener.stop(0)


if __name__ == "__main__":
    command_line.run(main, recipes=False)
