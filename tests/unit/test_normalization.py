"""Batch normalization over two processes equals that of one process with the whole batch, and torch's own."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ancestral.nn.normalization import BatchNorm

STEPS = 3
CASES = {
    "image": ((8, 5, 4, 3), {}, torch.float64),
    "vector": ((8, 5), {}, torch.float64),
    "sequence": ((8, 5, 6), {"momentum": 0.3, "eps": 1e-2}, torch.float64),
    "no weights": ((8, 5, 4, 3), {"affine": False}, torch.float64),
    "far from 0": ((8, 5, 4, 3), {}, torch.float32),
    "one example a process": ((2, 5), {}, torch.float64),
    "half precision": ((8, 5, 4, 3), {}, torch.bfloat16),
}


def examples(name: str, step: int) -> tuple[Tensor, Tensor]:
    """Input and the weights of the loss."""
    shape, _, dtype = CASES[name]
    g = torch.Generator().manual_seed(step)
    x, weights = torch.randn(2, *shape, generator=g, dtype=torch.float64)
    # A mean 100 times the deviation: E[x^2] - E[x]^2 would lose 4 of float32's 7 digits.
    return (x * 2 + (300 if name == "far from 0" else 1)).to(dtype), weights.to(dtype)


def run(name: str, cls: type[nn.Module], share: slice, processes: int) -> dict[str, Tensor]:
    """Output, gradients and running statistics after some steps on a share of each batch, and the output in
    evaluation mode."""
    _, options, dtype = CASES[name]
    norm = cls(5, **options).to(torch.float32 if dtype == torch.bfloat16 else dtype)
    results: dict[str, Tensor] = {}
    for step in range(STEPS):
        x, weights = (t[share].requires_grad_(i == 0) for i, t in enumerate(examples(name, step)))
        norm.zero_grad()
        y = norm(x)
        # Squared, for the gradient of a sum of y alone is 0; a sum, so that the halves add up to the whole.
        (y.square() * weights).sum().backward()
        results |= {f"output {step}": y.detach(), f"gradient {step}": x.grad}
        for key, p in norm.named_parameters():
            if processes > 1:
                dist.all_reduce(p.grad)
            results[f"{key}.grad {step}"] = p.grad.clone()
            with torch.no_grad():
                p.sub_(0.1 * p.grad / len(examples(name, step)[0]))
    results |= {key: value.clone() for key, value in norm.state_dict().items()}
    return results | {"evaluated": norm.eval()(examples(name, 9)[0]).detach()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results = {}
    for name, (shape, _, _) in CASES.items():
        half = shape[0] // 2
        results[name] = run(name, BatchNorm, slice(rank * half, (rank + 1) * half), 2)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.start_processes(work, (str(folder),), 2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def reference(name: str, cls: type[nn.Module] | None = None) -> dict[str, Tensor]:
    dims = len(CASES[name][0])
    torchs = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[dims]
    return run(name, cls or torchs, slice(None), 1)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_torch_in_one(halves, name):
    # Rounding: float64 adds the halves in another order; float32 at 300 carries 2e-5 of a deviation, bfloat16
    # 2^-8 of each number.
    atol = {torch.float64: 1e-11, torch.float32: 3e-4, torch.bfloat16: 0.05}[CASES[name][2]]
    for key, expected in reference(name).items():
        first, second = (half[name][key] for half in halves)
        if key.startswith(("output", "gradient")):
            ours = torch.cat([first, second])
        else:
            assert torch.equal(first, second), key
            ours = first
        assert ours.dtype == expected.dtype, key
        # Gradients of weights, and the weights after them, add up the rounding of 96 numbers.
        close = (
            atol * 10
            if key.startswith(
                ("weight", "bias", "evaluated", "output 1", "output 2", "gradient 1", "gradient 2")
            )
            else atol
        )
        torch.testing.assert_close(
            ours, expected, rtol=close, atol=close, msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.mark.parametrize("name", CASES)
def test_one_process_is_torch(name):
    for (key, ours), expected in zip(
        run(name, BatchNorm, slice(None), 1).items(), reference(name).values(), strict=True
    ):
        assert torch.equal(ours, expected), key


def test_halves_alone_differ(halves):
    """What is compared above does depend on the other half."""
    alone = run("image", BatchNorm, slice(0, 4), 1)
    assert (alone["output 0"] - halves[0]["image"]["output 0"]).abs().max() > 0.1


def test_gradient_is_autograds():
    norm = BatchNorm(3).double()
    x = torch.randn(
        4, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(norm, (x,))


def test_a_single_dimension_is_an_error():
    with pytest.raises(ValueError, match=r"expected \(N, C, ...\), got 1 dimensions"):
        BatchNorm(3)(torch.zeros(3))
