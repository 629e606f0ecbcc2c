"""The blocks of docs/api.md are one program, and it runs."""

import re
import textwrap
import warnings

import pytest

from tests.support import runs

PAGE = runs.ROOT / "docs" / "api.md"


@pytest.mark.long
def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"(?ms)^ *```python\n(.*?)^ *```$", PAGE.read_text())
    assert len(blocks) >= 12
    program = "\n".join(textwrap.dedent(block) for block in blocks)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        exec(compile(program, str(PAGE), "exec"), names)
    clean, attacked = names["result"].accuracy.values()
    assert attacked < clean
    assert (tmp_path / "hardened.keras").exists()
    assert (tmp_path / "attention.png").exists()
