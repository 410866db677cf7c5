"""K12: whatever a mad worker sends, its requests end, and what they were told is in order."""

import asyncio
import socket
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from plait import protocol, wire
from plait.errors import PlaitError
from plait.fleet.client import Client
from plait.fleet.journal import Journal
from plait.metrics import Tally
from plait.protocol import Answer, Done, Event, Failed, Progress, Queued, RawPrompt, Request, Started, Text
from tests.process.conftest import order
from tests.waiting import SECONDS

IDS = st.sampled_from((1, 1, 1, 0, 2))
"""The request's is 1."""
CHOICES, COUNTS = st.sampled_from((0, 1, 0, 1, 2, -1)), st.integers(-1, 2**40)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Queued, IDS),
    st.builds(Started, IDS, st.lists(COUNTS, max_size=3)),
    st.builds(Progress, IDS, COUNTS, COUNTS),
    st.builds(Text, IDS, CHOICES, st.text(max_size=3), st.lists(COUNTS, max_size=3)),
    st.builds(
        Done, IDS, CHOICES, st.sampled_from(["stop", "length"]), COUNTS, COUNTS, COUNTS, st.floats(), st.floats()
    ),
    st.builds(Failed, IDS, st.sampled_from(["", "worker_died", "invalid_request"]), st.text(max_size=3)),
)
FRAMES = st.one_of(
    st.lists(EVENTS, max_size=4).map(protocol.encode).map(wire.pack),
    st.binary(max_size=40).map(wire.pack),
    st.binary(max_size=8),
)


async def told(sent: bytes) -> tuple[Journal, list[Answer]]:
    """What a request of two choices hears of a worker that sends this and dies."""
    ours, theirs = socket.socketpair()
    client = Client(*await asyncio.open_unix_connection(sock=ours), Tally())
    journal, answers = Journal(Request(prompt=RawPrompt("once"), n=2)), list[Answer]()
    with theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(SECONDS):
            loading = asyncio.create_task(client.load(order("good")))
            with suppress(PlaitError):
                async for answer in client.generate(journal):
                    answers.append(answer)
            await client.died.wait()
            await asyncio.wait([loading])
    assert isinstance(loading.exception(), PlaitError)
    return journal, answers


@given(st.lists(FRAMES, max_size=6).map(b"".join))
def test_k12_nothing_that_a_worker_says_is_taken_for_more_than_it_is(sent: bytes) -> None:
    journal, answers = asyncio.run(told(sent))
    kinds = [type(answer) for answer in answers]
    assert kinds.count(Started) <= 1
    if Text in kinds or Done in kinds:
        assert kinds[0] is Started
    for choice in range(2):
        mine = [answer for answer in answers if isinstance(answer, Text | Done) and answer.choice == choice]
        assert [isinstance(answer, Done) for answer in mine[:-1]] == [False] * (len(mine) - 1 if mine else 0)
        assert journal.outputs[choice] == [token for each in mine if isinstance(each, Text) for token in each.tokens]
