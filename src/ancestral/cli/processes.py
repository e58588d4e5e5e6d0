"""A command that torchrun has started several times."""

import os


def take_part() -> bool:
    """Have this process stop with torchrun, if that started it; whether it is the one that speaks for all."""
    from ancestral.training.fabric import end_with_launcher

    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_launcher()
    return os.environ.get("RANK", "0") == "0"
