"""The checklist of a model and arrays."""

import numpy as np
import pytest
import tensorflow as tf

import atat_tf as atat
from atat_tf.errors import InputError
from atat_tf.evaluation.checklist import attacks as checklist_attacks
from atat_tf.evaluation.checklist import points as checklist_points
from tests.support import digits

X, Y = digits.test_images(12)


def test_few_images_decide_what_needs_no_statistics():
    pixels = np.rint(X * 255).astype(np.uint8)
    points = atat.checklist(digits.classifier(), pixels, Y)
    verdicts = {point.name: point.verdict for point in points.points}
    assert verdicts["logits"] == verdicts["batch_independence"] == "PASS"
    assert verdicts["gradients"] == "NOT RUN"
    assert points.passed and not points.failed
    assert "12 images; at least 200" in repr(points)
    page = points._repr_html_()
    assert page.count("<td>NOT RUN") + page.count("<td>PASS") == len(verdicts)
    assert f"{list(verdicts.values()).count('PASS')} PASS, 0 FAIL" in page


def test_no_gradient_is_refused():
    model = digits.classifier()
    with pytest.raises(InputError, match="a classifier with a gradient"):
        atat.checklist(lambda x: model.predict(x, verbose=0), X, Y)
    with pytest.raises(InputError, match="a teacher with a gradient"):
        atat.checklist(
            model, X, Y, teacher=lambda x: model.predict(x, verbose=0)
        )


@pytest.mark.long
def test_every_point_is_decided_of_enough_images():
    points = atat.checklist(
        digits.classifier(),
        X,
        Y,
        epsilon=16 / 255,
        minimum_images=12,
        teacher=digits.classifier(),
    )
    assert {point.verdict for point in points.points} <= {"PASS", "FAIL"}
    # It is no undefended twin that withstands what the model withstands.
    assert "undefended_twin" in points.failed


@pytest.mark.long
@pytest.mark.parametrize(
    "is_rounded, verdict", [(True, "FAIL"), (False, "PASS")]
)
def test_pixels_rounded_behind_the_gradient_end_in_a_cliff(is_rounded, verdict):
    """These pixels are sixteenths: what is below half of one is undone."""
    call = digits.classifier(activation=None).call

    def scores(images):
        levels = tf.round(images * 16) / 16
        return call(images + tf.stop_gradient(levels - images))

    images, labels = digits.test_images(60)
    epsilon = 7 / 255
    curve = atat.robust_accuracy(
        scores if is_rounded else call,
        images,
        labels,
        ("clean", "pgd20"),
        epsilon=[f * epsilon for f in checklist_attacks.RADIUS_FACTORS],
    )
    radii = {f"{p.epsilon:.3f}": p.stands["pgd20"] for p in curve.points}
    reference = {"clean": curve.points[0].stands["clean"]}
    points = checklist_points.from_standing(
        {"reference": reference, "radii": radii}, {}
    )
    assert points["cliff"].verdict == verdict
