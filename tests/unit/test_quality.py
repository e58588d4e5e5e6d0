"""Samples against real examples: planted sets with known answers, provenance, and what is written down."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ancestral.batch import Batch
from ancestral.cli import main as commands
from ancestral.data import Dataset, load_data
from ancestral.errors import Interrupted, UserError
from ancestral.evaluation import evaluate, sample_shards
from ancestral.evaluation.evaluation import MEASURES
from ancestral.evaluation.extractors import Extractor
from ancestral.evaluation.quality import compared, score
from ancestral.figures import Evaluation, Provenance
from ancestral.measures import Interval, frechet_distance
from ancestral.measures.classifier import Classifier
from ancestral.models.latent.vae import VAE
from ancestral.models.latent.vqvae import VQVAE
from ancestral.recipe import Recipe
from ancestral.sampling import Sampling
from ancestral.spec import Spec
from ancestral.training import TrainingOptions, begin, classifier_of, train
from ancestral.training.monitor import Monitor
from ancestral.training.randomness import derive
from ancestral.weights import state_checksum

N = 120
KEYS = ("precision", "recall", "frechet_distance")


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    """Small classifiers, trained in a second, in a cache of these tests."""
    patch = pytest.MonkeyPatch()
    steps = {"features": 150, "gate": 100, "score": 60}
    made = {}
    for name, recipe in Classifier.recipes.items():
        stage = replace(recipe.stages["training"], steps=steps[name], batch_size=64, warmup=10)
        made[name] = Recipe(source="a test", model=Classifier.Config(width=16), stages={"training": stage})
    patch.setattr(Classifier, "recipes", made)
    patch.setenv("ANCESTRAL_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def saved(path, batch):
    labels = {} if batch.labels is None else {"labels": batch.labels.numpy()}
    np.savez(path, x=batch.x.numpy(), **labels)
    return path


def figures_of(result):
    return {f.id: f for f in result.figures}


@pytest.fixture(scope="module")
def measured(digits, tmp_path_factory):
    """The measures of planted sets of samples."""
    folder = tmp_path_factory.mktemp("sets")
    train, held_out = digits.train, digits.validation
    noise = torch.randint(17, (N, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    half = (train.labels < 5).nonzero()[:, 0]
    sets = {
        "copies": train[torch.arange(N)],
        "half": train[half[:N]],
        "noise": Batch(noise, labels=torch.arange(N) % 10),
        "wrong": Batch(train.x[:N], labels=(train.labels[:N] + 1) % 10),
        "held out": Batch(held_out.x, labels=held_out.labels),
    }
    return {
        name: figures_of(evaluate(saved(folder / f"{name}.npz", batch), digits))
        for name, batch in sets.items()
    }


def test_planted_sets_get_what_they_deserve(measured):
    ids = [
        "frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage",
        "label_agreement", "copies_auroc",
    ]  # fmt: skip
    assert all(list(found) == ids for found in measured.values())
    value = {name: {id: f.value for id, f in found.items()} for name, found in measured.items()}
    assert value["copies"]["copies_auroc"] > 0.99
    assert 0.3 < value["held out"]["copies_auroc"] < 0.7
    assert value["noise"]["copies_auroc"] < 0.01
    assert value["copies"]["precision"] > 0.9
    assert value["noise"]["precision"] < 0.8 < value["held out"]["precision"]
    assert value["noise"]["recall"] < 0.05
    assert value["noise"]["coverage"] < 0.3
    # Half of the classes: what is there is right, and half of the real ones are missing.
    assert value["half"]["precision"] > 0.85
    assert value["half"]["recall"] < 0.75 * value["copies"]["recall"]
    assert value["half"]["coverage"] < 0.75 * value["copies"]["coverage"]
    order = [value[name]["frechet_distance"] for name in ("copies", "half", "noise")]
    assert order == sorted(order)
    assert value["wrong"]["label_agreement"] < 0.1 < 0.8 < value["copies"]["label_agreement"]


def test_perfect_samples_are_on_the_floor_and_faults_are_not(measured):
    for id in ("frechet_distance", "kernel_distance", "precision", "recall", "coverage"):
        figure = measured["copies"][id]
        low, high = figure.floor
        spread = max(high - low, 0.05 * abs(high))
        assert low - 3 * spread <= figure.value <= high + 3 * spread
        assert set(figure.references) == {"2 images repeated", "slight noise", "half of the classes"}
    distance = measured["copies"]["frechet_distance"]
    assert distance.references["half of the classes"] > 2 * distance.floor[1]
    recall = measured["copies"]["recall"]
    assert recall.references["2 images repeated"] < 0.5 * recall.floor[0]
    assert measured["copies"]["copies_auroc"].references["half of them copies"] == pytest.approx(
        0.75, abs=0.08
    )


def test_intervals_hold_the_value_and_stay_within_what_can_be(measured):
    for found in measured.values():
        for figure in found.values():
            low, high = figure.interval
            assert low <= figure.value <= high
            if figure.id in ("precision", "recall", "coverage", "label_agreement"):
                assert low >= 0
                assert high <= 1
    assert measured["copies"]["frechet_distance"].interval[0] >= 0


def test_provenance_says_what_a_measure_was_taken_with(measured, digits):
    provenance = measured["copies"]["precision"].provenance
    assert provenance.features == "classifier of digits"
    assert re.fullmatch("[0-9a-f]{64}", provenance.weights)
    classifier = classifier_of(digits, "features")
    chosen = digits.test.some(N)
    right = classifier.probabilities(chosen.x).argmax(1) == chosen.labels
    assert provenance.accuracy == pytest.approx(float(right.double().mean()))
    assert (provenance.n, provenance.split, provenance.fingerprint) == (N, "test", digits.fingerprint)
    assert provenance.sampling["from"].endswith("copies.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 7}, "expected measures of the same n, got 120 and 7"),
        ({"weights": "0" * 64}, "expected measures of the same weights of the features"),
        ({"features": "imagenet"}, "the same features, got 'classifier of digits' and 'imagenet'"),
        ({"split": "train"}, "the same split, got 'test' and 'train'"),
        ({"fingerprint": "x"}, "the same content of the data"),
    ],
)
def test_measures_of_other_provenance_are_not_compared(measured, changes, message):
    figure = measured["copies"]["recall"]
    figure.check_comparable(measured["noise"]["recall"])  # only the samples differ
    with pytest.raises(UserError, match=message):
        figure.check_comparable(replace(figure, provenance=replace(figure.provenance, **changes)))
    with pytest.raises(UserError, match="expected figures of one quantity"):
        figure.check_comparable(measured["copies"]["precision"])
    with pytest.raises(UserError, match="expected measures of the same"):
        figure.check_comparable(replace(figure, provenance=None))


def test_an_evaluation_with_measures_survives_json(digits, tmp_path):
    result = evaluate(saved(tmp_path / "x.npz", digits.train[torch.arange(40)]), digits)
    (tmp_path / "evaluation.json").write_text(json.dumps(result.to_json()))
    again = Evaluation.read(tmp_path / "evaluation.json")
    assert list(again.figures) == list(result.figures)
    assert isinstance(again.figures[0].provenance, Provenance)
    assert "real data" in str(again)
    assert "40 samples (from " in str(again)
    assert max(map(len, str(again).splitlines()[1:-1])) <= 80


def test_features_do_not_depend_on_batches_or_order(digits, monkeypatch):
    extractor = Extractor.find("classifier", digits)
    x = digits.test.x[:100]
    whole = extractor(x)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(extractor(x[order]), whole[order], rtol=1e-5, atol=1e-6)
    monkeypatch.setattr("ancestral.evaluation.batches.SIZE", 7)
    torch.testing.assert_close(extractor(x), whole, rtol=1e-5, atol=1e-6)


def test_any_module_can_be_the_features(digits, tmp_path):
    class Means(nn.Module):
        def forward(self, pixels):
            assert pixels.min() >= 0
            assert pixels.max() <= 1
            return pixels.flatten(1)[:, :3]

    path = saved(tmp_path / "x.npz", Batch(digits.train.x[:N]))
    found = figures_of(evaluate(path, digits, features=Means()))
    assert found["frechet_distance"].provenance.features == "Means of your own"
    assert "label_agreement" not in found
    order = torch.randperm(180, generator=torch.Generator().manual_seed(derive(0, "reference")))[:N]
    real = digits.test.x[order].flatten(1)[:, :3].double() / 16
    fake = digits.train.x[:N].flatten(1)[:, :3].double() / 16

    assert found["frechet_distance"].value == pytest.approx(frechet_distance(real, fake), rel=1e-4)
    with pytest.raises(UserError, match=r"expected features \(2, D\) of Flatten of your own, got"):
        evaluate(path, digits, features=nn.Flatten(0))


def test_accuracy_score_of_real_and_of_mislabeled_examples(digits, tmp_path):
    real = evaluate(saved(tmp_path / "real.npz", digits.train[torch.arange(N)]), digits, measures=["score"])
    shifted = Batch(digits.train.x[:N], labels=(digits.train.labels[:N] + 1) % 10)
    wrong = evaluate(saved(tmp_path / "wrong.npz", shifted), digits, measures=["score"])
    (real,), (wrong,) = real.figures, wrong.figures
    assert wrong.value < 0.15 < 0.5 < real.value
    assert real.interval[0] <= real.value <= real.interval[1]
    assert real.floor == wrong.floor
    assert real.provenance.seeds == (0, 0, 1, 2)
    real.check_comparable(wrong)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(
        "vqvae",
        data="digits",
        out=tmp_path_factory.mktemp("runs") / "vqvae",
        config=VQVAE.Config.tiny(),
        stages={name: {"steps": 30, "batch_size": 32} for name in ("tokenizer", "prior")},
        options=TrainingOptions(device="cpu", sample_every=0),
    )


def test_samples_of_a_run_are_drawn_once_and_figures_stay(run, monkeypatch):
    evaluate(run)
    before = {f.id for f in Evaluation.read(run.path / "evaluation.json").figures}
    found = evaluate(run, measures=["samples"], samples=64)
    there = Evaluation.read(run.path / "evaluation.json")
    assert {f.id for f in there.figures} == before | {f.id for f in found.figures}
    assert there.codebooks, "of the evaluation before"
    assert (run.path / "samples" / "nearest.png").is_file()
    (drawn,) = (run.path / "measured").iterdir()
    stamp = {f.name: f.stat().st_mtime_ns for f in drawn.iterdir()}
    again = evaluate(run, measures=["samples"], samples=64)
    assert {f.name: f.stat().st_mtime_ns for f in drawn.iterdir()} == stamp
    assert again.figures == found.figures
    fewer = evaluate(run, measures=["samples"], samples=32)
    assert fewer.figures[0].provenance.n == 32
    assert {f.name: f.stat().st_mtime_ns for f in drawn.iterdir()} == stamp, "the first of those there"
    colder = evaluate(run, measures=["samples"], samples=64, keep=0.5, write=False)
    assert len(list((run.path / "measured").iterdir())) == 1
    gate = classifier_of(load_data("digits"), "gate")
    assert colder.figures[0].provenance.sampling == {"keep": 0.5, "gate": state_checksum(gate)[:8]}
    (there.figures[-1]).check_comparable(colder.figures[-1])
    evaluate(run)
    assert {f.id for f in Evaluation.read(run.path / "evaluation.json").figures} >= {"recall", "codes"}


def test_the_scores_of_a_run_stand_beside_those_of_reconstructions(run, digits, monkeypatch):
    monkeypatch.setattr(score, "_TRAININGS", 2)
    found = figures_of(evaluate(run, measures=["score"], samples=64, write=False))
    assert list(found) == [f"classification_accuracy_score{of}" for of in ("", "_of_reconstructions")]
    figure = found["classification_accuracy_score"]
    whole = {split: getattr(digits, split) for split in ("train", "validation", "test")}
    reversed_ = {name: Batch(b.x, labels=9 - b.labels) for name, b in whole.items()}
    other = Dataset(source="x", spec=digits.spec, classes=digits.classes, **reversed_)
    assert evaluate(run, other, measures=["score"], samples=64).figures[0].value != figure.value
    with pytest.raises(UserError, match="expected all samples to score, got those that a classifier chose"):
        evaluate(run, measures=["score"], samples=64, keep=0.5)
    names = tuple(f"class {i}" for i in range(10))
    strangers = Dataset(source="x", spec=digits.spec, classes=names, **whole)
    with pytest.raises(UserError, match="expected samples and examples whose classes are known to score"):
        evaluate(run, strangers, measures=["score"], samples=64)


def test_rejection_is_a_trade_off_that_is_drawn(run, monkeypatch):
    monkeypatch.setattr(score, "_TRAININGS", 2)
    found = evaluate(run, measures=["rejection"], samples=160)
    values = figures_of(found)
    names = ("precision", "recall", "frechet_distance", "classification_accuracy_score")
    assert set(values) == {f"kept_{k}_{name}" for k in ("1000", "0500", "0250", "0125") for name in names}
    assert all(f.provenance.n == 20 for f in found.figures)
    picture = np.asarray(Image.open(run.path / "samples" / "rejection.png"))
    assert picture.std() > 5
    with pytest.raises(UserError, match="none rejected yet, to measure rejection, got others"):
        evaluate(run, measures=["rejection"], samples=160, keep=0.5)


def test_what_is_kept_is_what_the_gate_is_surest_of(run, monkeypatch):
    from ancestral.evaluation.quality import rejection

    chosen = []
    monkeypatch.setattr(rejection, "_measured", lambda real, fake: dict.fromkeys(KEYS, 0.0))
    monkeypatch.setattr(rejection, "subsampled_all", lambda measure, real, fake, seed: intervals(fake))
    monkeypatch.setattr(rejection, "accuracies", lambda compared, part: score.Accuracies([0.5] * 3, 10))

    def intervals(fake):
        chosen.append(fake)
        return dict.fromkeys(KEYS, Interval(0.0, 1.0))

    seen = {}

    def probabilities(compared, gate, labels):
        seen["all"], seen["labels"] = compared.fake, labels
        return torch.linspace(0, 1, len(labels))  # later ones are surer

    monkeypatch.setattr(rejection, "_probabilities", probabilities)
    evaluate(run, measures=["rejection"], samples=160, write=False)
    wanted = seen["labels"][:20].bincount(minlength=10)
    for share, fake in zip((1, 0.5, 0.25, 0.125), chosen, strict=True):
        first = seen["labels"][: round(20 / share)]
        last = [(first == c).nonzero()[-int(k) :, 0] for c, k in enumerate(wanted) if k]
        assert torch.equal(fake, seen["all"][torch.cat(last).sort().values]), "the last of each class"


def test_folders_of_images_are_measured_with_their_classes(digits, tmp_path, capsys):
    for i in range(100):
        folder = tmp_path / "images" / str(int(digits.train.labels[i]))
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (digits.train.x[i, 0].numpy() * 15.9).astype(np.uint8)
        Image.fromarray(pixels).resize((16, 16), Image.Resampling.NEAREST).save(folder / f"{i}.png")
    status = commands.run(["evaluate", str(tmp_path / "images"), "--data", "digits", "--samples", "80"])
    out = capsys.readouterr()
    assert status == 0, out.err
    assert re.search(r"label agreement +0\.[89]|label agreement +1\.0", out.out)
    assert "80 samples (from " in out.out


def test_images_of_other_classes_are_refused(digits, tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for i in range(12):
            pixels = np.full((8, 8), 9 * i + len(name), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{name}{i}.png")
    with pytest.raises(UserError, match="expected images in folders called 0, 1, 2, 3 …, got cats, dogs …"):
        evaluate(tmp_path, digits, samples=17)


def test_shards_are_measured(run, digits, tmp_path):
    sample_shards(run, 64, tmp_path / "shards")
    assert figures_of(evaluate(tmp_path / "shards", digits))["label_agreement"].value <= 1


MISTAKES = [
    ({"measures": ["fid"]}, "expected a measure, got fid; choose from|did you mean"),
    ({"measures": ["likelihood"]}, "expected a measure of images, got likelihood, which takes a model"),
    ({"keep": 0.5}, "expected no options of a model beside images, got some; leave out limit"),
    ({"limit": 5}, "expected no options of a model beside images, got some; leave out limit"),
    ({"samples": 0}, "expected samples of at least 1, got 0"),
    ({"samples": 5}, "expected at least 6 examples in real, got 5"),
    ({"split": "train"}, "expected a split that no model was trained on, got train; choose validation"),
    ({"samples": 1000}, "expected at least 1000 images to measure, got 120"),
    ({"features": "imagnet"}, "expected features classifier, imagenet.* got imagnet; did you mean imagenet"),
    ({"split": "validation"}, "expected as many real examples as the 120 samples, got 81 in validation"),
    ({"data": None}, r"expected data to measure the images of .* against, got none; add --data"),
    ({"measures": ["rejection"], "unlabeled": True}, "expected samples of known classes, none rejected yet"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_what_cannot_be_measured(digits, tmp_path, options, message):
    options = dict(options)
    batch = digits.train[torch.arange(N)]
    if options.pop("unlabeled", False):
        batch = Batch(batch.x)
    if options.get("split") == "validation":
        options["samples"] = N
    path = saved(tmp_path / "x.npz", batch)
    with pytest.raises(UserError, match=message):
        evaluate(path, options.pop("data", digits), **options)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros((3, 1, 8, 8), np.uint8)}, "expected an array x in .*, got none"),
        (
            {"x": np.zeros((3, 1, 9, 8), np.uint8)},
            r"expected images \(1, 8, 8\) as digits has, got \(1, 9, 8\)",
        ),
        ({"x": np.zeros((3, 1, 8, 8), np.float32)}, "expected integers in .*, got float32"),
        ({"x": np.full((3, 1, 8, 8), 99, np.uint8)}, r"expected values 0\.\.16, got 99"),
        ({"x": np.zeros((3, 1, 8, 8), np.uint8), "labels": np.array([1, 2, 70])}, r"expected labels 0\.\.9"),
    ],
)
def test_arrays_that_are_no_images_of_the_data(digits, tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path / "x.npz", digits)


def test_channels_may_come_last(digits, tmp_path):
    x = digits.train.x[:40]
    np.savez(tmp_path / "last.npz", x=x.permute(0, 2, 3, 1).numpy())
    last = evaluate(tmp_path / "last.npz", digits)
    first = evaluate(saved(tmp_path / "first.npz", Batch(x)), digits)
    assert [f.value for f in last.figures] == [f.value for f in first.figures]


def test_folders_without_images_and_models_that_cannot_be_measured_so(digits, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        evaluate(tmp_path / "empty", digits)
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").touch()
    with pytest.raises(UserError, match="expected images to measure, got sounds in"):
        evaluate(tmp_path / "sounds", digits)
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"expected arrays x and labels in .*got"):
        evaluate(tmp_path / "x.npz", digits)
    torch.manual_seed(0)
    vae = VAE(VAE.Config.tiny(), digits.spec)
    with pytest.raises(UserError, match="expected a model of which codes can be measured, got VAE"):
        evaluate(vae, digits, measures=["codes"])
    with pytest.raises(UserError, match=r"expected keep in \(0, 1\], got 1.5"):
        evaluate(vae, digits, measures=["samples"], keep=1.5)
    unlabeled = Dataset("mine", replace(digits.spec, classes=0), *(Batch(digits.train.x[:50]),) * 3)
    with pytest.raises(UserError, match="expected data with 2 classes or more for a classifier, got 0"):
        evaluate(vae, unlabeled, measures=["samples"], samples=20)


def test_a_classifier_is_trained_once_for_each_data_set_and_role(digits, monkeypatch, capsys):
    first, other = classifier_of(digits, "gate"), classifier_of(digits, "features")
    monkeypatch.setattr(begin, "train", lambda *_, **__: pytest.fail("it is there"))
    again = classifier_of(digits, "gate")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    with pytest.raises(pytest.fail.Exception):
        classifier_of(digits, "gate", seed=1)
    assert not capsys.readouterr().out


def test_a_classifier_learns_and_draws_nothing(digits, tmp_path, capsys):
    run = train(
        "classifier",
        data="digits",
        out=tmp_path / "run",
        stages={"training": {"steps": 300}},
        options=TrainingOptions(device="cpu"),
    )
    assert run.model_name == "classifier"
    result = evaluate(run)
    (figure,) = result.figures
    assert figure.value > 0.9
    assert figure.interval[0] < figure.value <= figure.interval[1]
    for command in ("sample", "reconstruct", "tokenize --out codes.npy", "certify"):
        assert commands.run([*command.split(), str(run.path)]) == 2
        assert re.fullmatch(r"ancestral: expected .*classifier.*\n", capsys.readouterr().err, re.IGNORECASE)
    assert commands.run(["report", str(run.path)]) == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Spec(shape=(1, 8, 8)), "expected data with 2 classes or more for a classifier, got 0"),
        (
            Spec(shape=(4,), levels=None, classes=3),
            r"expected images \(C, H, W\) for a classifier, got table",
        ),
    ],
)
def test_what_no_classifier_is_for(spec, message):
    with pytest.raises(UserError, match=message):
        Classifier(Classifier.Config.tiny(), spec)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 64, 48), (1, 1, 1), (1, 28, 28)])
def test_a_classifier_takes_images_of_any_size(shape):
    model = Classifier(Classifier.Config.tiny(), Spec(shape=shape, classes=3)).eval()
    x = torch.zeros(2, *shape, dtype=torch.uint8)
    assert model.features(x).shape == (2, model.dim)
    torch.testing.assert_close(model.probabilities(x).sum(1), torch.ones(2))


def test_all_measures_are_named_in_the_help(capsys):
    with pytest.raises(SystemExit):
        commands.run(["evaluate", "--help"])
    words = capsys.readouterr().out
    assert all(name in words for name in MEASURES)
    assert not score._TRAININGS < 3
    assert compared._DRAWS > 1
    assert os.environ["ANCESTRAL_CACHE"]


MEASURED = ("frechet_distance", "precision", "recall", "diversity")


def test_samples_are_measured_while_a_model_trains_and_change_nothing(digits, tmp_path):
    def trained(name, **options):
        run = train(
            "vae",
            data="digits",
            out=tmp_path / name,
            config=VAE.Config.tiny(),
            stages={"training": {"steps": 6, "batch_size": 32}},
            options=TrainingOptions(device="cpu", sample_every=0, **options),
        )
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        return run.load_model(), [line for line in lines if line["split"] == "samples"]

    plain, nothing = trained("plain")
    model, lines = trained("measured", measure_every=3)
    assert not nothing, "a VAE does not ask for it"
    assert [line["step"] for line in lines] == [3, 6]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    monitor = Monitor(classifier_of(digits, "features"), digits.validation)
    assert monitor(model) == {name: lines[-1][name] for name in MEASURED}
    drawn = model.sample(81, generator=torch.Generator().manual_seed(derive(0, "monitor")))
    real, fake = (monitor.classifier.features(x).detach() for x in (digits.validation.x, drawn))
    assert lines[-1]["frechet_distance"] == pytest.approx(frechet_distance(real, fake), rel=1e-4)


def test_a_model_may_ask_for_measures_of_its_samples(digits, tmp_path, monkeypatch):
    class Asking(VAE):
        def stages(self):
            return tuple(replace(stage, measured=True) for stage in super().stages())

    stages = Asking(VAE.Config.tiny(), digits.spec).stages()
    assert not Monitor.is_wanted(digits, stages, TrainingOptions(evaluate_every=5)), "too few to measure"
    digits = replace(digits, validation=digits.train[:200])
    assert Monitor.is_wanted(digits, stages, TrainingOptions(evaluate_every=5))
    assert not Monitor.is_wanted(digits, stages, TrainingOptions(evaluate_every=0))
    assert not Monitor.is_wanted(digits, stages, TrainingOptions(measure_every=0))
    assert not Monitor.is_wanted(digits, VAE(VAE.Config.tiny(), digits.spec).stages(), TrainingOptions())
    unlabeled = Dataset("mine", replace(digits.spec, classes=0), *(Batch(digits.train.x[:50]),) * 3)
    assert not Monitor.is_wanted(unlabeled, stages, TrainingOptions())
    with pytest.raises(UserError, match="expected data with 2 classes or more"):
        train(VAE, data=unlabeled, out=tmp_path, options=TrainingOptions(measure_every=5))


def test_of_more_samples_than_are_measured_every_class_has_some(run, digits, tmp_path):
    """Shards have the classes in turn, and folders one class after another."""
    from ancestral.evaluation.quality import sources

    sample_shards(run, 400, tmp_path / "shards")
    how = {"split": "test", "features": "classifier", "seed": 0, "progress": False}
    terms = sources.Terms(dataset=digits, samples=40, **how)
    labels = sources.of_images(tmp_path / "shards", terms, "cpu").samples.labels
    assert len(labels.unique()) > 7
    assert not torch.equal(labels, torch.arange(40) % 10)


def test_samples_of_a_model_have_the_classes_of_the_data(run, digits):
    from ancestral.evaluation.quality import sources
    from ancestral.evaluation.subject import Subject

    few = torch.cat([torch.arange(300), (digits.train.labels == 3).nonzero()[:, 0]])
    uneven = replace(digits, train=digits.train[few])
    asked = torch.tensor(sources._classes(Subject.find(run), uneven))
    share = uneven.train.labels.bincount(minlength=10) / len(few)
    torch.testing.assert_close(asked.bincount(minlength=10) / len(asked), share, rtol=0, atol=1e-3)
    assert len(asked[:50].unique()) > 5
    strangers = replace(digits, classes=tuple(f"class {i}" for i in range(10)))
    assert sources._classes(Subject.find(run), strangers) == []


def test_samples_that_a_classifier_chose_are_known_as_such(run, digits, tmp_path):
    gate = classifier_of(digits, "features")  # which is also what measures
    sample_shards(run, 40, tmp_path / "chosen", keep=0.5, gate=gate)
    with pytest.raises(UserError, match="expected features of another network than that which chose"):
        evaluate(tmp_path / "chosen", digits)
    sample_shards(run, 40, tmp_path / "others", keep=0.5, gate=classifier_of(digits, "gate"), temperature=0.9)
    found = evaluate(tmp_path / "others", digits).figures[0].provenance.sampling
    assert (found["keep"], found["temperature"], found["seed"]) == (0.5, 0.9, 0)
    for measure in ("score", "rejection"):
        with pytest.raises(UserError, match=r"expected (all samples to score|samples of known classes)"):
            evaluate(tmp_path / "others", digits, measures=[measure])


def test_a_folder_is_what_is_in_it(digits, tmp_path, monkeypatch):
    """Whatever it is called, and however equal its images are: they are samples, and no data set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    for i in range(30):
        pixels = (digits.train.x[0, 0].numpy() * 15.9).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "digits" / f"{i}.png")
    found = evaluate("./digits", digits)
    assert found.examples == 30
    assert found["recall"] < 0.2


