"""Masked autoregressive flows of vectors, and the network that they are made of."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ancestral.bijections.base import Bijection, summed
from ancestral.bijections.elementwise import Elementwise
from ancestral.errors import UserError


class MADE(nn.Module):
    """A network of D values to several numbers for each, of which those of value i see values < i alone.

    Germain et al., 2015 (https://arxiv.org/abs/1502.03509): masked weights. Each hidden unit has a degree,
    the number of values that it may see; here units stand in the order of their degrees, and these are spread
    evenly over 1 to D - 1 (with fewer units than that, over all of the range).

    ``stream`` gives the same outputs one value after another, with the multiplications of one pass.

    Shapes: x ``(N, D)``, output ``(N, per_value * D)``: the first parameter of all values, then the second, …

    Args:
        dims: D.
        per_value: numbers for each value.
        hidden: units of each hidden layer.
        context: features of the context, which every output sees, through the first layer and by itself.
        activation: between layers.
    """

    def __init__(
        self, dims: int, per_value: int, hidden: Sequence[int] = (256, 256), *, context: int = 0,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:  # fmt: skip
        super().__init__()
        if not hidden:
            raise UserError("expected at least one hidden layer, got none", "try 256 256")
        self.dims, self.per_value, self.activation = dims, per_value, activation
        # A unit of degree k sees values 0 to k - 1; a single value is seen by none.
        self.degrees = [
            [(k * (dims - 1)) // units + min(1, dims - 1) for k in range(units)] for units in hidden
        ]
        inputs, layers = list(range(1, dims + 1)), []
        for units in self.degrees:
            layers.append(MaskedLinear(inputs, units))
            inputs = units
        outputs = [i for _ in range(per_value) for i in range(dims)]
        self.layers = nn.ModuleList(layers)
        self.output = MaskedLinear(inputs, outputs)
        nn.init.zeros_(self.output.weight)
        self.context = nn.Linear(context, hidden[0], bias=False) if context else None
        # The first value has no unit that it could see the context through.
        self.direct = nn.Linear(context, per_value * dims, bias=False) if context else None
        if self.direct is not None:
            nn.init.zeros_(self.direct.weight)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The numbers of all values, ``(N, per_value * D)``."""
        for i, layer in enumerate(self.layers):
            x = layer(x)
            x = self.activation(x if i or self.context is None else x + self.context(context))
        output: Tensor = self.output(x)
        return output if self.direct is None else output + self.direct(context)

    def stream(self, n: int, context: Tensor | None = None) -> "Stream":
        """The same for ``n`` examples, of which one value after another becomes known."""
        return Stream(self, n, context)


class MaskedLinear(nn.Linear):
    """A linear layer, an output of which sees the inputs of no higher degree than its own.

    Args:
        inputs: degrees of the inputs.
        outputs: degrees of the outputs.
    """

    mask: Tensor

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__(len(inputs), len(outputs))
        mask = torch.tensor(outputs).unsqueeze(1) >= torch.tensor(inputs)
        # In the weights' own dtype: a boolean mask would be converted in each step.
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs)`` to ``(N, outputs)``."""
        return linear(x, self.masked, self.bias)

    @property
    def masked(self) -> Tensor:
        """The weights that count."""
        return self.weight * self.mask


class Stream:
    """The outputs of a MADE, value by value: each hidden unit is computed once, when all it sees is known."""

    def __init__(self, network: MADE, n: int, context: Tensor | None) -> None:
        self.network, self.done = network, 0
        weight = network.output.weight
        self._weights = [layer.masked for layer in (*network.layers, network.output)]
        self._biases = [layer.bias for layer in (*network.layers, network.output)]
        # By column: a value's units are neighbors in memory.
        self._units = [
            weight.new_zeros(network.dims, n),
            *(weight.new_zeros(len(d), n) for d in network.degrees),
        ]
        self._known = [0] * len(self._units)
        self._context = None if network.context is None else network.context(context).T
        self._direct = None if network.direct is None else network.direct(context)
        self._advance(0)

    def _advance(self, degree: int) -> None:
        """Compute the units that see no more than ``degree`` values."""
        for i, degrees in enumerate(self.network.degrees):
            start = self._known[i + 1]
            end = start
            while end < len(degrees) and degrees[end] <= degree:
                end += 1
            if end == start:
                continue
            seen = self._known[i]
            new = torch.addmm(
                self._biases[i][start:end, None], self._weights[i][start:end, :seen], self._units[i][:seen]
            )
            if i == 0 and self._context is not None:
                new = new + self._context[start:end]
            self._units[i + 1][start:end] = self.network.activation(new)
            self._known[i + 1] = end

    def parameters(self) -> Tensor:
        """The numbers of the next value, ``(N, per_value)``."""
        rows = slice(self.done, None, self.network.dims)
        seen = self._known[-1]
        output = self._weights[-1][rows, :seen] @ self._units[-1][:seen]
        output = (output + self._biases[-1][rows, None]).T
        return output if self._direct is None else output + self._direct[:, rows]

    def push(self, value: Tensor) -> None:
        """Make the next value known, ``(N,)``."""
        self._units[0][self.done] = value
        self.done += 1
        self._known[0] = self.done
        self._advance(self.done)


class MaskedAutoregressive(Bijection):
    """Value i changes by a function of the values before it (Papamakarios et al., 2017, arXiv 1705.07057).

    ``forward`` is one pass. ``inverse`` computes one value after another, in D steps that together multiply
    as much as one pass.

    Args:
        elementwise: how a value changes.
        network: of the D values, with ``elementwise.parameters`` outputs for each.
    """

    def __init__(self, elementwise: Elementwise, network: MADE) -> None:
        super().__init__()
        assert network.per_value == elementwise.parameters
        self.elementwise, self.network = elementwise, network

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        z, log_det = self.elementwise.forward(x, self.network(x, context))
        return z.to(x.dtype), summed(log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``. Its gradients cost D passes."""
        if torch.is_grad_enabled():
            return self._inverse_with_gradients(z, context)
        stream, total, columns = self.network.stream(len(z), context), [], []
        for i in range(z.shape[1]):
            x, log_det = self.elementwise.inverse(z[:, i : i + 1], stream.parameters())
            stream.push(x.squeeze(1))
            columns.append(x)
            total.append(log_det)
        return torch.cat(columns, 1).to(z.dtype), summed(torch.cat(total, 1))

    def _inverse_with_gradients(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = torch.zeros_like(z)
        for i in range(z.shape[1]):
            columns, log_det = self.elementwise.inverse(z, self.network(x, context))
            x = torch.cat([x[:, :i], columns[:, i : i + 1], x[:, i + 1 :]], 1)
        return x, summed(log_det)
