"""Asking the gateway over a fake fleet, in memory."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import httpx2

from plait.config import Config, Server
from plait.fleet.base import Fleet
from plait.gateway.app import DIALECTS, create_app
from plait.gateway.table import Dialect
from plait.gateway.traffic import Traffic
from tests.fakes.fleet import FakeFleet

OWN = Server()


def gateway(
    server: Server = OWN,
    fleet: Fleet | None = None,
    traffic: Traffic | None = None,
    dialects: Sequence[Dialect] = DIALECTS,
) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
    """A client of a gateway with these settings."""
    app = create_app(Config(server=server), fleet or FakeFleet(), traffic, dialects)
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")
