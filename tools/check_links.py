#!/usr/bin/env python3
"""Looks for dead links inside of a built site, and for images without words.

  tools/check_links.py docs/_build/html

Links to other sites are not followed. The exit status is 1 if any is found.
"""

import html.parser
import pathlib
import sys
from urllib import parse


class _Page(html.parser.HTMLParser):
    """The links and the anchors of one page."""

    def __init__(self):
        super().__init__()
        self.links, self.anchors, self.wordless = [], set(), []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.update(
            given[key] for key in ("id", "name") if key in given
        )
        for key in ("href", "src"):
            if given.get(key):
                self.links.append(given[key])
        if tag == "img" and "alt" not in given:
            self.wordless.append(given.get("src"))


def complaints(root: pathlib.Path) -> list[str]:
    """Returns a sentence for each dead link or image without words.

    Args:
      root: folder of the built site.
    """
    pages = {}
    for path in sorted(root.rglob("*.html")):
        if "_static" in path.parts:  # the theme's templates
            continue
        pages[path.resolve()] = page = _Page()
        page.feed(path.read_text())
    found = []
    for path, page in pages.items():
        name = path.relative_to(root.resolve())
        found += [f"{name}: no alt text: {src}" for src in page.wordless]
        for link in page.links:
            parts = parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = (path.parent / parse.unquote(parts.path)).resolve()
            other = pages.get(target)
            if not target.exists():
                found.append(f"{name}: no such file: {link}")
            elif parts.fragment and other:
                if parse.unquote(parts.fragment) not in other.anchors:
                    found.append(f"{name}: no such anchor: {link}")
    return found


def main(words: list[str]) -> None:
    """Prints what is wrong with the site whose folder is the one word."""
    root = pathlib.Path(*words[:1])
    if len(words) != 1 or not any(root.glob("*.html")):
        sys.exit(
            "error: Expected the folder of a built site, as docs/_build/html. "
            f"Received: {words}."
        )
    dead = complaints(root)
    print("\n".join(dead) or "No dead link.")
    sys.exit(bool(dead))


if __name__ == "__main__":
    main(sys.argv[1:])
