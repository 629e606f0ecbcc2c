"""Folder names are read as versions; the policy says which are served."""

import itertools

from absl.testing import absltest, parameterized
from google.protobuf import text_format
from tensorflow_serving.config import file_system_storage_path_source_pb2

from serving.server.versions import policy as version_policy
from serving.server.versions.policy import (
    AVAILABLE,
    END,
    LOADING,
    START,
    UNLOADING,
    Version,
)


def policy(text):
    config = file_system_storage_path_source_pb2
    message = config.FileSystemStoragePathSourceConfig.ServableVersionPolicy()
    return text_format.Parse(text, message)


def versions(*rows):
    return [
        Version("m", number, f"/m/{number}", state, wanted)
        for number, state, wanted in rows
    ]


class FoldersTest(absltest.TestCase):
    def test_other_folders_are_left_out(self):
        names = ["1", "0002", str(2**63 - 1)]
        others = [str(2**63), "", "-1", "+1", "1 ", "1\n", "1.0", "1_0", "٣"]
        others += ["²", ".3", "3.tmp", "variables"]
        self.assertEqual(
            version_policy.folders_by_version([*names, *others]),
            {1: "1", 2: "0002", 2**63 - 1: names[2]},
        )

    def test_of_two_names_for_a_version_the_last_counts(self):
        for names in itertools.permutations(["7", "007", "07"]):
            self.assertEqual(version_policy.folders_by_version(names), {7: "7"})


class WantedTest(parameterized.TestCase):
    @parameterized.parameters(
        ("", {10}),
        ("latest {}", {10}),
        ("latest { num_versions: 0 }", {10}),
        ("latest { num_versions: 2 }", {9, 10}),
        ("latest { num_versions: 7 }", {2, 9, 10}),
        ("all {}", {2, 9, 10}),
        ("specific { versions: 2 versions: 10 }", {2, 10}),
        ("specific { versions: 3 versions: 9 }", {9}),
        ("specific { versions: 3 }", set()),
        ("specific {}", set()),
    )
    def test_choice(self, text, expected):
        for present in itertools.permutations([2, 9, 10]):
            self.assertEqual(
                version_policy.wanted_versions(policy(text), present), expected
            )


class NextTest(parameterized.TestCase):
    @parameterized.named_parameters(
        ("nothing", [], None),
        ("wanted", [(1, AVAILABLE, True)], None),
        ("withdrawn", [(1, AVAILABLE, False)], 1),
        (
            "successor_not_begun",
            [(1, AVAILABLE, False), (2, START, True)],
            None,
        ),
        (
            "successor_loading",
            [(1, AVAILABLE, False), (2, LOADING, True)],
            None,
        ),
        ("successor_failed", [(1, AVAILABLE, False), (2, END, True)], None),
        ("successor_came", [(1, AVAILABLE, False), (2, AVAILABLE, True)], 1),
        (
            "older_successor_came",
            [(1, AVAILABLE, True), (2, AVAILABLE, False)],
            2,
        ),
        (
            "one_of_two_stays",
            [(1, AVAILABLE, False), (2, AVAILABLE, False), (3, LOADING, True)],
            1,
        ),
        (
            "already_unloading",
            [(1, UNLOADING, False), (2, AVAILABLE, True)],
            None,
        ),
        ("failed_and_withdrawn", [(1, AVAILABLE, False), (2, END, False)], 1),
    )
    def test_unload(self, rows, expected):
        self.assertEqual(number(version_policy.next_unload, rows), expected)

    def test_unloading_never_takes_the_last_answer(self):
        """All combinations of three versions: a model that is wanted stays."""
        states = (START, LOADING, AVAILABLE, UNLOADING, END)
        choices = list(itertools.product(states, (True, False)))
        for combination in itertools.product(choices, repeat=3):
            rows = [(i, *choice) for i, choice in enumerate(combination)]
            mine = versions(*rows)
            before = [v for v in mine if v.state == AVAILABLE]
            while (old := version_policy.next_unload(mine)) is not None:
                self.assertFalse(old.wanted)
                old.state = UNLOADING
            after = [v for v in mine if v.state == AVAILABLE]
            if any(v.wanted for v in mine) and before:
                self.assertNotEmpty(after)
                self.assertLessEqual(sum(not v.wanted for v in after), 1)
            elif before:
                self.assertEmpty(after)


def number(function, rows):
    version = function(versions(*rows))
    return None if version is None else version.number
