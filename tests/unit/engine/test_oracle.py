"""However requests are batched, chunked, shared, forked, moved and cancelled, each gets the text it would get alone."""

import random
from collections.abc import Callable

import pytest

from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.scheduler import Batch
from plait.engine.sequence import Group, Sequence
from plait.engine.slots import Match, Wait
from plait.protocol import Verdict
from tests.unit.engine.workload import Plant, run_workload


@pytest.mark.parametrize("seed", range(300))
def test_everyone_gets_the_text_it_would_get_alone(seed: int) -> None:
    run_workload(seed)


@pytest.mark.parametrize("seed", range(100))
def test_the_same_holds_where_states_cannot_be_cut(seed: int) -> None:
    run_workload(seed, can_trim=False, can_cut=False)


@pytest.mark.parametrize("seed", range(100))
def test_the_same_holds_where_states_can_be_cut_back_but_not_cut_out(seed: int) -> None:
    run_workload(seed, can_cut=False, is_unified=seed % 2 == 0)


@pytest.mark.parametrize("seed", range(200))
def test_the_same_holds_where_all_share_one_pool(seed: int) -> None:
    run_workload(seed, is_unified=True)


def some_rules(seed: int) -> Verdict:
    rng = random.Random(seed)
    return Verdict(
        reproducible="under load, padded",
        pad_to=rng.choice([1, 2, 4]),
        pad_by=rng.choice([1, 1, 4]),
        replay_chunk=rng.choice([1, 16, 63]),
        blocks_together=rng.random() < 0.5,
        tails_together=rng.random() < 0.5,
        ends_decoded=rng.random() < 0.5,
        any_threads=rng.random() < 0.5,
    )


