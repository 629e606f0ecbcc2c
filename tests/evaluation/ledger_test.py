"""The ledger: groups whole or not at all, other evaluations' lines apart."""

import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from atat_tf.errors import InputError
from atat_tf.evaluation import ledger

_IDENTITY = {
    "weights": "sha256:1",
    "data": "some, test",
    "bn_eval": "frozen",
    "seed": 0,
    "batch": None,
}


def _lines(*indices):
    return [{"index": i, "broken": i % 2 == 0} for i in indices]


class LedgerTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        folder = self.enter_context(tempfile.TemporaryDirectory())
        self.path = pathlib.Path(folder) / ledger.FILE

    def _open(self, **changed):
        return ledger.Ledger(self.path, {**_IDENTITY, **changed})

    def test_what_was_written_is_read(self):
        first = self._open()
        first.append("a", _lines(0, 1))
        first.append("b", _lines(5))
        for book in (first, self._open()):
            self.assertEqual(set(book.verdicts("a")), {0, 1})
            self.assertTrue(book.verdicts("a")[0]["broken"])
            self.assertEqual(set(book.verdicts("b")), {5})
            self.assertEmpty(book.verdicts("c"))

    def test_a_line_says_all_that_its_verdict_depends_on(self):
        self._open().append("a", _lines(3))
        line = json.loads(self.path.read_text())
        self.assertEqual(
            line,
            {
                "index": 3,
                "broken": False,
                "attack": "a",
                "group": [3, 1],
                **_IDENTITY,
            },
        )

    @parameterized.parameters(
        {"weights": "sha256:2"},
        {"data": "other, test"},
        {"bn_eval": "batch"},
        {"seed": 1},
        {"batch": [100, 200]},
    )
    def test_lines_of_another_evaluation_are_not_read(self, **changed):
        self._open(**changed).append("a", _lines(0))
        self.assertEmpty(self._open().verdicts("a"))
        # And they stay.
        self._open().append("a", _lines(1))
        self.assertEqual(set(self._open(**changed).verdicts("a")), {0})

    def test_every_cut_leaves_whole_groups(self):
        """As a kill may leave the file, at any byte."""
        book = self._open()
        book.append("a", _lines(0, 1, 2))
        book.append("a", _lines(3, 4))
        content = self.path.read_bytes()
        first_group = content.index(b'"index": 3') - 1
        for length in range(0, len(content) + 1, 7):
            self.path.write_bytes(content[:length])
            known = set(self._open().verdicts("a"))
            self.assertIn(known, [set(), {0, 1, 2}, {0, 1, 2, 3, 4}])
            self.assertEqual(len(known) >= 3, length >= first_group - 1)
            # What is missing is written again and read.
            again = self._open()
            again.append("a", _lines(0, 1, 2))
            again.append("a", _lines(3, 4))
            self.assertLen(self._open().verdicts("a"), 5)

    def test_later_lines_win(self):
        book = self._open()
        book.append("a", [{"index": 0, "broken": False}])
        book.append("a", [{"index": 0, "broken": True}])
        self.assertTrue(self._open().verdicts("a")[0]["broken"])

    def test_packed_lines_are_read_and_added_to(self):
        whole = self._open()
        whole.append("a", _lines(0, 1, 2))
        self._open(seed=1).append("a", _lines(4))
        with open(self.path, "a") as file:
            file.write('{"index": 9, "attack": "a", "gro')
        folder = self.path.parent
        self.assertEqual(ledger.pack(folder, folder), 4)
        self.path.unlink()
        self.assertTrue(ledger.is_in(folder))
        book = self._open()
        self.assertEqual(book.verdicts("a"), whole.verdicts("a"))
        self.assertEqual(set(self._open(seed=1).verdicts("a")), {4})
        # What is new stands in the plain file; packing again joins both.
        book.append("a", [{"index": 2, "broken": False}])
        self.assertLen(self.path.read_text().splitlines(), 1)
        self.assertEqual(ledger.pack(folder, folder), 5)
        self.path.unlink()
        self.assertFalse(self._open().verdicts("a")[2]["broken"])

    def test_the_same_line_is_packed_once_and_the_last_one_wins(self):
        book = self._open()
        for broken in (True, False, True):
            book.append("a", [{"index": 0, "broken": broken}])
        folder = self.path.parent
        self.assertEqual(ledger.pack(folder, folder), 2)
        self.path.unlink()
        self.assertTrue(self._open().verdicts("a")[0]["broken"])

    @parameterized.parameters(b"no xz at all", b"")
    def test_a_packed_file_that_is_none_is_named(self, content):
        packed = self.path.with_name(ledger.PACKED)
        packed.write_bytes(content)
        with self.assertRaisesRegex(InputError, "packed ledger.*jsonl.xz"):
            self._open()

    def test_what_is_no_ledger_is_passed_over(self):
        self.path.write_text('nonsense\n[1]\n{"index": 1}\n')
        self.assertEmpty(self._open().verdicts("a"))


if __name__ == "__main__":
    absltest.main()
