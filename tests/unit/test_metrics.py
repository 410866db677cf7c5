"""Numbers that only grow."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import HistogramMetricFamily

from plait.metrics import Histogram, render

BOUNDS = (1.0, 2.0, 5.0)


@given(st.lists(st.floats(0, 10)))
def test_a_histogram_holds_each_value_up_to_its_bounds(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    family = HistogramMetricFamily("x", "Some.", labels=["model"])
    histogram.add_to(family, ["demo"])
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name == "x_bucket"}
    assert buckets == {str(bound): sum(value <= bound for value in values) for bound in BOUNDS} | {"+Inf": len(values)}
    assert histogram.sum == sum(values)


def test_families_are_rendered_as_prometheus_reads_them() -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(1.5)
    family = HistogramMetricFamily("plait_x", "Some.", labels=["model"])
    histogram.add_to(family, ['with "quotes"'])
    text = render([family]).decode()
    assert "# TYPE plait_x histogram" in text
    assert 'plait_x_bucket{le="2.0",model="with \\"quotes\\""} 1.0' in text
