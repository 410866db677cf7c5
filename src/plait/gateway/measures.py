"""What `/metrics` tells: each measure is one line here, read from the fleet and the traffic at the time of asking.

Counters of a worker begin anew with each worker, as Prometheus expects of processes; those of a model do not.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import asdict
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from plait.fleet.base import Replica, Served
from plait.gateway.traffic import Traffic
from plait.metrics import Histogram, Tally
from plait.protocol import Stats


class Measure(NamedTuple):
    """Something that every worker's pulse tells."""

    name: str
    help: str
    value: Callable[[Stats], float]


GAUGES = (
    Measure("plait_slots", "Sequences that the worker decodes together at most.", lambda s: s.n_slots),
    Measure("plait_slots_reading", "Sequences whose prompt is being read.", lambda s: s.n_reading),
    Measure("plait_slots_writing", "Sequences that get a token in each step.", lambda s: s.n_writing),
    Measure("plait_queue", "Sequences that wait for a slot.", lambda s: s.n_waiting),
    Measure("plait_cancel_steps_max", "Steps that ended before a cancel took effect.", lambda s: s.cancel_steps_max),
    Measure("plait_kv_cells", "Tokens whose KV the context holds.", lambda s: s.n_cells),
    Measure("plait_kv_cells_max", "Tokens whose KV the context could hold.", lambda s: s.n_cells_max),
    Measure("plait_cache_ram_bytes", "Kept in RAM of ended requests.", lambda s: s.cache_ram_bytes),
    Measure("plait_cache_buffer_bytes", "RAM that states are moved through.", lambda s: s.cache_buffer_bytes),
    Measure("plait_cache_disk_bytes", "Kept on disk of ended requests.", lambda s: s.cache_disk_bytes),
)
COUNTERS = (
    Measure("plait_prompt_tokens", "Prompt tokens computed.", lambda s: s.prompt_tokens_total),
    Measure("plait_output_tokens", "Tokens written.", lambda s: s.output_tokens_total),
    Measure("plait_worker_requests", "Requests that the worker got.", lambda s: s.requests_total),
    Measure("plait_worker_cancelled", "Requests whose client left.", lambda s: s.cancelled_total),
    Measure("plait_preempted", "Sequences that waited for cells after they had begun.", lambda s: s.preempted_total),
    Measure("plait_steps", "Decode steps.", lambda s: s.steps_total),
)


class Distribution(NamedTuple):
    """Something that a model's tally counts by size."""

    name: str
    help: str
    histogram: Callable[[Tally], Histogram]


HISTOGRAMS = (
    Distribution("plait_step_seconds", "How long decode steps take.", lambda t: t.step_seconds),
    Distribution("plait_step_rows", "Tokens of one decode step.", lambda t: t.step_rows),
    Distribution("plait_first_token_seconds", "From order to first token.", lambda t: t.first_token_seconds),
    Distribution("plait_choice_seconds", "From order to a choice's end.", lambda t: t.choice_seconds),
)


def families(models: Sequence[Served], traffic: Traffic) -> Iterator[Metric]:
    """All that is told."""
    yield from _of_gateway(traffic)
    yield from _requests(models)
    for name, help, histogram in HISTOGRAMS:
        distribution = HistogramMetricFamily(name, help, labels=["model"])
        for model in models:
            histogram(model.tally).add_to(distribution, [model.name])
        yield distribution
    for name, help, value in GAUGES:
        yield _of_workers(GaugeMetricFamily(name, help, labels=["model", "replica"]), models, value)
    for name, help, value in COUNTERS:
        yield _of_workers(CounterMetricFamily(name, help, labels=["model", "replica"]), models, value)
    yield _cached(models)
    yield from _of_replicas(models)


def _cached(models: Sequence[Served]) -> Metric:
    help = "Prompt tokens that were known, by where they were found."
    family = CounterMetricFamily("plait_cached_tokens", help, labels=["model", "replica", "source"])
    for labels, replica in _replicas(models):
        if replica.stats:
            for source, n in asdict(replica.stats.cached_tokens_total).items():
                family.add_metric([*labels, source], n)
    return family


def _of_gateway(traffic: Traffic) -> Iterator[Metric]:
    yield GaugeMetricFamily("plait_http_running", "Requests being answered.", traffic.n_running)
    responses = CounterMetricFamily("plait_http_responses", "Answers by HTTP status.", labels=["status"])
    for status, n in traffic.statuses.items():
        responses.add_metric([str(status)], n)
    yield responses


def _requests(models: Sequence[Served]) -> Iterator[Metric]:
    resumed = CounterMetricFamily("plait_resumed", "Workers' deaths that requests outlived.", labels=["model"])
    requests = CounterMetricFamily("plait_requests", "Requests by how they ended.", labels=["model", "outcome"])
    for model in models:
        for outcome, n in model.tally.outcomes.items():
            requests.add_metric([model.name, outcome], n)
        resumed.add_metric([model.name], model.tally.n_resumed)
    yield requests
    yield resumed


def _of_workers(
    family: GaugeMetricFamily | CounterMetricFamily, models: Sequence[Served], value: Callable[[Stats], float]
) -> Metric:
    for labels, replica in _replicas(models):
        if replica.stats:
            family.add_metric(labels, value(replica.stats))
    return family


def _of_replicas(models: Sequence[Served]) -> Iterator[Metric]:
    up = GaugeMetricFamily("plait_worker_up", "Whether the replica has a worker.", labels=["model", "replica"])
    restarts = CounterMetricFamily("plait_worker_restarts", "Workers after the first.", labels=["model", "replica"])
    for labels, replica in _replicas(models):
        up.add_metric(labels, replica.state == "ready")
        restarts.add_metric(labels, replica.n_restarts)
    yield up
    yield restarts


def _replicas(models: Sequence[Served]) -> Iterator[tuple[list[str], Replica]]:
    """Each replica with its labels."""
    for model in models:
        for n, replica in enumerate(model.replicas):
            yield [model.name, str(n)], replica
