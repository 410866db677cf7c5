"""What ended sequences leave is kept by tokens: once, as long as there is room, and for who may have it."""

import random
from collections.abc import Iterable
from collections.abc import Sequence as Rows
from itertools import takewhile

import pytest

from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.radix import Tree, prune
from plait.engine.segments import Segments
from plait.engine.sequence import Group, Sequence
from plait.errors import GenerationFailed
from plait.protocol import Pin
from tests.fakes.context import FakeCells, FakeContext
from tests.fakes.listener import Notebook
from tests.fakes.shelf import FakeShelf
from tests.unit.engine.prefix_cache import check_segments
from tests.unit.engine.workload import alone, run_workload


def words(n: int, seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(900) for _ in range(n)]


class Bench:
    """An engine with one slot, so that whatever a request finds comes from the prefix cache, or from the last one."""

    def __init__(
        self,
        max_bytes: int = 10**6,
        shelf: FakeShelf | None = None,
        n_slots: int = 1,
        n_cells: int | None = None,
        can_cut: bool = True,
        seconds_per_state: float = 0.0,
    ) -> None:
        self.now = 0.0
        self.seconds_per_state = seconds_per_state
        self.context = Watched(self, n_slots, n_cells=n_cells, can_trim=can_cut)
        self.segments = Segments(self.context, max_bytes, shelf, clock=lambda: self.now)
        self.engine = Engine(self.context, n_slots, Pace(0.1, 256, 256), self.segments, clock=lambda: self.now)

    def submit(
        self,
        prompt: list[int],
        max_tokens: int = 1,
        scope: str = "",
        shares: bool = True,
        landmarks: Iterable[int] = (),
    ) -> Notebook:
        group, heard = Group(scope=scope, shares=shares, landmarks=frozenset(landmarks)), Notebook()
        Sequence(list(prompt), group, heard, self.context.sampler(), max_tokens)
        self.engine.submit(group)
        return heard

    def ask(self, prompt: list[int], scope: str = "", shares: bool = True, landmarks: Iterable[int] = ()) -> Notebook:
        heard = self.submit(prompt, scope=scope, shares=shares, landmarks=landmarks)
        self.run()
        assert heard.tokens == alone(prompt, 0, 1, -1)[0]
        check_segments(self.segments)
        return heard

    def run(self) -> None:
        for _ in range(10_000):
            if self.engine.is_idle:
                return
            self.engine.step()
        raise AssertionError("it does not end")


class Watched(FakeContext):
    """Takes its time to move states, on the bench's clock, and perhaps none that comes out of a file."""

    def __init__(self, bench: Bench, n_streams: int, *, can_trim: bool, n_cells: int | None) -> None:
        super().__init__(n_streams, can_trim=can_trim, n_cells=n_cells)
        self.bench = bench
        self.n_loaded = self.n_refused = 0
        self.refuses_files = False
        self.from_files: list[object] = []

    def save(self, stream: int, start: int) -> FakeCells:
        self.bench.now += self.bench.seconds_per_state
        return super().save(stream, start)

    def loaded(self, start: int, n: int, payload: bytearray) -> FakeCells:
        self.bench.now += self.bench.seconds_per_state
        self.n_loaded += 1
        self.from_files.append(cells := super().loaded(start, n, payload))
        return cells

    def restore(self, stream: int, parts: Rows[object]) -> None:
        if self.refuses_files and any(part is cells for part in parts for cells in self.from_files):
            self.n_refused += 1
            self.cells[stream] = []
            raise GenerationFailed("a state of another context")
        super().restore(stream, parts)


def cached(heard: Notebook) -> tuple[int, int, int]:
    """From the context, from RAM, from disk."""
    assert heard.cached
    return heard.cached.idle + heard.cached.running, heard.cached.ram, heard.cached.disk


def test_a_prompt_that_was_driven_out_comes_back_from_ram() -> None:
    bench = Bench()
    for seed in (1, 2):
        bench.ask(words(200, seed))
    assert cached(bench.ask(words(200, 1))) == (0, 199, 0)


def test_a_beginning_that_many_share_is_kept_once() -> None:
    bench = Bench()
    for seed in range(2, 12):
        bench.ask(words(500) + words(20, seed))
        bench.ask(words(50, seed=99))
    assert bench.segments.n_bytes == 4 * (500 + 10 * 20 + 50)


