"""Counts and latencies under TensorFlow Serving's names, for Prometheus.

Dashboards and alerts made for TensorFlow Serving read them unchanged: names,
labels and buckets are its own.
"""

from collections.abc import Callable, Collection

import prometheus_client
from prometheus_client import exposition

# Or each series would have a second one that tells when it began.
prometheus_client.disable_created_metrics()
# Microseconds: 10, 18, 32.4, ... up to 25 minutes; in six digits, as there.
_BUCKETS = tuple(float(f"{10 * 1.8**power:.6g}") for power in range(33))
_UNKNOWN = "_unknown_"
# The library ends each counter's name so; TensorFlow's has no ending.
_COUNTER, _SUFFIX = b":tensorflow:serving:request_count", b"_total"


class Metrics:
    """The metrics of one server; every method may be called by any thread."""

    def __init__(
        self,
        known_models: Callable[[], Collection[str]],
        in_progress: Callable[[], int],
    ):
        """Starts from zero.

        Args:
          known_models: names of the models that are configured. Others are
            counted as one, "_unknown_", or callers could fill the memory
            with names.
          in_progress: calls that run or wait; asked when metrics are read.
        """
        self._known_models = known_models
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            _COUNTER.decode(),
            "Calls by model and status.",
            ["model_name", "status"],
            registry=self._registry,
        )
        self._latency = self._histogram("request_latency", "entrypoint")
        self._runtime = self._histogram("runtime_latency", "runtime")
        self._monitored = self._counter("monitored_images", "Images.")
        self._above = self._counter(
            "attention_shift_above_limit",
            "Images whose attention is further from the teacher's than that "
            "of 99 in 100 clean ones.",
        )
        prometheus_client.Gauge(
            ":atat:serving:requests_in_progress",
            "Calls that run or wait.",
            registry=self._registry,
        ).set_function(in_progress)

    def request(
        self,
        model_name: str,
        api: str,
        entrypoint: str,
        status: str,
        seconds: float,
    ) -> None:
        """Counts a call, and its latency if it succeeded.

        Args:
          model_name: as asked for; "" if none was.
          api: "Predict"; "" for model status and metadata. REST's are written
            in lower case, as its paths are.
          entrypoint: "GRPC" or "REST".
          status: canonical code, such as "OK".
          seconds: from its arrival to its answer.
        """
        name = self._name(model_name)
        self._requests.labels(name, status).inc()
        if status == "OK":
            api = api.lower() if entrypoint == "REST" else api
            cell = self._latency.labels(name, api, entrypoint)
            cell.observe(int(seconds * 1e6))

    def runtime(self, model_name: str, api: str, seconds: float) -> None:
        """Counts one run of TensorFlow."""
        cell = self._runtime.labels(self._name(model_name), api, "TF1")
        cell.observe(int(seconds * 1e6))

    def monitored(self, model_name: str, images: int, above: int) -> None:
        """Counts images of `monitor`, and those above the model's limit."""
        name = self._name(model_name)
        self._monitored.labels(name).inc(images)
        self._above.labels(name).inc(above)

    def text(self) -> bytes:
        """Returns the page that Prometheus reads."""
        page = exposition.generate_latest(self._registry)
        return page.replace(_COUNTER + _SUFFIX, _COUNTER)

    def _name(self, model_name):
        known = not model_name or model_name in self._known_models()
        return model_name if known else _UNKNOWN

    def _counter(self, name, description):
        return prometheus_client.Counter(
            f":atat:serving:{name}",
            description,
            ["model_name"],
            registry=self._registry,
        )

    def _histogram(self, name, last_label):
        return prometheus_client.Histogram(
            f":tensorflow:serving:{name}",
            "Microseconds.",
            ["model_name", "API", last_label],
            buckets=_BUCKETS,
            registry=self._registry,
        )
