"""Two processes with half a batch each end with the codebook of one process with the whole batch."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ancestral.nn.quantize import FiniteScalarQuantizer, ResidualQuantizer, VectorQuantizer

STEPS = 6
# A high threshold and a fast decay: codes are revived in every case that allows it.
CASES = {
    "running means": lambda: VectorQuantizer(6, 16, kmeans_start=False, revive_below=0),
    "k-means start": lambda: VectorQuantizer(6, 16, revive_below=0),
    "revival": lambda: VectorQuantizer(6, 16, kmeans_start=False, revive_below=0.6, decay=0.5),
    "all, two codebooks": lambda: VectorQuantizer(6, 16, num_codebooks=2, revive_below=0.6, decay=0.5),
    "cosine": lambda: VectorQuantizer(6, 16, cosine=True, revive_below=0.6, decay=0.5),
    "gradient": lambda: VectorQuantizer(6, 16, update="gradient", revive_below=0.6, decay=0.5),
    "residual": lambda: ResidualQuantizer(6, 16, num_codebooks=2, revive_below=0.6, decay=0.5),
    "finite scalar": lambda: FiniteScalarQuantizer((4, 3, 2, 2, 2, 2)),
}


def train(name: str, share: slice, processes: int) -> dict[str, Tensor]:
    """The state after some steps on a share of each batch, and the usages of the last step."""
    torch.manual_seed(0)
    q = CASES[name]().double()
    parameters = list(q.parameters())
    for step in range(STEPS):
        z = torch.randn(8, 6, 5, generator=torch.Generator().manual_seed(step), dtype=torch.float64)[share]
        if step == 3:  # a batch that teaches nothing: one process alone knows why
            q(torch.where(torch.arange(share.start or 0, share.stop or 8)[:, None, None] == 6, torch.nan, z))
        out = q(z)
        if parameters:
            q.zero_grad()
            out.loss.backward()
            for parameter in parameters:
                if processes > 1:
                    dist.all_reduce(parameter.grad)
                with torch.no_grad():
                    parameter.sub_(parameter.grad / processes)
    return {key: value.clone() for key, value in q.state_dict().items()} | {"usage": out.usage}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    timeout = timedelta(seconds=60)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timeout
    )
    torch.save({name: train(name, slice(rank * 4, rank * 4 + 4), 2) for name in CASES}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path):
    # One test for all cases: starting the processes takes longer than they run.
    torch.multiprocessing.start_processes(work, (str(tmp_path),), 2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name in CASES:
        for key, value in train(name, slice(None), 1).items():
            # The sums of the halves are added in another order than that of the whole: float64 rounding over
            # a few steps.
            torch.testing.assert_close(
                first[name][key], value, rtol=1e-9, atol=1e-12, msg=lambda m, at=(name, key): f"{at}: {m}"
            )
            assert torch.equal(first[name][key], second[name][key]), (name, key)


@pytest.mark.parametrize("name", ["revival", "all, two codebooks", "cosine", "gradient"])
def test_the_cases_do_revive_codes(name):
    moved = []
    revive = VectorQuantizer._revive

    def spy(self: nn.Module, candidates: Tensor, finite: Tensor) -> None:
        moved.append(int((self.counts < self.revive_below * self.counts.mean(-1, keepdim=True)).sum()))
        revive(self, candidates, finite)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VectorQuantizer, "_revive", spy)
        train(name, slice(None), 1)
    assert sum(moved) > 0
