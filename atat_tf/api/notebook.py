"""Tables as HTML, which notebooks show in the place of text."""

import html
from collections.abc import Iterable, Sequence


def table(
    rows: Iterable[Sequence[str]], heads: Sequence[str] = (), caption: str = ""
) -> str:
    """Returns an HTML table; every text is escaped.

    Args:
      rows: texts, the same number in each.
      heads: texts above the columns, or none.
      caption: above the table, or "".
    """
    parts = [f"<caption>{html.escape(caption)}</caption>"] if caption else []
    lines = [("th", heads)] if heads else []
    for tag, cells in [*lines, *(("td", row) for row in rows)]:
        texts = (f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        parts.append(f"<tr>{''.join(texts)}</tr>")
    return f"<table>{''.join(parts)}</table>"