def test_what_was_not_used_for_longest_goes_first_and_a_shared_beginning_last() -> None:
    bench = Bench(max_bytes=4 * 330)
    for seed in (2, 3, 4):
        bench.ask(words(200) + words(60, seed))
        bench.ask(words(5, seed=99))
    assert bench.segments.find(words(200) + words(60, 2), "").n == 200
    assert bench.segments.find(words(200) + words(60, 4), "").n == 260


def test_the_buffers_that_states_are_moved_through_take_of_the_same_room() -> None:
    bench = Bench(max_bytes=4 * 500)
    for seed in (1, 2, 3):
        bench.ask(words(200, seed))
    bench.context.n_buffer_bytes = 4 * 200
    bench.engine.tidy()
    assert bench.segments.n_bytes == 4 * 200
    check_segments(bench.segments)


def test_buffers_that_would_take_more_than_half_of_it_are_given_back() -> None:
    bench = Bench(max_bytes=4 * 500)
    for seed in (1, 2, 3):
        bench.ask(words(200, seed))
    bench.context.n_buffer_bytes = 4 * 251
    bench.engine.tidy()
    assert (bench.segments.n_bytes, bench.context.n_buffer_bytes) == (4 * 400, 0)


def test_where_nothing_is_kept_they_stay() -> None:
    bench = Bench(max_bytes=0)
    bench.context.n_buffer_bytes = 1
    bench.submit(words(200))
    bench.run()
    assert bench.context.n_buffer_bytes == 1


@pytest.mark.parametrize("adapters", ["", " ({},)"])
def test_g4_a_tenants_flood_leaves_another_its_share(adapters: str) -> None:
    bench = Bench(max_bytes=4 * 1000)
    bench.ask(words(400), scope="a")
    for seed in range(2, 12):
        bench.ask(words(300, seed), scope="b" + adapters.format(seed))
    assert bench.segments.find(words(400), "a").n == 400


def test_a_tenant_that_is_alone_has_all_of_the_cache() -> None:
    bench = Bench(max_bytes=4 * 1000)
    for seed in range(1, 12):
        bench.ask(words(300, seed), scope="b")
    assert bench.segments.n_bytes == 4 * 900


def test_nobody_finds_what_is_of_another_scope() -> None:
    bench = Bench()
    bench.ask(words(200), scope="a")
    assert cached(bench.ask(words(200), scope="b")) == (0, 0, 0)
    bench.ask(words(90, 5))
    assert cached(bench.ask(words(200), scope="a")) == (0, 199, 0)
    assert cached(bench.ask(words(200), scope="")) == (0, 0, 0)


def test_a_private_request_neither_reads_nor_writes() -> None:
    bench = Bench()
    bench.ask(words(200), shares=False)
    bench.ask(words(90, 5))
    assert cached(bench.ask(words(200))) == (0, 0, 0)
    bench.ask(words(90, 5))
    assert cached(bench.ask(words(200), shares=False)) == (0, 0, 0)


def test_nothing_is_kept_in_no_bytes() -> None:
    bench = Bench(max_bytes=0)
    for seed in (1, 2, 1):
        last = bench.ask(words(200, seed))
    assert cached(last) == (0, 0, 0)
    assert bench.segments.n_bytes == 0


def test_a_conversation_computes_only_what_is_new() -> None:
    bench = Bench()
    talks = [words(40, seed) for seed in range(4)]
    for turn in range(5):
        for i, talk in enumerate(talks):
            heard = bench.ask(talk)
            assert cached(heard)[:2] == ((0, 0) if not turn else (0, len(talk) - 10))
            talks[i] = talk + heard.tokens + words(9, seed=100 * turn + i)


def test_after_a_restart_it_is_read_from_disk_once() -> None:
    shelf = FakeShelf()
    first = Bench(shelf=shelf)
    first.ask(words(300))
    first.engine.close()
    again = Bench(shelf=shelf)
    assert cached(again.ask(words(300) + words(10, 5))) == (0, 0, 300)
    again.ask(words(50, 9))
    assert cached(again.ask(words(300) + words(10, 6))) == (0, 300, 0)
    assert shelf.n_read == 1


