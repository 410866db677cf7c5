"""Which path belongs to whom. Routes are values: who owns what is known before the first request.

Each dialect is served under its own name, `/openai/v1/models`. At the root a path belongs to the first of the preferred
dialects that has it; the others are under their names only.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from plait.config import ConfigError
from plait.errors import PlaitError
from plait.fleet.base import Fleet
from plait.web.documented import UNDOCUMENTED, Documents


async def nothing(fleet: Fleet) -> None:
    """What most dialects have to prepare."""


ADMIN = "admin"
"""The owner of what belongs to no dialect."""


class Dialect(NamedTuple):
    """One wire protocol: its name, its table, and how it says no."""

    name: str
    routes: Callable[[Fleet], list[Route]]
    refuse: Callable[[PlaitError], Response]
    prepare: Callable[[Fleet], Awaitable[None]] = nothing
    """Done when the models are ready, before anybody is told that the server is; raises what keeps it from that."""
    documents: Documents = UNDOCUMENTED
    """What `/openapi.json` says of its routes."""
    for_admins: tuple[object, ...] = ()
    """The functions that load or stop models. Where there is an admin key, only its holder may call them."""


class Entry(NamedTuple):
    """One route, and who renders what goes wrong there."""

    owner: str
    route: Route
    dialect: Dialect
    is_for_admins: bool = False


class Table:
    """All routes. The most preferred dialect speaks for the admin's paths and for those that are nobody's."""

    def __init__(
        self,
        dialects: Sequence[Dialect],
        preferred: Sequence[str],
        fleet: Fleet,
        admin: Sequence[Route],
        aliases: Sequence[Route] = (),
        for_admins: Collection[object] = (),
    ) -> None:
        """`aliases`: paths that are the admin's unless a preferred dialect has them. `for_admins`: as a dialect's."""
        names = [dialect.name for dialect in dialects]
        if unknown := [name for name in preferred if name not in names]:
            raise ConfigError(f"--dialect {unknown[0]}: there is no such dialect; there are {', '.join(names)}")
        self.preferred = frozenset(preferred)
        first = sorted(dialects, key=lambda dialect: _rank(dialect.name, preferred))
        self.default = first[0]
        spoken = [Entry(dialect.name, route, dialect) for dialect in first for route in dialect.routes(fleet)]
        wanted = [entry for entry in spoken if entry.owner in preferred]
        self.entries = [Entry(ADMIN, route, self.default) for route in admin]
        self.entries += _first_come([*wanted, *(Entry(ADMIN, route, self.default) for route in aliases)])
        self.entries += (entry._replace(route=_under(entry.owner, entry.route)) for entry in spoken)
        _refuse_contested(self.entries)
        guarded = [*for_admins, *(function for dialect in dialects for function in dialect.for_admins)]
        self.entries = [entry._replace(is_for_admins=function(entry.route) in guarded) for entry in self.entries]
        # What takes any path is asked last.
        self.entries.sort(key=lambda entry: _shape(entry.route) == "/{:path}")

    def routes(self) -> list[Route]:
        return [entry.route for entry in self.entries]

    def dialect(self, scope: Scope) -> Dialect:
        """Whose clients know what this path is."""
        if entry := self._entry(scope):
            return entry.dialect
        first = scope["path"].split("/")[1]
        named = (entry.dialect for entry in self.entries if entry.owner == first)
        return next(named, self.default)

    def is_for_pages(self, scope: Scope) -> bool:
        """Whether a page of another origin may call this, if any may: what is preferred, and never the admin's."""
        entry = self._entry(scope)
        return entry is None or entry.owner in self.preferred

    def is_for_admins(self, scope: Scope) -> bool:
        """Whether this loads or stops models, or tells of their processes; with whatever method."""
        return any(entry.is_for_admins for entry in self._matching(scope))

    def _entry(self, scope: Scope) -> Entry | None:
        return next(self._matching(scope), None)

    def _matching(self, scope: Scope) -> Iterator[Entry]:
        """Those that have this path, with whatever method."""
        return (entry for entry in self.entries if entry.route.matches(scope)[0] is not Match.NONE)


def _rank(name: str, preferred: Sequence[str]) -> int:
    return preferred.index(name) if name in preferred else len(preferred)


def _first_come(wanted: Iterable[Entry]) -> Iterator[Entry]:
    """Each with those of its methods that nobody before it has there."""
    owners: dict[tuple[str, str], str] = {}
    for owner, route, dialect, _ in wanted:
        owned = [method for method in route.methods or () if owners.setdefault((_shape(route), method), owner) == owner]
        if owned:
            yield Entry(owner, Route(route.path, route.endpoint, methods=owned), dialect)


def function(route: Route) -> object:
    """What a route runs, without what was bound to it."""
    return route.endpoint.func if isinstance(route.endpoint, partial) else route.endpoint


def _under(name: str, route: Route) -> Route:
    return Route(f"/{name}{route.path}", route.endpoint, methods=route.methods)


def _shape(route: Route) -> str:
    """A path without its parameters' names, which do not make another path of it."""
    return re.sub(r"{[^}:]*", "{", route.path)


def _refuse_contested(entries: Sequence[Entry]) -> None:
    owners: dict[tuple[str, str], str] = {}
    for owner, route, *_ in entries:
        for method in route.methods or ():
            other = owners.setdefault((_shape(route), method), owner)
            if other != owner:
                raise ConfigError(f"{method} {route.path} is owned by both {other} and {owner}")