class ByFours(Pace):
    """Found out that rows are fastest in fours."""

    def n_rows(self, n: int, most: int) -> int:
        return min(-(-n // 4) * 4, most)


def pad_to_fours(engine: Engine) -> None:
    engine.pace = ByFours(engine.pace.target, engine.pace.n_batch, engine.pace.n_ubatch)


@pytest.mark.parametrize("seed", range(200))
def test_rows_that_only_make_a_step_faster_change_nothing(seed: int) -> None:
    run_workload(seed, pad_to_fours, n_sets=1 + seed % 2, is_unified=seed % 3 == 0)


@pytest.mark.parametrize("seed", range(100))
def test_rules_are_obeyed(seed: int) -> None:
    run_workload(seed, rules=some_rules(seed))


@pytest.mark.parametrize("seed", range(200))
def test_the_same_holds_where_requests_have_adapters_of_their_own(seed: int) -> None:
    run_workload(seed, n_sets=2 + seed % 3, is_unified=seed % 4 == 0)


@pytest.mark.parametrize("seed", range(100))
def test_rules_are_obeyed_by_the_calls_of_each_set(seed: int) -> None:
    run_workload(seed, n_sets=3, rules=some_rules(seed))


def plant(where: object, method: str, bug: Callable[..., object]) -> None:
    """Replace a method of one object."""
    setattr(where, method, bug)


def match_one_too_many(engine: Engine) -> None:
    match = engine.slots.match
    plant(engine.slots, "match", lambda seq: _longer(match(seq)))


def _longer(match: Match) -> Match:
    return match._replace(n=match.n + 1) if match.n else match


def swap_only_in_the_table(engine: Engine) -> None:
    plant(engine.context, "swap", lambda a, b: None)


def copy_one_too_few(engine: Engine) -> None:
    copy = engine.context.copy
    plant(engine.context, "copy", lambda src, dst, n: copy(src, dst, n - 1))


def keep_a_token_that_was_not_decoded(engine: Engine) -> None:
    end = engine.scheduler.end

    def end_late(seq: Sequence) -> None:
        seq.n_past += 1
        end(seq)

    plant(engine.scheduler, "end", end_late)


def sample_from_the_first_row(engine: Engine) -> None:
    speak = engine.speak
    plant(engine, "speak", lambda seq, k: speak(seq, 0))


def never_join_the_writers(engine: Engine) -> None:
    plant(engine.scheduler, "read", lambda seq: None)


def cancel_without_freeing_the_slot(engine: Engine) -> None:
    plant(engine, "cancel", lambda group: setattr(group, "members", []))


def wait_for_ever_for_a_leader(engine: Engine) -> None:
    plant(engine.slots, "leader", lambda seq, n: Wait(seq, n) if n == 0 else None)


def forget_siblings(engine: Engine) -> None:
    add = engine.scheduler.add
    plant(engine.scheduler, "add", lambda seq: None if seq.n_output else add(seq))


def count_on_after_the_end(engine: Engine) -> None:
    end = engine.scheduler.end

    def end_uncounted(seq: Sequence) -> None:
        end(seq)
        engine.scheduler.tenants[seq.group.tenant].n_running += 1

    plant(engine.scheduler, "end", end_uncounted)


def decode_past_a_block(engine: Engine) -> None:
    plant(engine.scheduler, "_cut", lambda n_past, n: [n] if n else [])


def leave_kept_prefixes_of_private_requests(engine: Engine) -> None:
    release = engine.slots.release

    def leak(seq: Sequence) -> None:
        stream = seq.stream
        release(seq)
        engine.slots.table[stream].kept = seq.tokens[: seq.n_past]

    plant(engine.slots, "release", leak)


def restore_another_beginning(engine: Engine) -> None:
    restore = engine.context.restore
    plant(engine.context, "restore", lambda stream, parts: restore(stream, [*parts[1:], *parts[:1]]))


def keep_without_the_first_token(engine: Engine) -> None:
    save = engine.context.save
    plant(engine.context, "save", lambda stream, start: save(stream, start + 1))


def keep_under_other_tokens(engine: Engine) -> None:
    keep = engine.segments.keep
    plant(engine.segments, "keep", lambda stream, tokens, *rest: keep(stream, [*tokens[:-1], 5], *rest))


def lose_who_gives_up_a_slot(engine: Engine) -> None:
    plant(engine.scheduler, "preempt", lambda: engine.scheduler.end(engine.slots.writers()[-1]))


def start_twice_who_gave_up_a_slot(engine: Engine) -> None:
    preempt = engine.scheduler.preempt

    def forgetful() -> None:
        preempt()
        for queue in engine.scheduler.waiting.values():
            queue[0].has_started = False

    plant(engine.scheduler, "preempt", forgetful)


def do_not_pad(engine: Engine) -> None:
    plant(engine, "padding", lambda batch: ([], []))


def leave_dummies_where_they_are(engine: Engine) -> None:
    plant(engine, "drop", lambda dummies: None)


def share_across_adapters(engine: Engine) -> None:
    submit = engine.submit

    def submit_with_the_tenants_scope(group: Group) -> None:
        group.scope = group.scope.partition(" ")[0]
        submit(group)

    plant(engine, "submit", submit_with_the_tenants_scope)


def compute_all_with_the_same_adapters(engine: Engine) -> None:
    plant(engine.context, "use_adapters", lambda adapters: None)


def call_all_writers_together(engine: Engine) -> None:
    plan = engine.scheduler.plan

    def plan_together() -> list[Batch]:
        batches = plan()
        decodes = [batch for batch in batches if batch[0].seq.is_writing]
        together = [chunk for batch in decodes for chunk in batch]
        return ([together] if together else []) + [batch for batch in batches if batch not in decodes]

    plant(engine.scheduler, "plan", plan_together)


def join_the_writers_at_their_end(engine: Engine) -> None:
    plant(engine.slots, "_sets", list)


SET_BUGS: list[Plant] = [
    share_across_adapters,
    compute_all_with_the_same_adapters,
    call_all_writers_together,
    join_the_writers_at_their_end,
]
RULE_BUGS: list[Plant] = [do_not_pad, leave_dummies_where_they_are]
POOL_BUGS: list[Plant] = [lose_who_gives_up_a_slot, start_twice_who_gave_up_a_slot]
BUGS: list[Plant] = [
    match_one_too_many,
    swap_only_in_the_table,
    copy_one_too_few,
    keep_a_token_that_was_not_decoded,
    sample_from_the_first_row,
    never_join_the_writers,
    cancel_without_freeing_the_slot,
    wait_for_ever_for_a_leader,
    forget_siblings,
    count_on_after_the_end,
    decode_past_a_block,
    leave_kept_prefixes_of_private_requests,
    restore_another_beginning,
    keep_without_the_first_token,
    keep_under_other_tokens,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_caught(bug: Plant) -> None:
    with pytest.raises((AssertionError, IndexError)):
        for seed in range(30):
            run_workload(seed, bug)


@pytest.mark.parametrize("bug", RULE_BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_planted_where_rules_hold_is_caught(bug: Plant) -> None:
    with pytest.raises((AssertionError, IndexError)):
        for seed in range(30):
            run_workload(seed, bug, rules=some_rules(seed))


@pytest.mark.parametrize("bug", POOL_BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_planted_where_all_share_one_pool_is_caught(bug: Plant) -> None:
    with pytest.raises((AssertionError, IndexError)):
        for seed in range(30):
            run_workload(seed, bug, is_unified=True)


@pytest.mark.parametrize("bug", SET_BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_planted_where_requests_have_adapters_of_their_own_is_caught(bug: Plant) -> None:
    with pytest.raises((AssertionError, IndexError)):
        for seed in range(30):
            run_workload(seed, bug, n_sets=3)
