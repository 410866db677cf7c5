"""Installs the rivals, each in an environment of its own, and tells what they are: `python -m benchmarks rivals`.

Where llama-server's kernels were built with other instructions than Plait's, this compiles llama.cpp once more, without
this machine's own instructions, as wheels come: some minutes.
"""

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.rivals.base import Build, NotThere, Rival
from benchmarks.rivals.llama_cpp_python import LlamaCppPython
from benchmarks.rivals.llama_server import LlamaServer
from benchmarks.rivals.plait import Plait, PortablePlait

OURS, THEIRS = Plait(), LlamaServer()
RIVALS: tuple[Rival, ...] = (OURS, THEIRS, LlamaCppPython())


def installed(rivals: Sequence[Rival], *, as_is: bool = False) -> dict[str, Build | str]:
    """What each is; a text for one that cannot be had here: why. `as_is`: nothing is installed."""
    found = {rival.name: made(rival, as_is=as_is) for rival in rivals}
    if kernels_differ(found):
        portable = PortablePlait()
        found[portable.name] = made(portable, as_is=as_is)
    return found


def kernels_differ(builds: Mapping[str, Build | str]) -> bool:
    """Plait's and llama-server's. False where there is only one of them."""
    ours, theirs = builds.get(OURS.name), builds.get(THEIRS.name)
    return isinstance(ours, Build) and isinstance(theirs, Build) and ours.instructions != theirs.instructions


def made(rival: Rival, *, as_is: bool) -> Build | str:
    print(f"{rival.name} is made ready", file=sys.stderr)
    try:
        if not as_is:
            rival.install()
        return rival.build()
    except NotThere as reason:
        return str(reason)


def main() -> None:
    table = Table("server", "version", "kernels")
    for name, build in installed(RIVALS).items():
        table.add_row(name, *((build, "") if isinstance(build, str) else (build.version, build.features)))
    Console().print(table)


if __name__ == "__main__":
    main()
