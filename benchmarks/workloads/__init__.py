"""The workloads, in the order in which they are told."""

from benchmarks.workloads import coming_and_going, lasting, together
from benchmarks.workloads.base import Workload

WORKLOADS: dict[str, Workload] = {
    workload.name: workload for workload in (*together.WORKLOADS, *coming_and_going.WORKLOADS, *lasting.WORKLOADS)
}
