"""What a request passes on its way to a route, and what becomes of errors."""

from collections.abc import Iterator
from functools import partial

import pytest
from msgspec import structs
from starlette.routing import Route
from starlette.types import Message

from plait.config import Config, ConfigError, Server
from plait.dialects import openai
from plait.errors import Overloaded, WorkerDied
from plait.fleet.base import Served
from plait.gateway import admin
from plait.gateway.app import DIALECTS, create_app
from plait.gateway.table import Dialect
from plait.gateway.traffic import Traffic
from plait.web.respond import BrokenOff
from tests.fakes.fleet import FakeFleet, play, started
from tests.unit.gateway.asking import gateway

LOCKED = Server(api_key=("secret", "other"))
ASK = {"prompt": "Once"}


@pytest.mark.anyio
async def test_a_dialect_answers_at_the_root_and_under_its_name() -> None:
    async with gateway() as http:
        for path in ("/v1/models", "/openai/v1/models"):
            assert (await http.get(path)).json()["data"][0]["id"] == "demo"


# method, path, headers, body, status, code
REFUSALS = [
    ("GET", "/nope", {}, None, 404, "not_found"),
    ("GET", "/openai/nope", {}, None, 404, "not_found"),
    ("GET", "//v1/models", {}, None, 404, "not_found"),
    ("GET", "/v1/models/", {}, None, 404, "model_not_found"),
    ("GET", "/v1/models/%00", {}, None, 404, "model_not_found"),
    ("GET", "/v1/completions", {}, None, 405, "method_not_allowed"),
    ("DELETE", "/v1/models", {}, None, 405, "method_not_allowed"),
    ("POST", "/v1/completions", {}, b'{"prompt": NaN}', 400, "invalid_request"),
    ("POST", "/v1/completions", {}, b'{"prompt": "a", "max_tokens": 1e999}', 400, "invalid_request"),
    ("POST", "/v1/completions", {}, b"[" * 100_000, 400, "invalid_request"),
    ("POST", "/v1/completions", {}, b'{"prompt": "' + b"x" * 5 * 1024**2 + b'"}', 413, "body_too_large"),
    ("POST", "/v1/completions", {"content-type": "text/plain"}, b"{}", 415, "unsupported_media_type"),
    ("POST", "/v1/completions", {"content-encoding": "gzip"}, b"\x1f\x8b", 415, "unsupported_media_type"),
    ("POST", "/v1/completions", {"host": "evil.example"}, b"{}", 403, "forbidden"),
    ("POST", "/admin/models", {}, b'{"model": 7}', 400, "invalid_request"),
    ("POST", "/admin/models", {}, b'{"model": "demo"}', 409, "conflict"),
    ("DELETE", "/admin/models/nobody", {}, None, 404, "model_not_found"),
]


@pytest.mark.parametrize(("method", "path", "headers", "body", "status", "code"), REFUSALS)
@pytest.mark.anyio
async def test_every_refusal_has_the_dialects_shape(
    method: str, path: str, headers: dict[str, str], body: bytes | None, status: int, code: str
) -> None:
    async with gateway() as http:
        response = await http.request(
            method, path, headers={"content-type": "application/json"} | headers, content=body
        )
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.headers["x-request-id"]


@pytest.mark.anyio
async def test_a_wrong_method_is_told_the_right_ones() -> None:
    async with gateway() as http:
        response = await http.get("/v1/chat/completions")
    assert response.headers["allow"] == "POST"


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def targets() -> Iterator[tuple[str, str]]:
    """Each method of each path of the whole table, and some that are not in it."""
    own = admin.routes(FakeFleet(), Traffic(), bytes)
    spoken = [route for dialect in DIALECTS for route in dialect.routes(FakeFleet())]
    for route in [*own, *spoken]:
        yield from ((method, route.path) for method in route.methods or ())
    yield from (("GET", path) for path in ("/openai/v1/models", "/", "/nope", "/livez/", "//livez", "/v1/%2e%2e/livez"))


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"x-api-key": ""}])
@pytest.mark.anyio
async def test_without_a_key_nobody_gets_past_any_path_but_one(headers: dict[str, str]) -> None:
    async with gateway(LOCKED) as http:
        statuses = {target: (await http.request(*target, headers=headers)).status_code for target in targets()}
    assert {target for target, status in statuses.items() if status != 401} == {("GET", "/livez"), ("HEAD", "/livez")}


@pytest.mark.anyio
async def test_who_has_no_key_is_told_so() -> None:
    async with gateway(LOCKED) as http:
        response = await http.post("/v1/completions", json=ASK)
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["connection"] == "close"


@pytest.mark.anyio
async def test_a_refusal_that_needs_no_body_is_said_before_that_is_read_and_the_rest_is_dropped() -> None:
    """Who still sends when the connection is closed would not read why."""
    order: list[str] = []
    rest = iter([True, True, False])

    async def receive() -> Message:
        order.append("body read")
        return {"type": "http.request", "body": b"x", "more_body": next(rest)}

    async def send(message: Message) -> None:
        order.append("answer" if message.get("body") else message["type"])

    head = [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"", "headers": head}
    await create_app(Config(server=LOCKED), FakeFleet())(scope, receive, send)
    assert order == ["http.response.start", "answer", *["body read"] * 3, "http.response.body"]


