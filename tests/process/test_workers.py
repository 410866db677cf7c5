"""Requests on real worker processes, whatever becomes of these."""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from plait import wire
from plait.errors import BadRequest, BodyTooLarge, ContextOverflow, ModelLoadFailed, Overloaded, Unavailable
from plait.fleet.pool import Pool
from plait.fleet.process import Launcher, Worker
from plait.fleet.supervisor import Supervisor
from plait.fleet.watch import watch
from plait.metrics import Tally
from plait.protocol import Answer, Done, Prompt, RawPrompt, Request, Sampling, Started, Stats, Text, TokenPrompt
from tests.fakes.worker import FORGOTTEN, N_SLOTS, STEP_SECONDS
from tests.process.conftest import PLAN, OpenPool, order
from tests.waiting import soon

pytestmark = pytest.mark.anyio


def request(prompt: str, n: int = 1) -> Request:
    return Request(prompt=RawPrompt(prompt), n=n)


async def text(answers: AsyncGenerator[Answer, None]) -> str:
    return "".join([answer.text async for answer in answers if isinstance(answer, Text)])


def stats(pool: Pool) -> Stats | None:
    """What the first replica last told."""
    return pool.served().replicas[0].stats


def children() -> str:
    """The ids of our child processes, the unburied dead among them."""
    return " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).strip()


def pid(pool: Pool) -> int | None:
    return pool.served().replicas[0].pid


