"""Pictures show every example where it belongs, in its own values, whatever its domain is."""

import csv
import itertools
import math
import os

import numpy as np
import pytest
import torch
from PIL import Image

from ancestral.media import (
    comparison,
    frames,
    grid,
    marginals,
    picture,
    to_pixels,
    with_key,
    write_examples,
    write_film,
    write_png,
)
from ancestral.media.codes import colors
from ancestral.media.figure import SERIES, Axis
from ancestral.media.sound import amplitudes, waveform
from ancestral.media.table import bars, scatter
from ancestral.spec import Spec


def random(spec, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if spec.levels is None:
        return torch.randn(n, *spec.shape, generator=generator)
    return torch.randint(spec.levels, (n, *spec.shape), generator=generator).to(spec.dtype)


def zeros(spec, n):
    return torch.zeros(n, *spec.shape, dtype=spec.dtype)


# images


def test_levels_become_the_full_range_of_gray():
    spec = Spec(shape=(1, 1, 5), levels=5)
    assert to_pixels(torch.arange(5).view(1, 1, 1, 5), spec).tolist() == [[[0, 64, 128, 191, 255]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_tile_is_where_it_belongs(channels):
    spec = Spec(shape=(channels, 3, 4))
    x = torch.randint(256, (7, *spec.shape), generator=torch.Generator().manual_seed(0))
    drawn = picture(spec, x, columns=3)
    for i, image in enumerate(to_pixels(x, spec)):
        top, left = 2 + i // 3 * 5, 2 + i % 3 * 6
        np.testing.assert_array_equal(drawn[top : top + 3, left : left + 4], image)
    assert (drawn[2 + 2 * 5 :, 2 + 6 :] == 255).all(), "places without an image are white"


def test_versions_stand_below_their_originals():
    spec = Spec(shape=(1, 2, 2))
    originals, versions = torch.full((3, 1, 2, 2), 10), torch.full((3, 1, 2, 2), 20)
    drawn = comparison(spec, originals, versions, columns=2)
    assert drawn[2, 2] == drawn[2, 6] == 10
    assert drawn[6, 2] == drawn[6, 6] == 20
    assert drawn[10, 2] == 10
    assert drawn[14, 2] == 20


def test_tiles_on_white_can_be_told_apart():
    tiles = np.full((4, 6, 6), 255, np.uint8)
    tiles[:, 2:4, 2:4] = 0
    sheet = grid(tiles, 2)
    assert (sheet[:2] == 160).all()
    assert (sheet[:, 8:10] == 160).all()
    assert (grid(255 - tiles, 2)[:2] == 255).all()
    spec = Spec(shape=(1, 6, 6))
    originals, versions = torch.from_numpy(tiles[:, None]), torch.full((4, 1, 6, 6), 90)
    rows = comparison(spec, originals[:3], versions[:3], columns=2)
    assert (rows[:, 8:10] == 160).all(), "the originals decide"
    assert (rows[-16:, 10:] == 160).all(), "where there is no third one"


def test_columns_have_heads():
    spec, x = Spec(shape=(3, 8, 8)), torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    plain, headed = (
        picture(spec, x, columns=3, heads=heads) for heads in ((), ("a", "a very long name", "c"))
    )
    factor = 960 // max(plain.shape[:2])
    assert headed.shape == (plain.shape[0] * factor + 24, plain.shape[1] * factor, 3)
    assert np.array_equal(headed[24:], plain.repeat(factor, 0).repeat(factor, 1))
    strip = headed[:24].min((0, 2)) < 128
    third = headed.shape[1] / 3
    columns = [strip[round(i * third) : round((i + 1) * third)] for i in range(3)]
    for column in columns:
        inked = np.flatnonzero(column)
        assert abs((inked[0] + inked[-1]) / 2 - third / 2) < 3, "in the middle"
    assert columns[1].sum() > 5 * columns[0].sum()


def test_heads_are_as_wide_as_their_columns_at_most():
    spec, x = Spec(shape=(1, 4, 4), levels=2), torch.zeros(32, 1, 4, 4, dtype=torch.uint8)
    headed = picture(spec, x, columns=16, heads=["a name that has no room", os.fsdecode(b"\xff")] * 8)
    strip = headed[:24].min(0) < 128
    edges = [round(i * len(strip) / 16) for i in range(1, 16)]
    assert not strip[edges].any()


def test_png_is_enlarged_by_a_whole_factor(tmp_path):
    drawn = np.arange(100, dtype=np.uint8).reshape(10, 10)
    write_png(tmp_path / "a.png", drawn)
    read = np.asarray(Image.open(tmp_path / "a.png"))
    assert read.shape == (960, 960)
    np.testing.assert_array_equal(read[::96, ::96], drawn)
    write_png(tmp_path / "b.png", drawn, enlarge=False)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), drawn)


def test_channels_that_are_no_colors_stand_side_by_side():
    spec = Spec(shape=(2, 3, 4))
    x = random(spec, 5)
    tiles = to_pixels(x, spec)
    assert tiles.shape == (5, 3, 9)
    np.testing.assert_array_equal(tiles[:, :, :4], x[:, 0])
    np.testing.assert_array_equal(tiles[:, :, 5:], x[:, 1])


def test_real_images_go_from_their_least_to_their_greatest_value_and_versions_on_the_same_scale():
    spec = Spec(shape=(1, 1, 3), levels=None)
    x = torch.tensor([[[[-2.0, 0.0, 2.0]]]])
    assert to_pixels(x, spec).tolist() == [[[0, 128, 255]]]
    drawn = comparison(spec, x, torch.tensor([[[[-9.0, 1.0, math.nan]]]]))
    assert drawn[2, 2:5].tolist() == [0, 128, 255]
    assert drawn[5, 2:5].tolist() == [0, 191, 0]


def test_a_key_says_what_colors_mean():
    drawn = with_key(np.zeros((10, 10, 3), np.uint8), {"seen": (1, 2, 3), "a long name " * 20: (200, 0, 0)})
    assert (drawn[:960, :960] == 0).all()
    assert drawn.shape[1] > 1000  # as wide as the longest name
    assert (drawn[960:] == (1, 2, 3)).all(-1).any()
    assert (drawn[960:] == (200, 0, 0)).all(-1).any()


# codes


def test_indices_have_colors_of_their_own_and_neighbors_differ_clearly():
    palette = colors(np.arange(1024)).astype(int)
    assert len(np.unique(palette, axis=0)) == 1024
    for apart in (1, 2, 3):
        assert np.abs(palette[apart:] - palette[:-apart]).max(-1).min() > 30
    few = palette[:16]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(few, 2)) > 25
    np.testing.assert_array_equal(colors(np.array([[7]]))[0, 0], palette[7])  # by the index alone


