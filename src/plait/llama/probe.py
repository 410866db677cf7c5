"""Which of the facts hold that make an answer independent of what else is computed: measured, for one model, here.

Nothing says how a row's arithmetic is grouped, and it differs with the type of the weights, the processor and the
number of rows. So a probe computes the same rows in different company and compares bits: of the logits, and of K and V
in all layers. It computes on contexts of its own, a wide one and a deep one, and frees each. The numbers' values do not
matter: tokens are random, and a deep context is a shallow one repeated.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random

from msgspec import structs

from plait import config
from plait.llama import lib
from plait.llama.batch import Span
from plait.llama.cells import Cells
from plait.llama.context import Context
from plait.llama.lib import native
from plait.llama.model import Model
from plait.llama.verdict import padding
from plait.protocol import Facts, ProbeKey

SECONDS = 10.0
"""After so long a probe gives up; what it did not measure is not so."""

_BLOCK = 64
_N_TEXT = 512
_N_WIDE = 256
"""Tokens that each stream of the wide context holds at most."""
_N_DEEP = 10 * _BLOCK
"""Tokens of context in the deep one: from 512 on, attention to a single row is computed in parts."""
_N_ROOM = 2 * _BLOCK
_WIDEST_KNOWN = 8
"""No known kernel changes its ways at more rows than this, below a block; so wide is tried even for fewer slots."""
_ROUND = 8
"""Some kernels take rows by fours or eights and treat the rest otherwise: a full width and one less are tried."""
_WIDTHS = (*range(1, 10), *(n - rest for n in (12, 16, 24, 32, 48, 64, 96, 128, 192) for rest in (1, 0)))
_STEPS = 300
"""A probe takes at least so many times as long as one row: what cannot end in time is not begun."""
_MOST = 255
"""Rows of a step; libllama has 256 streams, and one of them is for looking."""
_LENGTHS = (64, 37, 50)
"""Of the contexts of the rows of one step, by turns."""
_N_TOKENS = 8
"""Different rows of each length. One row may by chance get the same bits from two kernels, if the model is small."""
_SMALL = 50_000_000
"""Parameters. In larger models each difference shows in the first row, and is enlarged by the layers that follow."""
_SHORT = 5
_TAIL = 31
"""Rows of a chunk of less than a block, of which two fit into the smallest pass; odd, so that its neighbours' rows are
grouped otherwise."""
_REPLAYS = (63, 40, 32, 16)
_SHORTER = (3, 32)
_DEEP_WIDTHS = (1, 2, 3)
_DEEP_REPLAY = 32
_SAMPLED = (0, 1, 17, 31)
"""Rows of a deep chunk that are decoded for comparison."""

OpenContext = Callable[..., Context]
Row = tuple[tuple[int, int], bytes]
"""A decoded row: the length of its context with its token, and its bits."""


class _OutOfTime(Exception):
    """Raised before a computation that would begin too late."""


@dataclass(slots=True, eq=False)
class _Scratch:
    """One context, and what is computed on it. Its last stream is empty, but while `cells` looks at another."""

    context: Context
    deadline: float
    text: list[int]
    n_slots: int
    """Of the model's contexts."""
    n_tokens: int
    """Different rows of each length of context that a step of some width is tried with."""
    base: list[Cells] = field(default_factory=list)
    """What streams begin with: the text's first block, or as many blocks as make a deep context."""

    def decode(self, *spans: Span) -> None:
        if time.monotonic() > self.deadline:
            raise _OutOfTime
        self.context.decode(spans)

    def expect_to_end(self) -> None:
        """Tries how long a row takes. Raises `_OutOfTime` when there is not enough left for so many."""
        begin = time.monotonic()
        self.decode(self.next(0, 1))
        now = time.monotonic()
        if (now - begin) * _STEPS > self.deadline - now:
            raise _OutOfTime
        self.context.trim(0, 0)

    def read_base(self) -> None:
        """The text's first block."""
        self.chunk([0], 0, _BLOCK)
        self.base = [self.context.save(0, 0)]

    def begin(self, stream: int, n: int, cells: Sequence[Cells] = ()) -> int:
        """Makes a stream hold `n` tokens of `cells`, else of the base."""
        if n:
            self.context.restore(stream, cells or self.base)
        self.context.trim(stream, n)
        return stream

    def next(self, stream: int, n: int) -> Span:
        """The text's next `n` tokens for a stream, and logits after them."""
        start = self.context.held(stream)
        at = start % (len(self.text) // 2)
        return stream, start, self.text[at : at + n], True

    def cells(self, stream: int, start: int) -> bytes:
        """K and V of a stream's tokens from `start` on; of all of them, where states cannot be cut."""
        if not self.context.can_cut:
            viewer = self.context.n_slots - 1
            self.context.copy(stream, viewer, self.context.held(stream))
            stream, start = viewer, 0
        return b"".join(page.tobytes() for page in self.context.save(stream, start).pages)

    def logits(self, span: int) -> bytes:
        return self.context.logits(span).tobytes()

    def chunk(self, streams: Sequence[int], seen: int, n: int) -> tuple[bytes, bytes]:
        """The next `n` tokens of each of some streams in one call. The cells that one of them got, and its logits."""
        start = self.context.held(seen)
        self.decode(*(self.next(stream, n) for stream in streams))
        return self.cells(seen, start), self.logits(streams.index(seen))

    @contextmanager
    def other_threads(self) -> Iterator[bool]:
        """Inside, decodes run on another number of threads, if there are cores for that."""
        self.context.use_threads(1 if self.context.n_threads > 1 else 2)
        try:
            yield native.llama_n_threads(self.context.handle) != self.context.n_threads
        finally:
            self.context.use_threads(0)

    def rows(self, width: int) -> list[Row]:
        """Decode steps of `width` rows, behind what the first streams hold. In as many steps as there are tokens, each
        token is once in each place."""
        return [row for turn in range(self.n_tokens) for row in self._step(width, turn)]

    def _step(self, width: int, turn: int) -> list[Row]:
        starts = [self.context.held(stream) for stream in range(width)]
        tokens = [(stream + turn) % self.n_tokens for stream in range(width)]
        self.decode(*((i, start, [self.text[tokens[i]]], True) for i, start in enumerate(starts)))
        rows = [((n, tokens[i]), self.cells(i, n) + self.logits(i)) for i, n in enumerate(starts)]
        for stream, start in enumerate(starts):
            self.context.trim(stream, start)
        return rows


def probe(
    model: Model,
    engine: config.Engine,
    *,
    n_slots: int,
    seconds: float = SECONDS,
    begun: Facts = Facts(),  # noqa: B008 (it is frozen)
    open_context: OpenContext = Context,
) -> Facts:
    """Measures, on contexts like those that `engine` asks for, how rows are computed for up to `n_slots` sequences:
    what is not in `begun` yet, which another probe of the same had no time to end.

    Takes `seconds` at most, and one computation more. Raises `PlaitError` where a context would not compute.
    """
    begin, facts = time.monotonic(), structs.replace(begun, cut_short="")
    if not model.has_plain_memory:
        return Facts(cut_short="the model's memory is of all tokens at once")
    if lib.can_offload() and engine.n_gpu_layers:
        return Facts(cut_short="GPUs choose kernels by the size of a batch")
    try:
        for known in _measure(model, engine, n_slots, begin + seconds, facts, open_context):
            facts = known
    except _OutOfTime:
        facts = structs.replace(
            facts, cut_short=f"it takes longer than {seconds:g} seconds; --probe-seconds allows more"
        )
    return structs.replace(facts, seconds=begun.seconds + time.monotonic() - begin)


def key(
    digest: str,
    engine: config.Engine,
    *,
    n_threads: tuple[int, int],
    n_slots: int,
    adapters: tuple[tuple[str, str], ...] = (),
) -> ProbeKey:
    """What the facts hold for: this model, under this library, on processors like this one."""
    build = lib.build_info()
    return ProbeKey(
        model=digest,
        adapters=adapters,
        library=f"{build.binding}; {build.library}; {build.features}",
        cache_types=(engine.cache_type_k, engine.cache_type_v),
        rope=(engine.rope_freq_base, engine.rope_freq_scale),
        n_threads=n_threads,
        n_ubatch=min(engine.ubatch_size, max(engine.batch_size, n_slots)),
        n_slots=n_slots,
    )


def _measure(
    model: Model, engine: config.Engine, n_slots: int, deadline: float, facts: Facts, open_context: OpenContext
) -> Iterator[Facts]:
    """What is known after each step that `facts` have not."""
    text = Random(0).choices(range(model.n_vocab), k=_N_TEXT)
    most = min(max(-(-n_slots // _ROUND) * _ROUND, _WIDEST_KNOWN), _MOST)
    n_tokens = _N_TOKENS if model.n_params < _SMALL else 1
    with open_context(model, engine, n_ctx=_N_WIDE, n_slots=most + 1) as context:
        wide = _Scratch(context, deadline, text, n_slots, n_tokens)
        wide.expect_to_end()
        wide.read_base()
        for step in (_blocks, _widths, _ends, _replays)[facts.n_steps :]:  # others than these, another `ProbeKey`
            facts = structs.replace(step(wide, facts), n_steps=facts.n_steps + 1)
            yield facts
    with open_context(model, engine, n_ctx=_N_DEEP + _N_ROOM, n_slots=max(_DEEP_WIDTHS) + 1) as context:
        deep = _Scratch(context, deadline, text, n_slots, n_tokens)
        deep.base = _repeated(deep, wide.base[0])
        yield structs.replace(_deep(deep, facts), n_steps=facts.n_steps + 1)


def _reference(facts: Facts, n_slots: int) -> int:
    """The widest decode step, up to a row for each slot, with the bits that all decode steps shall have; 0: none."""
    padded = padding(facts, n_slots)
    if padded is None:
        return 0
    (widths,) = (widths for widths in facts.classes if padded.to in widths)
    return max(width for width in widths if width <= max(padded.to, n_slots))


def _blocks(s: _Scratch, facts: Facts) -> Facts:
    """A text's second block: behind the first, with it in one chunk, beside another's, and on other threads."""
    alone = s.chunk([s.begin(0, _BLOCK)], 0, _BLOCK)
    apart = s.cells(0, 0)
    fits_two = s.context.n_ubatch >= 2 * _BLOCK
    together, beside = apart, alone
    if fits_two:
        together, _ = s.chunk([s.begin(0, 0)], 0, 2 * _BLOCK)
        beside = s.chunk([s.begin(0, 0), s.begin(1, _BLOCK)], 1, _BLOCK)
    with s.other_threads() as is_other:
        elsewhere = s.chunk([s.begin(0, _BLOCK)], 0, _BLOCK)
    return structs.replace(
        facts,
        blocks=apart == together,
        blocks_beside=alone[0] == beside[0],
        ends=alone[1] == beside[1],
        any_threads=is_other and alone == elsewhere,
    )


def _widths(s: _Scratch, facts: Facts) -> Facts:
    """Decode steps of all widths, of which the same rows are part; the widest once more, on other threads."""
    most = s.context.n_slots - 1
    widths = (*(width for width in _WIDTHS if width < most), most)
    for stream in range(most):
        s.begin(stream, _LENGTHS[stream % len(_LENGTHS)])
    steps = {width: s.rows(width) for width in widths}
    with s.other_threads():
        elsewhere = s.rows(most)
    return structs.replace(
        facts,
        widths=widths,
        classes=_classes(steps),
        any_threads=facts.any_threads and steps[most] == elsewhere,
    )


def _classes(steps: Mapping[int, Sequence[Row]]) -> tuple[tuple[int, ...], ...]:
    """The widths at which the same contexts give the same bits. A narrow step has only some of the contexts."""
    classes: list[tuple[dict[tuple[int, int], bytes], list[int]]] = []
    for width, rows in sorted(steps.items(), reverse=True):
        bits = dict(rows)
        if set(rows) != set(bits.items()):
            continue
        for known, members in classes:
            if bits.items() <= known.items():
                members.insert(0, width)
                break
        else:
            classes.append((bits, [width]))
    return tuple(tuple(members) for _, members in classes)


def _ends(s: _Scratch, facts: Facts) -> Facts:
    """Tails alone and beside others, long ones and short ones; the logits of a few that end together, and those of a
    decode step."""
    if not (width := _reference(facts, s.n_slots)):
        return facts
    seen = s.begin(1, _BLOCK)
    alone, _ = s.chunk([seen], seen, _TAIL)
    beside, _ = s.chunk([s.begin(0, 0), s.begin(seen, _BLOCK)], seen, _TAIL)
    ends = [s.chunk([s.begin(i, _BLOCK) for i in range(n)], n - 1, _SHORT) for n in (1, 2, _WIDEST_KNOWN)]
    logits = {logits for _, logits in ends}
    are_equal = alone == beside and len({cells for cells, _ in ends}) == 1
    for i in range(width):
        s.begin(i, _BLOCK)
    s.chunk([0], 0, _SHORT - 1)
    logits.add(s.chunk(range(width), 0, 1)[1])
    return structs.replace(facts, tails_beside=are_equal, ends=facts.ends and len(logits) == 1)


def _replays(s: _Scratch, facts: Facts) -> Facts:
    """The longest chunk of which each row is as if it were decoded, and shorter chunks, too."""
    if not (width := _reference(facts, s.n_slots)):
        return facts
    for n in _REPLAYS:
        s.begin(0, _BLOCK)
        s.chunk([0], 0, n)
        chunk = s.context.save(0, 0)
        shorter = [m for m in _SHORTER if m < n]
        if all(_begins(s, chunk, m) for m in shorter) and _is_decoded(s, chunk, range(n), width):
            return structs.replace(facts, replay_chunk=n)
    return facts


def _begins(s: _Scratch, chunk: Cells, n: int) -> bool:
    """Whether a chunk of `n` rows behind a block is the beginning of `chunk`."""
    s.begin(0, _BLOCK)
    cells, _ = s.chunk([0], 0, n)
    return cells == s.cells(s.begin(0, _BLOCK + n, [chunk]), _BLOCK)


def _is_decoded(s: _Scratch, chunk: Cells, rows: Sequence[int], width: int) -> bool:
    """Whether decode steps of `width` rows give these rows of a chunk, which are behind the base."""
    start = sum(cells.n_tokens for cells in s.base)
    expected = [s.cells(s.begin(0, start + row + 1, [chunk]), start + row) for row in rows]
    wanted = list(zip(rows, expected, strict=True))
    for i in range(0, len(wanted), width):
        step = (wanted[i : i + width] + wanted[-1:] * width)[:width]
        for stream, (row, _) in enumerate(step):
            s.begin(stream, start + row, [chunk])
        s.decode(*(s.next(stream, 1) for stream in range(width)))
        if any(s.cells(stream, start + row) != cells for stream, (row, cells) in enumerate(step)):
            return False
    return True


def _deep(s: _Scratch, shallow: Facts) -> Facts:
    """The same far from the beginning, as far as few streams can tell."""
    width = _reference(shallow, s.n_slots)
    s.begin(0, _N_DEEP)
    s.chunk([0], 0, _BLOCK)
    s.chunk([0], 0, _BLOCK)
    apart = s.cells(0, _N_DEEP)
    together, _ = s.chunk([s.begin(0, _N_DEEP)], 0, 2 * _BLOCK) if s.context.n_ubatch >= 2 * _BLOCK else (apart, b"")
    for stream in range(max(_DEEP_WIDTHS)):
        s.begin(stream, _N_DEEP)
    alone, two, three = (set(s.rows(k)) for k in _DEEP_WIDTHS)
    members = {k for widths in shallow.classes if width in widths for k in widths if k in _DEEP_WIDTHS}
    differ = len(two) > s.n_tokens or len(three) > s.n_tokens or ({2, 3} <= members and two != three)
    replays = shallow.replay_chunk
    if members - {1} and replays > 1:
        s.begin(0, _N_DEEP)
        s.chunk([0], 0, _DEEP_REPLAY)
        is_decoded = _is_decoded(s, s.context.save(0, 0), _SAMPLED, max(members))
        replays = replays if is_decoded else 1
    return structs.replace(
        shallow,
        classes=() if differ else shallow.classes,
        deep_alone=alone == two,
        blocks=shallow.blocks and apart == together,
        replay_chunk=replays,
    )


def _repeated(s: _Scratch, block: Cells) -> list[Cells]:
    """A deep context: one block, many times. Computed, where states cannot be cut."""
    if s.context.can_cut:
        return [replace(block, start=start) for start in range(0, _N_DEEP, _BLOCK)]
    while s.context.held(0) < _N_DEEP:
        s.chunk([0], 0, _BLOCK)
    return [s.context.save(0, 0)]
