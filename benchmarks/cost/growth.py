"""How time and memory of ATAT grow, with a fitted model and a projection.

  python -m benchmarks.cost.growth --quick
  python -m benchmarks.cost.growth --json=FILE

Each measurement is a fresh process, on random images; one of depth, width,
image size, attack steps, batch and replicas differs from the base at a time.
What the projection assumes of GPUs are flags, none of it measured.
"""

import dataclasses
import json
import pathlib

from absl import app, flags

from benchmarks import command

_QUICK = flags.DEFINE_bool(
    "quick", False, "the two smallest values of each, to see that it runs"
)
_JSON = flags.DEFINE_string("json", None, "file for all of the figures")
_TFLOPS = flags.DEFINE_float(
    "gpu_tflops", 40.0, "assumed sustained rate of a GPU, 10¹² a second"
)
_MEMORY = flags.DEFINE_float("gpu_gib", 80.0, "assumed memory of a GPU")
_NEAR = flags.DEFINE_float(
    "near_gbytes", 150.0, "assumed GB/s of a GPU to others in its machine"
)
_FAR = flags.DEFINE_float(
    "far_gbytes", 12.5, "assumed GB/s of a GPU to other machines"
)

# What grows, the smallest first; the base has the first of each but for the
# attack's steps.
_GROWS = {
    "depth": (10, 16, 22, 28, 34),
    "width": (1, 2, 4, 6),
    "image_size": (32, 48, 64, 96),
    "num_steps": (1, 3, 7, 14),
    "batch_size": (32, 64, 128),
    "replicas": (1, 2, 4),
}
_GPUS = (1, 8, 64)
# Images in an epoch, epochs and the batch on each GPU: the recipes'.
_RUNS = {
    "WRN-34-10, CIFAR-10": {"images": 49_000, "epochs": 100, "batch_size": 128},
    "ResNet50@224, ImageNet": {
        "images": 1_281_167,
        "epochs": 90,
        "batch_size": 64,
    },
}


def settings(quick):
    """Returns the Settings to measure, none of them twice."""
    from benchmarks.cost import model as cost_model

    base = cost_model.Settings()
    if quick:
        base = dataclasses.replace(base, batch_size=8, repeats=2)
    found = []
    for field, values in _GROWS.items():
        for value in values[:2] if quick else values:
            if quick and field == "batch_size":
                value //= 4
            one = dataclasses.replace(base, **{field: value})
            if one not in found:
                found.append(one)
    return found


def networks():
    """Returns {name: what a projection needs of it}."""
    import keras

    from atat_tf.models import wide_resnet
    from benchmarks.cost import sizes

    wide = wide_resnet.wide_resnet((32, 32, 3), 10, 34, 10)
    residual = keras.applications.ResNet50(
        weights=None, classifier_activation=None
    )
    return {
        name: {**run, "num_steps": 7, **sizes.of(classifier)}
        for (name, run), classifier in zip(
            _RUNS.items(), (wide, residual), strict=True
        )
    }


def _print_costs(costs, fits):
    from atat_tf.runs import terminal

    names = tuple(_GROWS)
    rows = [
        (
            *(str(cost[name]) for name in names),
            f"{1e3 * cost['seconds'] / cost['batch_size']:.2f}",
            f"{error:+.0%}",
            f"{cost['peak_gib']:.2f}",
            f"{memory_error:+.0%}",
        )
        for cost, error, memory_error in zip(
            costs, fits[0].errors, fits[1].errors, strict=True
        )
    ]
    columns = (*names, "ms/image", "fit", "peak GiB", "fit")
    terminal.table("ATAT on a WRN, random images", columns, rows)
    for what, fitted in zip(("seconds", "peak bytes"), fits, strict=True):
        terms = " + ".join(
            f"{value:.3g} · {name}"
            for value, name in zip(
                fitted.coefficients, fitted.names, strict=True
            )
        )
        terminal.console().print(f"{what} = {terms}")


def _print_projection(rows, assumed):
    from atat_tf.runs import terminal

    terminal.table(
        f"PROJECTION, not measured: {assumed.tflops:g} TFLOP/s sustained, "
        f"{assumed.near_gbytes:g} and {assumed.far_gbytes:g} GB/s",
        ("run", "GPUs", "hours", "images/s", "sending", "fit in a GPU"),
        [
            (
                name,
                str(gpus),
                f"{row['hours']:,.1f}",
                f"{row['images_a_second']:,.0f}",
                f"{row['share_sent']:.1%}",
                f"{row['images_that_fit']:,}",
            )
            for name, gpus, row in rows
        ],
    )


def main(argv):
    command.begin(argv)

    from benchmarks import surroundings
    from benchmarks.cost import model as cost_model

    about = surroundings.surroundings()
    costs = [cost_model.measured(one) for one in settings(_QUICK.value)]
    fits = cost_model.fits(costs)
    _print_costs(costs, fits)
    surroundings.print_sentences(about)
    assumed = cost_model.Assumed(
        _TFLOPS.value, _MEMORY.value, _NEAR.value, _FAR.value
    )
    rows = [
        (name, gpus, cost_model.projected(network, gpus, assumed, fits[1]))
        for name, network in networks().items()
        for gpus in _GPUS
    ]
    _print_projection(rows, assumed)
    if _JSON.value:
        results = {
            "surroundings": about,
            "costs": costs,
            "fits": [dataclasses.asdict(fitted) for fitted in fits],
            "assumed": dataclasses.asdict(assumed),
            "projection": rows,
        }
        pathlib.Path(_JSON.value).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    app.run(main)
