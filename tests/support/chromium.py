"""Headless Chromium, where one is installed."""

import os
import shutil

from playwright import sync_api


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