def test_a_file_that_is_gone_is_computed_again() -> None:
    shelf = FakeShelf()
    first = Bench(shelf=shelf)
    first.ask(words(300))
    first.engine.close()
    again = Bench(shelf=shelf)
    shelf.files.clear()
    assert cached(again.ask(words(300))) == (0, 0, 0)


def test_what_came_from_ram_is_not_said_to_come_from_a_file_that_was_lost() -> None:
    shelf = FakeShelf()
    first = Bench(shelf=shelf)
    for n in (200, 300):
        first.ask(words(n))
        first.engine.tidy()
    first.engine.close()
    bench = Bench(shelf=shelf)
    bench.ask(words(201))
    lost = next(id for id, (record, _) in shelf.files.items() if record.start)
    del shelf.files[lost]
    bench.ask(words(90, 5), shares=False)
    assert cached(bench.ask(words(300))) == (0, 201, 0)


def test_a_disk_that_stands_still_is_not_waited_for() -> None:
    shelf = FakeShelf()
    first = Bench(shelf=shelf)
    first.ask(words(300))
    first.engine.close()
    bench = Bench(shelf=shelf)
    shelf.is_stuck = True
    heard = bench.submit(words(300))
    for _ in range(9):
        bench.now += 1
        bench.engine.step()
    assert heard.cached is None
    bench.now += 2
    bench.run()
    assert cached(heard) == (0, 0, 0)


def test_what_ram_has_no_room_for_goes_to_disk_and_comes_back() -> None:
    shelf = FakeShelf()
    bench = Bench(max_bytes=4 * 250, shelf=shelf)
    for seed in (1, 2, 3):
        bench.ask(words(200, seed))
    assert cached(bench.ask(words(200, 1))) == (0, 0, 199)


def test_what_has_been_here_for_a_while_is_written() -> None:
    shelf = FakeShelf()
    bench = Bench(shelf=shelf)
    bench.ask(words(200))
    assert not bench.engine.tidy() or not shelf.files
    bench.now += 60
    bench.engine.tidy()
    assert sum(len(record.tokens) for record, _ in shelf.files.values()) == 200


@pytest.mark.parametrize("max_bytes", [4 * 100, 4 * 250, 4 * 450])
def test_what_ram_has_no_room_for_is_given_to_it_once(max_bytes: int) -> None:
    bench = Bench(max_bytes, n_slots=3)
    for seed in (1, 2, 3):
        bench.ask(words(200, seed))
    assert sum(1 for _ in takewhile(lambda _: bench.engine.tidy(), range(9))) <= 3
    bench.engine.close()
    check_segments(bench.segments)


def test_what_is_larger_than_ram_drives_out_nothing() -> None:
    bench = Bench(max_bytes=4 * 250)
    bench.ask(words(200))
    bench.ask(words(260, 2))
    bench.ask(words(90, 5), shares=False)
    assert cached(bench.ask(words(200))) == (0, 199, 0)


def test_what_was_read_is_taken_a_bit_at_a_time_while_somebody_writes() -> None:
    shelf = FakeShelf()
    first = Bench(shelf=shelf)
    for n in range(60, 601, 60):
        first.ask(words(n))
        first.engine.tidy()
    first.engine.close()
    assert len(shelf.files) == 10
    bench = Bench(shelf=shelf, n_slots=2, seconds_per_state=0.015)
    bench.submit(words(30, 7), max_tokens=100)
    bench.engine.step()
    heard = bench.submit(words(600))
    while heard.cached is None:
        n_before = bench.context.n_loaded
        bench.engine.step()
        assert bench.context.n_loaded - n_before <= 2, "two take 30 ms"
    assert cached(heard) == (0, 0, 599)


def test_what_ended_is_kept_while_others_write() -> None:
    shelf = FakeShelf()
    bench = Bench(shelf=shelf, n_slots=4)
    bench.submit(words(30, 7), max_tokens=400)
    for seed in (1, 2):
        bench.submit(words(200, seed))
    for _ in range(30):
        bench.now += 0.5
        bench.engine.step()
    assert not bench.engine.is_idle
    assert sum(len(record.tokens) for record, _ in shelf.files.values()) == 400


