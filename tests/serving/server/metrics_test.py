"""Prometheus metrics: names, labels, buckets and counts."""

import threading

from absl.testing import absltest, parameterized
from prometheus_client import parser

from serving.server import metrics

_LATENCY = ":tensorflow:serving:request_latency"
_REST = '{model_name="m",API="predict",entrypoint="REST"'


def _lines(recorded):
    return recorded.text().decode().splitlines()


class MetricsTest(parameterized.TestCase):
    def test_an_unused_server_has_names_only(self):
        self.assertEqual(
            _lines(metrics.Metrics()),
            [
                "# TYPE :atat:serving:requests_in_progress gauge",
                "# TYPE :tensorflow:serving:request_count counter",
                "# TYPE :tensorflow:serving:request_example_count_total "
                "counter",
                "# TYPE :tensorflow:serving:request_example_counts histogram",
                "# TYPE :tensorflow:serving:request_latency histogram",
                "# TYPE :tensorflow:serving:runtime_latency histogram",
            ],
        )

    def test_a_request(self):
        recorded = metrics.Metrics()
        recorded.request("m", "Predict", "REST", "OK", 25e-6)
        lines = _lines(recorded)
        self.assertIn(
            ':tensorflow:serving:request_count{model_name="m",status="OK"} 1',
            lines,
        )
        # 25 microseconds: over 18, under 18 · 1.8 = 32.4.
        for limit, count in (("10", 0), ("18", 0), ("32.4", 1), ("58.32", 1)):
            self.assertIn(
                f'{_LATENCY}_bucket{_REST},le="{limit}"}} {count}', lines
            )
        self.assertIn(f"{_LATENCY}_sum{_REST}}} 25", lines)
        self.assertIn(f"{_LATENCY}_count{_REST}}} 1", lines)
        self.assertFalse([line for line in lines if "created" in line])

    def test_limits_of_latency(self):
        recorded = metrics.Metrics()
        recorded.runtime("m", "Predict", 1)
        limits = [
            line.split('le="')[1].split('"')[0]
            for line in _lines(recorded)
            if "_bucket" in line
        ]
        # 10 · 1.8^i for i from 0 to 32, in six digits.
        self.assertEqual(limits[:4], ["10", "18", "32.4", "58.32"])
        self.assertEqual(limits[19:21], ["708235", "1.27482e+06"])
        self.assertEqual(limits[32:], ["1.47476e+09", "+Inf"])
        self.assertLen(limits, 34)

    def test_a_value_on_a_limit_counts_above_it(self):
        recorded = metrics.Metrics()
        recorded.request("m", "Predict", "REST", "OK", 10e-6)
        recorded.examples("m", 4)
        lines = _lines(recorded)
        self.assertIn(f'{_LATENCY}_bucket{_REST},le="10"}} 0', lines)
        self.assertIn(f'{_LATENCY}_bucket{_REST},le="18"}} 1', lines)
        counts = ":tensorflow:serving:request_example_counts_bucket"
        self.assertIn(counts + '{model="m",le="4"} 0', lines)
        self.assertIn(counts + '{model="m",le="8"} 1', lines)

    def test_failures_have_no_latency(self):
        recorded = metrics.Metrics()
        recorded.request("m", "Predict", "GRPC", "NOT_FOUND", 1)
        lines = _lines(recorded)
        self.assertIn(
            ':tensorflow:serving:request_count{model_name="m",'
            'status="NOT_FOUND"} 1',
            lines,
        )
        self.assertFalse([line for line in lines if "_bucket" in line])

    @parameterized.parameters(("GRPC", "Predict"), ("REST", "predict"))
    def test_api_is_written_as_its_protocol_does(self, entrypoint, api):
        recorded = metrics.Metrics()
        recorded.request("m", "Predict", entrypoint, "OK", 1)
        self.assertIn(
            f'{_LATENCY}_count{{model_name="m",API="{api}",'
            f'entrypoint="{entrypoint}"}} 1',
            _lines(recorded),
        )

    def test_runtime(self):
        recorded = metrics.Metrics()
        recorded.runtime("m", "Classify", 1.5)
        self.assertIn(
            ':tensorflow:serving:runtime_latency_sum{model_name="m",'
            'API="Classify",runtime="TF1"} 1500000',
            _lines(recorded),
        )

    def test_examples(self):
        recorded = metrics.Metrics()
        recorded.examples("m", 3)
        recorded.examples("m", 40000)
        lines = _lines(recorded)
        name = ":tensorflow:serving:request_example_count"
        self.assertIn(name + '_total{model="m"} 40003', lines)
        self.assertIn(name + 's_bucket{model="m",le="2"} 0', lines)
        self.assertIn(name + 's_bucket{model="m",le="16384"} 1', lines)
        self.assertIn(name + 's_bucket{model="m",le="+Inf"} 2', lines)

    def test_unknown_models_share_a_name(self):
        known = {"m"}
        recorded = metrics.Metrics(lambda: known)
        for i in range(1000):
            recorded.request(f"m{i}", "Predict", "GRPC", "NOT_FOUND", 1)
            recorded.runtime(f"m{i}", "Predict", 1)
            recorded.examples(f"m{i}", 1)
        text = recorded.text().decode()
        self.assertIn('{model_name="_unknown_",status="NOT_FOUND"} 1000', text)
        self.assertLess(len(text), 20_000)
        known.add("m1")
        recorded.request("m1", "Predict", "GRPC", "OK", 1)
        recorded.request("", "", "REST", "OK", 1)
        text = recorded.text().decode()
        self.assertIn('{model_name="m1",status="OK"} 1', text)
        self.assertIn('{model_name="",status="OK"} 1', text)

    def test_calls_in_progress_are_read_when_asked(self):
        recorded, calls = metrics.Metrics(), [1, 2]
        recorded.in_progress("REST", lambda: len(calls))
        line = ':atat:serving:requests_in_progress{entrypoint="REST"} '
        self.assertIn(line + "2", _lines(recorded))
        calls.pop()
        self.assertIn(line + "1", _lines(recorded))

    def test_prometheus_reads_it(self):
        recorded = metrics.Metrics()
        name = 'a"b\\c\nd'
        recorded.request(name, "Predict", "GRPC", "OK", 20e-6)
        recorded.runtime(name, "Predict", 1)
        recorded.examples(name, 1)
        recorded.in_progress("GRPC", lambda: 3)
        families = {
            family.name: family
            for family in parser.text_string_to_metric_families(
                recorded.text().decode()
            )
        }
        latency = families[_LATENCY]
        self.assertEqual(latency.type, "histogram")
        sample = next(s for s in latency.samples if s.name.endswith("_count"))
        labels = {"model_name": name, "API": "Predict", "entrypoint": "GRPC"}
        self.assertEqual((sample.labels, sample.value), (labels, 1))
        self.assertEqual(
            {family.type for family in families.values()},
            {"counter", "gauge", "histogram"},
        )
        self.assertLen(families, 6)

    def test_threads_lose_nothing(self):
        recorded = metrics.Metrics()

        def record():
            for _ in range(500):
                recorded.request("m", "Predict", "REST", "OK", 1)

        threads = [threading.Thread(target=record) for _ in range(8)]
        for thread in threads:
            thread.start()
        recorded.text()
        for thread in threads:
            thread.join()
        lines = _lines(recorded)
        self.assertIn(f"{_LATENCY}_count{_REST}}} 4000", lines)
        self.assertIn(f'{_LATENCY}_bucket{_REST},le="+Inf"}} 4000', lines)


if __name__ == "__main__":
    absltest.main()
