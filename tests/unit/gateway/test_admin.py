"""What the operator is told."""

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from plait.config import Server
from plait.fleet.base import Replica, Served, State
from plait.gateway.traffic import Traffic
from plait.metrics import Tally
from plait.protocol import Cached, Stats
from tests.fakes.fleet import FakeFleet, done, served
from tests.unit.gateway.asking import gateway

pytestmark = pytest.mark.anyio

STATS = Stats(
    n_slots=4,
    n_reading=1,
    n_writing=2,
    n_waiting=3,
    n_cells=100,
    n_cells_max=400,
    prompt_tokens_total=50,
    cached_tokens_total=Cached(idle=12, ram=8),
    output_tokens_total=30,
    requests_total=9,
    cancelled_total=1,
    steps_total=12,
    step_seconds=[0.02, 0.3],
    step_rows=[1, 64],
)


def replica(state: State = "ready", age: float | None = 0.1, n_running: int = 0) -> Replica:
    return Replica(
        pid=1, state=state, stats=STATS, seconds_since_pulse=age, patience=15, n_running=n_running, n_restarts=2
    )


def model(*replicas: Replica, state: State = "ready", reason: str = "") -> Served:
    return structs.replace(served("demo"), replicas=list(replicas), state=state, reason=reason)


def fleet_of(*models: Served) -> FakeFleet:
    fleet = FakeFleet()
    fleet.served = list(models)
    return fleet


@pytest.mark.parametrize("is_draining", [False, True])
async def test_who_lives_does_not_claim_to_be_ready(is_draining: bool) -> None:
    async with gateway(fleet=fleet_of(), traffic=Traffic(is_draining=is_draining)) as http:
        answer = await http.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"live": True, "draining": is_draining})


@pytest.mark.parametrize(
    "models",
    [
        [model(replica())],
        [model(replica(), replica("restarting", None))],
        [model(replica(age=60.0), replica())],
        [model(replica(age=14.0, n_running=1))],
        [model(replica()), model(state="unloading")],
        [model(replica()), model(state="failed", reason="no GGUF file")],
    ],
)
async def test_a_server_is_ready_when_each_model_has_an_engine_with_a_pulse(models: list[Served]) -> None:
    async with gateway(fleet=fleet_of(*models)) as http:
        response = await http.get("/readyz")
    assert (response.status_code, response.json()["reasons"]) == (200, [])


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ([], "no model"),
        ([model(state="loading", reason="its model is being loaded")], "demo is loading: its model is being loaded"),
        ([model(replica("restarting"), state="restarting", reason="its worker died")], "its worker died"),
        ([model(replica(age=5.0))], "no engine has spoken"),
        ([model(replica(age=15.0, n_running=1))], "no engine has spoken"),
        ([model(replica(age=None))], "no engine has spoken"),
        ([model(replica()), model(replica(age=9.0))], "no engine has spoken"),
        ([model(replica("failed"), state="failed", reason="five deaths")], "demo is failed: five deaths"),
        ([model(state="failed", reason="no GGUF file")], "no model is served"),
    ],
)
async def test_a_server_that_is_not_ready_says_why(models: list[Served], reason: str) -> None:
    async with gateway(fleet=fleet_of(*models)) as http:
        response = await http.get("/readyz")
    assert response.status_code == 503
    assert reason in response.json()["reasons"][0]


async def test_a_draining_server_is_not_ready() -> None:
    async with gateway(fleet=fleet_of(model(replica())), traffic=Traffic(is_draining=True)) as http:
        response = await http.get("/readyz")
    assert (response.status_code, response.json()["reasons"]) == (503, ["the server is shutting down"])


async def test_models_come_and_go() -> None:
    async with gateway() as http:
        loaded = await http.post("/admin/models", json={"model": "second"})
        assert (loaded.status_code, loaded.json()["name"]) == (201, "second")
        assert [one["name"] for one in (await http.get("/admin/models")).json()] == ["demo", "second"]
        assert (await http.delete("/admin/models/demo")).status_code == 204
        assert [one["name"] for one in (await http.get("/admin/models")).json()] == ["second"]


