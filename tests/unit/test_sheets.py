"""Sheets show every image where it belongs, in its own values."""

import numpy as np
import pytest
import torch
from PIL import Image

from ancestral.data.sheets import sheet, side_by_side, to_pixels, write_png
from ancestral.spec import Spec


def test_levels_become_the_full_range_of_gray():
    spec = Spec(shape=(1, 1, 5), levels=5)
    assert to_pixels(torch.arange(5).view(1, 1, 1, 5), spec).tolist() == [[[0, 64, 128, 191, 255]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_tile_is_where_it_belongs(channels):
    spec = Spec(shape=(channels, 3, 4))
    x = torch.randint(256, (7, *spec.shape), generator=torch.Generator().manual_seed(0))
    picture = sheet(x, spec, columns=3)
    for i, image in enumerate(to_pixels(x, spec)):
        top, left = 2 + i // 3 * 5, 2 + i % 3 * 6
        np.testing.assert_array_equal(picture[top : top + 3, left : left + 4], image)
    assert (picture[2 + 2 * 5 :, 2 + 6 :] == 255).all(), "places without an image are white"


def test_versions_stand_below_their_originals(tmp_path):
    spec = Spec(shape=(1, 2, 2))
    originals, versions = torch.full((3, 1, 2, 2), 10), torch.full((3, 1, 2, 2), 20)
    picture = side_by_side(spec, originals, versions, columns=2)
    assert picture[2, 2] == picture[2, 6] == 10
    assert picture[6, 2] == picture[6, 6] == 20
    assert picture[10, 2] == 10
    assert picture[14, 2] == 20


def test_png_is_enlarged_by_a_whole_factor(tmp_path):
    picture = np.arange(100, dtype=np.uint8).reshape(10, 10)
    write_png(tmp_path / "a.png", picture)
    read = np.asarray(Image.open(tmp_path / "a.png"))
    assert read.shape == (960, 960)
    np.testing.assert_array_equal(read[::96, ::96], picture)
    write_png(tmp_path / "b.png", picture, enlarge=False)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), picture)
