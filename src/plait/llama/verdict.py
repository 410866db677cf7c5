"""From what was measured of a model to whether, and how, the same request gets the same text. Pure."""

from typing import NamedTuple

from plait.protocol import Facts, Verdict

MULTIPLES = (1, 4, 8)


class Padding(NamedTuple):
    """Decode steps have at least `to` rows, and a multiple of `by`."""

    to: int
    by: int

    def cost(self, n_slots: int) -> int:
        """Rows of the steps of 1 to `n_slots` sequences."""
        return sum(max(self.to, _multiple(self.by, n)) for n in range(1, n_slots + 1))


def padding(facts: Facts, n_slots: int) -> Padding | None:
    """The least that makes all decode steps, up to one row for each of `n_slots`, give a row the same bits.

    None when nothing does. Kernels may take rows by fours and treat the rest otherwise.
    """
    choices = [
        Padding(n, by)
        for by in MULTIPLES
        for n in facts.widths
        if n % by == 0 and (n > 1 or facts.deep_alone) and _are_equal(facts, n, by, n_slots)
    ]
    return min(choices, key=lambda choice: (choice.cost(n_slots), choice.by, choice.to), default=None)


def _are_equal(facts: Facts, n: int, by: int, n_slots: int) -> bool:
    """Whether steps of `n`, `n + by` … rows, as many as there can be, were tried and are of one class."""
    tried = [width for width in facts.widths if width >= n and width % by == 0]
    widest = next((width for width in tried if width >= max(2, _multiple(by, n_slots))), None)
    if widest is None:
        return False
    wanted = {width for width in tried if width <= widest}
    return any(wanted <= set(widths) for widths in facts.classes)


def _multiple(by: int, n: int) -> int:
    return -(-n // by) * by


def judge(facts: Facts, n_slots: int) -> Verdict:
    """What holds for an engine that serves up to `n_slots` sequences together."""
    if facts.cut_short:
        return Verdict(reason=f"not all was measured: {facts.cut_short}")
    if not facts.blocks:
        return Verdict(reason="a prompt's bits depend on how it is cut into chunks")
    padded = padding(facts, n_slots)
    if padded is None:
        return Verdict(reason="a decode step's bits depend on how many sequences it has, and no number helps")
    costs = _costs(facts, padded)
    return Verdict(
        reproducible="under load, padded" if costs else "under load",
        reason="; ".join(costs),
        pad_to=padded.to,
        pad_by=padded.by,
        replay_chunk=facts.replay_chunk,
        blocks_together=facts.blocks_beside,
        tails_together=facts.tails_beside,
        ends_decoded=not facts.ends,
        any_threads=facts.any_threads,
    )


def _costs(facts: Facts, padded: Padding) -> list[str]:
    """What the same text at any load costs, each in words."""
    multiple = f", and a multiple of {padded.by}" if padded.by > 1 else ""
    costs = {
        f"decode steps have at least {padded.to} rows{multiple}": padded.to > 1,
        "blocks of a prompt are computed by themselves": not facts.blocks_beside,
        "a prompt's last rows are computed by themselves": not facts.tails_beside,
        "a prompt's last token is decoded": not facts.ends,
        "known output is decoded again, token by token": facts.replay_chunk == 1,
    }
    return [words for words, is_so in costs.items() if is_so]
