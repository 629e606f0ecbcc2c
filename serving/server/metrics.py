"""Counts and latencies under TensorFlow Serving's names, for Prometheus.

Dashboards and alerts made for TensorFlow Serving read them unchanged: names,
labels, buckets and the numbers' notation are its own.
"""

import math

import prometheus_client

# Microseconds: 10, 18, 32.4, ... up to 25 minutes.
_LATENCY = (10, 1.8, 33)
_EXAMPLES = (1, 2, 15)
_UNKNOWN = "_unknown_"


class Metrics:
    """The metrics of one server; every method may be called by any thread."""

    def __init__(self, known_models=None):
        """Starts from zero.

        Args:
          known_models: callable, no argument -> names of the models that are
            configured. Others are counted as one, "_unknown_", or callers
            could fill the memory with names. None lets all names in.
        """
        self._known_models = known_models
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = self._counter("request_count", "model_name", "status")
        self._example_total = self._counter(
            "request_example_count_total", "model"
        )
        self._examples = self._histogram(
            "request_example_counts", _EXAMPLES, "model"
        )
        self._latency = self._histogram(
            "request_latency", _LATENCY, "model_name", "API", "entrypoint"
        )
        self._runtime = self._histogram(
            "runtime_latency", _LATENCY, "model_name", "API", "runtime"
        )
        self._waiting = prometheus_client.Gauge(
            ":atat:serving:requests_in_progress",
            "Calls that wait for a thread or have one.",
            ["entrypoint"],
            registry=self._registry,
        )

    def request(self, model_name, api, entrypoint, status, seconds):
        """Counts a call, and its latency if it succeeded.

        Args:
          model_name: as asked for; "" if none was.
          api: "Predict", "Classify", "Regress"; "" for model status and
            metadata. REST's are written in lower case, as its paths are.
          entrypoint: "GRPC" or "REST".
          status: canonical code, such as "OK".
          seconds: from its arrival to its answer.
        """
        name = self._name(model_name)
        self._requests.labels(name, status).inc()
        if status == "OK":
            api = api.lower() if entrypoint == "REST" else api
            _observe(
                self._latency.labels(name, api, entrypoint), int(seconds * 1e6)
            )

    def runtime(self, model_name, api, seconds, runtime="TF1"):
        """Counts one run of TensorFlow."""
        cell = self._runtime.labels(self._name(model_name), api, runtime)
        _observe(cell, int(seconds * 1e6))

    def examples(self, model_name, count):
        """Counts the examples of one Classify or Regress call."""
        name = self._name(model_name)
        _observe(self._examples.labels(name), count)
        self._example_total.labels(name).inc(count)

    def in_progress(self, entrypoint, count):
        """Shows how many calls are waited for at the moment.

        Args:
          entrypoint: "GRPC" or "REST".
          count: callable, no argument -> int; asked when metrics are read.
        """
        self._waiting.labels(entrypoint).set_function(count)

    def text(self):
        """Returns the page that Prometheus reads, as bytes."""
        lines = []
        for family in sorted(self._registry.collect(), key=_family_name):
            lines.append(f"# TYPE {_family_name(family)} {family.type}")
            lines += [
                _line(sample)
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
        return ("\n".join(lines) + "\n").encode()

    def _name(self, model_name):
        if self._known_models is None or not model_name:
            return model_name
        return model_name if model_name in self._known_models() else _UNKNOWN

    def _counter(self, name, *labels):
        return prometheus_client.Counter(
            f":tensorflow:serving:{name}", name, labels, registry=self._registry
        )

    def _histogram(self, name, buckets, *labels):
        return prometheus_client.Histogram(
            f":tensorflow:serving:{name}",
            name,
            labels,
            buckets=_limits(*buckets),
            registry=self._registry,
        )


def _limits(scale, power, count):
    limits = [float(scale)]
    while len(limits) < count:
        limits.append(limits[-1] * power)
    return limits


def _observe(cell, value):
    # TensorFlow counts a value that equals a bucket's limit in the next one.
    cell.observe(math.nextafter(value, math.inf))


def _family_name(family):
    # The library takes _total off a counter's name and puts it on its samples.
    # TensorFlow has a counter with it and one without.
    has_total = family.name == ":tensorflow:serving:request_example_count"
    return family.name + "_total" if has_total else family.name


def _line(sample):
    labels = dict(sample.labels)
    name = sample.name
    if name == ":tensorflow:serving:request_count_total":
        name = ":tensorflow:serving:request_count"
    if "le" in labels and labels["le"] != "+Inf":
        labels["le"] = f"{float(labels['le']):.6g}"
    pairs = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items())
    # TensorFlow Serving writes sums in six digits, which spoils their rates;
    # all values are whole numbers, so they are written whole.
    return f"{name}{{{pairs}}} {round(sample.value)}"


def _escaped(value):
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return value.replace("\n", "\\n")
