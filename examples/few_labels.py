"""What a semi-supervised GAN gains: its error beside that of its critic taught by the labels alone.

    ancestral train improved-gan --recipe semi-supervised --data fashion-mnist --out runs/labels
    python examples/few_labels.py runs/labels

Both are the same network with the same dropout, and both know the same labels; the game has seen all the
other images as well. The error by labels alone is the mean of three trainings of 1,000 steps.
"""

import sys

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import ancestral
from ancestral.batch import Batch
from ancestral.models.adversarial.improved_gan import ImprovedGAN

STEPS, BATCH, SEEDS = 1000, 100, 3


@torch.no_grad()
def error(model: ImprovedGAN, test: Batch) -> float:
    """Percent of the test examples that a model takes for another class."""
    model.eval()
    assert test.labels is not None
    found = torch.cat([model.class_logits(x).argmax(1) for x in test.x.split(500)])
    return 100 * float((found != test.labels).float().mean())


def taught(like: ImprovedGAN, x: Tensor, labels: Tensor, seed: int) -> ImprovedGAN:
    """A new critic that has learned nothing but some labels."""
    torch.manual_seed(seed)
    model = ImprovedGAN(like.config, like.spec).train()
    rate = 3e-4
    adam = torch.optim.Adam(model.critic.parameters(), rate, betas=(0.5, 0.999))
    for step in range(STEPS):
        adam.param_groups[0]["lr"] = rate * min(1.0, 2 * (1 - step / STEPS))
        chosen = torch.randint(len(x), (BATCH,))
        loss = cross_entropy(model.class_logits(x[chosen]), labels[chosen])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model


def main(run: str) -> None:
    """Compare."""
    model, test = ancestral.load(run), ancestral.load_data("fashion-mnist").test
    assert isinstance(model, ImprovedGAN)
    x, labels = model.critic.get_buffer("examples"), model.critic.get_buffer("labels")
    alone = [error(taught(model, x, labels, seed), test) for seed in range(SEEDS)]
    print(f"{len(x)} labels, {len(test):,} test images, percent wrong")
    print(f"with all other images, by the game   {error(model, test):6.2f}")
    between = f"({min(alone):.2f} to {max(alone):.2f})"
    print(f"by the labels alone                  {sum(alone) / SEEDS:6.2f}  {between}")


if __name__ == "__main__":
    main(sys.argv[1])
