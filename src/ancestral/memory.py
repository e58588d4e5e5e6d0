"""What the memory of this machine holds: asked before a file or a number decides the size of anything."""

import ctypes
import os

from ancestral.errors import UserError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""As malloc.h numbers them."""


def check_room(size: int, what: str, remedy: str) -> None:
    """Raise UserError unless ``size`` bytes, which ``what`` takes, fit into the memory of this machine.

    >>> check_room(2**60, "a network of this width", "choose a smaller one")
    Traceback (most recent call last):
    ancestral.errors.UserError: expected a network of this width to fit into memory, got ...
    """
    if size > (there := _memory()):
        got = f"{size / 2**30:,.0f} GiB where there are {there / 2**30:,.0f}"
        raise UserError(f"expected {what} to fit into memory, got {got}", remedy)


def _memory() -> int:
    """Bytes of memory of this machine; where the system does not tell, as many as an address names."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 2**63


def keep_freed() -> None:
    """Let this process keep the memory that it frees, where its C library can be told so (glibc).

    A training step frees and takes the same large tensors again and again; given back to the system, each
    page of them would be cleared and mapped anew, which is a tenth of a step's time on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # only glibc has it
        return
    mallopt(_MMAP_THRESHOLD, 1 << 30)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
