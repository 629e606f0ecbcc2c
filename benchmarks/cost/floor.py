"""Times each convolution of the ATAT step against matrix products as large.

  python -m benchmarks.cost.floor
  python -m benchmarks.cost.floor --depth=16 --width=4 --json=FILE

Every convolution shape of the network is run alone, forward, back to its input
and back to its kernel, and beside it the matrix product of the same number of
operations (patches as rows), both in float32. Products so narrow are slow too:
the same number of operations at the rate of a large square product is the
machine's own limit. Methods that save multiplications can go below either.

Seconds of an ATAT step are those of one batch times the batches that go
through: see `convolutions.passes_of`. The sums are compared with the passes
that no ATAT step can do without, timed whole in the same rounds (see
`benchmarks.train_step`). What is left of those is batch norm, activations,
additions and the update.
"""

import json
import pathlib
import statistics
import sys

from absl import app, flags

from benchmarks import command, ratios, surroundings

_DEPTH = flags.DEFINE_integer("depth", 16, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 1, "of the Wide ResNet")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "b", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "rounds", lower_bound=1)
_ONEDNN = flags.DEFINE_bool("onednn", True, "TensorFlow's oneDNN kernels")
_JSON = flags.DEFINE_string("json", None, "file for all of the figures")

_ALONE, _PRODUCT, _WHOLE, _SQUARE = "alone", "product", "passes", "square"
_WORST = 3
# The side of matrices that are multiplied about as fast as any here.
_SIDE = 1024


def measure(depth, width, batch_size, repeats):
    """Returns the layers' rows, the passes' seconds, and the machine's rate.

    The latter two of each round; the rate, in operations a second, is that of
    a product of square matrices.

    Args:
      depth, width: of the Wide ResNet.
      batch_size: b.
      repeats: number of rounds.
    """
    from benchmarks.cost import convolutions, timings

    config = timings.resolved_config("atat", depth, width, batch_size)
    found = convolutions.of(timings.classifier(config))
    whole = timings.unavoidable_passes(config, timings.random_split(batch_size))
    timed = {(_WHOLE, name): function for name, function in whole.items()}
    timed[_SQUARE,] = convolutions.product(_SIDE, _SIDE, _SIDE)
    many = {}
    for shape in found:
        each = convolutions.functions(shape, batch_size)
        for name, (alone, product, count) in each.items():
            timed[_ALONE, shape, name] = alone
            timed[_PRODUCT, shape, name] = product
            many[shape, name] = count
    seconds, _ = timings.round_robin(timed, repeats)
    passes = [seconds[key] for key in timed if key[0] == _WHOLE]

    rows = []
    for number, (shape, layers) in enumerate(found.items()):
        batches = convolutions.passes_of(config.attack.num_steps, number == 0)
        by_pass = {
            kind: {
                name: [
                    value * times * len(layers) / many[shape, name]
                    for value in seconds[kind, shape, name]
                ]
                for name, times in batches.items()
            }
            for kind in (_ALONE, _PRODUCT)
        }
        flops = shape.flops(batch_size) * len(layers) * sum(batches.values())
        rows.append(_row(shape, layers, flops, by_pass))
    rates = [2 * _SIDE**3 / value for value in seconds[_SQUARE,]]
    return rows, [sum(values) for values in zip(*passes, strict=True)], rates


def _row(shape, layers, flops, by_pass):
    sums = {
        kind: [sum(values) for values in zip(*each.values(), strict=True)]
        for kind, each in by_pass.items()
    }
    return {
        "shape": str(shape),
        "layers": layers,
        "flops": flops,
        _ALONE: sums[_ALONE],
        _PRODUCT: sums[_PRODUCT],
        "over_product": ratios.summary(
            ratios.over(sums[_ALONE], sums[_PRODUCT])
        ),
        "over_product_by_pass": {
            name: ratios.summary(
                ratios.over(by_pass[_ALONE][name], by_pass[_PRODUCT][name])
            )
            for name in by_pass[_ALONE]
        },
    }


def comparisons(name, rows, passes, rates):
    """Returns the sums against each other, and the worst layers.

    The worst are those that would gain most at their products' speed.
    """
    sums = {
        kind: [sum(v) for v in zip(*(r[kind] for r in rows), strict=True)]
        for kind in (_ALONE, _PRODUCT)
    }
    flops = sum(row["flops"] for row in rows)
    lost = sorted(
        rows,
        key=lambda row: (
            statistics.median(row[_ALONE]) - statistics.median(row[_PRODUCT])
        ),
    )
    return [
        ratios.comparison(
            f"unavoidable passes, {name}",
            f"as many operations in products of {_SIDE} x {_SIDE}",
            ratios.over(passes, [flops / rate for rate in rates]),
        ),
        ratios.comparison(
            f"unavoidable passes, {name}",
            "matrix products as large",
            ratios.over(passes, sums[_PRODUCT]),
        ),
        ratios.comparison(
            f"convolutions alone, {name}",
            "matrix products as large",
            ratios.over(sums[_ALONE], sums[_PRODUCT]),
        ),
        ratios.comparison(
            f"unavoidable passes, {name}",
            "convolutions alone",
            ratios.over(passes, sums[_ALONE]),
        ),
        *(
            ratios.comparison(
                f"worst: {row['shape']} ({len(row['layers'])}), {name}",
                "matrix products as large",
                ratios.over(row[_ALONE], row[_PRODUCT]),
            )
            for row in lost[: -_WORST - 1 : -1]
        ),
    ]


def print_rows(title, rows, passes):
    """Prints the layers, each with its part of an ATAT step."""
    from atat_tf.runs import terminal

    whole = statistics.median(passes)
    cells = []
    for row in rows:
        alone, product = (statistics.median(row[k]) for k in (_ALONE, _PRODUCT))
        cells.append(
            (
                f"{row['shape']} ({len(row['layers'])})",
                f"{row['flops'] / 1e9:,.1f}",
                f"{1e3 * alone:,.1f}",
                f"{1e3 * product:,.1f}",
                f"{row['flops'] / alone / 1e9:,.0f}",
                f"{row['flops'] / product / 1e9:,.0f}",
                f"{row['over_product']['median']:.2f}",
                *(
                    f"{each['median']:.2f}"
                    for each in row["over_product_by_pass"].values()
                ),
                f"{100 * alone / whole:.1f}",
            )
        )
    terminal.table(
        title,
        (
            "convolution (layers)",
            "GFLOP",
            "ms",
            "product ms",
            "GFLOP/s",
            "product's",
            "ratio",
            "forward",
            "to input",
            "to kernel",
            "% of passes",
        ),
        cells,
    )


def main(argv):
    command.begin(argv, _ONEDNN.value)
    from atat_tf.errors import InputError

    sizes = _DEPTH.value, _WIDTH.value, _BATCH_SIZE.value
    try:
        rows, passes, rates = measure(*sizes, _REPEATS.value)
    except InputError as error:
        sys.exit(f"error: {error}")
    name = f"WRN-{sizes[0]}-{sizes[1]}"
    results = {
        "sizes": sizes,
        "rows": rows,
        "passes": passes,
        "square_flops_per_second": rates,
        "comparisons": comparisons(name, rows, passes, rates),
        "surroundings": surroundings.surroundings(),
    }
    print_rows(f"An ATAT step, {name}, b = {sizes[2]}", rows, passes)
    ratios.print_table("Seconds over seconds", results["comparisons"])
    surroundings.print_sentences(results["surroundings"])
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    app.run(main)
