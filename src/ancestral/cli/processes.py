"""A command that torchrun has started several times."""

from ancestral.processes import launched, own_process


def take_part() -> bool:
    """Have this process stop with torchrun, if that started it; whether it is the one that speaks for all."""
    from ancestral.training.fabric import end_with_launcher

    if launched():
        end_with_launcher()
    return own_process()[0] == 0