async def test_a_model_that_could_not_be_loaded_is_shown_with_the_reason() -> None:
    async with gateway(fleet=fleet_of(model(replica()), model(state="failed", reason="no GGUF file"))) as http:
        shown = (await http.get("/admin/models")).json()[1]
        listed = (await http.get("/v1/models")).json()["data"][1]
        assert (await http.get("/metrics")).status_code == 200
    assert (shown["state"], shown["reason"], shown["replicas"]) == ("failed", "no GGUF file", [])
    assert listed["status"] == {"value": "failed", "reason": "no GGUF file"}


async def test_a_server_that_prepares_is_not_ready() -> None:
    async with gateway(fleet=fleet_of(model(replica())), traffic=Traffic(is_preparing=True)) as http:
        response = await http.get("/readyz")
    assert (response.status_code, response.json()["reasons"]) == (503, ["the server is starting"])


async def test_a_replica_is_shown_without_its_numbers() -> None:
    async with gateway(fleet=fleet_of(model(replica()))) as http:
        shown = (await http.get("/admin/models")).json()[0]
    assert shown["replicas"] == [{"pid": 1, "state": "ready", "seconds_since_pulse": 0.1, "n_restarts": 2}]
    assert shown["info"]["n_slots"] == 4


async def samples(fleet: FakeFleet) -> dict[str, float]:
    """Each sample by its name and the values of its labels in their order."""
    async with gateway(fleet=fleet) as http:
        response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    return {
        " ".join([sample.name, *dict(sorted(sample.labels.items())).values()]): sample.value
        for family in families
        for sample in family.samples
    }


async def test_metrics_tell_what_the_workers_tell() -> None:
    told = await samples(fleet_of(model(replica(), replica("restarting", None))))
    assert told["plait_slots_writing demo 0"] == told["plait_slots_writing demo 1"] == 2
    assert told["plait_queue demo 0"] == 3
    assert told["plait_kv_cells demo 0"] == 100
    assert told["plait_cached_tokens_total demo 0 idle"] == 12
    assert told["plait_cached_tokens_total demo 0 ram"] == 8
    assert told["plait_worker_restarts_total demo 1"] == 2
    assert (told["plait_worker_up demo 0"], told["plait_worker_up demo 1"]) == (1, 0)


async def test_metrics_tell_what_became_of_requests() -> None:
    tally = Tally()
    tally.outcomes.update(["ok", "ok", "overloaded"])
    tally.count_steps(STATS)
    tally.count_choice(done(0, 5))
    told = await samples(fleet_of(structs.replace(model(replica()), tally=tally)))
    assert told["plait_requests_total demo ok"] == 2
    assert told["plait_requests_total demo overloaded"] == 1
    assert told["plait_step_seconds_bucket 0.025 demo"] == 1
    assert told["plait_step_seconds_bucket +Inf demo"] == told["plait_step_seconds_count demo"] == 2
    assert told["plait_step_rows_sum demo"] == 65
    assert told["plait_first_token_seconds_count demo"] == 1


async def test_metrics_of_a_fleet_without_models_are_metrics() -> None:
    assert (await samples(fleet_of()))["plait_http_running"] == 1


async def test_health_is_readiness_where_no_dialect_has_it() -> None:
    for models, status in ([model(replica())], 200), ([], 503):
        async with gateway(fleet=fleet_of(*models)) as http:
            response = await http.get("/health")
            assert (response.status_code, response.json()) == (status, (await http.get("/readyz")).json())
    async with gateway(Server(dialect=("srb",)), fleet_of(model(replica()))) as http:
        assert (await http.get("/health")).content == (await http.get("/srb/health")).content
