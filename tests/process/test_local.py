"""Models that come and go on this machine."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import coroutine

import pytest

from plait.config import Config, Engine, Models, Server
from plait.errors import Conflict, InvalidModel, ModelChanged, ModelLoadFailed, ModelNotFound, OutOfMemory, Unavailable
from plait.fleet.failures import MOST_REMEMBERED
from plait.fleet.local import LocalFleet
from plait.protocol import RawPrompt, Request, Text
from tests.fakes.gguf_file import write_gguf
from tests.fakes.worker import N_SLOTS, command
from tests.waiting import SECONDS, soon

pytestmark = pytest.mark.anyio

HELLO = Request(prompt=RawPrompt("echo hello"))
HANG = Request(prompt=RawPrompt("hang"))

OpenFleet = Callable[..., AbstractAsyncContextManager[LocalFleet]]


@pytest.fixture
def open_fleet(tmp_path: Path) -> OpenFleet:
    """Makes a fleet that serves small files of these names, and ends it."""

    @asynccontextmanager
    async def open_fleet(
        *names: str,
        replicas: int = 1,
        memory_budget: int = 0,
        drain_timeout: float = 30.0,
        lora: tuple[str, ...] = (),
    ) -> AsyncIterator[LocalFleet]:
        files = tuple(str(write_gguf(tmp_path / f"{name}.gguf")) for name in names)
        config = Config(
            models=Models(model=files, replicas=replicas, memory_budget=memory_budget),
            engine=Engine(slots=N_SLOTS, lora=lora),
            server=Server(drain_timeout=drain_timeout),
        )
        fleet = LocalFleet(config, command())
        try:
            await fleet.start()
            yield fleet
        finally:
            await fleet.close()

    return open_fleet


def replace(path: Path) -> None:
    """By a file of the same size and time."""
    found = path.stat()
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
    new.rename(path)


async def ask(fleet: LocalFleet, model: str | None, request: Request = HELLO) -> str:
    return "".join([answer.text async for answer in fleet.generate(model, request) if isinstance(answer, Text)])


async def test_the_first_model_is_the_default(open_fleet: OpenFleet) -> None:
    async with open_fleet("first", "second") as fleet:
        assert [(model.name, model.state) for model in fleet.models()] == [("first", "ready"), ("second", "ready")]
        assert await ask(fleet, None) == await ask(fleet, "second") == "hello "
        assert [model.tally.outcomes["ok"] for model in fleet.models()] == [1, 1]


async def test_an_unknown_model_is_not_found_and_the_known_are_named(open_fleet: OpenFleet) -> None:
    async with open_fleet("first", "second") as fleet:
        with pytest.raises(ModelNotFound, match="first, second") as caught:
            await ask(fleet, "third")
        assert caught.value.param == "model"


async def test_models_come_while_others_are_served(open_fleet: OpenFleet, tmp_path: Path) -> None:
    async with open_fleet("first") as fleet:
        running = fleet.generate("first", HANG)
        await anext(running)
        served = await fleet.load(f"new={write_gguf(tmp_path / 'x.gguf')}")
        assert (served.name, served.state) == ("new", "ready")
        assert await ask(fleet, "new") == "hello "
        assert isinstance(await anext(running), Text)
        await running.aclose()


async def test_a_name_is_given_once(open_fleet: OpenFleet, tmp_path: Path) -> None:
    async with open_fleet("first") as fleet:
        with pytest.raises(Conflict, match="first"):
            await fleet.load(f"first={write_gguf(tmp_path / 'x.gguf')}")
        assert await ask(fleet, "first") == "hello "


async def test_a_model_goes_when_its_answers_are_out(open_fleet: OpenFleet) -> None:
    async with open_fleet("first", "second") as fleet:
        running = fleet.generate("second", HANG)
        await anext(running)
        unloading = asyncio.create_task(fleet.unload("second"))
        await soon(lambda: fleet.models()[1].state == "unloading")
        with pytest.raises(Unavailable):
            await ask(fleet, "second")
        await running.aclose()
        await unloading
        assert [model.name for model in fleet.models()] == ["first"]
        with pytest.raises(ModelNotFound):
            await ask(fleet, "second")


@coroutine
def held_up(work: Coroutine[object, object, None], goes_on: asyncio.Event) -> Generator[object, object, None]:
    """The same, but where it waits first it waits for `goes_on`, too."""
    steps = work.__await__()
    first = next(steps)
    yield from goes_on.wait().__await__()
    yield first
    yield from steps


async def test_who_unloads_a_model_late_leaves_the_next_of_its_name_alone(
    open_fleet: OpenFleet, tmp_path: Path
) -> None:
    async with open_fleet("first") as fleet:
        goes_on = asyncio.Event()
        late = asyncio.ensure_future(held_up(fleet.unload("first"), goes_on))
        await soon(lambda: fleet.models()[0].state == "unloading")
        await fleet.unload("first")
        await fleet.load(str(tmp_path / "first.gguf"))
        goes_on.set()
        await late
        assert await ask(fleet, "first") == "hello "


async def test_a_model_does_not_wait_for_ever_to_go(open_fleet: OpenFleet) -> None:
    async with open_fleet("first", drain_timeout=0.05) as fleet:
        running = fleet.generate("first", HANG)
        await anext(running)
        await fleet.unload("first")
        with pytest.raises(Unavailable, match="unloaded"):
            while True:
                await anext(running)


async def fail(fleet: LocalFleet, path: Path) -> None:
    """Load what the worker refuses."""
    with pytest.raises(ModelLoadFailed):
        await fleet.load(str(write_gguf(path)))


async def test_a_model_that_does_not_load_is_listed_last_with_the_reason(open_fleet: OpenFleet, tmp_path: Path) -> None:
    async with open_fleet("first") as fleet:
        await fail(fleet, tmp_path / "bad.gguf")
        await fleet.load(str(write_gguf(tmp_path / "second.gguf")))
        assert [(model.name, model.state) for model in fleet.models()][2:] == [("bad", "failed")]
        assert fleet.models()[2].reason == "bad.gguf is no model"
        assert fleet.models()[2].path == str(tmp_path / "bad.gguf")
        with pytest.raises(Unavailable, match=r"bad is not ready: bad\.gguf is no model") as caught:
            await ask(fleet, "bad")
        assert caught.value.retry_after
        assert await ask(fleet, None) == "hello "


async def test_a_model_that_did_not_load_is_listed_until_it_is_removed(open_fleet: OpenFleet, tmp_path: Path) -> None:
    async with open_fleet("first") as fleet:
        await fail(fleet, tmp_path / "bad.gguf")
        await fleet.unload("bad")
        assert [model.name for model in fleet.models()] == ["first"]
        with pytest.raises(ModelNotFound):
            await ask(fleet, "bad")
        with pytest.raises(ModelNotFound):
            await fleet.unload("bad")


async def test_a_model_that_did_not_load_leaves_its_name_to_one_that_does(
    open_fleet: OpenFleet, tmp_path: Path
) -> None:
    async with open_fleet("first") as fleet:
        await fail(fleet, tmp_path / "bad.gguf")
        await fleet.load(f"bad={write_gguf(tmp_path / 'good.gguf')}")
        assert [(model.name, model.state) for model in fleet.models()] == [("first", "ready"), ("bad", "ready")]
        assert await ask(fleet, "bad") == "hello "


async def test_a_model_that_is_served_is_not_hidden_by_one_of_its_name_that_fails(
    open_fleet: OpenFleet, tmp_path: Path
) -> None:
    async with open_fleet("first") as fleet:
        with pytest.raises(Conflict):
            await fleet.load(f"first={write_gguf(tmp_path / 'bad.gguf')}")
        (tmp_path / "no.gguf").write_bytes(b"PK")
        with pytest.raises(InvalidModel):
            await fleet.load(f"no={tmp_path / 'no.gguf'}")
        assert [(model.name, model.state) for model in fleet.models()] == [("first", "ready"), ("no", "failed")]


async def test_of_the_models_that_did_not_load_the_latest_are_listed(open_fleet: OpenFleet, tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"PK")
    async with open_fleet("first") as fleet:
        for number in (*range(MOST_REMEMBERED + 2), 2):
            with pytest.raises(InvalidModel):
                await fleet.load(f"{number}={path}")
        names = [model.name for model in fleet.models()]
    assert names == ["first", *map(str, range(3, MOST_REMEMBERED + 2)), "2"]


async def test_a_file_that_is_no_model_is_the_fault_of_who_named_it(open_fleet: OpenFleet, tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"PK")
    async with open_fleet("first") as fleet:
        with pytest.raises(InvalidModel, match=r"no\.gguf: not a GGUF file") as caught:
            await fleet.load(str(path))
        assert (caught.value.status, caught.value.param) == (400, "model")


async def test_what_is_not_there_has_not_failed(open_fleet: OpenFleet, tmp_path: Path) -> None:
    async with open_fleet("first") as fleet:
        with pytest.raises(ModelNotFound):
            await fleet.load(f"second={tmp_path / 'nowhere.gguf'}")
        assert [model.name for model in fleet.models()] == ["first"]


@pytest.mark.parametrize("change", [Path.touch, Path.unlink, write_gguf, replace])
async def test_a_worker_is_not_replaced_by_one_with_other_weights(
    open_fleet: OpenFleet, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    async with open_fleet("first", "second") as fleet:
        change(tmp_path / "first.gguf")
        os.kill(fleet.models()[0].replicas[0].pid or 0, signal.SIGKILL)
        await soon(lambda: fleet.models()[0].state == "failed")
        with pytest.raises(Unavailable, match=r"first\.gguf (has changed|is out of reach)"):
            await ask(fleet, "first")
        assert [replica.n_restarts for replica in fleet.models()[0].replicas] == [1]
        assert await ask(fleet, "second") == "hello "


async def test_a_worker_is_not_replaced_by_one_with_another_adapter(open_fleet: OpenFleet, tmp_path: Path) -> None:
    adapter = write_gguf(tmp_path / "adapter.gguf")
    async with open_fleet("first", lora=(f"{adapter}=0.5",)) as fleet:
        adapter.touch()
        os.kill(fleet.models()[0].replicas[0].pid or 0, signal.SIGKILL)
        await soon(lambda: fleet.models()[0].state == "failed")
        with pytest.raises(Unavailable, match=r"adapter\.gguf has changed"):
            await ask(fleet, "first")


async def test_a_model_whose_file_is_written_to_answers_nobody(open_fleet: OpenFleet, tmp_path: Path) -> None:
    async with open_fleet("first", "second") as fleet, asyncio.timeout(SECONDS):
        running = fleet.generate("first", HANG)
        await anext(running)
        with (tmp_path / "first.gguf").open("r+b") as file:
            file.write(b"GGUF")
        with pytest.raises(ModelChanged, match=r"first\.gguf has changed"):
            while True:
                await anext(running)
        await soon(lambda: fleet.models()[0].state == "failed")
        with pytest.raises(Unavailable, match=r"first\.gguf has changed"):
            await ask(fleet, "first")
        assert await ask(fleet, "second") == "hello "


async def test_a_model_that_changed_can_be_loaded_anew(open_fleet: OpenFleet, tmp_path: Path) -> None:
    async with open_fleet("first") as fleet:
        (tmp_path / "first.gguf").touch()
        os.kill(fleet.models()[0].replicas[0].pid or 0, signal.SIGKILL)
        await soon(lambda: fleet.models()[0].state == "failed")
        await fleet.unload("first")
        await fleet.load(str(tmp_path / "first.gguf"))
        assert await ask(fleet, "first") == "hello "


async def test_a_fleet_whose_model_does_not_load_does_not_start(open_fleet: OpenFleet) -> None:
    with pytest.raises(ModelLoadFailed, match="bad"):
        async with open_fleet("first", "bad"):
            raise AssertionError("it started")


async def test_memory_is_given_away_once(open_fleet: OpenFleet, tmp_path: Path) -> None:
    async with open_fleet("first", memory_budget=200 * 1024**2) as fleet:
        with pytest.raises(OutOfMemory):
            await fleet.load(str(write_gguf(tmp_path / "second.gguf")))
        assert [(model.name, model.state) for model in fleet.models()] == [("first", "ready"), ("second", "failed")]


async def test_who_comes_later_leaves_room_for_the_next(open_fleet: OpenFleet, tmp_path: Path) -> None:
    async with open_fleet("first", memory_budget=500 * 1024**2) as fleet:
        for name in ("second", "third"):
            await fleet.load(str(write_gguf(tmp_path / f"{name}.gguf")))
        assert [model.name for model in fleet.models()] == ["first", "second", "third"]


async def test_who_comes_later_has_no_memory_for_prefixes_that_others_were_promised(
    open_fleet: OpenFleet, tmp_path: Path
) -> None:
    async with open_fleet("first") as fleet:
        for name in ("second", "third"):
            await fleet.load(str(write_gguf(tmp_path / f"{name}.gguf")))
        first, second, third = (model.info.cache_ram for model in fleet.models() if model.info)
        assert first > second > third > 0


@pytest.mark.parametrize("name", ["", "a=b", "a/b", "hf:a/b", "two\nlines", '"', "\N{SNOWMAN}", "x" * 5000])
async def test_any_text_may_be_a_name(open_fleet: OpenFleet, tmp_path: Path, name: str) -> None:
    async with open_fleet("first") as fleet:
        assert (await fleet.load(str(write_gguf(tmp_path / "x.gguf")), name)).name == name
        assert await ask(fleet, name) == "hello "
        await fleet.unload(name)
        with pytest.raises(ModelNotFound):
            await ask(fleet, name)


async def test_replicas_share_the_requests(open_fleet: OpenFleet) -> None:
    async with open_fleet("first", replicas=2) as fleet:
        running = [fleet.generate(None, HANG) for _ in range(4)]
        for answers in running:
            await anext(answers)
        replicas = fleet.models()[0].replicas
        await soon(lambda: [r.stats.n_writing for r in fleet.models()[0].replicas if r.stats] == [2, 2])
        assert len({replica.pid for replica in replicas}) == 2
        for answers in running:
            await answers.aclose()


async def test_a_model_that_is_loading_cannot_be_unloaded(open_fleet: OpenFleet, tmp_path: Path) -> None:
    async with open_fleet("first") as fleet:
        loading = asyncio.create_task(fleet.load(str(write_gguf(tmp_path / "endless.gguf"))))
        await soon(lambda: len(fleet.models()) == 2)
        with pytest.raises(Conflict, match="endless is still loading"):
            await fleet.unload("endless")
        loading.cancel()
        await asyncio.wait([loading])
        assert [model.name for model in fleet.models()] == ["first"]


async def test_a_model_is_looked_for_while_other_threads_are_busy(open_fleet: OpenFleet) -> None:
    async with open_fleet("first") as fleet:
        busy, free = ThreadPoolExecutor(1), threading.Event()
        asyncio.get_running_loop().set_default_executor(busy)
        busy.submit(free.wait)
        try:
            async with asyncio.timeout(SECONDS):
                with pytest.raises(ModelNotFound):
                    await fleet.load("nowhere")
        finally:
            free.set()
