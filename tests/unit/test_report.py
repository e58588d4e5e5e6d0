"""The page of a run: one file that needs nothing else, honest about an unfinished run."""

import base64
import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ancestral.errors import UserError
from ancestral.figures import Evaluation, Figure, Provenance
from ancestral.report import write_report
from ancestral.report.curves import line_chart, usage_chart
from ancestral.report.metrics import by_stage, read_lines, seconds
from ancestral.report.notation import between, duration, number, plain, term, with_error, with_interval
from ancestral.report.strips import NARROW, WIDE, axis_of, standing, strip
from ancestral.runs import Run

CLASSES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
STAGES = {"tokenizer": 5000, "prior": 4000}
TOTAL = "negative ELBO (codes + decoder)"
PAPER = "https://arxiv.org/abs/1711.00937"


def sheet(path, rows=8, columns=8, noise=0.0, seed=0):
    """A sheet of real digits, 28 pixels wide like those of a run, the more noise the earlier."""
    rng = np.random.default_rng(seed)
    digits = load_digits().images[rng.integers(0, 1797, rows * columns)] * (255 / 16)
    tiles = np.pad(np.kron(digits, np.ones((1, 3, 3))), ((0, 0), (2, 2), (2, 2)))
    tiles = (1 - noise) * tiles + noise * rng.uniform(0, 255, tiles.shape)
    pixels = tiles.reshape(rows, columns, 28, 28).transpose(0, 2, 1, 3).reshape(rows * 28, columns * 28)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def run_json():
    optimization = {
        "batch_size": 128,
        "optimizer": "adam",
        "betas": [0.9, 0.999],
        "schedule": "cosine",
        "gradient_clip": None,
    }
    encoder = {"hidden": 128, "residual": {"blocks": 2, "units": 32}}
    prior = {"kind": "gated_pixelcnn", "layers": 12, "channels": 64, "dropout": 0.1}
    return {
        "model": "vqvae",
        "recipe": "small",
        "source": "van den Oord et al. 2017, section 4.1, with half the hidden units",
        "config": {
            "codebook_size": 512,
            "embedding": 64,
            "commitment_weight": 0.25,
            "ema": True,
            "encoder": encoder,
            "prior": prior,
        },
        "spec": {"shape": [1, 28, 28], "levels": 256, "classes": 10, "domain": "image", "contexts": []},
        "stages": {
            "tokenizer": {"steps": 5000, "learning_rate": 1e-3, **optimization},
            "prior": {"steps": 4000, "learning_rate": 3e-4, "ema": 0.999, **optimization},
        },
        "data": {
            "source": "fashion-mnist",
            "sizes": {"train": 57000, "validation": 3000, "test": 10000},
            "classes": CLASSES,
            "fingerprint": "9f2c61f0a4b7d1e85c3390aa7be4d2168e0f5b7c",
            "skipped": ["broken/a.png: truncated", "broken/b.png: not an image"],
        },
        "preparation": {"kind": "images", "size": [28, 28], "fit": "crop", "mode": "gray"},
        "options": {
            "precision": "32-true",
            "device": "cpu",
            "log_every": 50,
            "sheets": {"rows": 8, "every": 500},
        },
        "versions": {"ancestral": "0.1.0", "torch": "2.8.0+cpu", "python": "3.11.2"},
        "machine": "2 cores of an AMD EPYC 7B13",
        "seed": 0,
        "command": "ancestral train vqvae --data fashion-mnist --out runs/fashion --recipe small",
        "parameters": {"tokenizer": 812345, "prior": 345678},
    }


def metrics_lines():
    rng, lines, clock = np.random.default_rng(0), [], 0.0
    for stage, steps in STAGES.items():
        for step in range(50, steps + 1, 50):
            clock += 6.2
            gap = math.exp(-step / 700)
            line = {"stage": stage, "step": step, "split": "train", "seconds": round(clock, 2)}
            rate = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / steps)) * min(step / 100, 1)
            extra = {"learning_rate": rate, "steps_per_second": 8.1 + rng.normal(0, 0.2)}
            if stage == "tokenizer":
                bits = 3.02 + 2.4 * gap + rng.normal(0, 0.03)
                terms = {
                    "loss": bits * 543.4 + 9,
                    "decoder_bits_per_dim": bits,
                    "perplexity": 340 * (1 - gap) + rng.normal(0, 5),
                    "commitment": 0.02 + 0.3 * gap**4,
                    "distortion": bits * 543.4,
                }
            else:
                terms = {
                    "loss": 180 + 95 * gap + rng.normal(0, 2),
                    "bits_per_code": 5.3 + 2.8 * gap + rng.normal(0, 0.05),
                }
            lines.append(line | terms | extra)
            if step % 500 == 0:
                overfit = 1 + 0.012 * max(step - 3000, 0) / 2000
                lines.append(
                    line
                    | {"split": "validation"}
                    | {name: value * overfit + 0.02 for name, value in terms.items()}
                )
    return lines