def test_what_has_just_ended_is_not_moved_beside_those_who_write() -> None:
    bench = Bench(n_slots=4)
    bench.submit(words(30, 7), max_tokens=400)
    bench.submit(words(200, 1))
    for _ in range(20):
        bench.engine.step()
    assert bench.segments.n_bytes == 0
    bench.now += 2
    bench.engine.step()
    assert bench.segments.n_bytes == 4 * 200


def test_what_a_full_disk_did_not_take_is_written_when_it_does() -> None:
    shelf = FakeShelf()
    bench = Bench(shelf=shelf)
    bench.ask(words(200))
    shelf.is_full = True
    for _ in range(100):
        bench.now += 0.5
        bench.engine.tidy()
    assert shelf.n_failed == 1, "it is left alone for a while"
    shelf.is_full = False
    bench.now += 60
    bench.engine.tidy()
    assert sum(len(record.tokens) for record, _ in shelf.files.values()) == 200


def test_an_engine_is_closed_when_the_disk_has_taken_all_or_takes_no_more() -> None:
    shelf = FakeShelf()
    bench = Bench(shelf=shelf)
    bench.ask(words(200))
    shelf.n_queued = 10**10
    assert not bench.engine.close()
    assert bench.segments.n_unwritten_bytes == 4 * 200
    shelf.n_queued, shelf.is_full = 0, True
    assert bench.engine.close()
    assert bench.engine.close()
    assert shelf.n_failed == 1
    assert bench.segments.n_unwritten_bytes == 4 * 200


def test_scopes_of_which_nothing_is_left_are_forgotten() -> None:
    bench = Bench(max_bytes=1000)
    for i in range(20):
        bench.ask(words(100), scope=f"{i}")
    assert len(bench.segments.trees) <= 3


def test_emptied_means_empty() -> None:
    shelf = FakeShelf()
    bench = Bench(shelf=shelf)
    bench.ask(words(200))
    bench.engine.close()
    bench.engine.forget()
    assert cached(bench.ask(words(200))) == (0, 0, 0)
    assert not shelf.files


def test_files_of_two_processes_that_cut_a_path_differently_fit_together() -> None:
    shelf = FakeShelf()
    for prompts in ([words(100) + words(50, 2)], [words(70), words(100) + words(90, 3)]):
        bench = Bench(shelf=shelf)
        bench.segments.files.clear()
        bench.segments.trees.clear()
        for prompt in prompts:
            bench.ask(prompt)
        bench.engine.close()
    assert cached(Bench(shelf=shelf).ask(words(100) + words(90, 3))) == (0, 0, 189)


def test_a_full_pool_lets_the_youngest_wait_and_nobody_fail() -> None:
    bench = Bench(n_slots=16, n_cells=600)
    heard = [bench.submit(words(40, seed), max_tokens=60) for seed in range(16)]
    bench.run()
    assert bench.engine.counts.preempted > 0
    assert [one.tokens for one in heard] == [alone(words(40, seed), 0, 60, -1)[0] for seed in range(16)]


def test_who_waited_for_cells_does_not_compute_again_what_was_kept() -> None:
    bench = Bench(n_slots=16, n_cells=600)
    for seed in range(16):
        bench.submit(words(40, seed), max_tokens=60)
    bench.run()
    assert bench.context.n_decoded == 16 * (40 + 59)


def test_continuations_that_waited_for_cells_share_the_prompts_again() -> None:
    bench = Bench(n_slots=16, n_cells=2200)
    group, heard = Group(), [Notebook() for _ in range(16)]
    for choice, notebook in enumerate(heard):
        Sequence(words(1000), group, notebook, bench.context.sampler(choice), 200)
    bench.engine.submit(group)
    bench.run()
    assert [len(one.tokens) for one in heard] == 16 * [200]
    assert bench.engine.counts.preempted > 0
    assert bench.engine.counts.steps < 500, "it is 1,079 when each takes cells of its own for all of the prompt"


def test_the_random_workloads_come_past_everything() -> None:
    ran = [run_workload(seed, is_unified=seed % 2 == 0) for seed in range(40)]
    total = sum((work.engine.counts.cached_tokens for work in ran[1:]), start=ran[0].engine.counts.cached_tokens)
    assert min(total.running, total.idle, total.ram, total.disk) > 100
    assert sum(work.engine.counts.preempted for work in ran) > 10
    assert any(work.segments.trees and work.segments.max_bytes < 5000 for work in ran)


