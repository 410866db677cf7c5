"""`python -m plait.worker FD`: one worker on an inherited socket. It ends with its parent, whatever happens to that."""

import asyncio
import ctypes
import signal
import socket
import sys

from plait.worker.service import Service

PR_SET_PDEATHSIG = 1


async def serve(fd: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    await Service(reader, writer).run()


def die_with_parent() -> None:
    """Linux tells the kernel; elsewhere the end of the socket has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the gateway: it drains us
    asyncio.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