def test_maps_of_codes_stand_side_by_side():
    spec = Spec(shape=(2, 3, 4), levels=50, domain="codes")
    x = random(spec, 5)
    tiles = to_pixels(x, spec)
    assert tiles.shape == (5, 3, 9, 3)
    np.testing.assert_array_equal(tiles[:, :, :4], colors(x[:, 0].numpy()))
    np.testing.assert_array_equal(tiles[:, :, 5:], colors(x[:, 1].numpy()))


def test_a_sequence_of_codes_runs_as_lines_do():
    spec = Spec(shape=(1, 1000), levels=50, domain="codes")
    x = random(spec, 1)
    (tile,) = to_pixels(x, spec)
    assert tile.shape == (3 * 10 - 2, 480, 3)
    expected = colors(x[0, 0].numpy())
    np.testing.assert_array_equal(np.concatenate([tile[0], tile[10], tile[20]])[:1000], expected)
    assert (tile[20:, 40:] == 255).all()


# sounds


def test_levels_of_sound_are_amplitudes():
    linear = Spec(shape=(1, 3), levels=3)
    assert amplitudes(linear, torch.tensor([[[0, 1, 2]]])).tolist() == [[[-1, 0, 1]]]
    companded = Spec(shape=(1, 256), rate=8000, encoding="mu-law")
    y = amplitudes(companded, torch.arange(256).view(1, 1, 256))[0, 0]
    # companding, F(y) = sgn(y) ln(1 + 255|y|) / ln 256, takes the amplitudes back to evenly spaced levels
    back = np.sign(y) * np.log1p(255 * np.abs(y)) / np.log(256)
    np.testing.assert_allclose(back, np.linspace(-1, 1, 256), atol=1e-12)


