"""The loss around images and accuracy against steps: Fig. 7 and 8.

Networks and pictures enter; a Figure and the rows of its numbers leave.
"""

from atat_tf import figures, loss_surface, radii, robustness, steps_curve
from atat_tf.attention_scenes import Scene
from atat_tf.errors import expect


def surface(sources, pictures, epsilon, extent, resolution, seed, texts):
    """Returns loss surfaces of networks around pictures (Fig. 7).

    Args:
      sources: Sources, one below the other; the raw one first.
      pictures: Pictures, side by side.
      epsilon: ε, the unit of both axes.
      extent: how far both axes go, in units of ε.
      resolution: points along an axis, odd.
      seed: of the Rademacher directions.
      texts: (data, caption).

    Returns:
      Figure, and a dictionary for each point.

    Raises:
      InputError: a bad extent or resolution.
    """
    expect(extent > 0, "extent > 0", extent=extent)
    expect(
        resolution >= 3 and resolution % 2,
        "an odd resolution >= 3",
        resolution=resolution,
    )
    places = loss_surface.positions(extent, resolution)
    surfaces, rows = [], []
    for source in sources:
        scene = Scene(source, pictures)
        found = _surfaces(scene, places, epsilon, seed)
        surfaces.append(found)
        rows += _rows(scene, places, found)
    data, caption = texts
    figure = figures.loss_surfaces(
        surfaces,
        places,
        (
            [source.title for source in sources],
            [f"{picture.name} ({picture.class_name})" for picture in pictures],
        ),
        f"Loss in the plane of two directions, ε = {radii.written(epsilon)}. "
        f"{data}",
        caption,
    )
    return figure, rows


def steps(workdirs, num_steps, zoom, num_images, caption, **arguments):
    """Returns accuracy against PGD steps of several runs (Fig. 8).

    Args:
      workdirs: {title: run folder}.
      num_steps: the most steps.
      zoom: the last step of the right-hand side.
      num_images: the first so many test images; None for all.
      caption: the small text at the foot.
      **arguments: as for `evaluation.open_run`.

    Returns:
      Figure, and a dictionary for each run and number of steps.
    """
    curves, rows, runs = {}, [], []
    for title, workdir in workdirs.items():
        shares, run = steps_curve.curve(
            workdir, num_steps, num_images=num_images, **arguments
        )
        curves[title] = shares
        runs.append(run)
        rows += [
            {"model": title, "steps": n, "accuracy": float(share)}
            for n, share in enumerate(shares)
        ]
    count, data = len(runs[0].split), runs[0].dataset.provenance
    figure = figures.accuracy_curves(
        curves,
        zoom,
        f"Accuracy under PGD, ε = {radii.written(steps_curve.EPSILON)}, step "
        f"{radii.written(steps_curve.STEP_SIZE)}. {data}: {count:,} images",
        caption,
    )
    return figure, rows


def _surfaces(scene, places, epsilon, seed):
    """Returns a network's surfaces, one for each picture."""
    logits_fn = robustness.logits_function(scene.source.classifier)
    found = []
    for i, picture in enumerate(scene.pictures):
        image, label = scene.images[i], scene.labels[i]
        directions = (
            loss_surface.sign_gradient(logits_fn, image, label),
            loss_surface.rademacher(image.shape, seed, picture.index),
        )
        found.append(
            loss_surface.surface(
                logits_fn, image, label, directions, places, epsilon
            )
        )
    return found


def _rows(scene, places, found):
    return [
        {
            "model": scene.source.title,
            "image": picture.name,
            "sign_gradient": float(places[a]),
            "rademacher": float(places[r]),
            "cross_entropy": float(values[r, a]),
        }
        for picture, values in zip(scene.pictures, found, strict=True)
        for r in range(len(places))
        for a in range(len(places))
    ]
