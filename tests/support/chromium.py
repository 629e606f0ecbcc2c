"""Headless Chromium, where one is installed."""

import os
import shutil

import pytest
from absl.testing import parameterized
from playwright import sync_api

# WCAG 2.2, success criterion 1.4.3: texts whose contrast to what lies behind
# is below 4.5, or 3 for large ones.
TOO_FAINT = """() => {
  const parsed = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return {rgb: [r, g, b], a};
  };
  const over = (top, below) =>
    top.rgb.map((v, i) => top.a * v + (1 - top.a) * below[i]);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) =>
      v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      layers.push(parsed(getComputedStyle(e).backgroundColor));
    }
    return layers.reverse().reduce((below, top) => over(top, below),
      matchMedia('(prefers-color-scheme: dark)').matches
        ? [18, 18, 18] : [255, 255, 255]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = [], seen = new Set();
  let count = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || seen.has(element)
        || !element.checkVisibility()
        || ['SCRIPT', 'STYLE'].includes(element.tagName)) continue;
    seen.add(element);
    count += 1;
    const style = getComputedStyle(element);
    const below = ground(element);
    const ink = over(parsed(style.color), below);
    const both = [luminance(ink), luminance(below)];
    const [low, high] = both.sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (contrast < (large ? 3 : 4.5)) {
      faint.push([element.tagName, element.className,
        walker.currentNode.data.trim().slice(0, 30), contrast]);
    }
  }
  return {count, faint};
}"""


@pytest.mark.long
class BrowserTest(parameterized.TestCase):
    """A test in a browser; it is skipped where there is none.

    Attributes:
      problems: texts, what has gone wrong on the pages.
      requests: addresses that the pages have asked for.
    """

    def setUp(self):
        super().setUp()
        self.problems, self.requests = [], []
        playwright = self.enter_context(sync_api.sync_playwright())
        path = _installed(playwright)
        if path is None:
            self.skipTest(
                "there is no Chromium: `apt-get install chromium` or "
                "`playwright install chromium` brings one"
            )
        # Chromium's sandbox refuses to work for root.
        words = ["--no-sandbox"] if os.geteuid() == 0 else []
        launch = playwright.chromium.launch
        self.browser = launch(executable_path=path, args=words)
        self.addCleanup(self.browser.close)

    def opened(self, url, **options):
        """Returns the page of an address, in a context with options."""
        page = self.browser.new_context(**options).new_page()
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(url)
        return page


def _installed(playwright):
    """Returns a Chromium that is installed here, or None."""
    own = playwright.chromium.executable_path
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = [own if os.path.exists(own) else None, *map(shutil.which, names)]
    return next(filter(None, found), None)
