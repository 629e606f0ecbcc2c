"""Headless Chromium, where one is installed."""

import os
import shutil

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


def launched(test):
    """Returns a browser that is closed with the test; skips it without one.

    Args:
      test: absl.testing.absltest.TestCase.
    """
    playwright = test.enter_context(sync_api.sync_playwright())
    path = _installed(playwright)
    if path is None:
        test.skipTest(
            "there is no Chromium: `apt-get install chromium` or "
            "`playwright install chromium` brings one"
        )
    # Chromium's sandbox refuses to work for root.
    words = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = playwright.chromium.launch(executable_path=path, args=words)
    test.addCleanup(browser.close)
    return browser


def _installed(playwright):
    """Returns a Chromium that is installed here, or None."""
    own = playwright.chromium.executable_path
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = [own if os.path.exists(own) else None, *map(shutil.which, names)]
    return next(filter(None, found), None)
