"""How events become lines, and what is asked for, with a fleet that says what it is told to."""

import asyncio
from collections.abc import MutableMapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from msgspec import structs

from plait.config import Config, ConfigError, Server
from plait.dialects import llm_http
from plait.dialects.llm_http import DEFAULT, Settings, lines, restore
from plait.dialects.llm_http_prompts import Kept, load
from plait.errors import ContextOverflow, Overloaded, PlaitError, WorkerDied
from plait.fleet.registry import DEMO, resolve
from plait.gateway.app import create_app
from plait.gateway.table import Dialect
from plait.protocol import Cached, Pin, Progress, RawPrompt, Request, Sampling, Started, Text, TokenPrompt
from plait.web.respond import BrokenOff
from tests.dialects.llm_http.asking import only_file
from tests.fakes.fleet import FakeFleet, Step, done, play, served
from tests.unit.gateway.asking import gateway
from tests.waiting import SECONDS, soon

pytestmark = pytest.mark.anyio

BEGUN = Started(0, [0, 7, 8, 9, 10], Cached(ram=1, disk=3), ["", "Hi", None, "é", "\n"])
RESTORING = Settings(restored=(5, 6), restored_from=Path("/kept"))
ECHO = [b"", b"\n", b"Hi\n", "é\n".encode(), b"\n\n"]


async def parts(*steps: Step, n_restored: int = 0) -> list[bytes]:
    answer = FakeFleet(play(*steps)).generate(None, Request(prompt=RawPrompt("")))
    return [part async for part in lines(answer, n_restored)]


async def ask(fleet: FakeFleet, **fields: object) -> httpx2.Response:
    async with gateway(Server(dialect=("llm-http",)), fleet) as http:
        return await http.post("/stream", json={"prompt": "Hi"} | fields)


async def test_every_token_is_a_part_of_its_own() -> None:
    steps = BEGUN, Text(0, 0, " a", [1]), Text(0, 0, "\n", [2]), Text(0, 0, "b\nc", [3]), done(0, 3)
    assert await parts(*steps) == [*ECHO, b" a\n", b"\n\n", b"b\nc\n"]


async def test_a_token_is_sent_before_the_next_is_there_and_leaving_ends_it() -> None:
    fleet, sent = FakeFleet(play(BEGUN, Text(0, 0, " a", [1]), asyncio.Event())), list[bytes]()
    requests = [{"type": "http.request", "body": b'{"prompt": "Hi"}', "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        if not requests:
            await soon(lambda: b" a\n" in sent)
        return requests.pop() if requests else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("body", b""))

    app = create_app(Config(server=Server(dialect=("llm-http",))), fleet)
    with anyio.fail_after(SECONDS):
        await app({"type": "http", "method": "POST", "path": "/stream", "headers": []}, receive, send)
        await soon(lambda: fleet.n_running == 0)
    assert sent[1:7] == [*ECHO, b" a\n"]


async def test_half_a_character_waits_and_is_nothing_if_its_rest_does_not_come() -> None:
    assert await parts(BEGUN, Text(0, 0, "", [1]), Text(0, 0, "é", [2]), done(0, 3, text="\ufffd")) == [
        *ECHO,
        "é\n".encode(),
    ]


async def test_while_a_long_prompt_is_read_nothing_is_said() -> None:
    assert await parts(BEGUN, Progress(0, 2, 5), done(0, 0)) == ECHO


async def test_what_was_restored_is_not_played_back() -> None:
    assert await parts(BEGUN, done(0, 0), n_restored=2) == [b"", *ECHO[3:]]


async def test_a_failure_breaks_the_text_off_where_it_is() -> None:
    steps, said = play(BEGUN, Text(0, 0, "a", [1]), WorkerDied("gone")), list[bytes]()
    with pytest.raises(BrokenOff):
        async for part in lines(FakeFleet(steps).generate(None, Request(prompt=RawPrompt(""))), 0):
            said.append(part)
    assert said == [*ECHO, b"a\n"]


async def test_a_prompt_that_does_not_fit_is_answered_with_nothing() -> None:
    answer = await ask(FakeFleet(play(ContextOverflow("too long"))))
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("error", [Overloaded("full", retry_after=3), WorkerDied("gone")])
async def test_what_could_not_happen_to_the_original_has_its_own_status(error: PlaitError) -> None:
    answer = await ask(FakeFleet(play(error)))
    assert (answer.status_code, answer.text) == (error.status, f"{error.message}\n")


async def test_what_is_not_said_is_as_the_readme_has_it() -> None:
    fleet = FakeFleet()
    await ask(fleet)
    sampling = Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0, repeat_penalty=1.3, repeat_last_n=64)
    assert fleet.request == Request(prompt=RawPrompt("Hi"), max_tokens=32, prompt_chunk=8, sampling=sampling, echo=True)


async def test_what_is_said_is_done() -> None:
    fleet = FakeFleet()
    await ask(fleet, num_predict=5, n_batch=3, top_k=2, top_p=7, repeat_penalty=1, temp=0, seed=7)
    assert (fleet.request.max_tokens, fleet.request.prompt_chunk) == (5, 3)
    assert fleet.request.sampling == Sampling(
        temperature=0, top_k=2, top_p=1, min_p=0, repeat_penalty=1, repeat_last_n=64
    )


