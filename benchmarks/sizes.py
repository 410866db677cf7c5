"""How much work a machine is given, by what its kernels can do: so that all of it ends in time."""

from collections.abc import Sequence

from benchmarks.workloads.base import FULL, Figure, Size

SIZES = (
    FULL,
    Size(output=48, long=1500, n_long=1, turns=4),
    Size(prompt=80, output=32, long=1500, n_long=1, turns=3),
    Size(prompt=80, output=24, system=600, long=1000, n_long=1, turns=3),
    Size(prompt=64, output=16, system=400, long=800, n_long=1, turns=2),
    Size(prompt=48, output=12, system=256, long=600, n_long=1, turns=2),
)
READING, WRITING = "prompt of 512", "16 writing"
"""The speeds that are asked for."""


def fitting(speeds: Sequence[Figure], seconds: float, n_servers: int) -> Size:
    """The largest one whose first round is likely to take no longer, or the smallest."""
    return next((size for size in SIZES if estimated(size, speeds, n_servers) <= seconds), SIZES[-1])


def estimated(size: Size, speeds: Sequence[Figure], n_servers: int) -> float:
    """Seconds for one round of all workloads.

    Counted out by hand for three servers: how often each length is read by one that shares nothing, by one that shares
    all, and by one between them; and the steps of 16 rows, or what takes as long.
    """
    rates = {figure.name: figure.value for figure in speeds}
    n_read = (280 + 12 * size.turns) * size.prompt + 85 * size.system + 3 * size.n_long * size.long
    n_steps = (30 + size.turns) * size.output
    return n_servers / 3 * (n_read / rates[READING] + n_steps * 16 / rates[WRITING])
