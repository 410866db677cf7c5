"""How much work a machine is given, by what its kernels can do: so that all of it ends in time."""

from collections.abc import Sequence

from benchmarks.workloads.base import FULL, Figure, Size

SIZES = (
    FULL,
    Size(output=48, long=1500, n_long=1, turns=4),
    Size(prompt=80, output=32, long=1500, n_long=1, turns=3),
    Size(prompt=64, output=24, long=1000, n_long=1, turns=2),
    Size(prompt=64, output=24, system=600, long=1000, n_long=1, turns=2),
    Size(prompt=48, output=12, system=400, long=600, n_long=1, turns=2),
    Size(prompt=48, output=12, system=256, long=600, n_long=1, turns=2),
)
READING, WRITING = "prompt of 512", "16 writing"
"""The speeds that are asked for."""
WAITING = 25.0
"""Seconds in a round for which a server starts, ends, or is looked at until it rests."""


def fitting(speeds: Sequence[Figure], seconds: float, n_servers: int) -> Size:
    """The largest one whose first round is likely to take no longer, or the smallest."""
    return next((size for size in SIZES if estimated(size, speeds, n_servers) <= seconds), SIZES[-1])


def estimated(size: Size, speeds: Sequence[Figure], n_servers: int) -> float:
    """Seconds for one round of all workloads.

    Counted out by hand for four servers and two bare loops: how often each length is read by who shares nothing, by who
    shares all, and by one between them; and the steps of 16 rows, or what takes as long. Deep in a prompt, and on
    kernels that are built for any machine, all of that takes longer by 1.6; measured once, with 1,000 tokens in front.
    """
    rates = {figure.name: figure.value for figure in speeds}
    n_read = (352 + 24 * size.turns) * size.prompt + 68 * size.system + 4 * size.n_long * size.long
    n_steps = (46 + 2 * size.turns) * size.output
    seconds = 1.6 * (n_read / rates[READING] + n_steps * 16 / rates[WRITING])
    return n_servers * (WAITING + seconds / 4)
