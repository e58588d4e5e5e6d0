"""A prior of your own on the codes that `ancestral tokenize` wrote: a transformer over all of their levels.

    ancestral tokenize runs/digits --split all --out codes
    python examples/prior.py codes --out drawn.safetensors
    ancestral detokenize runs/digits drawn.safetensors --format sheet

It is written to be taken apart: nothing of `ancestral` is needed but `write_codes`, at the end.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from ancestral.evaluation import write_codes


@dataclass(frozen=True)
class Layout:
    """How the code maps of an example become one sequence of tokens ``(T,)``.

    A token is a code plus the number of codes of all coarser levels, so that no two levels share one. The
    sequence begins with the class, or with the only one if there are none.
    """

    shapes: tuple[tuple[int, int, int], ...]
    sizes: tuple[int, ...]
    classes: int

    @classmethod
    def of(cls, folder: Path) -> "Layout":
        """The layout of a folder of codes."""
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        levels = manifest["levels"]
        shapes = tuple(tuple(level["shape"]) for level in levels)
        return cls(shapes, tuple(level["codebook_size"] for level in levels), max(1, manifest["classes"]))

    @property
    def lengths(self) -> list[int]:
        """Codes of each level."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def offsets(self) -> list[int]:
        """The first token of each level."""
        return [sum(self.sizes[:i]) for i in range(len(self.sizes))]

    def tokens(self, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Tokens ``(N, T)`` and classes ``(N,)`` of rows of the data set."""
        levels = [rows[f"level{i}"].flatten(1) + offset for i, offset in enumerate(self.offsets)]
        tokens = torch.cat(levels, 1)
        return tokens, rows.get("label", torch.zeros(len(tokens), dtype=torch.long))

    def codes(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Code maps ``(N, M, h, w)`` of each level: the inverse."""
        levels = zip(tokens.split(self.lengths, 1), self.offsets, self.shapes, strict=True)
        return tuple((level - offset).reshape(-1, *shape) for level, offset, shape in levels)


class Prior(nn.Module):
    """p(codes | class), a decoder-only transformer: each token given those before it."""

    def __init__(self, layout: Layout, width: int = 128, layers: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        vocabulary, length = sum(layout.sizes), sum(layout.lengths)
        self.classes = nn.Embedding(layout.classes, width)
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(
            width, max(1, width // 32), 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)
        # At each position only the codes of its own level are possible.
        first = torch.tensor(layout.offsets).repeat_interleave(torch.tensor(layout.lengths))[:, None]
        size = torch.tensor(layout.sizes).repeat_interleave(torch.tensor(layout.lengths))[:, None]
        token = torch.arange(vocabulary)
        self.register_buffer("possible", (token >= first) & (token < first + size))

    def forward(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Logits ``(N, t + 1, vocabulary)`` of the tokens after the class and each of ``(N, t)`` tokens."""
        h = torch.cat([self.classes(classes)[:, None], self.tokens(tokens)], 1)
        length = h.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=h.device)
        h = self.layers(h + self.positions[:length], mask=mask, is_causal=True)
        return self.head(h).masked_fill(~self.possible[:length], -torch.inf)

    def bits_per_code(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """-log2 p(codes | class) / T, the mean of the examples."""
        logits = self(tokens[:, :-1], classes)
        return cross_entropy(logits.flatten(0, 1), tokens.flatten()) / math.log(2)

    @torch.no_grad()
    def sample(self, classes: Tensor, length: int) -> Tensor:
        """Tokens ``(N, length)``. Each costs a whole pass; keep keys and values for more than a few."""
        tokens = torch.empty(len(classes), 0, dtype=torch.long, device=classes.device)
        for _ in range(length):
            probabilities = self(tokens, classes)[:, -1].softmax(-1)
            tokens = torch.cat([tokens, probabilities.multinomial(1)], 1)
        return tokens


def batches(rows: datasets.Dataset, size: int) -> Iterator[dict[str, Tensor]]:
    """Batches without end, shuffled; read from disk as they are needed."""
    loader = DataLoader(
        rows.with_format("torch"), batch_size=min(size, len(rows)), shuffle=True, drop_last=True
    )
    while True:
        yield from loader


def train(
    folder: Path, steps: int = 500, batch_size: int = 64, device: str = "cpu", **sizes: int
) -> tuple[Prior, Layout]:
    """A prior of the codes in a folder; prints bits/code each 50 steps."""
    loaded = datasets.load_dataset(str(folder))
    layout = Layout.of(folder)
    columns = [name for name in loaded["train"].column_names if name != "name"]
    held_out = None
    if "validation" in loaded:
        rows = loaded["validation"].select_columns(columns).with_format("torch")
        held_out = [part.to(device) for part in layout.tokens(rows[:1000])]
    model = Prior(layout, **sizes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    source = batches(loaded["train"].select_columns(columns), batch_size)
    for step, batch in zip(range(1, steps + 1), source, strict=False):
        model.train()
        bits = model.bits_per_code(*(part.to(device) for part in layout.tokens(batch)))
        optimizer.zero_grad()
        bits.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps:
            model.eval()
            line = f"step {step}/{steps}  train {bits.item():.3f} bits/code"
            if held_out is not None:
                with torch.no_grad():
                    line += f"  validation {model.bits_per_code(*held_out).item():.3f} bits/code"
            print(line, flush=True)
    return model.eval(), layout


def draw(model: Prior, layout: Layout, n: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Code maps of ``n`` examples, all classes in turn, and their classes."""
    device = model.positions.device
    classes = torch.arange(n, device=device) % layout.classes
    return layout.codes(model.sample(classes, sum(layout.lengths)).cpu()), classes.cpu()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a transformer on codes, and draw some.")
    parser.add_argument("folder", type=Path, help="what `ancestral tokenize` wrote")
    parser.add_argument("--out", type=Path, default=Path("drawn.safetensors"), help="codes that are drawn")
    parser.add_argument("--n", type=int, default=64, help="how many examples to draw")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    sizes = {"width": options.width, "layers": options.layers}
    model, layout = train(options.folder, options.steps, options.batch_size, options.device, **sizes)
    codes, labels = draw(model, layout, options.n)
    write_codes(options.out, codes, labels)
    print(f"{options.out}: {', '.join(str(tuple(level.shape)) for level in codes)}")


if __name__ == "__main__":
    main()