@pytest.mark.parametrize("headers", [{"authorization": "Bearer other"}, {"x-api-key": "secret"}])
@pytest.mark.anyio
async def test_with_a_key_everything_is_open_under_any_host(headers: dict[str, str]) -> None:
    async with gateway(LOCKED) as http:
        assert (await http.get("/v1/models", headers=headers | {"host": "behind.example"})).status_code == 200
        assert (await http.post("/v1/completions", headers=headers, json=ASK)).status_code == 200


# ── admins ───────────────────────────────────────────────────────────────────────────────────────────────────────

RULED = Server(api_key=("secret", "other"), admin_key=("root",))
LOADS = [
    ("GET", "/admin/models", None),
    ("POST", "/admin/models", {"model": "second"}),
    ("DELETE", "/admin/models/demo", None),
    ("POST", "/sentient/load_model", {"model_name": "third", "model_path": "/third.gguf"}),
]


async def statuses(server: Server, key: str | None, method: str, path: str, body: object) -> tuple[int, int]:
    """Of what an admin may, and of what all may."""
    headers = {"x-api-key": key} if key else {}
    async with gateway(server) as http:
        ruled = await http.request(method, path, headers=headers, json=body)
        return ruled.status_code, (await http.post("/v1/completions", headers=headers, json=ASK)).status_code


@pytest.mark.parametrize(("method", "path", "body"), LOADS)
@pytest.mark.anyio
async def test_where_there_is_an_admin_key_only_that_loads_and_stops_models(
    method: str, path: str, body: object
) -> None:
    asked = method, path, body
    assert await statuses(RULED, "secret", *asked) == (403, 200)
    assert await statuses(RULED, None, *asked) == await statuses(RULED, "wrong", *asked) == (401, 401)
    with_root = await statuses(RULED, "root", *asked)
    assert with_root == await statuses(LOCKED, "secret", *asked)
    assert with_root[0] < 300


@pytest.mark.anyio
async def test_all_paths_of_the_admins_are_closed_to_other_keys() -> None:
    for_admins = [target for target in targets() if target[1].startswith("/admin/")]
    assert len(for_admins) >= 4
    async with gateway(RULED) as http:
        for method, path in for_admins:
            assert (await http.request(method, path, headers={"x-api-key": "secret"})).status_code == 403


@pytest.mark.anyio
async def test_an_admins_path_is_not_opened_by_who_has_another_method_there() -> None:
    sharer = Dialect("sharer", lambda fleet: [Route("/load_model", admin.live)], openai.refuse)
    server = structs.replace(RULED, dialect=("sharer", "sentient"))
    async with gateway(server, dialects=(*DIALECTS, sharer)) as http:
        response = await http.post("/load_model", headers={"x-api-key": "secret"}, json={})
    assert response.status_code == 403


@pytest.mark.parametrize(("method", "path", "body"), LOADS)
@pytest.mark.anyio
async def test_an_admin_key_alone_closes_nothing_else(method: str, path: str, body: object) -> None:
    alone = Server(admin_key=("root",))
    assert await statuses(alone, None, method, path, body) == (401, 200)
    assert (await statuses(alone, "root", method, path, body))[0] < 300
    async with gateway(alone) as http:
        assert (await http.get("/v1/models", headers={"host": "evil.example"})).status_code == 403


@pytest.mark.parametrize("path", ["/admin/models/", "/admin/models/a/b", "/admin/models/%2e%2e", "/load_model"])
@pytest.mark.anyio
async def test_no_spelling_of_a_path_gets_round_the_admin_key(path: str) -> None:
    async with gateway(structs.replace(RULED, dialect=("openai", "sentient"))) as http:
        for method in ("GET", "POST", "DELETE"):
            response = await http.request(method, path, headers={"x-api-key": "secret"})
            assert response.status_code == 403


# ── browsers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_no_origin_may_call_unless_it_is_named() -> None:
    origin = {"origin": "https://app.example"}
    async with gateway() as http:
        assert "access-control-allow-origin" not in (await http.get("/v1/models", headers=origin)).headers
    async with gateway(Server(cors_origin=("https://app.example",))) as http:
        for path in ("/v1/models", "/nope"):
            response = await http.get(path, headers=origin)
            assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-origin" not in (await http.get("/", headers={"origin": "https://x"})).headers


PREFLIGHT = {"origin": "https://x", "access-control-request-method": "POST"}


@pytest.mark.parametrize("path", ["/admin/models", "/admin/models/demo", "/metrics", "/sentient/load_model"])
@pytest.mark.anyio
async def test_no_page_may_call_what_is_the_operators(path: str) -> None:
    async with gateway(Server(cors_origin=("*",), dialect=("srb",))) as http:
        assert (await http.options("/v1/completions", headers=PREFLIGHT)).status_code == 200
        for response in (await http.options(path, headers=PREFLIGHT), await http.get(path, headers=PREFLIGHT)):
            assert "access-control-allow-origin" not in response.headers
        assert (await http.options(path, headers=PREFLIGHT)).status_code == 405


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
@pytest.mark.anyio
async def test_what_a_page_may_send_unasked_loads_no_model(media_type: str) -> None:
    headers = {"origin": "https://x", "content-type": media_type}
    async with gateway(Server(cors_origin=("*",))) as http:
        response = await http.post("/admin/models", headers=headers, content=b'{"model": "demo"}')
    assert response.status_code == 415