def evaluation_json():
    rng = np.random.default_rng(1)
    usage = np.sort(rng.pareto(1.1, 512) * 400).astype(int)
    usage[:12] = 0
    return {
        "split": "test",
        "examples": 10000,
        "figures": [
            {
                "id": name.replace(" ", "_"),
                "name": name,
                "value": value,
                "quantity": name,
                "unit": unit,
                "kind": kind,
                "better": better,
                "note": note,
                "standard_error": error,
            }
            for name, value, error, unit, kind, better, note in (
                (TOTAL, 3.5234, 0.0031, "bits/dim", "bound", "lower", "codes and decoder"),
                ("decoder", 3.0712, 0.0029, "bits/dim", "measure", "lower", "of an image, given its codes"),
                ("codes", 0.3381, 0.0004, "bits/dim", "exact", "lower", "5.41 bits for each of 49 codes"),
                ("importance-weighted", 3.41, None, "bits/dim", "estimate", "lower", "64 draws each"),
                ("reconstruction error", 0.00412, None, "MSE", "measure", "lower", "values scaled to 0..1"),
                ("samples a second", 1243.0, None, "1/s", "measure", "higher", ""),
                ("log-density", -3.2, None, "nats", "bound", "higher", ""),
                ("energy", 0.5, None, "nats", "bound", None, "neither way is better"),
            )
        ],
        "codebooks": [{"size": 512, "used": 500, "perplexity": 320.5, "usage": usage.tolist()}],
        "seconds": 31.0,
        "command": "ancestral evaluate runs/fashion",
    }


def make_run(run: Path) -> Path:
    """A finished run of a VQ-VAE, as the other commands leave it."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text(json.dumps(run_json()))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics_lines()))
    (run / "evaluation.json").write_text(json.dumps(evaluation_json()))
    samples = run / "samples"
    for stage, steps in STAGES.items():
        for step in range(500, steps + 1, 500):
            sheet(
                samples / f"{stage}-step-{step:06d}.png", noise=0.75 * math.exp(-step / 900) + 0.02, seed=step
            )
    for step in (500, 5000):
        sheet(samples / f"tokenizer-reconstructions-{step:06d}.png", rows=4, columns=16, seed=step)
    sheet(samples / "samples-seed0.png", seed=1)
    sheet(samples / "reconstructions.png", rows=6, columns=16, seed=2)
    sheet(samples / "latent.png", rows=14, columns=14, seed=3)
    sheet(samples / "interpolations.png", rows=8, columns=10, seed=4)
    return run


class Page(HTMLParser):
    """The addresses, headings and words of a page, and whether its elements are closed."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.addresses, self.ids, self.images, self.open = text, [], [], [], []
        self.elements: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements.append(tag)
        self.addresses += [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
        ]
        if tag == "section":
            self.ids.append(found["id"])
        if tag == "img":
            self.images.append(found)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words += data


def page_of(run: Path) -> Page:
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open, page.open
    return page


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "fashion")


def test_a_finished_run_has_every_section_in_order(run):
    page = page_of(run)
    assert page.ids == [
        "figures",
        "samples",
        "reconstructions",
        "codes",
        "latent",
        "curves",
        "progress",
        "settings",
        "data",
        "reproduce",
    ]
    assert {f"#{section}" for section in page.ids} <= set(page.addresses)
    assert "unfinished" not in page.words


def test_the_page_is_one_file_that_asks_nothing_of_a_network(run):
    page = page_of(run)
    assert [a for a in page.addresses if not a.startswith(("data:", "#"))] == [PAPER]
    assert page.text.count("http://") + page.text.count("https://") == 1
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", page.text)
    assert "default-src 'none'" in page.text
    assert sorted(p.name for p in run.iterdir()) == [
        "evaluation.json",
        "metrics.jsonl",
        "report.html",
        "run.json",
        "samples",
    ]


