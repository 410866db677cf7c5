"""`python -m tests.process.disk.full FOLDER`: a process that may not write files of more than a few bytes."""

import resource
import sys
from pathlib import Path

from plait.disk import Result
from tests.unit.disk.making import CHILD, ROOT, finish, payload, record, shelf


def main(folder: Path) -> list[Result]:
    """Writes twice, and reads what was there before."""
    opened = shelf(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    for each in (CHILD, record([7])):
        opened.write(each, [payload(each.id)])
    opened.read(ROOT.id)
    return finish(opened)


if __name__ == "__main__":
    sys.stdout.write(" ".join(type(result).__name__ for result in main(Path(sys.argv[1]))))
