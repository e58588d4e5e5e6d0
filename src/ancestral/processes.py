"""Which of several processes this one is: what torchrun, which starts them, says in the environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ancestral.errors import UserError


def launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def own_process() -> tuple[int, int]:
    """This process's number among those that were started together, and how many these are; 0 of 1 alone.

    Raises:
        UserError: the environment says something else.
    """
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world is None:
        return 0, 1
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        problem = f"expected RANK below WORLD_SIZE in the environment, got {rank} and {world}"
        raise UserError(problem, "start with torchrun, or unset both")
    return int(rank), int(world)


@contextmanager
def alone() -> Iterator[None]:
    """Within, this process is one by itself, even if torchrun started it with others."""
    names = [name for name in os.environ if name in ("RANK", "WORLD_SIZE") or name.startswith("TORCHELASTIC")]
    there = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ |= there