def test_a_state_that_cannot_be_cut_is_kept_where_others_will_go_on_from() -> None:
    bench = Bench(can_cut=False)
    prompt = words(200)
    bench.ask(prompt, landmarks={150, 199})
    for _ in range(2):
        bench.ask(words(90, 5), landmarks={89})
        assert cached(bench.ask(prompt, landmarks={150, 199})) == (0, 199, 0)
    bench.ask(words(90, 5), landmarks={89})
    assert cached(bench.ask(prompt[:150] + words(30, 7))) == (0, 150, 0)
    assert cached(bench.ask(prompt[:140] + words(30, 8))) == (0, 0, 0)


def test_such_a_state_is_kept_between_two_blocks_that_would_go_together() -> None:
    bench = Bench(can_cut=False)
    bench.engine.pace.prompt_seconds = 1e-4
    prompt = words(200)
    bench.ask(prompt, landmarks={128, 199})
    bench.ask(words(90, 5), landmarks={89})
    assert cached(bench.ask(prompt[:128] + words(30, 7))) == (0, 128, 0)


def test_a_state_that_a_context_refuses_is_not_tried_again() -> None:
    shelf, prompt = FakeShelf(), words(200)
    for refuses_files in (False, True, False):
        bench = Bench(shelf=shelf, can_cut=False)
        bench.context.refuses_files = refuses_files
        found = []
        for _ in range(3):
            found.append(cached(bench.ask(prompt, landmarks={199})))
            bench.ask(words(90, 5), shares=False)
        assert found[1:] == [(0, 199, 0)] * 2
        assert bench.context.n_refused == refuses_files
        bench.engine.close()
    assert found[0] == (0, 0, 199)


def test_whole_states_are_for_contexts_of_as_many_streams() -> None:
    shelf, prompt = FakeShelf(), words(200)
    found = []
    for n_slots in (1, 2, 1, 2):
        bench = Bench(shelf=shelf, can_cut=False, n_slots=n_slots)
        found.append(cached(bench.ask(prompt, landmarks={199})))
        bench.engine.close()
    assert found == [(0, 0, 0), (0, 0, 0), (0, 0, 199), (0, 0, 199)]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_tree_spells_what_was_put_into_it(n: int) -> None:
    tree = Tree(can_cut=True)
    path = tree.reach([1, 2, 3, 4])
    assert [edge.tokens for edge in tree.reach([1, 2, 3, 4][:n])] == [[1, 2, 3, 4][:n]]
    assert [edge.tokens for edge in path[0].path()] == [[1, 2, 3, 4][:n], [1, 2, 3, 4][n:]]


def test_what_is_of_no_use_is_pruned_up_to_where_paths_part() -> None:
    tree = Tree(can_cut=True)
    kept, useless = tree.reach([1, 2, 3])[-1], tree.reach([1, 2, 4])[-1]
    kept.file = b"file"
    prune(useless)
    assert [edge.tokens for edge in tree.root.below()] == [[], [1, 2], [3]]
    kept.file = b""
    prune(kept)
    assert not tree.root.children


@pytest.mark.parametrize(("can_cut", "n_wished"), [(True, 100), (False, 99)])
def test_what_is_to_be_kept_is_told_to_the_disk(can_cut: bool, n_wished: int) -> None:
    """A state that cannot be cut is the one before the prompt's last token."""
    bench = Bench(shelf=(disk := FakeShelf()), can_cut=can_cut)
    group = Group(scope="ann", pin=Pin(b"/7.plait-prompt", 100))
    Sequence(words(200), group, Notebook(), bench.context.sampler(), 1)
    bench.engine.submit(group)
    (wish,) = disk.wishes
    assert wish.path == b"/7.plait-prompt"
    assert wish.scope.endswith("ann")
    assert (list(wish.tokens), wish.is_whole) == (words(200)[:n_wished], not can_cut)


def test_what_no_request_may_share_is_not_kept() -> None:
    bench = Bench(shelf=(disk := FakeShelf()))
    group = Group(shares=False, pin=Pin(b"/7.plait-prompt"))
    Sequence(words(200), group, Notebook(), bench.context.sampler(), 1)
    bench.engine.submit(group)
    assert not disk.wishes
