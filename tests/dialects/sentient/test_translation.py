"""What Sentient's clients say becomes Plait's own words, and what becomes of errors."""

import msgspec
import pytest
from msgspec import structs

from plait import errors
from plait.dialects.sentient import refuse
from plait.errors import PlaitError
from plait.protocol import RawPrompt, Request, Sampling
from tests.dialects.sentient.asking import FIELDS, ask, client
from tests.fakes.fleet import FakeFleet, play, say

pytestmark = pytest.mark.anyio

ODD_NAMES = ["", "a=b", "a/b", "two\nlines", '"\\', "\N{SNOWMAN}"]


async def test_a_completion_is_greedy_and_limited_in_all() -> None:
    fleet = FakeFleet()
    response = await ask(fleet, "/completions", FIELDS | {"n_ctx": 512})
    assert response.content == b'{"Message":"Hello world"}'
    assert fleet.request == Request(
        prompt=RawPrompt("Hello, world!"),
        max_total_tokens=11,
        ctx_size=512,
        n_threads=5,
        spells_control=True,
        sampling=Sampling(temperature=0),
    )


async def test_threads_below_one_are_as_many_as_the_server_has() -> None:
    fleet = FakeFleet()
    await ask(fleet, "/completions", FIELDS | {"n_ctx": 512, "n_threads": -3})
    assert fleet.request.n_threads == 0


async def test_text_is_not_escaped_beyond_need() -> None:
    fleet = FakeFleet(say('"\N{SNOWMAN}\n', "\x01/"))
    response = await ask(fleet, "/completions", FIELDS | {"n_ctx": 512})
    assert response.content == '{"Message":"\\"\N{SNOWMAN}\\n\\u0001/"}'.encode()


async def test_status_is_empty_without_models() -> None:
    async with client(FakeFleet(names=())) as http:
        assert (await http.get("/status")).content == b'{"Message":""}'


@pytest.mark.parametrize("state", ["loading", "unloading"])
async def test_a_model_that_comes_or_goes_is_not_loaded(state: str) -> None:
    fleet = FakeFleet(names=("demo", "other"))
    fleet.served[0] = structs.replace(fleet.served[0], state=state)
    async with client(fleet) as http:
        assert (await http.get("/status")).json() == {"Message": "other"}
        said = await http.post("/completions", json=FIELDS)
        assert said.text == "Error: Model demo not loaded. Please load the model using the /load_model endpoint."
        again = await http.post("/load_model", json={"model_name": "demo", "model_path": "x"})
        assert again.text == "Warning: Model demo already loaded"


async def test_a_model_that_could_not_be_loaded_is_not_loaded_and_may_be_loaded_again() -> None:
    fleet = FakeFleet(names=("other", "demo"))
    fleet.served[1] = structs.replace(fleet.served[1], state="failed", reason="not a GGUF file")
    async with client(fleet) as http:
        assert (await http.get("/status")).json() == {"Message": "other"}
        assert (await http.post("/completions", json=FIELDS)).text.startswith("Error: Model demo not loaded.")
        again = await http.post("/load_model", json={"model_name": "demo", "model_path": "x"})
        assert again.json() == {"Message": "demo Model loaded"}
        assert (await http.get("/status")).json() == {"Message": "other\ndemo"}


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_any_text_is_a_name(name: str) -> None:
    fleet = FakeFleet(names=())
    response = await ask(fleet, "/load_model", {"model_name": name, "model_path": "x.gguf"})
    assert response.json() == {"Message": f"{name} Model loaded"}
    assert (await ask(fleet, "/completions", FIELDS | {"model": name, "n_ctx": 512})).status_code == 200
    async with client(fleet) as http:
        assert (await http.get("/status")).json() == {"Message": name}
        assert (await http.get("/metrics")).status_code == 200


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"prompt": null}'])
async def test_a_greeting_needs_a_prompt(body: bytes) -> None:
    response = await ask(FakeFleet(), "/", msgspec.json.decode(body))
    assert response.status_code == 422
    assert response.text.startswith("Failed to deserialize the JSON body into the target type: ")


@pytest.mark.parametrize(
    "error",
    [
        errors.ContextOverflow("why"),
        errors.ModelNotFound("why"),
        errors.Overloaded("why", retry_after=7),
        errors.GenerationFailed("why"),
        errors.ModelLoadFailed("why"),
        errors.WorkerDied("why"),
        errors.OutOfMemory("why"),
        PlaitError("why"),
    ],
)
async def test_what_the_original_hung_up_on_has_a_status_and_a_text(error: PlaitError) -> None:
    response = await ask(FakeFleet(play(error)), "/completions", FIELDS | {"n_ctx": 512})
    assert response.status_code == error.status
    assert response.text == "Error: why"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers.get("retry-after") == (str(error.retry_after) if error.retry_after else None)


@pytest.mark.parametrize("error", [errors.NotFound("why"), errors.MethodNotAllowed("why")])
async def test_axum_says_nothing_of_paths(error: PlaitError) -> None:
    assert (refuse(error).status_code, refuse(error).body) == (error.status, b"")