def test_values_appear(run):
    page = page_of(run)
    for words in (
        "VQ-VAE",
        "on fashion-mnist",
        "Latent variables",
        "van den Oord et al. 2017",
        "1,158,023",
        "tokenizer 812,345",
        "57,000",
        TOTAL,
        "3.5234",
        "± 0.0031",
        "bits/dim",
        "codes and decoder",
        "raw values take 8",
        "500 of 512 codes used",
        "perplexity 320.5",
        "10,000 examples",
        "31 s",
        "commitment_weight",
        "0.25",
        "gated_pixelcnn",
        "9f2c61f0a4b7d1e8",
        "broken/a.png: truncated",
        "ancestral train vqvae --data fashion-mnist",
        "2.8.0+cpu",
        "AMD EPYC",
        "5,000 of 5,000 steps",
        "step 2,500",
        "Ankle boot",
    ):
        assert words in page.words, words


def test_each_figure_says_its_kind_and_a_bound_its_side(run):
    rows = re.findall(
        r'<tr role="row">.*?</tr>', page_of(run).text.partition("<tbody")[2].partition("</tbody>")[0]
    )
    said = [
        (re.search('class="kind.*?<b>(.*?)</b>', row)[1], (re.search('"sign">(.)<', row) or [None, ""])[1])
        for row in rows
    ]
    assert said == [
        ("bound", "≤"),
        ("measure", ""),
        ("exact", "="),
        ("estimate", "≈"),
        ("measure", ""),
        ("measure", ""),
        ("bound", "≥"),
        ("bound", ""),
    ]


def test_pictures_are_those_of_the_run_and_are_described(run):
    page = page_of(run)
    embedded = {base64.b64decode(image["src"].partition(",")[2]) for image in page.images}
    for name in (
        "samples-seed0",
        "reconstructions",
        "latent",
        "interpolations",
        "prior-step-004000",
        "tokenizer-step-000500",
    ):
        assert (run / "samples" / f"{name}.png").read_bytes() in embedded, name
    assert (run / "samples" / "tokenizer-reconstructions-005000.png").read_bytes() not in embedded
    assert all(image["alt"] and int(image["width"]) and int(image["height"]) for image in page.images)
    assert len(page.images) == 4 + 2 * 7
    assert "7 of 10 sheets" in page.words


def test_the_last_sheets_stand_in_for_final_pictures(run):
    for name in ("samples-seed0", "reconstructions", "latent", "interpolations"):
        (run / "samples" / f"{name}.png").unlink()
    page = page_of(run)
    assert "latent" not in page.ids
    assert "at step 4,000 of stage prior" in page.words
    assert "at step 5,000 of stage tokenizer" in page.words


def test_samples_that_were_truncated_are_none_of_the_model_as_it_is(run):
    plain = (run / "samples" / "samples-seed0.png").read_bytes()
    for name in ("samples-seed0-truncated0", "samples-seed0-t0.5", "samples-seed1-keep0.5"):
        sheet(run / "samples" / f"{name}.png", seed=5)
    page = write_report(run).read_text()
    assert base64.b64encode(plain).decode() in page
    other = (run / "samples" / "samples-seed0-truncated0.png").read_bytes()
    assert base64.b64encode(other).decode() not in page
    sheet(run / "samples" / "samples-seed2-class1-3.png", seed=6)
    assert (
        base64.b64encode((run / "samples" / "samples-seed2-class1-3.png").read_bytes()).decode()
        in write_report(run).read_text()
    )


def test_parameters_that_stages_share_count_once(run):
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content | {"parameters_in_all": 900_000}))
    assert "900,000" in write_report(run).read_text()


def test_train_and_validation_share_a_chart(run):
    page = page_of(run)
    assert (
        page.text.count('class="line train"') == page.text.count('class="chart"') - 1 == 11
    )  # 7 + 4 terms, and the codebook
    assert page.text.count('class="line validation"') == 5 + 2
    assert page.words.count("Learning rate") == 2
    assert "Code length" not in page.words
    assert re.search(r"step 5,000: train [\d.,]+, validation [\d.,]+", page.words)
    assert re.search(r"\(least [\d.,]+ at step 3,\d00\)", page.words)


