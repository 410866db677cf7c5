"""What `/openapi.json` says, held against the table that it is made from."""

import re

import msgspec
import pytest
import schemathesis
from starlette.routing import Route

from plait.config import Server
from plait.dialects import openai
from plait.gateway import admin
from plait.gateway.app import DIALECTS
from plait.gateway.traffic import Traffic
from tests.fakes.fleet import FakeFleet
from tests.unit.gateway.asking import gateway

pytestmark = pytest.mark.anyio

OPEN = Server()
LOCKED = Server(api_key=("secret",))


class Response(msgspec.Struct):
    content: dict[str, dict[str, dict[str, object]]] = {}


class Operation(msgspec.Struct, rename="camel"):
    responses: dict[str, Response]
    tags: list[str]
    summary: str = ""
    request_body: object = None
    security: list[object] | None = None


class Document(msgspec.Struct):
    """As much of it as is looked at here."""

    paths: dict[str, dict[str, Operation]]
    security: list[object] = []


async def text(server: Server = OPEN) -> bytes:
    async with gateway(server) as http:
        return (await http.get("/openapi.json", headers={"x-api-key": "secret"})).content


async def document(server: Server = OPEN) -> Document:
    return msgspec.json.decode(await text(server), type=Document)


def listed(routes: list[Route], prefix: str = "") -> set[tuple[str, str]]:
    """The routes' methods and paths, as the document writes them."""
    paths = [
        (method, prefix + re.sub(":[a-z]+}", "}", route.path)) for route in routes for method in route.methods or ()
    ]
    return {(method.lower(), path) for method, path in paths if method != "HEAD"}


OWN = listed(admin.routes(FakeFleet(), Traffic(), bytes)) | listed(openai.routes(FakeFleet()))


@pytest.mark.parametrize(
    "server", [OPEN, LOCKED, Server(admin_key=("root",)), Server(dialect=("srb",)), Server(dialect=("bitnet",))]
)
async def test_the_document_is_what_openapi_calls_one(server: Server) -> None:
    schemathesis.openapi.from_dict(msgspec.json.decode(await text(server))).validate()


async def test_nothing_is_referred_to_that_is_not_there() -> None:
    said = await text()
    schemas = msgspec.json.decode(said)["components"]["schemas"]
    references = set(re.findall(rb'"\$ref":"([^"]*)"', said))
    assert references == {f"#/components/schemas/{name}".encode() for name in schemas}


async def test_every_route_is_told() -> None:
    told = {(method, path) for path, methods in (await document()).paths.items() for method in methods}
    assert told >= OWN
    for dialect in DIALECTS:
        assert told >= listed(dialect.routes(FakeFleet()), f"/{dialect.name}")


async def test_every_route_of_our_own_says_what_it_is_for() -> None:
    paths = (await document()).paths
    assert [(method, path) for method, path in OWN if not paths[path][method].summary] == []


@pytest.mark.parametrize("path", ["/v1/completions", "/openai/v1/chat/completions"])
async def test_an_answer_is_told_whole_and_as_events(path: str) -> None:
    complete = (await document()).paths[path]["post"]
    assert complete.request_body
    assert set(complete.responses["200"].content) == {"application/json", "text/event-stream"}
    assert set(complete.responses) >= {"400", "401", "404", "408", "413", "415", "429", "503", "504"}


async def test_only_the_open_path_needs_no_key() -> None:
    said = await document(LOCKED)
    assert said.security == [{"bearer": []}, {"header": []}]
    exempt = {path for path, methods in said.paths.items() for each in methods.values() if each.security == []}
    assert exempt == {"/livez"}


async def test_without_keys_none_is_asked_for() -> None:
    assert (await document()).security == []


async def test_what_needs_an_admin_key_says_so_though_nothing_else_needs_one() -> None:
    said = await document(Server(admin_key=("root",)))
    closed = {path for path, methods in said.paths.items() for each in methods.values() if each.security}
    assert said.security == []
    assert {path for path in closed if not path.startswith("/admin/")} == {"/sentient/load_model"}
    assert {"/admin/models", "/admin/models/{name}"} <= closed


async def test_a_refusal_is_told_in_the_words_of_the_dialect_that_says_it() -> None:
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    assert (await document()).paths["/admin/models"]["get"].responses["403"].content == refusal
    stands_in = (await document(Server(dialect=("srb",)))).paths["/admin/models"]["get"]
    assert list(stands_in.responses["403"].content) == ["text/html; charset=utf-8"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
async def test_a_limit_on_tokens_may_not_be_zero(name: str) -> None:
    schemas = msgspec.json.decode(await text())["components"]["schemas"]
    for kind in ("CompletionBody", "ChatBody"):
        limit = schemas[kind]["properties"][name]["anyOf"][0]
        assert (limit["minimum"], limit["not"]) == (-1, {"const": 0})