def test_features_of_other_levels_or_classes(digits, tmp_path):
    path = saved(tmp_path / "x.npz", digits.train[torch.arange(N)])
    torch.manual_seed(0)
    wide = Classifier(Classifier.Config.tiny(), replace(digits.spec, levels=256)).eval()
    with pytest.raises(
        UserError, match=r"expected a classifier of images .* of 17 levels, got one of .* 256"
    ):
        evaluate(path, digits, features=wide)
    other = Classifier(Classifier.Config.tiny(), digits.spec).eval()
    other.classes = tuple(f"class {i}" for i in range(10))
    found = figures_of(evaluate(path, digits, features=other))
    assert "label_agreement" not in found
    assert found["recall"].provenance.accuracy is None


def test_more_features_than_samples_have_no_frechet_distance(digits, tmp_path):
    class Pixels(nn.Module):
        def forward(self, pixels):
            return pixels.flatten(1)

    path = saved(tmp_path / "x.npz", digits.train[torch.arange(N)])
    few = figures_of(evaluate(path, digits, samples=40, features=Pixels()))
    assert "frechet_distance" not in few
    assert few["recall"].interval is not None
    enough = figures_of(evaluate(path, digits, features=Pixels()))
    assert enough["frechet_distance"].interval is None, "halves of 60 are too few for 64 features"


