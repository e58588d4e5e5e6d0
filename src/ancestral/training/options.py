"""How a training runs: what does not belong to the model, the data or a stage."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ancestral.configuration import Configuration, Count, Natural, NonNegative, Range


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Configuration):
    """Options of a training."""

    seed: Natural = 0
    """Start of all randomness: batches, noise, initial weights."""
    precision: Literal["32-true", "bf16-mixed", "64-true", "auto"] = "32-true"
    """Arithmetic of a step. bf16-mixed pays on recent GPUs and CPUs with AMX, and slows other CPUs down; auto
    is what pays where the training begins."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU where there is one."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Of several processes: all have whole copies (ddp), or each has a part of weights, gradients and the
    optimizer's state (fsdp). It shards stages of one phase whose networks are autoregressive, or another
    model's that names its blocks; other stages have copies. Each process keeps all weights whole in the
    memory of the host too, and the first GPU has them whole while it evaluates and draws. The checkpoints are
    the same, and a run may go on with the other one."""
    channels_last: bool = True
    """Keep images channels-last in memory, which makes convolutions faster on most machines."""
    log_every: Count = 50
    """Steps between entries of metrics.jsonl and TensorBoard."""
    evaluate_every: Natural = 500
    """Steps between evaluations on the validation split; 0 evaluates at the end of a stage only."""
    sample_every: Natural = 1000
    """Steps between sheets of samples or reconstructions; 0 makes them at the end of a stage only."""
    measure_every: Annotated[int | None, Range(least=0)] = None
    """Steps between measures of samples, by a classifier of the data that is trained once before; 0 makes
    none. If left out, models that ask for it are measured as often as evaluated."""
    checkpoint_every: Natural = 500
    """Steps between checkpoints; 0 writes them at the end of a stage only."""
    checkpoint_minutes: NonNegative = 10.0
    """Minutes after which a checkpoint is written all the same; 0 leaves it to the steps."""
    keep: Count = 2
    """Checkpoints to keep of the stage in progress."""


RESULT_OPTIONS = ("seed", "precision", "channels_last")
"""The options that the weights depend on; a resumed training must not change them."""
