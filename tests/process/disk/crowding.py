"""`python -m tests.process.disk.crowding FOLDER SEED`: writes, reads and evicts beside others that do the same.

Says how many files it read, and ends with 0 when none of them was wrong.
"""

import random
import sys
from pathlib import Path

from plait.disk import Read, Record, Result, segment
from tests.unit.disk.making import ROOT, finish, payload, record, shelf
from tests.waiting import until

N_ROUNDS = 20
MAX_BYTES = 8 * segment.n_bytes(ROOT)


def chain(chance: random.Random) -> list[Record]:
    """A root and what hangs on it; all processes draw from the same few."""
    tokens = [chance.randrange(3), 0]
    records = [record(tokens)]
    for _ in range(chance.randrange(4)):
        tokens = [*tokens, chance.randrange(2), 0]
        records.append(record(tokens, records[-1], len(tokens) - 2))
    return records


def main(folder: Path, seed: int) -> int:
    chance = random.Random(seed)
    results: list[Result] = []
    opened = shelf(folder, MAX_BYTES)

    def is_quiet() -> bool:
        results.extend(opened.done())
        return not opened.n_queued_bytes

    for _ in range(N_ROUNDS):
        for each in chain(chance):
            opened.write(each, [payload(each.id)])
            opened.use([each.id])
        until(is_quiet, 60.0)
        for each in chain(chance):
            opened.read(each.id)
    read = [result for result in [*results, *finish(opened)] if isinstance(result, Read)]
    assert all(result.payload == payload(result.record.id) for result in read)
    return len(read)


if __name__ == "__main__":
    sys.stdout.write(str(main(Path(sys.argv[1]), int(sys.argv[2]))))
