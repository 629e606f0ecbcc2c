"""The archived verdicts are those that today's rule of a verdict gives."""

import json
import lzma
import pathlib

import pytest

from atat_tf.evaluation import ledger

_RESULTS = pathlib.Path(__file__).parents[2] / "results"
_LEDGERS = sorted(_RESULTS.rglob(ledger.PACKED))


@pytest.mark.long
@pytest.mark.parametrize(
    "path", _LEDGERS, ids=lambda path: str(path.parent.relative_to(_RESULTS))
)
def test_broken_is_where_the_margin_is_not_above_zero(path):
    """Ties are broken; an archived margin is never NaN or infinite."""
    count = 0
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            count += 1
            assert abs(line["margin"]) < 1e6, line
            assert line["broken"] == (line["margin"] <= 0), line
            assert not line["refuted"], line
    assert count
