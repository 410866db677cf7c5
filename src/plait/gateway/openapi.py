"""`/openapi.json`: the route table as an OpenAPI 3.1 document.

Paths and methods come from the table, shapes from msgspec's types, statuses from how each dialect says no. Of a route
that its dialect does not document, path, methods and statuses are told. Keeps nothing.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus

import msgspec
from msgspec import Struct, field, structs
from starlette.routing import Route

from plait import __version__
from plait.errors import KINDS, DeadlineExceeded
from plait.gateway import admin, terms
from plait.gateway.table import Dialect, Entry, function
from plait.web.documented import EVENTS, Documented, Refusals, Says
from plait.web.respond import JSON

Schema = dict[str, object]
"""A JSON Schema."""
Shape = Callable[[object], Schema]
"""From a type to its schema."""

TEXT: Schema = {"type": "string"}
KEY_SCHEMES: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
ANY_KEY: list[Schema] = [{name: []} for name in KEY_SCHEMES]


# ── a document's parts, under the names that OpenAPI gives them ──────────────────────────────────────────────────


class Media(Struct, frozen=True, omit_defaults=True):
    schema: Schema = {}


class Parameter(Struct, frozen=True):
    name: str
    schema: Schema
    place: str = field(default="path", name="in")
    required: bool = True


class RequestBody(Struct, frozen=True):
    content: dict[str, Media]
    required: bool = True


class Response(Struct, frozen=True, omit_defaults=True):
    description: str
    content: dict[str, Media] = {}


class Operation(Struct, frozen=True, omit_defaults=True, rename="camel"):
    tags: tuple[str, ...]
    responses: dict[str, Response]
    summary: str = ""
    parameters: list[Parameter] = []
    request_body: RequestBody | None = None
    security: list[Schema] | None = None


class Info(Struct, frozen=True):
    title: str
    version: str


class Components(Struct, frozen=True, omit_defaults=True, rename="camel"):
    schemas: dict[str, Schema]
    security_schemes: dict[str, Schema] = {}


class Document(Struct, frozen=True, omit_defaults=True):
    openapi: str
    info: Info
    paths: dict[str, dict[str, Operation]]
    components: Components
    security: list[Schema] = []


# ── from the table to a document ─────────────────────────────────────────────────────────────────────────────────

PATIENCE = Parameter(terms.HEADER, {"type": "number", "exclusiveMinimum": 0}, "header", required=False)


def document(entries: Sequence[Entry], *, needs_key: bool, has_admins: bool = False) -> bytes:
    """The document of a server that has these routes. `has_admins`: some of them need an admin key."""
    documented: dict[object, Documented] = {known.endpoint: known for known in _documented(entries)}
    kinds = list(dict.fromkeys(_kinds(entries, documented.values())))
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    shapes = dict(zip(kinds, schemas, strict=True))
    paths: defaultdict[str, dict[str, Operation]] = defaultdict(dict)
    for entry in entries:
        operation = _operation(entry, documented.get(function(entry.route)), shapes.__getitem__)
        if has_admins and entry.is_for_admins:
            operation = structs.replace(operation, security=ANY_KEY)
        for method in sorted((entry.route.methods or set()) - {"HEAD"}):
            paths[_template(entry.route)][method.lower()] = operation
    info, security = Info("Plait", __version__), ANY_KEY if needs_key else []
    schemes = KEY_SCHEMES if needs_key or has_admins else {}
    return msgspec.json.encode(Document("3.1.0", info, paths, Components(components, schemes), security))


def _documented(entries: Iterable[Entry]) -> Iterator[Documented]:
    yield from admin.DOCUMENTED
    for dialect in _dialects(entries):
        yield from dialect.documents.routes


def _dialects(entries: Iterable[Entry]) -> Iterable[Dialect]:
    return dict.fromkeys(entry.dialect for entry in entries)


def _kinds(entries: Iterable[Entry], documented: Iterable[Documented]) -> Iterator[object]:
    """All types that the document shows."""
    for known in documented:
        yield from (kind for kind in (known.body, *(answer.kind for answer in known.answers)) if kind)
    yield from (dialect.documents.refusal for dialect in _dialects(entries) if dialect.documents.refusal)


def _template(route: Route) -> str:
    """The path without what its parameters may match: OpenAPI has no words for that."""
    return re.sub(r":\w+}", "}", route.path)


def _operation(entry: Entry, known: Documented | None, shape: Shape) -> Operation:
    tags, parameters = (entry.owner,), [Parameter(name, TEXT) for name in entry.route.param_convertors]
    if known is None:
        responses = _responses((), KINDS, entry.dialect, shape)
        says = Response("what the program that this stands in for says")
        return Operation(tags, responses | {"200": says, "default": says}, parameters=parameters)
    if DeadlineExceeded in known.raises:
        parameters.append(PATIENCE)
    return Operation(
        tags,
        _responses(known.answers, known.refusals, entry.dialect, shape),
        known.summary,
        parameters,
        RequestBody({JSON: Media(shape(known.body))}) if known.body else None,
        [] if entry.route.path in admin.OPEN_PATHS else None,
    )


def _responses(answers: Iterable[Says], refusals: Refusals, dialect: Dialect, shape: Shape) -> dict[str, Response]:
    """By status; where a refusal looks like an answer, the answer's shape is told."""
    contents: defaultdict[int, dict[str, Media]] = defaultdict(dict)
    refused = shape(dialect.documents.refusal) if dialect.documents.refusal else {}
    for answer in answers:
        contents[answer.status] |= {answer.media_type: Media(_body(answer, shape, refused))} if answer.kind else {}
    for refusal in refusals:
        no = dialect.refuse(refusal(""))
        content = contents[no.status_code]
        if media_type := no.headers.get("content-type"):
            content.setdefault(media_type, Media(refused if media_type == JSON else {}))
    return {str(status): Response(HTTPStatus(status).phrase, content) for status, content in sorted(contents.items())}


def _body(answer: Says, shape: Shape, refused: Schema) -> Schema:
    """OpenAPI before 3.2 describes a stream of events by one event. Some may be out when something goes wrong."""
    if answer.media_type != EVENTS:
        return shape(answer.kind)
    data: Schema = TEXT | {"contentMediaType": JSON, "contentSchema": {"anyOf": [shape(answer.kind), refused]}}
    if answer.end:
        data = {"anyOf": [data, {"const": answer.end}]}
    return {"type": "object", "properties": {"data": data}, "required": ["data"]}