async def test_an_answer_begins_and_ends(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        answers = [answer async for answer in pool.generate(request("echo a b", n=2))]
    assert isinstance(answers[0], Started)
    assert [(a.choice, a.text) for a in answers if isinstance(a, Text)] == [(0, "a "), (1, "a "), (0, "b "), (1, "b ")]
    assert [a.choice for a in answers if isinstance(a, Done)] == [0, 1]


async def test_answers_do_not_mix(open_pool: OpenPool) -> None:
    words = [f"{i} {i} " for i in range(20)]
    async with open_pool(max_queue=20) as pool:
        answers = await asyncio.gather(*(text(pool.generate(request(f"echo {said}"))) for said in words))
    assert answers == words


async def test_replicas_may_take_requests_in_turn(open_pool: OpenPool) -> None:
    same = request("echo " + "a" * 600)
    async with open_pool(n_replicas=2, routing="round-robin") as pool:
        for _ in range(4):
            await text(pool.generate(same))
        await soon(lambda: [r.stats.requests_total for r in pool.served().replicas if r.stats] == [2, 2])


async def test_leaving_frees_the_slot(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        async with aclosing(pool.generate(request("hang"))) as answers:
            await anext(answers)
            await soon(lambda: (told := stats(pool)) and told.n_writing == 1)
        await soon(lambda: (told := stats(pool)) and told.n_writing == 0 and told.cancelled_total == 1)
        assert pool.tally.outcomes == {"cancelled": 1}


async def test_what_the_worker_refuses_is_raised_as_it_is(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        with pytest.raises(ContextOverflow) as caught:
            await text(pool.generate(request("refuse")))
        assert (caught.value.status, caught.value.param) == (400, "prompt")
        assert pool.tally.outcomes == {"context_length_exceeded": 1}


async def test_a_worker_that_dies_is_replaced(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        first = pid(pool)
        assert first
        os.kill(first, signal.SIGKILL)
        await soon(lambda: pid(pool) not in (first, None))
        assert await text(pool.generate(request("echo again"))) == "again "
        assert pool.served().replicas[0].n_restarts == 1


async def test_the_log_names_the_model_whose_worker_died(open_pool: OpenPool, caplog: pytest.LogCaptureFixture) -> None:
    async with open_pool() as pool:
        os.kill(first := pid(pool) or 0, signal.SIGKILL)
        await soon(lambda: pid(pool) not in (first, None))
    (said,) = (record.getMessage() for record in caplog.records if record.name == "plait.fleet.supervisor")
    assert said.startswith(f"process {first} of model 'fake': the worker died (")


async def test_who_asks_while_the_worker_restarts_waits_for_the_next(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        os.kill(pid(pool) or 0, signal.SIGKILL)
        await soon(lambda: pool.served().state == "restarting")
        assert await text(pool.generate(request("echo again"))) == "again "


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_ids_of_no_token_are_refused_whatever_the_worker_is_doing(
    open_pool: OpenPool, number: signal.Signals
) -> None:
    prompts: list[Prompt] = [TokenPrompt([0, 3]), TokenPrompt([-1, 0]), RawPrompt("echo a", prefix=(2**40,))]
    requests = [Request(prompt=prompt) for prompt in prompts]
    requests.append(Request(prompt=RawPrompt("echo a"), sampling=Sampling(logit_bias={3: 1.0})))
    async with open_pool() as pool:
        os.kill(pid(pool) or 0, number)
        for each in requests:
            with pytest.raises(BadRequest, match=r"there is no token .*; ids end at 2"):
                await anext(pool.generate(each))
        assert pool.tally.outcomes == {"invalid_request": 4}


async def test_too_many_requests_are_refused_at_once(open_pool: OpenPool) -> None:
    async with open_pool(max_queue=2) as pool:
        running = [pool.generate(request("hang")) for _ in range(N_SLOTS + 2)]
        for answers in running:
            await anext(answers)
        with pytest.raises(Overloaded) as caught:
            await text(pool.generate(request("echo")))
        assert 1 <= (caught.value.retry_after or 0) <= 60
        await running.pop().aclose()
        assert await text(pool.generate(request("echo room"))) == "room "
        for answers in running:
            await answers.aclose()


async def test_too_many_prompt_tokens_are_refused_at_once(open_pool: OpenPool) -> None:
    async with open_pool(max_queue_tokens=100) as pool:
        waiting = asyncio.create_task(text(pool.generate(request("silent " + "x" * 300))))
        await soon(lambda: (told := stats(pool)) and told.n_writing == 1)
        with pytest.raises(Overloaded, match="tokens wait"):
            await text(pool.generate(request("echo " + "x" * 300)))
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await text(pool.generate(request("echo room"))) == "room "


async def test_prompts_that_are_read_leave_room_for_others(open_pool: OpenPool) -> None:
    async with open_pool(max_queue_tokens=100) as pool:
        running = [pool.generate(request("hang " + "x" * 300)) for _ in range(3)]
        for answers in running:
            assert isinstance(await anext(answers), Started)
        for answers in running:
            await answers.aclose()


async def test_draining_waits_for_those_who_run_and_refuses_others(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        answers = pool.generate(request("hang"))
        await anext(answers)
        draining = asyncio.create_task(pool.drain(60))
        await soon(lambda: pool.served().state == "unloading")
        with pytest.raises(Unavailable):
            await text(pool.generate(request("echo")))
        assert not draining.done()
        await answers.aclose()
        await draining


async def test_whose_worker_dies_while_the_pool_drains_goes_on(open_pool: OpenPool, tmp_path: Path) -> None:
    async with open_pool() as pool:
        answers = pool.generate(request(f"gate {tmp_path / 'open'}"))
        assert isinstance(await anext(answers), Started)
        draining = asyncio.create_task(pool.drain(60))
        await soon(lambda: pool.served().state == "unloading")
        os.kill(pid(pool) or 0, signal.SIGKILL)
        (tmp_path / "open").touch()
        assert await text(answers) == f"{tmp_path / 'open'} "
        await draining


async def test_caches_are_emptied_of_workers_that_are_just_starting_too(launcher: Launcher) -> None:
    restarts = asyncio.Event()

    async def start(tally: Tally) -> Worker:
        await restarts.wait()
        return await Worker.start(launcher, order("good"), tally)

    restarts.set()
    pool = Pool(PLAN, start, start, hang_seconds=30)
    await pool.start()
    restarts.clear()
    os.kill(pid(pool) or 0, signal.SIGKILL)
    await soon(lambda: pool.served().state == "restarting")
    pool.forget()
    restarts.set()
    await soon(lambda: (told := stats(pool)) is not None and told.n_cells == FORGOTTEN)
    await pool.stop(Unavailable("the test is over"))


async def test_who_still_waits_at_the_end_is_told_why(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        answers = pool.generate(request("silent"))
        waiting = asyncio.create_task(text(answers))
        await soon(lambda: (told := stats(pool)) and told.n_writing == 1)
        await pool.stop(Unavailable("the server is shutting down"))
        with pytest.raises(Unavailable, match="shutting down"):
            await waiting


@pytest.mark.parametrize(("name", "said"), [("bad", "bad is no model"), ("deadly", "signal 9")])
async def test_a_model_that_does_not_load_is_an_error_and_leaves_no_process(
    launcher: Launcher, name: str, said: str
) -> None:
    before = children()
    with pytest.raises(ModelLoadFailed, match=said):
        await Worker.start(launcher, order(name), Tally())
    assert children() == before


async def test_a_command_that_does_not_exist_is_an_error() -> None:
    launcher = Launcher(["/nowhere/worker"])
    with pytest.raises(ModelLoadFailed, match="no worker can be started"):
        await Worker.start(launcher, order("good"), Tally())
    launcher.close()


async def test_a_load_that_does_not_end_is_an_error_and_leaves_no_process(launcher: Launcher) -> None:
    before = children()
    with pytest.raises(ModelLoadFailed, match="endless was not loaded within 1 s"):
        await Worker.start(launcher, order("endless"), Tally(), most_seconds=1.0)
    assert children() == before


async def test_a_load_that_is_given_up_leaves_no_process(launcher: Launcher) -> None:
    before = children()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await Worker.start(launcher, order("endless"), Tally())
    assert children() == before


async def test_a_start_that_is_given_up_at_once_leaves_no_process(launcher: Launcher) -> None:
    before = children()
    starting = asyncio.create_task(Worker.start(launcher, order("good"), Tally()))
    asyncio.get_running_loop().call_soon(starting.cancel)
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert children() == before


@contextmanager
def no_files() -> Iterator[None]:
    """For the time of the block, this process may open no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_too_many_open_files_delay_the_next_worker_only(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        with no_files():
            os.kill(pid(pool) or 0, signal.SIGKILL)
            await soon(lambda: "open files" in pool.served().reason)
        await soon(lambda: pool.served().state == "ready")
        assert await text(pool.generate(request("echo again"))) == "again "


async def test_a_defect_while_a_worker_is_replaced_is_told(launcher: Launcher) -> None:
    workers = iter([await Worker.start(launcher, order("good"), Tally())])

    async def start() -> Worker:
        for worker in workers:
            return worker
        raise ZeroDivisionError("a defect")

    replica = Supervisor("fake", start, 30, lambda: None)
    await replica.start()
    os.kill(replica.replica().pid or 0, signal.SIGKILL)
    await soon(lambda: (replica.state, replica.reason) == ("failed", "ZeroDivisionError: a defect"))
    await replica.stop(Unavailable("the test is over"), grace=0)


async def test_a_worker_that_is_told_to_stop_while_it_starts_is_stopped(launcher: Launcher) -> None:
    before = children()
    replica = Supervisor("fake", lambda: Worker.start(launcher, order("good"), Tally()), 30, lambda: None)
    starting = asyncio.create_task(replica.start())
    await soon(lambda: children() != before)
    await replica.stop(Unavailable("it is to end"), grace=0)
    with pytest.raises(Unavailable, match="it is to end"):
        await starting
    assert (children(), replica.state) == (before, "unloading")


@pytest.mark.parametrize("n_turns", range(4))
async def test_who_is_told_to_stop_while_a_worker_dies_stops(launcher: Launcher, n_turns: int) -> None:
    """However many turns of the event loop it is since the death."""
    worker = await Worker.start(launcher, order("good"), Tally())
    watching = asyncio.create_task(watch(worker, 30))
    for _ in range(3):
        await asyncio.sleep(0)
    worker.client.close("it is to die")
    for _ in range(n_turns):
        await asyncio.sleep(0)
    is_cancelled = watching.cancel()
    await asyncio.wait([watching])
    assert watching.cancelled() == is_cancelled
    await worker.wait()


async def test_a_request_that_no_frame_carries_is_refused_and_hurts_nobody(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        first = pid(pool)
        with pytest.raises(BodyTooLarge):
            await text(pool.generate(request("echo " + "x" * wire.MAX_FRAME)))
        assert await text(pool.generate(request("echo again"))) == "again "
        assert pid(pool) == first


async def test_what_a_step_usually_takes_is_known_when_nothing_runs(open_pool: OpenPool) -> None:
    async with open_pool(hang_seconds=1) as pool:
        await text(pool.generate(request("echo a")))
        await soon(lambda: pool.served().replicas[0].patience == pytest.approx(10 * STEP_SECONDS))