@pytest.mark.anyio
async def test_a_preflight_needs_no_key() -> None:
    headers = {"origin": "https://app.example", "access-control-request-method": "POST"}
    async with gateway(Server(cors_origin=("*",), api_key=("secret",))) as http:
        assert (await http.options("/v1/completions", headers=headers)).status_code == 200


@pytest.mark.parametrize("server", [Server(host="0.0.0.0"), Server(listen=("unix:///run/plait", "tcp://10.0.0.1:80"))])
@pytest.mark.anyio
async def test_a_server_for_others_goes_by_any_name(server: Server) -> None:
    async with gateway(server) as http:
        assert (await http.get("/v1/models", headers={"host": "models.example"})).status_code == 200


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Defect(FakeFleet):
    """Fails as nobody meant it to."""

    def models(self) -> list[Served]:
        raise RuntimeError("a secret of ours")


@pytest.mark.anyio
async def test_a_defect_is_a_500_whose_text_only_the_log_has(caplog: pytest.LogCaptureFixture) -> None:
    async with gateway(fleet=Defect()) as http:
        response = await http.get("/v1/models")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in response.text
    assert "a secret of ours" in caplog.text


@pytest.mark.anyio
async def test_an_overloaded_fleet_says_when_to_come_back() -> None:
    fleet = FakeFleet(play(Overloaded("full", retry_after=7)))
    async with gateway(fleet=fleet) as http:
        for stream in (False, True):
            response = await http.post("/v1/completions", json=ASK | {"stream": stream})
            assert (response.status_code, response.headers["retry-after"]) == (429, "7")


@pytest.mark.anyio
async def test_what_was_answered_is_counted() -> None:
    traffic = Traffic()
    async with gateway(traffic=traffic) as http:
        for path in ("/v1/models", "/nope", "/v1/models"):
            await http.get(path)
    assert traffic.statuses == {200: 2, 404: 1}
    assert traffic.n_running == 0
    assert traffic.is_quiet.is_set()


@pytest.mark.anyio
async def test_a_draining_gateway_answers_probes_only() -> None:
    async with gateway(traffic=Traffic(is_draining=True)) as http:
        response = await http.post("/v1/completions", json=ASK)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/metrics")).status_code == 200


@pytest.mark.anyio
async def test_whom_a_draining_gateway_refuses_goes_elsewhere_next_time() -> None:
    async with gateway(traffic=Traffic(is_draining=True)) as http:
        for method in ("GET", "POST"):
            response = await http.request(method, "/v1/models")
            assert (response.status_code, response.headers["connection"]) == (503, "close")


@pytest.mark.anyio
async def test_an_answer_that_breaks_off_is_counted() -> None:
    traffic = Traffic()
    async with gateway(fleet=FakeFleet(play(started(), WorkerDied("gone"))), traffic=traffic) as http:
        with pytest.raises(BrokenOff):
            await http.post("/llm-http/stream", json=ASK)
    assert traffic.statuses == {200: 1}


@pytest.mark.anyio
async def test_only_preferred_dialects_are_at_the_root() -> None:
    async with gateway() as http:
        assert (await http.post("/load_model")).status_code == 404
        assert (await http.get("/")).status_code == 404
        assert (await http.get("/bitnet/")).status_code == 200
    async with gateway(Server(dialect=("llm-http",))) as http:
        assert (await http.get("/v1/models/demo")).status_code == 404
        assert (await http.get("/openai/v1/models/demo")).status_code == 200


@pytest.mark.anyio
async def test_the_first_of_several_preferred_dialects_has_a_path() -> None:
    async with gateway(Server(dialect=("srb", "openai"))) as http:
        assert (await http.get("/v1/models")).json() == (await http.get("/srb/v1/models")).json()
        assert (await http.get("/v1/models/demo")).status_code == 200


@pytest.mark.anyio
async def test_what_takes_any_path_is_asked_last() -> None:
    greedy = Dialect("greedy", lambda fleet: [Route("/{path:path}", partial(admin.live, Traffic()))], openai.refuse)
    async with gateway(Server(dialect=("greedy",)), dialects=(*DIALECTS, greedy)) as http:
        assert "object" in (await http.get("/openai/v1/models")).json()
        assert "plait" in (await http.get("/metrics")).text
        assert (await http.get("/any/path")).json() == (await http.get("/livez")).json()


def test_a_path_with_two_owners_is_refused_by_the_names_of_both() -> None:
    thief = Dialect("thief", lambda fleet: [Route("/livez", admin.live)], openai.refuse)
    with pytest.raises(ConfigError, match=r"/livez .*admin and thief"):
        create_app(Config(server=Server(dialect=("thief",))), FakeFleet(), dialects=(*DIALECTS, thief))
