"""The report in headless Chromium: works, by keyboard too, and can be read."""

import functools
import pathlib
import tempfile

from absl.testing import parameterized

from atat_tf.reports.page import page as report_page
from tests.reports.page import report_runs
from tests.support import chromium

_DESKTOP = {"width": 1280, "height": 900}
_PHONE = {"width": 360, "height": 740}
_NUM_IMAGES = 48

# Everything that the Tab key should reach, in order.
_FOCUSABLE = """() => [...document.querySelectorAll(
    'a[href], button, select, input, summary, [tabindex="0"]')]
  .filter((e) => e.checkVisibility())
  .map((e, i) => (e.dataset.order = i))"""

# Whether the pictures of what was added show anything, or nothing at all.
_ADDED = """(anything) => [...document.querySelectorAll('[data-role=added]')]
  .every((canvas) => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const context = copy.getContext('2d', {willReadFrequently: true});
    context.drawImage(canvas, 0, 0);
    const {data} = context.getImageData(0, 0, copy.width, copy.height);
    return data.some((v, i) => i % 4 < 3 && v !== 128) === anything;
  })"""

# Shown tiles, by the numbers of their images.
_SHOWN = """() => [...document.querySelectorAll('.tile')]
  .filter((tile) => tile.checkVisibility())
  .map((tile) => Number(tile.id.slice(6)))"""


@functools.cache
def _page_file():
    """Returns the file of a report."""
    text = report_page.page(report_runs.evaluated(), None, _NUM_IMAGES)
    path = pathlib.Path(tempfile.mkdtemp()) / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


