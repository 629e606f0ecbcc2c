"""Prometheus metrics: names, labels, buckets and counts."""

import asyncio
import contextlib
import time
import types

from absl.testing import absltest
from prometheus_client import parser

from serving.server import inference, metrics


def _samples(recorded):
    """Returns {(name without prefix, labels): value}."""
    page = recorded.text().decode()
    return {
        (
            sample.name.removeprefix(":tensorflow:serving:"),
            *sorted(sample.labels.items()),
        ): sample.value
        for family in parser.text_string_to_metric_families(page)
        for sample in family.samples
    }


class MetricsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.metrics = metrics.Metrics(lambda: {"m"}, lambda: 3)

    def test_a_request(self):
        self.metrics.request("m", "Predict", "REST", "OK", 25e-6)
        page = self.metrics.text().decode()
        self.assertIn(
            ':tensorflow:serving:request_count{model_name="m",status="OK"} 1.0',
            page,
        )
        self.assertNotIn("created", page)
        samples = _samples(self.metrics)
        labels = [
            ("API", "predict"),
            ("entrypoint", "REST"),
            ("model_name", "m"),
        ]
        # 25 microseconds: over 18, under 18 · 1.8 = 32.4.
        for limit, count in (("10.0", 0), ("18.0", 0), ("32.4", 1)):
            key = "request_latency_bucket", *sorted([*labels, ("le", limit)])
            self.assertEqual(samples[key], count)
        self.assertEqual(samples["request_latency_sum", *labels], 25)
        self.assertEqual(samples["request_latency_count", *labels], 1)

    def test_a_call_that_is_cancelled_at_its_deadline_has_met_it(self):
        core = types.SimpleNamespace(metrics=self.metrics)
        begin = time.monotonic()
        for deadline in (begin, begin + 60, None):
            with contextlib.suppress(asyncio.CancelledError):
                with inference.Inference.counted(
                    core, "m", "Predict", "GRPC", deadline
                ):
                    raise asyncio.CancelledError
        page = self.metrics.text().decode()
        for status, count in (("DEADLINE_EXCEEDED", 1), ("CANCELLED", 2)):
            self.assertIn(f'model_name="m",status="{status}"}} {count}.0', page)

    def test_runtime(self):
        self.metrics.runtime("m", "Predict", 2)
        labels = [("API", "Predict"), ("model_name", "m"), ("runtime", "TF1")]
        samples = _samples(self.metrics)
        self.assertEqual(samples["runtime_latency_sum", *labels], 2e6)
        buckets = [key for key in samples if key[0] == "runtime_latency_bucket"]
        self.assertLen(buckets, 34)

    def test_unknown_models_share_a_name(self):
        for name in ("x", "y", "m", ""):
            self.metrics.request(name, "Predict", "GRPC", "NOT_FOUND", 1)
        counted = {
            dict(key[1:])["model_name"]: value
            for key, value in _samples(self.metrics).items()
            if key[0] == "request_count_total"
        }
        self.assertEqual(counted, {"_unknown_": 2, "m": 1, "": 1})

    def test_calls_in_progress_are_read_when_asked(self):
        samples = _samples(self.metrics)
        self.assertEqual(samples[":atat:serving:requests_in_progress",], 3)
