"""Starts a server that stands in for another program: its dialect owns the root, the others keep their prefixes."""

import time
from collections.abc import Callable, Sequence

from msgspec import structs

from plait.config import Config
from plait.fleet.base import Served
from plait.gateway import server
from plait.gateway.app import DIALECTS
from plait.gateway.table import Dialect

Say = Callable[[Sequence[Served], Sequence[str], float], None]
"""Told what is served, where, and after how many seconds."""


def launch(config: Config, dialect: Dialect, say: Say, sources: Sequence[str] | None = None) -> None:
    """Serve until a signal, with `dialect` in the place of its namesake. `sources`: what to serve from the start."""
    began = time.monotonic()

    def on_ready(served: Sequence[Served], addresses: Sequence[str]) -> None:
        say(served, addresses, time.monotonic() - began)

    others = [other for other in DIALECTS if other.name != dialect.name]
    config = structs.replace(config, server=structs.replace(config.server, dialect=(dialect.name,)))
    server.serve(config, on_ready, dialects=(dialect, *others), sources=sources)
