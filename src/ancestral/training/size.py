"""What a stage holds in memory from its first step to its last, known before it starts."""

from collections.abc import Iterable, Mapping

from torch import nn

from ancestral.recipe import Optimization
from ancestral.stages import Stage

_MOMENTS = {
    "adam": ("Adam", 2),
    "adamw": ("AdamW", 2),
    "adamax": ("Adamax", 2),
    "adagrad": ("Adagrad", 1),
    "rmsprop": ("RMSProp", 1),
}
"""What each optimizer that keeps something is called, and how many numbers it keeps of each weight."""


OTHERS = "weights of other stages"


def held(
    stage: Stage,
    optimization: Optimization,
    *,
    processes: int = 1,
    sharded: bool = False,
    others: Iterable[nn.Parameter] = (),
) -> dict[str, int]:
    """Bytes that one process holds for what a stage trains, by what they are for.

    Weights, gradients, the buckets in which DDP sends these, the optimizers' moments and the average; then
    the weights of other stages that are on the device during the steps. Not activations and buffers, nor what
    is on a GPU only while samples are drawn there (all of the model); of a sharded stage neither the block
    that is whole at a time nor the copy in the memory of the host.

    Args:
        stage: what is trained.
        optimization: how.
        processes: over which the training runs.
        sharded: whether each of them has a part alone; the largest counts.
        others: parameters that are on the device too, whole.

    >>> from ancestral.stages import Phase
    >>> held(Stage("training", (Phase("training", (nn.Linear(3, 1),)),)), Optimization())
    {'weights': 16, 'gradients': 16, 'Adam': 32}
    """

    def size(parameters: Iterable[nn.Parameter]) -> int:
        parts = processes if sharded else 1
        return sum(_largest_part(p, parts) for p in {id(p): p for p in parameters}.values())

    everything = [p for module in stage.modules for p in module.parameters()]
    learned = [p for p in everything if p.requires_grad]
    bytes_of = {"weights": size(everything), "gradients": size(learned)}
    if processes > 1 and not sharded:
        bytes_of["gradient buckets"] = bytes_of["gradients"]
    for phase in stage.phases:
        if phase.optimizer is None:
            name, moments = _MOMENTS.get(optimization.of(phase.name).optimizer, ("", 0))
            # Adagrad begins with a moment of every weight, the others with its first gradient.
            kept = size(p for p in phase.parameters if p.requires_grad or name == "Adagrad")
            bytes_of[name] = bytes_of.get(name, 0) + moments * kept
    if optimization.average_decay is not None:
        averaged = stage.modules if stage.averaged is None else stage.averaged
        bytes_of["average"] = size(p for module in averaged for p in module.parameters())
    own = {id(p) for p in everything}
    bytes_of[OTHERS] = sum(p.nbytes for p in {id(p): p for p in others}.values() if id(p) not in own)
    return {name: n for name, n in bytes_of.items() if n}


def _largest_part(parameter: nn.Parameter, parts: int) -> int:
    """Bytes of the largest part of a tensor that is divided by its rows."""
    rows = parameter.shape[0] if parameter.dim() else 1
    return parameter.nbytes // max(1, rows) * -(-rows // parts)


def described(held: Mapping[str, int], stage: str) -> str:
    """What ``held`` says, as words.

    >>> described({"weights": 2**30, "gradients": 2**30, "Adam": 2**31}, "prior")
    '4.0 GiB for weights, gradients and Adam of prior'
    >>> described({"weights": 2**30, "weights of other stages": 2**20}, "prior")
    '1.0 GiB for weights of prior, 1.0 MiB for weights of other stages'
    """
    *most, last = [name for name in held if name != OTHERS] or ("nothing",)
    names = f"{', '.join(most)} and {last}" if most else last
    others = held.get(OTHERS, 0)
    text = f"{_size(sum(held.values()) - others)} for {names} of {stage}"
    return f"{text}, {_size(others)} for {OTHERS}" if others else text


def _size(total: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if total < 1024:
            return f"{total:.{int(unit != 'B')}f} {unit}"
        total /= 1024
    return f"{total:,.1f} GiB"
