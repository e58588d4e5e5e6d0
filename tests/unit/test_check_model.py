"""What check_model says to somebody who wrote a model, on toys with a fault each, or as people write them."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.model import Model
from ancestral.models.latent.vqvae import VQVAE
from ancestral.recipe import Recipe
from ancestral.spec import Spec
from ancestral.stages import Loss, Progress
from ancestral.testing import check_configuration, check_model, check_training
from ancestral.units import bits_per_dim

SMALL = (Spec(shape=(1, 2, 2), levels=3),)


@dataclass(frozen=True, kw_only=True)
class Outside(Model.Config):
    """Options that stand outside the class that they are the options of."""

    spread: float = 0.1
    """Standard deviation of the first logits."""

    @classmethod
    def tiny(cls):
        return cls()


class Pixelwise(Model):
    """Each value independent of the others: a table of logits."""

    Config = Outside
    recipes = {"small": Recipe(source="a toy", model=Outside())}  # noqa: RUF012
    likelihood = "exact"

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.logits = nn.Embedding(spec.dims, spec.discrete_levels)
        self.calls = 0

    def log_likelihood(self, batch, k=1):
        self.check_importance_samples(k)
        log_p = self.logits.weight.log_softmax(1)
        return log_p.gather(1, batch.x.long().flatten(1).T).sum(0)

    def loss(self, batch, phase, progress):
        nats = -self.log_likelihood(batch).mean()
        return Loss(nats, {"code_length": nats.detach(), "bits_per_dim": nats.detach()})

    def draw(self, n, labels, contexts, options, *, generator, progress):
        p = (self.logits.weight / options.temperature).softmax(1)
        drawn = torch.multinomial(p, n, replacement=True, generator=generator).T
        return drawn.view(n, *self.spec.shape).to(self.spec.dtype)


def faulty(**changes):
    return type("Faulty", (Pixelwise,), changes)


def test_a_config_outside_the_class_and_terms_without_a_unit_pass():
    check_model(Pixelwise, SMALL)


MADE = '''
@dataclass(frozen=True, kw_only=True)
class Config(Model.Config):
    """Options."""

    spread: float = 0.1

    @classmethod
    def tiny(cls):
        return cls()

class Made(Pixelwise):
    Config = Config
    recipes = {"small": Recipe(source="a toy", model=Config())}
'''


@pytest.mark.parametrize("module", ["nowhere", "__main__", __name__, None])
def test_a_class_without_source_passes(module):
    """As in a notebook, or where a program made it; nothing is known of its docstrings."""
    names = {"dataclass": dataclass, "Model": Model, "Pixelwise": Pixelwise, "Recipe": Recipe}
    names |= {"__name__": module} if module else {}
    exec(MADE, names)
    check_model(names["Made"], SMALL)


def configured(config, **changes):
    recipe = {"small": Recipe(source="a toy", model=Outside())}
    return faulty(Config=config, **({"recipes": recipe} | changes))


class Bare(Model.Config):
    """Not decorated."""

    spread: float = 0.1
    """Standard deviation."""


@dataclass(frozen=True, kw_only=True)
class Silent(Outside):
    """A field without words."""

    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Large(Model.Config):
    """Nothing for tests."""


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (configured(Bare), r"Config is no dataclass: put @dataclass\(frozen=True, kw_only=True\) above it"),
        (configured(Silent), "the field depth of Config has no docstring, which is its help text"),
        (configured(Large), r"Config has no tiny\(\), a class method that returns a small configuration"),
        (configured(type("Plain", (), {})), r"Config does not derive from Model\.Config"),
        (
            configured(Outside, recipes={}),
            "no recipe: the class needs recipes, a mapping of names to Recipes",
        ),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said(cls, message):
    with pytest.raises(AssertionError, match=message):
        check_configuration(cls)


def raising(self, *arguments, **options):
    return {}["missing"]


def unequipped(self, config, spec):
    raise UserError("expected sound, got images", "give sound")


@pytest.mark.parametrize(
    ("changes", "message", "cause"),
    [
        (
            {"draw": raising},
            r"check_sample on Spec\(shape=\(1, 2, 2\).* ended in KeyError: 'missing'",
            KeyError,
        ),
        ({"loss": raising}, r"check_training on Spec.* ended in KeyError: 'missing'", KeyError),
        ({"save_pretrained": raising}, r"check_saving on Spec.* ended in KeyError", KeyError),
        (
            {"__init__": unequipped},
            r"building the model for Spec.* ended in UserError: expected sound, got images; give sound",
            UserError,
        ),
    ],
)
def test_an_error_of_the_models_own_names_the_check(changes, message, cause):
    with pytest.raises(AssertionError, match=message) as raised:
        check_model(faulty(**changes), SMALL)
    assert isinstance(raised.value.__cause__, cause)


def test_what_is_broken_says_where_it_was_found():
    def log_likelihood(self, batch, k=1):
        return Pixelwise.log_likelihood(self, batch, k) + 0.1

    with pytest.raises(AssertionError, match=r"the likelihood sums to 1\.1\d*, not 1") as raised:
        check_model(faulty(log_likelihood=log_likelihood), SMALL)
    assert raised.value.__notes__ == [f"found by check_likelihood on {SMALL[0]}"]


@pytest.mark.parametrize("after", [1, 2, 6, 20])
def test_state_outside_the_state_dict_is_found(after):
    """It passed when it began to matter after the second call."""

    def loss(self, batch, phase, progress):
        self.calls += 1
        loss = Pixelwise.loss(self, batch, phase, progress)
        return replace(loss, total=loss.total * (2 if self.calls > after else 1))

    with pytest.raises(
        AssertionError,
        match=r"the loss of phase training depends on more than weights, batch, progress and torch's "
        r"generators: the same ones gave \d+\.\d+, then \d+\.\d+",
    ):
        check_training(faulty(loss=loss)(Outside(), SMALL[0]))


def test_the_second_look_leaves_the_trained_weights():
    torch.manual_seed(0)
    model = Pixelwise(Outside(), SMALL[0])
    before = model.logits.weight.detach().clone()
    check_training(model)
    # 30 updates of Adam at 1e-2 with a gradient that keeps its sign: 0.3 a weight, less where it changes.
    assert float((model.logits.weight.detach() - before).abs().max()) > 0.2


def losing(make):
    return faulty(loss=lambda self, batch, phase, progress: make(-self.log_likelihood(batch)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda nats: nats.mean(), r"the loss of phase training is of type Tensor, not ancestral\.Loss"),
        (Loss, r"is no scalar, but of shape \(16,\): take the mean over the batch"),
        (lambda nats: Loss(nats.mean().item()), r"has a total that is \d+\.\d+, not a tensor"),
        (lambda nats: Loss(nats.mean() / 0), "is not finite: inf"),
        (
            lambda nats: Loss(nats.mean().detach()),
            "depends on no parameter that the phase trains: it is detached",
        ),
        (lambda nats: Loss(nats.mean(), {"nats": 2.5}), "term nats of phase training is 2.5, not a tensor"),
        (lambda nats: Loss(nats.mean(), {"nats": nats.detach()}), r"is no scalar, but of shape \(16,\)"),
        (lambda nats: Loss(nats.mean(), {"nats": nats.mean()}), "holds on to the graph: detach it"),
    ],
)
def test_what_is_wrong_with_a_loss_is_said(make, message):
    with pytest.raises(AssertionError, match=message):
        check_training(losing(make)(Outside(), SMALL[0]))


def test_bits_for_each_code_are_not_to_be_called_bits_per_dim():
    """A code covers many values: the prior's curve read 3.8 times what evaluate calls bits/dim."""

    class Misnamed(VQVAE):
        def loss(self, batch, phase, progress):
            loss = super().loss(batch, phase, progress)
            if phase == "tokenizer":
                return loss
            return Loss(loss.total, {"prior_bits_per_dim": loss.total.detach()})

    with pytest.raises(
        AssertionError,
        match=r"term prior_bits_per_dim of phase prior is said to be of the data, \(1, 2, 2\), "
        r"but the phase sees \(1, 1, 1\): bits for each code are bits_per_code",
    ):
        check_training(Misnamed(VQVAE.Config.tiny(), SMALL[0]))


