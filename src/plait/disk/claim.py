"""Which processes use a folder: each holds a lock on it that all can share, and that ends with the process."""

import fcntl
import os
from pathlib import Path
from typing import Self


class Claim:
    """A lock on a folder. Raises `OSError` when there is no such folder, or no locks on its file system."""

    def __init__(self, folder: Path) -> None:
        self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def alone(self) -> bool:
        """From now on nobody else may come in; False: somebody is in there."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """From now on others may come in."""
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    @property
    def is_void(self) -> bool:
        """Whether the folder was removed."""
        return os.fstat(self.fd).st_nlink == 0

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