def test_only_run_json_is_enough(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    page = page_of(tmp_path)
    assert page.ids == ["figures", "reproduce"]
    assert f"ancestral evaluate {tmp_path}" in page.words


def test_an_unfinished_run_says_how_far_it_is_and_how_to_go_on(run):
    (run / "evaluation.json").unlink()
    lines = [line for line in metrics_lines() if line["stage"] == "tokenizer" and line["step"] <= 1200]
    torn = json.dumps(lines[-1] | {"step": 1250})[:40]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    (run / "samples" / "samples-seed0.png").write_bytes(
        (run / "samples" / "samples-seed0.png").read_bytes()[:300]
    )
    page = page_of(run)
    assert "tokenizer stands at step 1,200 of 5,000, prior stands at step 0 of 4,000" in " ".join(
        page.words.split()
    )
    assert "ancestral evaluate" in page.words
    assert "codes" not in page.ids
    assert "samples" in page.ids
    assert "data:image/png" in page.text


def test_a_finished_stage_need_not_have_logged_its_last_step(run):
    (run / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"stage": stage, "step": step, "loss": 1.0}) + "\n"
            for stage, n in STAGES.items()
            for step in range(0, n, 300)
        )
    )
    assert "unfinished" not in page_of(run).words
    (run / "metrics.jsonl").unlink()  # a run that was handed on without its log
    assert "unfinished" not in page_of(run).words


def test_a_path_gives_the_title_its_last_folder(run):
    about = run_json()
    about["data"]["source"] = "/data/photographs/herbarium"
    (run / "run.json").write_text(json.dumps(about))
    page = page_of(run)
    assert "VQ-VAE on herbarium" in page.words
    assert "/data/photographs/herbarium" in page.words


def test_values_that_are_not_finite_leave_gaps_and_are_counted(run):
    lines = [
        {"stage": "tokenizer", "step": step, "split": "train", "loss": 2.0 + step / 100}
        for step in range(1, 21)
    ]
    lines[4]["loss"], lines[9]["loss"], lines[14]["loss"] = math.nan, math.inf, None
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluation = evaluation_json()
    evaluation["figures"][0]["value"] = math.nan
    evaluation["codebooks"] = [{"size": 4, "used": 0, "perplexity": math.nan, "usage": [0, 0, 0, 0]}]
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    page = page_of(run)
    assert "3 not finite (×)" in page.words
    assert page.text.count('class="wrong"') == 3
    assert re.search(r'class="line train"><path d="([^"]*)"', page.text)[1].count("M") == 4
    assert "not a number" in page.words
    assert "No code was used." in page.words
    drawn = "".join(re.findall(r"<(?:path|circle|rect|text)[^>]*>", page.text))
    assert not re.search(r"\b(nan|inf)\b", drawn)


def test_names_are_escaped(run):
    about = run_json()
    evil = '<script>alert("x")</script>'
    about["data"]["classes"][0] = about["data"]["source"] = about["config"]["name"] = about["command"] = evil
    about["model"] = evil
    (run / "run.json").write_text(json.dumps(about))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"stage": evil, "split": evil, "step": 5, evil: 1.0, "seconds": 1}) + "\n")
    (run / "samples" / "a<b>-step-000001.png").write_bytes(
        (run / "samples" / "samples-seed0.png").read_bytes()
    )
    page = page_of(run)
    assert page.elements.count("script") == 1
    assert evil not in page.text
    assert page.words.count(evil) >= 6


def test_a_model_that_the_taxonomy_does_not_know_keeps_its_name(run):
    (run / "run.json").write_text(json.dumps(run_json() | {"model": "mine"}))
    page = page_of(run)
    assert "mine" in page.words
    assert "https:" not in page.text


def test_a_run_may_be_given_in_place_of_its_directory(run):
    before = write_report(str(run)).read_text()
    assert write_report(Run(run, run_json())) == run / "report.html"
    assert (run / "report.html").read_text() == before


def test_the_preparation_of_the_data_is_among_the_options(run):
    words = " ".join(page_of(run).words.split())
    assert re.search(r"preparation kind ?images size ?28, 28 fit ?crop mode ?gray", words)


def test_a_directory_that_is_no_run_is_a_user_error(tmp_path):
    with pytest.raises(
        UserError, match=f"expected a run directory, got {re.escape(str(tmp_path))} without run.json"
    ):
        write_report(tmp_path)
    with pytest.raises(UserError, match=r"without run\.json"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="expected a run or its directory, got int; give the folder"):
        write_report(3)


@pytest.mark.parametrize("name", ["run.json", "evaluation.json"])
def test_a_damaged_file_is_a_user_error_and_leaves_the_old_page(run, name):
    before = write_report(run).read_text()
    (run / name).write_text('{"model": "vq')
    with pytest.raises(UserError, match=f"expected JSON in .*{name}"):
        write_report(run)
    assert (run / "report.html").read_text() == before
    assert not list(run.glob(".report*"))