def test_own_modules_of_one_class_are_told_apart(digits):
    class Power(nn.Module):
        def __init__(self, power):
            super().__init__()
            self.power = power

        def extra_repr(self):
            return f"{self.power}"

        def forward(self, pixels):
            return pixels.flatten(1)[:, :4] ** self.power

    first, second = (Extractor.find(Power(p), digits).weights for p in (1, 2))
    assert first != second
    assert first == Extractor.find(Power(1), digits).weights


def test_an_unlabeled_split_and_options_without_measures(run, digits, tmp_path):
    for options in (
        {"keep": 0.5},
        {"samples": 10},
        {"features": "imagenet"},
        {"sampling": Sampling(top_k=2)},
    ):
        with pytest.raises(UserError, match="expected a measure of samples beside samples, features, keep"):
            evaluate(run, **options)
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(UserError, match="expected arrays x and labels in"):
        evaluate(tmp_path / "x.npz", digits)


def test_a_figure_of_samples_goes_with_the_weights_that_drew_them(measured):
    old = list(measured["copies"].values())
    now = [replace(f, provenance=replace(f.provenance, model="new")) for f in old[:2]]
    about = {"model": "m", "data": "digits", "split": "test", "examples": 3}
    merged = Evaluation(figures=now, **about).beside(Evaluation(figures=old, **about))
    assert [f.id for f in merged.figures] == [f.id for f in now]
    same = Evaluation(figures=old[:2], **about).beside(Evaluation(figures=old, **about))
    assert {f.id for f in same.figures} == {f.id for f in old}
    for other in ({"model": "n"}, {"data": "x"}, {"split": "train"}, {"examples": 4}):
        apart = Evaluation(figures=old[:2], **about).beside(Evaluation(figures=old, **(about | other)))
        assert list(apart.figures) == old[:2]