@pytest.mark.parametrize("length", [1, 7, 100, 5000])
def test_a_waveform_covers_its_values_column_by_column(length):
    wave = np.sin(np.arange(length) / max(1, length) * 9) * 0.9
    axis = Axis(-1.0, 1.0, 101)
    cover = waveform(wave, axis, 60)
    assert cover.shape == (101, 60)
    assert ((cover >= 0) & (cover <= 1)).all()
    rows = np.arange(101)[:, None]
    middle = (cover * rows).sum(0) / cover.sum(0)  # of each column
    times = (np.arange(60) + 0.5) / 60 * (length - 1)
    expected = 100.5 - axis.place(np.interp(times, np.arange(length), wave))
    assert np.abs(middle - expected).max() < 1.5  # pixels


def test_a_sound_is_drawn_in_its_panel_and_versions_in_their_own_color():
    spec = Spec(shape=(1, 400), rate=8000, encoding="linear")
    x = random(spec, 3)
    drawn = picture(spec, x)
    assert (drawn == SERIES[0]).all(-1).any()
    assert not (drawn == SERIES[1]).all(-1).any()
    both = comparison(spec, x[:2], x[:2])
    first, second = ((both == color).all(-1) for color in SERIES[:2])
    legend = 32
    blue, orange = np.flatnonzero(first[legend:].any(1)), np.flatnonzero(second[legend:].any(1))
    assert blue.max() < orange.min()
    assert first.sum() == second.sum(), "the same waveform"


# tables


def test_axes_have_round_ticks_in_their_places():
    axis = Axis(-0.3, 2.7, 300)
    assert axis.ticks(48) == [(30, "0"), (80, "0.5"), (130, "1"), (180, "1.5"), (230, "2"), (280, "2.5")]
    for low, high in ((0, 1e-30), (-1e38, 1e38), (12345.0, 12345.1), (5.0, 5.0)):
        ticks = Axis.around(low, high, 200).ticks(30)
        assert 1 <= len(ticks) <= 7
        assert all(0 <= place <= 200 for place, _ in ticks)


def test_bars_are_as_high_as_their_share():
    axis = Axis(0.0, 4.0, 100)
    cover = bars(np.array([1.0, 0.0, 0.5, 0.25]), np.arange(5.0), axis)
    np.testing.assert_allclose(cover.sum(0).reshape(4, 25), np.outer([92, 0, 46, 23], np.ones(25)))
    assert (np.diff(cover, axis=0) >= 0).all(), "bars stand on the ground"


def test_points_lie_where_their_values_say():
    axis = Axis(0.0, 10.0, 100)
    cover = scatter(np.array([2.55, 20.0]), np.array([7.55, 5.0]), axis, axis)
    assert cover[24, 25] == cover.max()
    rows, columns = np.nonzero(cover)
    assert (np.abs(rows - 24) <= 3).all()
    assert (np.abs(columns - 25) <= 3).all()  # the second point is off the paper
    crowd = scatter(np.full(3000, 5.0), np.full(3000, 5.0), axis, axis)
    single = scatter(np.linspace(0, 10, 3000), np.full(3000, 5.0), axis, axis)
    assert crowd.max() > single.max()


# every domain

SPECS = {
    "gray": Spec(shape=(1, 8, 8), levels=2),
    "colors": Spec(shape=(3, 8, 6)),
    "channels": Spec(shape=(5, 4, 4), levels=300),
    "real image": Spec(shape=(3, 4, 4), levels=None),
    "sequence": Spec(shape=(1, 20), levels=4),
    "one sample": Spec(shape=(1, 1)),
    "sound": Spec(shape=(2, 3000), levels=2**16, rate=16000, encoding="linear"),
    "mu-law": Spec(shape=(1, 3000), rate=16000, encoding="mu-law"),
    "real sound": Spec(shape=(1, 300), levels=None, rate=16000),
    "codes": Spec(shape=(1, 4, 4), levels=512, domain="codes"),
    "maps": Spec(shape=(3, 4, 4), levels=512, domain="codes"),
    "code sequence": Spec(shape=(2, 50), levels=512, domain="codes"),
    "flat codes": Spec(shape=(7,), levels=512, domain="codes"),
    "video codes": Spec(shape=(2, 3, 4, 4), levels=512, domain="codes"),
    "real codes": Spec(shape=(2, 4, 4), levels=None, domain="codes"),
    "column": Spec(shape=(1,), levels=None),
    "table": Spec(shape=(3,), levels=None),
    "wide table": Spec(shape=(9,), levels=None),
    "whole numbers": Spec(shape=(3,), levels=5),
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("make", "n"), [(random, 1), (random, 2), (random, 5), (zeros, 2)])
def test_anything_can_be_drawn(name, make, n):
    spec = SPECS[name]
    x = make(spec, n)
    assert len(to_pixels(x, spec)) == n
    before = x.clone()
    for drawn in (
        picture(spec, x),
        picture(spec, x, columns=4),
        comparison(spec, x, random(spec, n, 1)),
        comparison(spec, x, x, x, columns=3, names=["a"]),
    ):
        assert drawn.dtype == np.uint8
        assert drawn.ndim == 2 or (drawn.ndim == 3 and drawn.shape[2] == 3)
        assert max(drawn.shape[:2]) < 4000
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["real image", "real sound", "table"])
def test_samples_of_a_model_that_diverged_can_be_drawn(name):
    spec = SPECS[name]
    x = random(spec, 4)
    for wrong in (math.nan, math.inf, 3e38):
        y = x.clone()
        y.view(-1)[0] = wrong
        picture(spec, y)
        comparison(spec, x, y)
        comparison(spec, y, torch.full_like(x, wrong))


