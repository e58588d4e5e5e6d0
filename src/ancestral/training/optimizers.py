"""The optimizer of a phase and its learning rate at a step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from ancestral.recipe import Updates


def build_optimizer(parameters: Iterable[nn.Parameter], options: Updates) -> torch.optim.Optimizer:
    """The optimizer, in its fused form where there is one."""
    parameters = list(parameters)
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "adam":
        return torch.optim.Adam(parameters, rate, options.betas, options.eps, decay, fused=True)
    if options.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, options.betas, options.eps, decay, fused=True)
    if options.optimizer == "adamax":
        return torch.optim.Adamax(parameters, rate, options.betas, options.eps, decay)
    if options.optimizer == "adagrad":
        return torch.optim.Adagrad(parameters, rate, weight_decay=decay, eps=options.eps)
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, weight_decay=decay, eps=options.eps)
    return torch.optim.SGD(parameters, rate, weight_decay=decay, momentum=options.momentum)


def learning_rate(options: Updates, step: int, steps: int) -> float:
    """The learning rate of ``step``, counted from 0, of ``steps``.

    >>> updates = Updates(warmup=10, learning_rate=1.0)
    >>> learning_rate(updates, 4, 100), learning_rate(updates, 100, 100)
    (0.5, 0.0)
    """
    rate = options.learning_rate
    if step < options.warmup:
        return rate * (step + 1) / options.warmup
    if options.schedule == "cosine":
        progress = (step - options.warmup) / max(1, steps - options.warmup)
        rate *= 0.5 * (1 + math.cos(math.pi * progress))
    if options.schedule == "linear":
        start = max(options.warmup, options.decay_from * steps)
        rate *= min(1.0, (steps - step) / max(1.0, steps - start))
    if options.schedule == "exponential":
        rate *= options.decay ** (step - options.warmup)
    return max(rate, options.decay_to)
