"""All randomness of a training as a pure function of (seed, stage, step)."""

import hashlib

import torch


def derive(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part.

    >>> derive(0, "prior", 17) == derive(0, "prior", 17), derive(0, "prior", 17) == derive(0, "prior", 18)
    (True, False)
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(device: torch.device, *parts: int | str) -> None:
    """Seed the CPU's generator and the device's from ``parts``.

    Speaks to the generators themselves: ``torch.manual_seed`` would also queue seeds for devices that are not
    in use, which costs more than a small step.
    """
    seed = derive(*parts)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)