async def test_null_is_the_same_as_absent() -> None:
    said, unsaid = FakeFleet(), FakeFleet()
    nulls = dict.fromkeys(("num_predict", "n_batch", "top_k", "top_p", "repeat_penalty", "temp", "cache"))
    assert (await ask(said, **nulls)).status_code == 200
    await ask(unsaid)
    assert said.request == unsaid.request


async def test_every_request_goes_on_from_what_was_restored() -> None:
    fleet = FakeFleet()
    async with keeper(fleet, RESTORING) as http:
        assert (await http.post("/stream", json={"prompt": "Hi"})).status_code == 200
    assert (fleet.request.prompt, fleet.request.pin) == (RawPrompt("Hi", prefix=(5, 6)), Pin(b"/kept", 2))


def keeper(fleet: FakeFleet, settings: Settings, *keys: str) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
    """A client of a gateway that keeps prompts, and serves the demo model's file by the name of the fake's."""
    fleet.served = [structs.replace(served("demo"), path=str(resolve(DEMO).path))]
    dialect = Dialect("llm-http", partial(llm_http.routes, settings=settings), llm_http.refuse)
    return gateway(Server(dialect=("llm-http",), api_key=keys), fleet, dialects=[dialect])


async def numbered(folder: Path, prompt: str = "Hi", key: str = "") -> Request:
    """What a request under number 7 becomes."""
    fleet = FakeFleet(play(BEGUN, Text(0, 0, "a", [1]), done(0, 1)))
    async with keeper(fleet, Settings(prompts=folder), *(["one", "two"] if key else [])) as http:
        answer = await http.post("/stream", json={"prompt": prompt, "cache": 7}, headers={"x-api-key": key})
    assert answer.content.endswith(b"a\n")
    return fleet.request


async def test_a_prompt_is_kept_before_the_answer_goes_on(tmp_path: Path) -> None:
    fleet, folder = FakeFleet(play(BEGUN, Text(0, 0, "a", [1]), done(0, 1))), tmp_path / "new"
    answer = fleet.generate(None, Request(prompt=RawPrompt("")))
    async for event in llm_http.keeping(answer, folder / "7", Kept("ab12", (), "Hi")):
        assert folder.exists() is not isinstance(event, Started)
    assert load(only_file(folder), "ab12") == Kept("ab12", (0, 7, 8, 9, 10), "Hi")


async def test_a_prompt_that_cannot_be_kept_is_answered(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert (await numbered(tmp_path / "file")).prompt == RawPrompt("Hi")


async def test_a_later_request_with_its_number_goes_on_from_it(tmp_path: Path) -> None:
    assert (await numbered(tmp_path, "Hi")).prompt == RawPrompt("Hi")
    kept = only_file(tmp_path).read_bytes()
    assert (await numbered(tmp_path, " there")).prompt == RawPrompt(" there", prefix=(0, 7, 8, 9, 10))
    assert (await numbered(tmp_path, "Hi there")).prompt == RawPrompt("Hi there")
    assert only_file(tmp_path).read_bytes() == kept


async def test_what_is_kept_or_restored_stays_on_disk_for_its_file(tmp_path: Path) -> None:
    path = bytes(tmp_path / "7.plait-prompt")
    assert (await numbered(tmp_path)).pin == Pin(path)
    assert (await numbered(tmp_path, " there")).pin == Pin(path, 5)
    assert (await numbered(tmp_path, "Hi there")).pin == Pin(path, 5)
    (tmp_path / "7.plait-prompt").write_text("no prompt")
    assert (await numbered(tmp_path)).pin is None


async def test_a_file_that_is_refused_stays_and_its_request_runs_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await numbered(tmp_path)
    path = only_file(tmp_path)
    path.write_bytes(cut := path.read_bytes()[:-1])
    assert (await numbered(tmp_path, " there")).prompt == RawPrompt(" there")
    assert path.read_bytes() == cut
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert said == f"{path} is not restored: not a prompt that was kept, or damaged since"


async def test_one_line_of_the_log_says_how_much_was_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "plait.dialects")
    await numbered(tmp_path)
    await numbered(tmp_path, " there")
    kept, restored = (record.getMessage() for record in caplog.records)
    counts = "5 tokens, 4 cached (running 0, idle 0, RAM 1, disk 3)"
    assert kept == f"a prompt is to be kept as {only_file(tmp_path)}: {counts}"
    assert restored == f"a prompt is restored from {only_file(tmp_path)}: {counts}"


async def test_what_one_key_kept_another_does_not_restore(tmp_path: Path) -> None:
    await numbered(tmp_path, key="one")
    assert (await numbered(tmp_path, " there", key="two")).prompt == RawPrompt(" there")
    assert (await numbered(tmp_path, " there", key="one")).prompt != RawPrompt(" there")


async def test_a_restored_prompt_is_read_once_before_there_are_requests() -> None:
    fleet = FakeFleet()
    await restore(RESTORING, fleet)
    assert fleet.request == Request(prompt=TokenPrompt([5, 6]), max_tokens=1, pin=Pin(b"/kept"))


async def test_a_restored_prompt_must_fit() -> None:
    with pytest.raises(ConfigError, match="too long"):
        await restore(RESTORING, FakeFleet(play(ContextOverflow("too long"))))


def test_an_ordinary_server_has_the_programs_defaults() -> None:
    assert DEFAULT == Settings()
