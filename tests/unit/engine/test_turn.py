"""Who gets the next free slot: tenants share fairly, priority goes before others, and nobody waits for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.scheduler import OVERTAKEN, Tenant, turn
from plait.engine.sequence import Group, Sequence
from plait.protocol import MAX_PRIORITY
from tests.fakes.context import FakeContext
from tests.fakes.listener import Notebook

PRIORITIES = st.integers(-MAX_PRIORITY, MAX_PRIORITY)
ARRIVALS = st.integers(0, 10_000)


def waiting(arrival: int, priority: int = 0, n_running: int = 0) -> Sequence:
    group = Group(priority=priority, n_running=n_running)
    return Sequence([1], group, Notebook(), lambda k: 0, 1, arrival=arrival)


def goes_first(one: Sequence, other: Sequence) -> bool:
    """Of one tenant."""
    tenant = Tenant()
    return turn(one, tenant) < turn(other, tenant)


# ── the rule ─────────────────────────────────────────────────────────────────────────────────────────────────────


@given(PRIORITIES, ARRIVALS, ARRIVALS)
def test_among_equals_the_first_to_come_is_the_first_to_go(priority: int, one: int, other: int) -> None:
    assert goes_first(waiting(one, priority), waiting(other, priority)) == (one < other)


@given(PRIORITIES, PRIORITIES, ARRIVALS, st.integers(1, OVERTAKEN - 1))
def test_of_those_who_come_at_about_one_time_the_higher_priority_goes_first(
    one: int, other: int, arrival: int, later: int
) -> None:
    assert goes_first(waiting(arrival + later, one), waiting(arrival, other)) == (one > other)


@given(PRIORITIES, PRIORITIES, ARRIVALS)
def test_who_has_waited_long_enough_is_overtaken_by_no_priority(one: int, other: int, arrival: int) -> None:
    newcomer = waiting(arrival + OVERTAKEN * 2 * MAX_PRIORITY + 1, other)
    assert goes_first(waiting(arrival, one), newcomer)


@given(PRIORITIES, PRIORITIES, ARRIVALS, ARRIVALS, st.integers(0, 9), st.integers(1, 9), ARRIVALS, ARRIVALS)
def test_a_tenant_with_fewer_running_goes_before_any_priority(
    one: int, other: int, first: int, second: int, n: int, more: int, last: int, before: int
) -> None:
    modest, greedy = waiting(first, one, n_running=n), waiting(second, other)
    assert turn(modest, Tenant(n, last)) < turn(greedy, Tenant(n + more, before))


@given(PRIORITIES, PRIORITIES, ARRIVALS, ARRIVALS, st.integers(0, 9), st.integers(1, 9))
def test_tenants_with_equally_many_running_take_turns(
    one: int, other: int, first: int, second: int, n: int, last: int
) -> None:
    assert turn(waiting(first, one), Tenant(n, last)) < turn(waiting(second, other), Tenant(n, last + 1))


@given(PRIORITIES, PRIORITIES, ARRIVALS, ARRIVALS, st.integers(0, 9), st.integers(1, 9))
def test_within_a_tenant_a_request_with_fewer_running_goes_first(
    one: int, other: int, first: int, second: int, n: int, more: int
) -> None:
    assert goes_first(waiting(first, one, n_running=n), waiting(second, other, n_running=n + more))


# ── the engine that keeps it ─────────────────────────────────────────────────────────────────────────────────────


def make(n_slots: int) -> Engine:
    return Engine(FakeContext(n_slots), n_slots, Pace(target=0.1, n_batch=512, n_ubatch=512))


def ask(engine: Engine, max_tokens: int, tenant: str = "", priority: int = 0) -> Notebook:
    """A prompt of its own, so that nobody waits for somebody else's."""
    assert isinstance(engine.context, FakeContext)
    group, heard = Group(tenant=tenant, priority=priority), Notebook()
    number = engine.scheduler.n_arrived
    Sequence([number, *range(20)], group, heard, engine.context.sampler(number), max_tokens)
    engine.submit(group)
    return heard


@pytest.mark.parametrize("n_slots", [1, 4])
def test_who_queues_forty_requests_keeps_a_newcomer_waiting_for_one_slots_end_only(n_slots: int) -> None:
    engine = make(n_slots)
    greedy = [ask(engine, 5 + i % 7, "greedy") for i in range(n_slots + 40)]
    engine.step()
    newcomer = ask(engine, 3, "modest")
    while not any(heard.reason for heard in greedy):
        assert newcomer.n_cached is None
        engine.step()
    n_ended = sum(heard.reason is not None for heard in greedy)
    engine.step()
    assert newcomer.n_cached is not None
    assert sum(heard.n_cached is not None for heard in greedy) == n_slots + n_ended - 1


def test_two_tenants_with_long_queues_get_half_of_the_slots_each() -> None:
    engine = make(4)
    queues = {tenant: [ask(engine, 30, tenant) for _ in range(20)] for tenant in ("one", "other")}
    for _ in range(200):
        engine.step()
        running = [engine.scheduler.tenants[tenant].n_running for tenant in queues]
        assert max(running) <= 2 or engine.scheduler.n_waiting == 0


def test_the_lowest_priority_has_its_turn_however_many_higher_ones_go_on_coming() -> None:
    engine = make(1)
    ask(engine, 2)
    engine.step()
    lowest = ask(engine, 1, priority=-1)
    n_newcomers = 0
    while lowest.n_cached is None:
        ask(engine, 1, priority=1)
        n_newcomers += 1
        engine.step()
        assert n_newcomers < 5 * OVERTAKEN
    assert n_newcomers > OVERTAKEN
