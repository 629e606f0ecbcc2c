"""Radii as fractions."""

from absl.testing import parameterized

from atat_tf.attacks import radii
from atat_tf.errors import InputError


class RadiiTest(parameterized.TestCase):
    @parameterized.parameters(
        ("8/255", 8 / 255), ("0.031", 0.031), (" 1 / 4 ", 0.25), (0.5, 0.5)
    )
    def test_parsed(self, text, value):
        self.assertEqual(radii.parsed(text), value)

    @parameterized.parameters("0", "8/0", "8/", "/255", "-1/255", "x", "1/2/3")
    def test_refused(self, text):
        with self.assertRaisesRegex(InputError, "above 0.*Received: radius="):
            radii.parsed(text)

    @parameterized.parameters("8/255", "0.5/255", "16/255")
    def test_written_as_it_was_read(self, text):
        self.assertEqual(radii.written(radii.parsed(text)), text)

    def test_other_numbers_are_written_whole(self):
        self.assertEqual(radii.written(0.0312345), "0.0312345")
