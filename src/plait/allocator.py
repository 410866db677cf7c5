"""How the C library keeps memory: in one place for all threads."""

import ctypes

M_ARENA_MAX = -8
"""Of glibc's malloc.h."""


def use_one_arena() -> None:
    """To be called before there are threads. glibc gives each of them an arena of its own, and what is free there
    serves nobody else: 4 MiB of a gateway's 35. Where there is another C library, nothing happens."""
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(M_ARENA_MAX, 1)