def test_examples_become_files(tmp_path):
    labels = torch.tensor([1, 0, 1])
    for name, spec in SPECS.items():
        x, folder = random(spec, 3), tmp_path / name
        assert write_examples(folder, "a", x, spec) == folder / "a.png"
        drawn = picture(spec, x)
        read = np.asarray(Image.open(folder / "a.png"))
        factor = read.shape[0] // drawn.shape[0]
        np.testing.assert_array_equal(read[::factor, ::factor], drawn)

        saved = np.load(write_examples(folder, "a", x, spec, labels, kind="npz"))
        assert np.array_equal(saved["x"], x.numpy())
        assert np.array_equal(saved["labels"], labels.numpy())
        assert saved["x"].dtype == x.numpy().dtype

        where = write_examples(folder, "a", x, spec, labels, kind="files", names=["first"])
        if spec.domain == "table":
            header, *rows = csv.reader(where.read_text().splitlines())
            assert header == ["first", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9"][: spec.shape[0]]
            assert np.array_equal(np.array(rows, np.float32), x.numpy().astype(np.float32))
        elif spec.domain == "sound" and spec.rate is not None:
            assert {path.name for path in where.iterdir()} == {f"a-{i}.wav" for i in range(3)}
        elif spec.domain == "sound":
            read = [np.load(where / f"a-{i}.npy") for i in range(3)]
            assert np.array_equal(np.stack(read), x.numpy())
        else:
            read = [np.asarray(Image.open(where / f"a-{i}.png")) for i in range(3)]
            assert np.array_equal(np.stack(read), to_pixels(x, spec))


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_films_have_all_their_pictures(tmp_path, kind):
    shades = (0, 120, 250)
    path = write_film(tmp_path / f"film.{kind}", [np.full((6, 8, 3), shade, np.uint8) for shade in shades])
    with Image.open(path) as image:
        assert (image.n_frames, image.size) == (3, (960, 720))
        for i, shade in enumerate(shades):
            image.seek(i)
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - shade).max() <= 3


def test_marginals_are_a_panel_for_each_column_and_table(tmp_path):
    rows = torch.zeros(100, 8)
    drawn = torch.ones(100, 8)
    pixels = marginals(rows, drawn, names=["a"], series=("rows", "samples"))
    blue, orange = (np.abs(pixels.astype(int) - color).sum(2) < 120 for color in SERIES[:2])
    assert blue.any()
    assert orange.any()
    assert marginals(rows[:, :2]).shape[0] < marginals(rows).shape[0]  # a second line of panels
    assert marginals(torch.zeros(5, 200)).shape == marginals(torch.zeros(5, 100)).shape


def test_pictures_of_a_film_have_one_ground():
    """Bright in one picture, dark in the others: what is between the samples does not flicker."""
    x = torch.zeros(4, 2, 1, 6, 6, dtype=torch.uint8)
    x[1] = 255
    pictures = frames(Spec(shape=(1, 6, 6)), x)
    assert len({int(picture[0, 0]) for picture in pictures}) == 1
    assert [int(picture[4, 4]) for picture in pictures] == [0, 255, 0, 0]