class ReportTest(chromium.BrowserTest):
    def _open(self, viewport=_DESKTOP, scheme="light", **options):
        """Returns the report's page, offline."""
        options |= {"viewport": viewport, "color_scheme": scheme}
        return self.opened(_page_file().as_uri(), offline=True, **options)

    def test_it_says_nothing_and_asks_for_nothing(self):
        page = self._open()
        page.click("#all-maps")
        page.wait_for_timeout(200)
        self.assertEmpty(self.problems)
        outside = [u for u in self.requests if not u.startswith("data:")]
        self.assertEqual(outside, [_page_file().as_uri()])
        broken = page.evaluate(
            "[...document.images].filter((i) => !i.naturalWidth).length"
        )
        self.assertEqual(broken, 0)

    def test_filters(self):
        page = self._open()
        tiles = page.evaluate(
            "[...document.querySelectorAll('.tile')].map((tile) => ({"
            "label: tile.dataset.class, "
            "word: tile.getAttribute('data-verdict-1')}))"
        )
        everything = list(range(_NUM_IMAGES))
        self.assertEqual(page.evaluate(_SHOWN), everything)

        page.select_option("#filter-verdict-1", "broken")
        broken = [n for n in everything if tiles[n]["word"] == "broken"]
        self.assertBetween(len(broken), 2, _NUM_IMAGES - 1)
        self.assertEqual(page.evaluate(_SHOWN), broken)
        count = page.inner_text("#count")
        self.assertEqual(count, f"{len(broken)} of 48 images")

        label = tiles[broken[0]]["label"]
        page.select_option("#filter-class", label)
        both = [n for n in broken if tiles[n]["label"] == label]
        self.assertLess(len(both), len(broken))
        self.assertEqual(page.evaluate(_SHOWN), both)

        page.click("button[type=reset]")
        page.wait_for_function(
            "document.getElementById('count').textContent.startsWith('48')"
        )
        self.assertEqual(page.evaluate(_SHOWN), everything)
        self.assertEmpty(self.problems)

    def test_tab_reaches_every_control_and_reveals_every_map(self):
        page = self._open()
        expected = page.evaluate(_FOCUSABLE)
        self.assertGreater(len(expected), _NUM_IMAGES + 10)
        reached, shown, hidden = [], 0, []
        for _ in expected:
            page.keyboard.press("Tab")
            order, opacity, outline, others = page.evaluate(
                """() => {
                  const e = document.activeElement, map = e.querySelector(
                    ':scope.reveal .map');
                  const opacity = (m) => getComputedStyle(m).opacity;
                  return [Number(e.dataset.order), map && opacity(map),
                    getComputedStyle(e).outlineStyle,
                    [...document.querySelectorAll('.reveal .map')]
                      .filter((m) => opacity(m) > 0).length];
                }"""
            )
            reached.append(order)
            self.assertEqual(outline, "solid", order)  # focus can be seen
            shown += opacity == "1"
            hidden.append(others == (2 if opacity else 0))
        self.assertEqual(reached, expected)
        self.assertEqual(shown, _NUM_IMAGES)
        self.assertTrue(all(hidden))

    def test_a_map_is_revealed_by_pointing_and_kept_by_pressing(self):
        page = self._open()
        opacity = (
            "getComputedStyle(document.querySelector('#image-3 .map')).opacity"
        )
        self.assertEqual(page.evaluate(opacity), "0")
        page.hover("#image-3 .reveal")
        self.assertEqual(page.evaluate(opacity), "1")
        page.hover("h1")
        self.assertEqual(page.evaluate(opacity), "0")
        for pressed, expected in (("true", "1"), ("false", "0")):
            page.focus("#image-3 .reveal")
            page.keyboard.press("Enter")
            page.focus("#filter-class")
            self.assertEqual(
                page.get_attribute("#image-3 .reveal", "aria-pressed"), pressed
            )
            self.assertEqual(page.evaluate(opacity), expected)

    def test_the_radius_changes_the_pictures_and_the_swipe_uncovers_them(self):
        page = self._open(_PHONE)
        sources = (
            "[...document.querySelectorAll('[data-role=attacked]')]"
            ".map((image) => image.src)"
        )
        own = page.evaluate(sources)
        page.wait_for_function(_ADDED, arg=True)
        clean = page.get_attribute(".looks .picture", "src")
        page.focus("#strip-radius")
        page.keyboard.press("Home")
        self.assertEqual(page.inner_text("#strip-epsilon"), "0/255")
        self.assertEqual(page.evaluate(sources)[0], clean)
        self.assertNotEqual(own[0], clean)
        page.wait_for_function(_ADDED, arg=False)
        before, now = page.locator(".looks .verdict").all_inner_texts()[:2]
        self.assertEqual(before, now)
        page.keyboard.press("End")
        page.wait_for_function(_ADDED, arg=True)
        self.assertNotIn(page.evaluate(sources)[0], (own[0], clean))
        clip = "getComputedStyle(document.querySelector('.over')).clipPath"
        self.assertIn("100%", page.evaluate(clip))
        page.focus("#strip-swipe")
        page.keyboard.press("End")
        self.assertIn("0%", page.evaluate(clip))
        attacked = page.locator("[data-role=attacked]").first.bounding_box()
        self.assertLessEqual(attacked["x"] + attacked["width"], 360)
        self.assertEmpty(self.problems)

    @parameterized.product(
        viewport=(_DESKTOP, _PHONE), scheme=("light", "dark")
    )
    def test_it_can_be_read(self, viewport, scheme):
        page = self._open(viewport, scheme)
        page.evaluate(
            "document.querySelectorAll('details').forEach(d => d.open = true)"
        )
        found = page.evaluate(chromium.TOO_FAINT)
        self.assertGreater(found["count"], 300)
        self.assertEmpty(found["faint"])
        # The page itself never scrolls sideways; wide tables do in their box.
        wide, screen = page.evaluate(
            "[document.documentElement.scrollWidth, innerWidth]"
        )
        self.assertLessEqual(wide, screen)
        name = f"{viewport['width']}-{scheme}.png"
        path = pathlib.Path(tempfile.mkdtemp()) / name
        page.screenshot(path=path, full_page=True)
        print(f"screenshot: {path}")
        page.evaluate("document.querySelector('h1').style.color = '#777b'")
        found = page.evaluate(chromium.TOO_FAINT)
        self.assertEqual([tag for tag, *_ in found["faint"]], ["H1"])

    def test_without_scripts_all_images_are_there(self):
        page = self._open(java_script_enabled=False)
        self.assertTrue(page.is_visible("#image-47"))
        self.assertFalse(page.is_visible("#filters"))