@pytest.mark.parametrize(("classes", "term"), [(0, "bits_per_code"), (3, "given_label_bits_per_code")])
def test_a_priors_term_is_what_a_code_costs(classes, term):
    spec = replace(SMALL[0], classes=classes)
    model = VQVAE(VQVAE.Config.tiny(), spec).eval()
    x = torch.randint(3, (6, *spec.shape), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 3 if classes else None
    batch = model.stages()[1].prepare(Batch(x, labels))
    terms = model.loss(batch, "prior", Progress.at(0, 1)).terms
    assert list(terms) == [term]
    (rate,) = model.rates((batch.x.long(),), labels)
    torch.testing.assert_close(terms[term], bits_per_dim(rate.mean(), 1).detach())


@pytest.mark.parametrize(
    ("cls", "spec", "message"),
    [
        (Pixelwise, Spec(shape=(1, 28, 28)), "expected a spec of at most 65,536 possible examples, got Spec"),
        (Pixelwise, Spec(shape=(3,), levels=None), "expected 1 or 2 values of continuous data, .* got 3"),
        (Outside, SMALL[0], "expected a subclass of ancestral.Model, got .*Outside"),
        (Pixelwise(Outside(), SMALL[0]), SMALL[0], "expected a subclass of ancestral.Model, got Pixelwise"),
    ],
)
def test_what_cannot_be_checked_is_refused(cls, spec, message):
    with pytest.raises(UserError, match=message):
        check_model(cls, (spec,))
