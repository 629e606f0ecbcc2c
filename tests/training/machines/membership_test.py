"""TF_CONFIG: what it names, and what is refused with which sentence."""

import json
import os
import pathlib
import socket
import tempfile
from unittest import mock

import tensorflow as tf
from absl.testing import parameterized

from atat_tf.data import batches as training_batches
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.training import build as training_build
from atat_tf.training import run as training_run
from atat_tf.training.machines import membership, workers
from tests.support import runs

_TWO = ["10.0.0.1:2222", "atat-0.atat:2222"]


def _read(jobs, kind="worker", index=0, **more):
    values = {"cluster": jobs, "task": {"type": kind, "index": index}, **more}
    return membership.from_environment({"TF_CONFIG": json.dumps(values)})


class ClusterTest(parameterized.TestCase):
    def test_without_tf_config_there_is_one(self):
        for environment in ({}, {"TF_CONFIG": ""}):
            alone = membership.from_environment(environment)
            self.assertEqual((alone.count, alone.is_chief), (1, True))
            self.assertEmpty(membership.Cluster().lost())

    def test_the_first_worker_is_the_chief(self):
        first, second = (_read({"worker": _TWO}, index=n) for n in (0, 1))
        self.assertEqual((first.count, first.is_chief), (2, True))
        self.assertEqual((second.mine, second.is_chief), (1, False))
        self.assertEqual(second.names([1]), "worker 1 (atat-0.atat:2222)")

    def test_a_chief_comes_before_the_workers(self):
        jobs = {"worker": _TWO, "chief": ["[::1]:2222"]}
        self.assertEqual(_read(jobs, "chief").mine, 0)
        second = _read(jobs, "worker", 1)
        self.assertEqual((second.mine, second.is_chief), (2, False))
        self.assertEqual(second.names([0]), "chief 0 ([::1]:2222)")

    @parameterized.parameters("{", "no", "'worker'")
    def test_no_json(self, text):
        with self.assertRaisesRegex(
            InputError, r"^Expected TF_CONFIG as .*Received: .*\(no JSON"
        ):
            membership.from_environment({"TF_CONFIG": text})

    @parameterized.parameters("[]", "{}", '{"cluster": {}}', '{"cluster": 3}')
    def test_without_its_two_parts(self, text):
        with self.assertRaisesRegex(InputError, "^Expected .*TF_CONFIG"):
            membership.from_environment({"TF_CONFIG": text})

    @parameterized.parameters(
        (({"worker": _TWO, "ps": ["a:1"]},), {}, "among chief, worker.*'ps'"),
        (({},), {}, "among chief, worker"),
        (({"worker": []},), {}, "an address of its own"),
        (({"worker": "a:1"},), {}, r'"cluster".*Received: worker=.a:1'),
        (({"worker": ["a:1", "a:1"]},), {}, "an address of its own"),
        (({"worker": ["a"]},), {}, "host:port.*address='a'"),
        (({"worker": ["a:99999"]},), {}, "host:port"),
        (({"worker": ["http://a:1"]},), {}, "host:port"),
        (({"worker": [7]},), {}, "host:port.*address=7"),
        (({"chief": _TWO},), {"kind": "chief"}, "one chief"),
        (({"worker": _TWO},), {"index": 2}, "among worker 0, worker 1.*=2"),
        (({"worker": _TWO},), {"index": True}, "task among"),
        (({"worker": _TWO},), {"index": "0"}, "task among"),
        (({"worker": _TWO},), {"kind": "evaluator"}, "type='evaluator'"),
    )
    def test_what_is_refused(self, jobs, task, message):
        with self.assertRaisesRegex(InputError, f"^Expected .*{message}"):
            _read(*jobs, **task)

    def test_who_does_not_answer_is_lost(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            here = f"127.0.0.1:{server.getsockname()[1]}"
            with socket.create_server(("127.0.0.1", 0)) as other:
                gone = f"127.0.0.1:{other.getsockname()[1]}"
            members = _read({"worker": ["127.0.0.1:9", here, gone]})
            self.assertEqual(members.lost(), [2])

    def test_the_command_makes_nothing_then(self):
        folder = pathlib.Path(tempfile.mkdtemp()) / "run"
        with (
            mock.patch.dict(os.environ, TF_CONFIG="nonsense"),
            self.assertRaisesRegex(InputError, "^Expected TF_CONFIG as "),
        ):
            training_run.train_and_evaluate(runs.config(), folder)
        self.assertFalse(folder.exists())


class WatchedTest(parameterized.TestCase):
    """The worker at port 1, where nobody listens, is lost."""

    def setUp(self):
        super().setUp()
        patched = mock.patch.object(membership, "_LINGER_SECONDS", 0)
        self.enter_context(patched)

    def test_a_failed_operation_names_who_is_lost(self):
        cluster = _read({"worker": ["127.0.0.1:9", "127.0.0.1:1"]})
        with (
            self.assertRaisesRegex(
                ConnectionError, r"all 2 workers.*worker 1 \(127.0.0.1:1\)"
            ),
            membership.watched(cluster),
        ):
            raise tf.errors.UnavailableError(None, None, "gone")

    def test_where_all_answer_the_error_tells(self):
        """Another worker that hangs, or this one's own failure."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            here = f"127.0.0.1:{server.getsockname()[1]}"
            cluster = _read({"worker": ["127.0.0.1:9", here]})
            for number, expected in (
                (1, ConnectionError),
                (0, tf.errors.InternalError),
            ):
                text = f"failed at /job:worker/replica:0/task:{number}"
                with self.assertRaises(expected), membership.watched(cluster):
                    raise tf.errors.InternalError(None, None, text)


class WorkerGroupTest(parameterized.TestCase, tf.test.TestCase):
    def test_more_devices_than_a_worker_has(self):
        with self.assertRaisesRegex(InputError, "this worker of several.*=99"):
            workers.build_strategy(_read({"worker": _TWO}), 99)

    @parameterized.parameters((8, 1), (8, 3), (7, 7), (128, 6))
    def test_parts_cover_a_batch_without_overlap(self, batch_size, count):
        parts = workers.parts(batch_size, count)
        self.assertLen(parts, count)
        covered = [n for start, stop in parts for n in range(start, stop)]
        self.assertEqual(covered, list(range(batch_size)))
        sizes = [stop - start for start, stop in parts]
        self.assertLessEqual(max(sizes) - min(sizes), 1)

    def test_alone_nothing_is_asked_of_anybody(self):
        group = workers.WorkerGroup(training_build.build_strategy())
        self.assertTrue(group.is_chief)
        self.assertAllEqual(group.sum([3, 4]), [3, 4])
        group.expect_same("anything")
        split = datasets.load("digits").train.take(20)

        def make_batches(parts):
            self.assertIsNone(parts)
            return training_batches.batches(split, 8, 0, 0, 2, False, parts)

        sizes = [len(labels) for _, labels in group.batches(make_batches, 8)]
        self.assertEqual(sizes, [8, 8])