def test_writing_a_page_imports_no_torch(run):
    code = """if True:
        import sys
        from pathlib import Path
        from ancestral.report import write_report
        write_report(Path(sys.argv[1]))
        assert "torch" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code, str(run)], check=True)


def test_a_line_goes_where_its_values_are():
    chart = str(line_chart({"train": {0: 1.0, 50: 2.0, 100: 3.0}}, title="Loss", unit=""))
    points = [
        tuple(map(float, p.split()))
        for p in re.split("[ML]", re.search(r'class="line train"><path d="M([^"]*)"', chart)[1])
    ]
    ticks = {
        float(label): float(y)
        for y, label in re.findall(
            r'd="M48 ([\d.]+)H\d+"/><text x="[\d.]+" y="[\d.]+" text-anchor="end">([\d.]+)<', chart
        )
    }
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.2)
    assert [y for _, y in points] == pytest.approx(
        [ticks[1], ticks[2], ticks[3]], abs=0.2
    )  # written with one decimal


def test_a_long_series_is_drawn_as_means_that_cover_it():
    chart = str(
        line_chart({"train": {step: float(step % 2) for step in range(1, 10001)}}, title="Loss", unit="")
    )
    path = re.search(r'class="line train"><path d="([^"]*)"', chart)[1]
    assert 200 <= path.count("L") < 240
    assert len(chart) < 60_000


def test_an_early_peak_does_not_flatten_the_rest():
    values = {step: 3.0 + 0.001 * step for step in range(1, 101)} | {1: 250.0}
    assert ">250" not in re.sub(r"step.*?<", "", str(line_chart({"train": values}, title="Loss", unit="")))


@pytest.mark.parametrize(
    "points",
    [{}, {5: 1.0}, {5: 0.0, 6: 0.0}, {0: -1.0}, {1: 1e-9, 2: 1e9}, {1: 1e-320, 2: 1.0}, {1: math.nan}],
)
def test_degenerate_series_are_drawn(points):
    assert not re.search(
        r"\b(nan|inf)\b",
        str(line_chart({"train": points}, title="Loss", unit="nats")).replace("not finite", ""),
    )


@pytest.mark.parametrize("counts", [[1], [5, 5, 5], [0, 7], list(range(10_000)), [10, 100, 1000]])
def test_usage_covers_the_codes_that_are_used(counts):
    chart = str(usage_chart(counts, 2.0, title="Codebook"))
    used = sum(count > 0 for count in counts)
    assert float(
        re.findall(r"H([\d.]+)", re.search('class="area" d="(.*?)"', chart)[1])[-1]
    ) == pytest.approx(48 + (320 - 48 - 12) * used / len(counts), abs=0.1)
    assert ("never used" in chart) == (used < len(counts))


def test_of_a_step_logged_twice_the_later_line_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"stage": "all", "step": 2, "loss": 1}\n{"stage": "all", "step": 1, "loss": 2}\n'
        '{"stage": "all", "step": 2, "loss": 3}\n[]\nx\n\n'
    )
    assert by_stage(read_lines(path))["all"][0].splits == {"train": {1: 2.0, 2: 3.0}}


def test_the_clock_may_start_again():
    assert seconds([{"seconds": s} for s in (1.0, 50.0, 49.9, 100.0, 2.0, 30.0)] + [{}]) == 130.0
    assert seconds([{"seconds": 50.0}, {"split": "validation"}, {"seconds": 60.0}]) == 60.0, (
        "an evaluation has no clock"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (3.52341, "3.523"),
        (0.25, "0.25"),
        (0.2500004, "0.2500"),
        (1234567.0, "1,234,567"),
        (1e-3, "0.001"),
        (3e-5, "3 × 10⁻⁵"),
        (-2.5, "−2.5"),
        (0.0, "0"),
        (math.nan, "not a number"),
        (-math.inf, "−∞"),
        (9.9996, "10.000"),
        (2e13, "2 × 10¹³"),
    ],
)
def test_numbers(value, written):
    assert number(value) == written


def test_a_standard_error_decides_the_places():
    assert with_error(3.52341, 0.0031) == ("3.5234", "0.0031")
    assert with_error(1234.5, 12.0) == ("1,234", "12")
    assert with_error(3.5, None) == ("3.5", "")
    assert with_error(None, 0.1) == ("not a number", "")


def test_names_of_terms():
    assert term("decoder_bits_per_dim") == ("Decoder", "bits/dim")
    assert term("rate") == ("Rate", "nats")
    assert term("bits_per_code") == ("Rate of a code", "bits/code")
    assert term("prior_bits_per_code") == ("Prior", "bits/code")
    assert term("steps_per_second") == ("Speed", "steps/s")
    assert term("gradient_penalty") == ("Gradient penalty", "")


def test_durations():
    assert [duration(s) for s in (31.0, 90, 3500, 5400, 200_000)] == [
        "31 s",
        "1 min 30 s",
        "58 min",
        "1 h 30 min",
        "2 d 7 h",
    ]


# Measures of samples

TAKEN = Provenance(
    features="classifier of fashion-mnist",
    weights="3fa9c1d2e4b5f60718293a4b",
    accuracy=0.931,
    data="fashion-mnist",
    fingerprint="9f2c",
    split="test",
    n=10_000,
    sampling={"temperature": 0.9},
    seeds=(0,),
)


def measure(id, value, better, **more):
    return Figure(id=id, name=id, value=value, quantity=id, better=better, **({"provenance": TAKEN} | more))


FRECHET = measure(
    "Fréchet distance",
    8.7,
    "lower",
    interval=(8.2, 9.2),
    floor=(0.019, 0.023),
    references={"slight noise": 1.1, "each image 100 times": 6.05, "half of the classes": 14.6},
)
KERNEL = measure(
    "kernel distance",
    0.0021,
    "lower",
    interval=(0.0019, 0.0023),
    floor=(-0.00002, 0.00003),
    references={"slight noise": 0.0003, "each image 100 times": 0.0015, "half of the classes": 0.0046},
)
PRECISION = measure(
    "precision",
    0.96,
    "higher",
    interval=(0.957, 0.963),
    floor=(0.97, 0.972),
    references={"slight noise": 0.91, "half of the classes": 0.973},
)
DENSITY = measure("density", 0.98, "higher", floor=(0.99, 1.01), references={"slight noise": 0.8})
NEGATIVE = measure("unbiased", -0.00001, "lower", floor=(-0.00002, 0.00003), references={"noise": 0.02})
LINEAR = measure("distance", 3.0, "lower", floor=(1.0, 1.2), references={"noise": 5.0})
COPIES = measure("copies", 0.47, None, interval=(0.46, 0.48), references={"half of them copies": 0.75})
MEASURES = [FRECHET, KERNEL, PRECISION, DENSITY, NEGATIVE, LINEAR, COPIES]


def add(run, *figures):
    path = run / "evaluation.json"
    measured = Evaluation(model="", data="", split="", examples=0, figures=figures).to_json()["figures"]
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"figures": content["figures"] + measured}))


def drawn(figure, width):
    return ElementTree.fromstring(str(strip(figure, width)))


def test_measured_samples_have_a_section_only_where_there_are_some(run):
    before = write_report(run).read_text()
    assert not re.search(r'id="measured"|<svg class="chart measured|Samples, measured', before)
    add(run, measure("alone", 0.5, "higher", interval=(0.4, 0.6)))
    assert "measured" not in page_of(run).ids  # nothing to see it beside
    add(run, FRECHET)
    page = page_of(run)
    assert page.ids[page.ids.index("samples") + 1] == "measured"
    assert page.text.count('<svg class="chart measured narrow"') == 1
    assert page.text.count('<svg class="chart measured wide"') == 1


def test_every_number_of_a_measure_is_on_the_page(run):
    add(run, *MEASURES)
    page = page_of(run)
    for figure in MEASURES:
        value, ends = with_interval(figure.value, figure.interval)
        numbers = [value, *(ends or ()), *map(plain, figure.references.values())]
        assert all(words in page.words for words in numbers), figure.id
        assert all(name in page.words for name in figure.references), figure.id
        assert figure.floor is None or f"real data {between(*figure.floor)}" in page.words
    for words in ("8.7 [8.2, 9.2]", "−0.00002 to 0.00003", "Lower is better (←).", "Higher is better (→)."):
        assert words in page.words, words


def test_how_measures_were_taken_is_said_once_and_what_differs_with_the_figure(run):
    score = replace(TAKEN, features="classifier trained on samples", weights="", accuracy=None, seeds=(0, 1))
    add(run, FRECHET, KERNEL, PRECISION, replace(DENSITY, provenance=score))
    page = page_of(run)
    for words in (
        "Measured by: classifier of fashion-mnist (weights 3fa9c1d2e4b5), which puts 93.1%",
        "10,000 samples against 10,000 real examples of the test split of fashion-mnist.",
        "Drawn with temperature 0.9; seed 0.",
        "Measured by: classifier trained on samples. Drawn with temperature 0.9; seeds 0, 1.",
        "The Fréchet distance here is not FID",
    ):
        assert page.words.count(words) == 1, words


@pytest.mark.parametrize("features", ["inception", "Inception"])
def test_of_inceptions_features_nothing_is_said(run, features):
    add(run, replace(FRECHET, provenance=replace(TAKEN, features=features)))
    assert "not FID" not in page_of(run).words


def test_pictures_of_an_evaluation_are_shown_with_a_sentence(run):
    for seed, name in enumerate(("nearest", "rejection")):
        sheet(run / "samples" / f"{name}.png", rows=2, seed=10 + seed)
    page = page_of(run)
    assert "measured" in page.ids
    embedded = {base64.b64decode(image["src"].partition(",")[2]) for image in page.images}
    for name, words in (("nearest", "is a copy"), ("rejection", "What rejection sampling buys and costs")):
        assert (run / "samples" / f"{name}.png").read_bytes() in embedded
        assert words in page.words


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("figure", MEASURES, ids=lambda figure: figure.id)
def test_marks_of_a_strip_lie_where_its_axis_says(figure, width):
    svg, axis = drawn(figure, width), axis_of(figure, width)
    dot = svg.find("g[@class='model']/circle")
    assert float(dot.get("cx")) == pytest.approx(axis(figure.value), abs=0.006)
    ticks = sorted(float(path.get("d")[1:].split()[0]) for path in svg.findall("g[@class='fault']/path"))
    assert ticks == pytest.approx(sorted(map(axis, figure.references.values())), abs=0.006)
    if figure.floor:
        band = svg.find("g[@class='real']/rect")
        start, thick = float(band.get("x")), float(band.get("width"))
        assert start + thick / 2 == pytest.approx(sum(map(axis, figure.floor)) / 2, abs=0.006)
        assert thick == pytest.approx(max(axis(figure.floor[1]) - axis(figure.floor[0]), 3), abs=0.006)
    if figure.interval:
        whisker = svg.find("g[@class='model']/path").get("d")
        ends = re.fullmatch(r"M([\d.]+) \d+v10m0-5H([\d.]+)m0-5v10", whisker).groups()
        assert [*map(float, ends)] == pytest.approx([*map(axis, figure.interval)], abs=0.006)


def test_distances_over_decades_get_a_logarithmic_axis_and_the_others_begin_at_0():
    axis = axis_of(FRECHET, WIDE)
    assert axis(10) - axis(1) == pytest.approx(axis(1) - axis(0.1))
    axis = axis_of(KERNEL, WIDE)  # decades beyond what real data get, about 0 alike to both sides
    assert axis(0.00001) - axis(0) == pytest.approx(axis(0) - axis(-0.00001))
    assert axis(0.004) - axis(0.002) == pytest.approx(axis(0.002) - axis(0.001), rel=0.01)
    assert axis(-0.00002) >= 10
    axis = axis_of(PRECISION, WIDE)
    assert (axis.low, axis.high) == (0, 1)
    axis = axis_of(DENSITY, WIDE)
    assert (axis.low, axis(2) - axis(1)) == (0, pytest.approx(axis(1) - axis(0)))
    assert axis(1.01) < WIDE
    axis = axis_of(LINEAR, WIDE)
    assert (axis.low, axis(4) - axis(2)) == (0, pytest.approx(axis(2) - axis(0)))


LONG = (
    "a fault with a name so long that no strip, however wide it may be, has room for all of it, at any size"
)
CROWDED = measure(
    "crowd",
    0.5,
    "higher",
    floor=(0.5, 0.5),
    references={f"fault number {i}": 0.49 + i / 500 for i in range(9)},
)


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize(
    "figure",
    [*MEASURES, CROWDED, replace(LINEAR, references={LONG: 1.0, LONG[::-1]: 5.0, "誤り" * 30: 3.0})],
    ids=lambda figure: figure.id,
)
def test_labels_stay_in_the_picture_and_off_each_other(figure, width):
    svg = drawn(figure, width)
    _, _, across, down = map(float, svg.get("viewBox").split())
    rows = {}
    for text in svg.iter("text"):
        words = "".join(text.itertext())
        half = (
            sum(12 if character > "⺀" else 6.2 for character in words) / 2
        )  # an average sans serif at 12 px
        middle, y = float(text.get("x")), float(text.get("y"))
        assert text.get("text-anchor") == "middle"
        assert -2 <= middle - half <= middle + half <= across + 2, words
        assert 9 <= y <= down
        rows.setdefault(y, []).append((middle - half, middle + half, words))
    for row in rows.values():
        for (_, end, words), (start, _, _) in itertools.pairwise(sorted(row)):
            assert end < start, words
    full = [title.text for title in svg.findall("g[@class='fault']/title")]
    assert all(any(title.startswith(name) for title in full) for name in figure.references)


def test_a_strip_says_in_words_what_it_shows():
    svg = drawn(FRECHET, NARROW)
    assert svg.get("role") == "img"
    assert [svg[0].tag, svg[0].text, svg[1].tag] == ["title", "Fréchet distance", "desc"]
    assert svg[1].text == (
        "This model: 8.7, between 8.2 and 9.2; real data: 0.019 to 0.023; slight noise: 1.1; "
        "each image 100 times: 6.05; half of the classes: 14.6."
    )


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (FRECHET, "Worse than “each image 100 times”, better than “half of the classes”."),
        (replace(FRECHET, value=99.0, interval=None), "Worse than every fault shown."),
        (replace(FRECHET, value=0.5, interval=None), "Worse than real data, better than “slight noise”."),
        (replace(FRECHET, value=0.02, interval=None), "Not to be told from real data."),
        (replace(FRECHET, value=0.01, interval=None), "Better than real data get, as copies of them can be,"),
        (
            PRECISION,
            "Worse than real data, better than “slight noise”. It does not notice “half of the classes”.",
        ),
        (
            replace(PRECISION, value=0.5, interval=None),
            "Worse than “slight noise”. It does not notice “half of",
        ),
        (COPIES, ""),
        (replace(COPIES, floor=(0.49, 0.5)), "Below what real data get."),
        (replace(COPIES, floor=(0.4, 0.5)), "Not to be told from real data."),
    ],
)
def test_where_a_model_stands(figure, words):
    assert standing(figure).startswith(words)
    assert bool(standing(figure)) == bool(words)


@pytest.mark.parametrize(
    "figure",
    [
        measure("d", 0.0, "lower", floor=(0.0, 0.0)),
        measure("d", -5.0, "lower", floor=(-9.0, -8.0), references={"noise": -1e-3}),
        measure("d", 1e99, "lower", floor=(1e-99, 1e-98)),
        measure("d", -1.0, "lower", floor=(-1e-5, -1e-6)),
        measure("d", 0.0, "lower", references={"noise": 7.0}),
        measure("d", 1.0, "higher", floor=(math.nan, 1.0), references={"a": math.inf, "b": 2.0, "": 3.0}),
        measure("d", 1.0, "higher", floor=(0.9, 0.8), interval=(-math.inf, 2.0)),
        measure("d", -3.0, None, floor=(-3.0, -3.0)),
    ],
)
def test_degenerate_measures_are_drawn(figure):
    for width in (NARROW, WIDE):
        text = str(strip(figure, width))
        assert not re.search(r"\b(nan|inf)\b", text)
        svg = ElementTree.fromstring(text)
        assert 0 <= float(svg.find("g[@class='model']/circle").get("cx")) <= width
    standing(figure)


def test_a_measure_that_is_not_a_number_is_in_the_table_alone(run):
    add(run, replace(FRECHET, value=math.nan))
    page = page_of(run)
    assert "measured" not in page.ids
    assert "not a number" in page.words


def test_names_of_measures_are_escaped(run):
    evil = '<script>alert("x")</script>'
    taken = replace(TAKEN, features=evil, split=evil, data=evil, sampling={evil: evil})
    add(run, replace(FRECHET, name=evil, references={evil: 3.0}, note=evil, unit=evil, provenance=taken))
    page = page_of(run)
    assert page.elements.count("script") == 1
    assert evil not in page.text
    assert page.words.count(evil) >= 8


def test_an_interval_decides_the_places():
    assert with_interval(8.7, (8.2, 9.2)) == ("8.7", ("8.2", "9.2"))
    assert with_interval(0.96, (0.957, 0.963)) == ("0.960", ("0.957", "0.963"))
    assert with_interval(0.5, (0.35, 0.65)) == ("0.50", ("0.35", "0.65"))
    assert with_interval(1234.5, (1200.0, 1270.0)) == ("1,234", ("1,200", "1,270"))
    assert with_interval(0.5, (0.5, 0.5)) == ("0.5", ("0.5", "0.5"))
    assert with_interval(math.nan, (0.0, 1.0)) == ("not a number", ("0", "1"))