def test_a_classifier_is_trained_by_one_process_alone(digits, tmp_path, monkeypatch):
    """Also where torchrun started several: each would train another one."""
    monkeypatch.setenv("ANCESTRAL_CACHE", str(tmp_path))
    launched = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    there = []
    real = begin.train
    monkeypatch.setattr(begin, "train", lambda *a, **k: there.append(dict(os.environ)) or real(*a, **k))
    classifier_of(digits, "score")
    classifier_of(digits, "score")
    assert len(there) == 1
    assert not launched.keys() & there[0].keys()
    assert {name: os.environ[name] for name in launched} == launched


def test_a_second_process_waits_for_the_classifier(digits, start, tmp_path):
    code = """
import sys
from dataclasses import replace
from ancestral.data import load_data
from ancestral.measures.classifier import Classifier
from ancestral.training import begin, classifier_of
recipe = Classifier.recipes["score"]
stage = replace(recipe.stages["training"], steps=20)
Classifier.recipes = {"score": replace(recipe, stages={"training": stage})}
real = begin.train
begin.train = lambda *a, **k: print("trains", file=sys.__stdout__, flush=True) or real(*a, **k)
classifier_of(load_data("digits"), "score")
"""
    said = [tmp_path / f"{i}.txt" for i in range(2)]
    started = [start(code, said=path, ANCESTRAL_CACHE=str(tmp_path)) for path in said]
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0, 0]
    assert sorted(path.read_text() for path in said) == ["", "trains\n"]


def test_a_training_that_a_command_needs_can_be_interrupted(run, monkeypatch, capsys):
    def stopped(*_, **__):
        raise Interrupted("training", 40, 15)

    monkeypatch.setattr(begin, "train", stopped)
    monkeypatch.setenv("ANCESTRAL_CACHE", str(run.path / "other-cache"))
    assert commands.run(["evaluate", str(run.path), "--measures", "samples", "--samples", "40"]) == 143
    said = "ancestral: stopped in stage classifier after step 40; saved; give the same command again to go on"
    assert capsys.readouterr().err.endswith(f"{said}\n")
