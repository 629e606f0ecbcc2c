"""The demo page in headless Chromium, on a desktop and on a phone."""

import pathlib
import tempfile

import numpy as np
from absl.testing import parameterized
from playwright import sync_api

from serving.demo_page import page as demo_page
from tests.serving import demo_runs
from tests.support import chromium, pictures

# A file comes as one that is dropped, or pasted.
_HANDED = """([kind, bytes]) => {
  const files = new DataTransfer();
  files.items.add(new File([new Uint8Array(bytes)], "a.png"));
  const event = kind === "drop"
    ? new DragEvent(kind, { dataTransfer: files, bubbles: true })
    : new ClipboardEvent(kind, { clipboardData: files, bubbles: true });
  document.body.dispatchEvent(event);
}"""
_WIDTHS = (1280, 390)
_SECONDS = 60_000


def _red(level):
    """Returns the file of a picture in one red."""
    return pictures.file(np.full((32, 32, 3), (level, 0, 0), np.uint8))


class DemoTest(chromium.BrowserTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.port = cls.enterClassContext(demo_runs.serving())

    def _open(self, url=None, width=1280, scheme="light"):
        """Returns the page with its first answer."""
        page = self.opened(
            url or f"http://127.0.0.1:{self.port}/",
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
        )
        page.set_default_timeout(_SECONDS)
        self._expect_status(page, "ε = 8/255")
        return page

    def _expect_status(self, page, text):
        status = page.locator("#status")
        sync_api.expect(status).to_contain_text(text, timeout=_SECONDS)

    def _expect_no_problem(self, page):
        self.assertEmpty(self.problems)
        self.assertTrue(page.is_hidden("#problem"))
        self._expect_pictures_drawn(page)

    def _expect_pictures_drawn(self, page):
        broken = "[...document.images].filter((i) => i.checkVisibility() && "
        broken += "!i.naturalWidth).length"
        self.assertEqual(page.evaluate(broken), 0)

    def _expect_alert(self, page):
        alert = page.get_by_role("alert")
        sync_api.expect(alert).to_contain_text("Expected a whole image file")
        return alert

    def _attacked(self, page):
        picture = page.locator(".network .attacked .picture").first
        return picture.get_attribute("src")

    @parameterized.product(width=_WIDTHS, scheme=("light", "dark"))
    def test_the_slider_changes_the_attacked_picture(self, width, scheme):
        page = self._open(width=width, scheme=scheme)
        seen = [self._attacked(page)]
        clean = page.locator(".network .clean .picture").first
        slider = page.get_by_label("Strength of the attack")
        slider.focus()
        for epsilon in ("4/255", "2/255", "1/255", "0, no attack"):
            page.keyboard.press("ArrowLeft")
            self._expect_status(page, f"ε = {epsilon}")
            seen.append(self._attacked(page))
        self.assertLen({*seen}, 5)
        self.assertEqual(seen[-1], clean.get_attribute("src"))
        self.assertEqual(slider.get_attribute("aria-valuetext"), "0, no attack")
        self._expect_no_problem(page)
        wide, screen = page.evaluate(
            "[document.documentElement.scrollWidth, innerWidth]"
        )
        self.assertLessEqual(wide, screen)
        found = page.evaluate(chromium.TOO_FAINT)
        self.assertGreater(found["count"], 40)
        self.assertEmpty(found["faint"])
        own = f"http://127.0.0.1:{self.port}/"
        for url in self.requests:
            self.assertTrue(url.startswith((own, "data:")), url)
        path = pathlib.Path(tempfile.mkdtemp()) / f"{width}-{scheme}.png"
        page.screenshot(path=path, full_page=True)
        print(f"screenshot: {path}")

    def test_pictures_and_classes_are_chosen_by_keyboard(self):
        page = self._open()
        before = self._attacked(page)
        checked = page.locator("input[name=sample]:checked")
        checked.focus()
        page.keyboard.press("ArrowRight")
        name = page.locator("input[name=sample]:checked + img")
        self._expect_status(page, name.get_attribute("alt"))
        self.assertNotEqual(self._attacked(page), before)
        of_map = page.locator(".network .clean .map").first
        page.get_by_label("Map of the class").select_option("7")
        sync_api.expect(of_map).to_have_attribute(
            "alt", "Map of what speaks for 7"
        )
        page.get_by_label("Show the maps").uncheck()
        self.assertFalse(of_map.is_visible())
        self._expect_no_problem(page)

    def test_a_picture_of_ones_own(self):
        page = self._open()
        noise = np.random.default_rng(0).integers(0, 256, (1500, 900, 3))
        file = pictures.file(noise.astype(np.uint8), "JPEG")
        given = {"name": "a.jpg", "mimeType": "image/jpeg"}
        page.locator("#file").set_input_files({**given, "buffer": file})
        self._expect_status(page, "your own picture")
        self.assertTrue(page.is_visible("#own"))
        self._expect_no_problem(page)
        page.locator("#file").set_input_files({**given, "buffer": b"junk"})
        alert = self._expect_alert(page)
        # The browser's own line on the answer 400 is no error of the page.
        self.assertLen(self.problems, 1)
        sync_api.expect(alert).to_contain_text("'a.jpg'")
        # The picture before it is the one that is shown and chosen.
        self.problems.clear()
        self.assertTrue(page.is_checked("#own input"))
        page.locator("#maps").uncheck()
        self._expect_pictures_drawn(page)
        page.locator("input[name=sample]").first.check()
        sync_api.expect(alert).to_be_hidden(timeout=_SECONDS)

    def test_a_refused_picture_leaves_the_page_as_it_was(self):
        page = self._open()
        before = page.locator("input[name=sample]:checked").input_value()
        page.locator("#file").set_input_files(
            {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"junk"}
        )
        self._expect_alert(page)
        self.assertTrue(page.is_hidden("#own"))
        chosen = page.locator("input[name=sample]:checked").input_value()
        self.assertEqual(chosen, before)
        self._expect_pictures_drawn(page)

    def test_it_says_that_it_computes(self):
        page = self._open()
        page.route("**/answer*", lambda route: None)  # no answer comes
        page.locator("#epsilon").press("ArrowLeft")
        sync_api.expect(page.locator("#busy")).to_contain_text("Attacking 2")
        self.assertTrue(page.locator("#busy").is_visible())

    def test_a_program_that_has_gone_is_asked_once(self):
        """The picture on the page is one's own, and the slider moves."""
        page = self._open()
        page.evaluate(_HANDED, ["drop", [*_red(60)]])
        self._expect_status(page, "your own picture")
        asked = []

        def gone(route):
            asked.append(route.request.url)
            route.abort()

        page.route("**/answer*", gone)
        page.locator("#epsilon").press("ArrowLeft")
        sync_api.expect(page.locator("#problem")).to_contain_text("not running")
        sync_api.expect(page.locator("#busy")).to_be_hidden()
        self.assertLen(asked, 1)

    def test_pictures_are_dropped_and_pasted(self):
        page = self._open()
        clean = page.locator(".network .clean .picture").first
        for kind, level in (("drop", 60), ("paste", 200)):
            before = clean.get_attribute("src")
            page.evaluate(_HANDED, [kind, [*_red(level)]])
            sync_api.expect(clean).not_to_have_attribute("src", before)
            self._expect_status(page, "your own picture")
        self._expect_no_problem(page)

    def test_the_exported_page_works_offline(self):
        text = demo_page.exported(*demo_runs.demo())
        path = pathlib.Path(tempfile.mkdtemp()) / "index.html"
        path.write_text(text, encoding="utf-8")
        page = self._open(path.as_uri(), width=390)
        before = self._attacked(page)
        page.locator("#epsilon").focus()
        page.keyboard.press("End")
        self._expect_status(page, "ε = 16/255")
        self.assertNotEqual(self._attacked(page), before)
        self._expect_no_problem(page)
        outside = [u for u in self.requests if not u.startswith("data:")]
        self.assertEqual(outside, [path.as_uri()])
