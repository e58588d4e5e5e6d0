"""Sources, splits that do not leak, odd files, and files that take the place of memory."""

import errno
import gzip
import hashlib
import itertools
import json
import os
import re
import sys
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import ExifTags, Image

from ancestral import files
from ancestral.batch import Batch
from ancestral.columns import Columns
from ancestral.configuration import from_json, to_json
from ancestral.data import (
    PREPARATIONS,
    Dataset,
    ImageOptions,
    Preparation,
    SoundOptions,
    TableOptions,
    augment,
    fashion_mnist,
    load,
    load_data,
    pixels,
    preparation_of,
    progress,
    store,
    survey,
)
from ancestral.errors import UserError
from ancestral.spec import Spec

OPTIONS = ImageOptions()
SPLITS = ("train", "validation", "test")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, x, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(path, **options)


@pytest.fixture
def photos(tmp_path):
    """60 gray noise images 6x5 in two classes, and what their pixels are."""
    x = noise(60, 6, 5)
    names = [f"{'cats' if i % 3 else 'ants'}/{i:02}.png" for i in range(60)]
    for name, image in zip(names, x, strict=True):
        save(tmp_path / "photos" / name, image)
    return tmp_path / "photos", dict(zip(names, x, strict=True))


def images(split):
    return [image.tobytes() for image in split.x.numpy()]


def only(folder, name):
    """The pixels that ``name`` is read as, from a folder in which it is one of several images."""
    dataset = load_data(str(folder), ImageOptions(mode="rgb" if "rgb" in str(folder) else "auto"))
    for split in SPLITS:
        if name in dataset.names[split]:
            return getattr(dataset, split).x[dataset.names[split].index(name)].numpy()
    raise AssertionError(dataset.skipped)


# sources


def test_digits_are_exactly_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    dataset, truth = load_data("digits", OPTIONS), load_digits()
    assert (dataset.spec.shape, dataset.spec.levels, dataset.spec.classes) == ((1, 8, 8), 17, 10)
    assert dataset.classes == tuple("0123456789")
    rows = {name: np.array(dataset.names[name], int) for name in SPLITS}
    assert sorted(itertools.chain(*rows.values())) == list(range(1797))
    for name in SPLITS:
        split = getattr(dataset, name)
        assert np.array_equal(split.x[:, 0].numpy(), truth.images[rows[name]])
        assert np.array_equal(split.labels.numpy(), truth.target[rows[name]])
        dataset.spec.check(split.x, split.labels)
    assert len(dataset.test) == 180
    assert len(dataset.validation) == round(0.05 * (1797 - 180))


@pytest.mark.parametrize(("levels", "expected"), [(2, 2), (5, 5), (17, 17), (100, 17)])
def test_digits_of_fewer_levels(levels, expected):
    from sklearn.datasets import load_digits

    dataset, truth = load_data("digits", ImageOptions(levels=levels)), load_digits().images.astype(int)
    assert dataset.spec.levels == expected
    rows = np.array(dataset.names["train"], int)
    assert np.array_equal(dataset.train.x[:, 0].numpy(), truth[rows] * expected // 17)


def test_digits_of_another_size_keep_their_levels_and_an_image_of_the_same_size_is_untouched():
    larger = load_data("digits", ImageOptions(size=(16, 12), fit="stretch", mode="rgb"))
    assert larger.spec.shape == (3, 16, 12)
    assert int(larger.train.x.max()) == 16
    same, native = load_data("digits", ImageOptions(size=(8, 8))), load_data("digits", OPTIONS)
    assert same.fingerprint == native.fingerprint


def test_every_level_survives_the_way_through_an_eight_bit_image():
    from ancestral.data.pixels import Target, decode, to_image

    for levels in (2, 3, 16, 17, 200, 256):
        x = np.arange(levels, dtype=np.uint8)[None]
        target = Target(size=(1, levels), resize=True, channels=1, fit="crop", native=levels, levels=levels)
        assert np.array_equal(decode(to_image(x, levels), target)[0], x)


needs_fashion_mnist = pytest.mark.skipif(
    not fashion_mnist.DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


@needs_fashion_mnist
def test_fashion_mnist_is_complete_and_its_test_set_is_the_official_one():
    dataset = load_data("fashion-mnist", OPTIONS)
    assert (dataset.spec.shape, dataset.spec.levels, dataset.spec.classes) == ((1, 28, 28), 256, 10)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (57_000, 3_000, 10_000)
    assert (
        dataset.test.x.numpy().tobytes()
        == gzip.decompress((fashion_mnist.DEBIAN / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    )
    assert dataset.names["test"][:2] == ("test/0", "test/1")
    assert dataset.made["test"] == "the source's own"
    assert torch.bincount(dataset.test.labels).tolist() == [1000] * 10


@needs_fashion_mnist
def test_fashion_mnist_with_one_wrong_byte_is_refused(tmp_path, monkeypatch):
    for file in fashion_mnist.DEBIAN.iterdir():
        (tmp_path / file.name).symlink_to(file)
    name = "t10k-labels-idx1-ubyte.gz"
    data = bytearray(gzip.decompress((tmp_path / name).read_bytes()))
    data[100] ^= 1
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(gzip.compress(data))
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path)
    with pytest.raises(
        UserError,
        match=r"expected the test labels of Fashion-MNIST with SHA-256 3d0e6c6ea990\.\.\., got .*reinstall",
    ):
        load_data("fashion-mnist", OPTIONS)


def test_fashion_mnist_that_cannot_be_had_names_both_ways_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        UserError, match=r"apt-get install dataset-fashion-mnist.*pip install 'ancestral\[hub\]'"
    ):
        load_data("fashion-mnist", OPTIONS)


def test_fashion_mnist_from_the_hub_is_verified(tmp_path, monkeypatch):
    import datasets

    x = noise(6, 28, 28)
    labels = [3, 1, 4, 1, 5, 9]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(fashion_mnist.CLASSES))}
    )
    rows = [
        datasets.Dataset.from_dict({"image": list(map(Image.fromarray, x[s])), "label": labels[s]}, features)
        for s in (slice(4), slice(4, 6))
    ]
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name: datasets.DatasetDict(train=rows[0], test=rows[1])
    )
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(fashion_mnist, "TRAIN_SIZE", 4)
    with pytest.raises(UserError, match="expected the train images of Fashion-MNIST"):
        load_data("fashion-mnist", OPTIONS)
    parts = {
        "train images": x[:4],
        "train labels": bytes(labels[:4]),
        "test images": x[4:],
        "test labels": bytes(labels[4:]),
    }
    monkeypatch.setattr(
        fashion_mnist, "SHA256", {part: hashlib.sha256(values).hexdigest() for part, values in parts.items()}
    )
    dataset = load_data("fashion-mnist", ImageOptions(validation=0.25))
    assert np.array_equal(dataset.test.x[:, 0].numpy(), x[4:])
    assert dataset.test.labels.tolist() == [5, 9]


# folders


def test_a_folder_of_classes(photos):
    folder, truth = photos
    dataset = load_data(str(folder), OPTIONS)
    assert (dataset.spec.shape, dataset.spec.levels, dataset.spec.classes) == ((1, 6, 5), 256, 2)
    assert dataset.classes == ("ants", "cats")
    assert sorted(itertools.chain(*dataset.names.values())) == sorted(truth)
    for name in SPLITS:
        split = getattr(dataset, name)
        for file, x, label in zip(dataset.names[name], split.x.numpy(), split.labels.tolist(), strict=True):
            assert np.array_equal(x[0], truth[file])
            assert dataset.classes[label] == Path(file).parts[0]
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (51, 3, 6)


def test_loading_again_gives_the_same_splits_and_fingerprint_and_a_moved_copy_too(photos):
    folder, _ = photos
    first, second = load_data(str(folder), OPTIONS), load_data(str(folder), OPTIONS)
    moved = load_data(str(folder.rename(folder.with_name("elsewhere"))), OPTIONS)
    assert first.fingerprint == second.fingerprint == moved.fingerprint
    assert first.names == second.names == moved.names
    assert torch.equal(first.train.x, moved.train.x)


def test_the_held_out_images_depend_on_pixels_and_not_on_names(photos):
    folder, _ = photos
    before = load_data(str(folder), OPTIONS)
    for i, file in enumerate(sorted(folder.rglob("*.png"))):
        file.rename(file.with_name(f"{97 * i % 61:02}-renamed.png"))
    after = load_data(str(folder), OPTIONS)
    for name in SPLITS:
        assert sorted(images(getattr(before, name))) == sorted(images(getattr(after, name)))


def test_the_fingerprint_changes_with_one_pixel_one_label_and_the_split(photos):
    folder, truth = photos
    seen = {
        load_data(str(folder), OPTIONS).fingerprint,
        load_data(str(folder), ImageOptions(test=0.2)).fingerprint,
    }
    (folder / "cats/01.png").rename(folder / "ants/01.png")
    seen.add(load_data(str(folder), OPTIONS).fingerprint)
    x = truth["cats/01.png"].copy()
    x[2, 2] ^= 1
    save(folder / "ants/01.png", x)
    seen.add(load_data(str(folder), OPTIONS).fingerprint)
    assert len(seen) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in seen)


def test_names_that_are_not_utf8_come_back_from_json(photos, tmp_path):
    folder, truth = photos
    for i, image in enumerate(truth.values()):
        save(folder / os.fsdecode(b"b\xe9es") / os.fsdecode(b"\xff%d.png" % i), image ^ 255)
    (folder / "cats" / os.fsdecode(b"\xfe.png")).touch()
    data = load_data(str(folder))
    assert data.classes[1] == os.fsdecode(b"b\xe9es")
    data.write_splits(tmp_path / "splits.json")
    files.write_json(tmp_path / "run.json", data.describe())
    assert files.read_json(tmp_path / "splits.json")["train"] == list(data.names["train"])
    assert files.read_json(tmp_path / "run.json")["skipped"] == list(data.skipped)
    assert {os.fsencode(name)[:5] for name in data.names["train"]} >= {b"b\xe9es/"}


def test_what_is_no_file_or_cannot_be_entered_is_said(photos, monkeypatch):
    folder, _ = photos
    os.mkfifo(folder / "cats" / "pipe.png")
    (folder / "dogs").mkdir()
    scan = os.scandir

    def forbidden(path):
        if str(path).endswith("dogs"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert load_data(str(folder)).skipped == (
        "cats/pipe.png: no file, but a pipe, a socket or a device",
        "dogs/: a folder that cannot be read (Permission denied)",
    )
    with pytest.raises(UserError, match=r"holds no images or sounds \(.*: a folder that cannot be read"):
        load_data(str(folder / "dogs"))


def test_images_of_too_many_pixels_are_skipped(photos, monkeypatch):
    folder, _ = photos
    save(folder / "cats" / "large.png", noise(40, 40))
    save(folder / "cats" / "larger.png", noise(60, 60))
    save(folder / "cats" / "photo.jpg", noise(64, 64))  # which is decoded at a quarter of that
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = load_data(str(folder), ImageOptions(size=(6, 5)))
    assert data.skipped == (
        "cats/large.png: has 1,600 pixels, more than 1,000",
        "cats/larger.png: has more than 2,000 pixels",
        "cats/photo.jpg: has more than 2,000 pixels",
    )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2500)
    assert load_data(str(folder), ImageOptions(size=(6, 5))).skipped == (
        "cats/larger.png: has 3,600 pixels, more than 2,500",
    )


def test_images_that_are_decoded_at_once_share_the_room_for_them():
    room, most, now, lock = pixels.Room(100), 0, 0, threading.Lock()

    def decode(side):
        nonlocal most, now
        with room.of(Image.new("L", (side, side))):
            with lock:
                now += min(side * side, 100)
                most = max(most, now)
            with lock:
                now -= min(side * side, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [3, 5, 20, 7, 1] * 40))
    assert now == 0
    assert most <= 100


def test_a_transparent_image_lies_on_white_strip_by_strip(photos, monkeypatch):
    folder, _ = photos
    x = noise(6, 5, 4)
    save(folder / "cats" / "glass.png", x)
    expected = only(folder, "cats/glass.png")
    monkeypatch.setattr(pixels, "_STRIP", 7)
    assert np.array_equal(only(folder, "cats/glass.png"), expected)
    part = x[..., 3:] / 255.0
    blended = (x[..., :3] * part + 255 * (1 - part)).transpose(2, 0, 1)
    assert np.abs(expected - blended).max() <= 1, "of rounding"


def test_the_cache_is_where_the_environment_says_and_asked_for_only_when_needed(
    photos, tmp_path, monkeypatch
):
    folder, _ = photos
    monkeypatch.setattr(load, "MEMORY_LIMIT", 100)
    monkeypatch.delenv("ANCESTRAL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "general"))
    load_data(str(folder))
    assert list((tmp_path / "general/ancestral/data").iterdir())
    monkeypatch.setenv("ANCESTRAL_CACHE", str(tmp_path / "own"))
    load_data(str(folder))
    assert list((tmp_path / "own/data").iterdir())
    for name in ("XDG_CACHE_HOME", "ANCESTRAL_CACHE"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without a home folder
    with pytest.raises(UserError, match="got no home folder to make it in; name one: ANCESTRAL_CACHE=FOLDER"):
        load_data(str(folder))
    monkeypatch.setattr(load, "MEMORY_LIMIT", 2**30)
    load_data(str(folder))
    load_data("digits")
    monkeypatch.setenv("ANCESTRAL_CACHE", str(tmp_path / "file" / "below"))
    (tmp_path / "file").touch()
    load_data("digits")
    monkeypatch.setattr(load, "MEMORY_LIMIT", 100)
    with pytest.raises(UserError, match="got: Not a directory; name another folder"):
        load_data(str(folder))


def test_flat_mixed_and_single_folders_have_no_labels(tmp_path):
    for i, x in enumerate(noise(20, 4, 4)):
        save(tmp_path / "flat" / f"{i}.png", x)
        save(tmp_path / "mixed" / ("." if i % 2 else "a") / f"{i}.png", x)
        save(tmp_path / "single" / "all" / "deep" / f"{i}.png", x)
    for name in ("flat", "mixed", "single"):
        dataset = load_data(str(tmp_path / name), OPTIONS)
        assert dataset.train.labels is None
        assert (dataset.classes, dataset.spec.classes) == ((), 0)
        assert sum(len(getattr(dataset, split)) for split in SPLITS) == 20


@pytest.mark.parametrize("held_out", [("val", "test"), ("validation", "test"), ("test",), ("val",), ()])
def test_splits_of_the_folder_are_respected(tmp_path, held_out):
    x = iter(noise(60, 4, 4))
    for split in ("train", *held_out):
        for i in range(20):
            save(tmp_path / split / "ab"[i % 2] / f"{i}.png", next(x))
    dataset = load_data(str(tmp_path), OPTIONS)
    assert dataset.classes == ("a", "b")
    for name in ("validation", "test"):
        given = {"validation": {"val", "validation"}, "test": {"test"}}[name] & set(held_out)
        parts = {Path(file).parts[0] for file in dataset.names[name]}
        assert parts == (given or {"train"})
        if given:
            assert len(getattr(dataset, name)) == 20


def test_train_beside_other_classes_is_a_class_like_them(tmp_path):
    for i, x in enumerate(noise(30, 4, 4)):
        save(tmp_path / ("bus", "car", "train")[i % 3] / f"{i}.png", x)
    assert load_data(str(tmp_path), OPTIONS).classes == ("bus", "car", "train")


def test_hidden_files_and_folders_and_loops_are_ignored(photos):
    folder, truth = photos
    save(folder / ".hidden.png", noise(9, 9))
    save(folder / ".thumbnails" / "1.png", noise(9, 9))
    (folder / "cats" / "notes.txt").write_text("no image")
    (folder / "cats" / "loop").symlink_to(folder)
    assert sorted(itertools.chain(*load_data(str(folder), OPTIONS).names.values())) == sorted(truth)


def test_broken_files_are_skipped_and_named(photos):
    folder, truth = photos
    (folder / "cats" / "empty.png").touch()
    (folder / "cats" / "text.jpg").write_text("no image")
    whole = (folder / "cats" / "01.png").read_bytes()
    (folder / "cats" / "torn.png").write_bytes(whole[: len(whole) - 25])
    (folder / "ants" / "gone.png").symlink_to(folder / "nowhere.png")
    save(folder / "ants" / "range.tiff", np.full((6, 5), 70_000, np.int32))
    save(folder / "ants" / "float.tiff", np.full((6, 5), 1.5, np.float32))
    for options in (
        OPTIONS,
        ImageOptions(size=(6, 5), mode="gray"),
    ):  # with and without a look at the headers
        dataset = load_data(str(folder), options)
        reasons = dict(entry.split(": ", 1) for entry in dataset.skipped)
        assert set(reasons) == {
            "cats/empty.png",
            "cats/text.jpg",
            "cats/torn.png",
            "ants/gone.png",
            "ants/range.tiff",
            "ants/float.tiff",
        }
        assert reasons["cats/text.jpg"] == "not an image that can be read"
        assert "truncated" in reasons["cats/torn.png"]
        assert "No such file" in reasons["ants/gone.png"]
        assert reasons["ants/range.tiff"] == "has values 70000..70000, not 0..65535"
        assert reasons["ants/float.tiff"] == "has values 1.5..1.5, not 0..1"
        assert sorted(itertools.chain(*dataset.names.values())) == sorted(truth)
        assert list(dataset.skipped) == dataset.describe()["skipped"]


def odd_images():
    """Name, image as stored, gray pixels that it is to be read as (None: colored)."""
    x = noise(4, 6, seed=5)
    alpha = noise(4, 6, seed=6)
    rgba = Image.merge("RGBA", [Image.fromarray(x)] * 3 + [Image.fromarray(alpha)])
    on_white = np.asarray(Image.alpha_composite(Image.new("RGBA", (6, 4), "white"), rgba))[..., 0]
    gray_palette = Image.fromarray(x % 4).convert("P")
    gray_palette = Image.frombytes("P", (6, 4), (x % 4).tobytes())
    gray_palette.putpalette([v for g in (0, 80, 160, 240) for v in (g, g, g)])
    yield "16bit.png", Image.fromarray(x.astype(np.uint16) * 257), x
    yield "16bit.tif", Image.fromarray(x.astype(np.uint16) * 257), x
    yield "32bit.tiff", Image.fromarray(x.astype(np.int32) * 257), x
    yield "float.tiff", Image.fromarray((x / 255).astype(np.float32)), x
    yield "bits.png", Image.fromarray(x > 127), np.where(x > 127, 255, 0)
    yield "palette.png", gray_palette, x % 4 * 80
    yield "plain.bmp", Image.fromarray(x), x
    yield "plain.PNG", Image.fromarray(x), x
    yield "alpha.png", Image.merge("LA", [Image.fromarray(x), Image.fromarray(alpha)]), on_white
    yield "plain.gif", Image.fromarray(x), x


@pytest.mark.parametrize(
    ("name", "image", "expected"), [pytest.param(*case, id=case[0]) for case in odd_images()]
)
def test_modes_that_are_gray(photos, name, image, expected):
    folder, _ = photos
    for file in folder.rglob("*.png"):
        save(file, noise(4, 6, seed=int(file.stem)))
    image.save(folder / "cats" / name)
    assert np.array_equal(only(folder, f"cats/{name}")[0], expected)


def test_modes_that_are_color(tmp_path):
    folder = tmp_path / "rgb"
    x = noise(4, 6, 3)
    rgba = np.dstack([x, noise(4, 6, seed=1)])
    for i in range(20):
        save(folder / f"{i}.png", noise(4, 6, 3, seed=i + 1))
    save(folder / "plain.webp", x, lossless=True)
    save(folder / "alpha.png", rgba)
    Image.fromarray(x[..., 0]).save(folder / "gray.png")
    palette = Image.fromarray(x).quantize(8)
    palette.save(folder / "palette.png")
    palette.save(folder / "transparent.png", transparency=int(np.asarray(palette)[0, 0]))
    first, second = (Image.fromarray(noise(4, 6, 3, seed=s)).quantize(8) for s in (7, 8))
    first.save(folder / "moving.gif", save_all=True, append_images=[second])
    Image.fromarray(x).convert("CMYK").save(folder / "print.tiff")
    Image.fromarray(x).save(
        folder / "stereo.jpg", "MPO", save_all=True, append_images=[Image.fromarray(255 - x)], quality=100
    )

    assert load_data(str(folder), OPTIONS).spec.shape == (3, 4, 6)
    assert np.array_equal(only(folder, "plain.webp"), x.transpose(2, 0, 1))
    share = rgba[..., 3:] / 255
    composite = (share * x + (1 - share) * 255).transpose(2, 0, 1)
    assert np.abs(only(folder, "alpha.png") - composite).max() <= 1  # Pillow rounds in fixed point
    assert np.array_equal(only(folder, "gray.png"), np.stack([x[..., 0]] * 3))
    shown = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(only(folder, "palette.png"), shown)
    hole = np.asarray(palette) == np.asarray(palette)[0, 0]
    assert np.array_equal(only(folder, "transparent.png"), np.where(hole, 255, shown))
    assert np.array_equal(only(folder, "moving.gif"), np.asarray(first.convert("RGB")).transpose(2, 0, 1))
    assert np.array_equal(only(folder, "print.tiff"), x.transpose(2, 0, 1))
    with Image.open(folder / "stereo.jpg") as stereo:
        assert stereo.format == "MPO"
        assert np.array_equal(
            only(folder, "stereo.jpg"), np.asarray(stereo.convert("RGB")).transpose(2, 0, 1)
        )


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_images_are_turned_as_their_exif_says(tmp_path, suffix, orientation):
    x = noise(4, 6)
    turns = {3: 2, 6: 3, 8: 1}[orientation]  # quarters of a turn counterclockwise that make it upright
    upright = np.rot90(x, turns)
    for i in range(20):
        save(tmp_path / f"{i}.png", noise(*upright.shape, seed=i + 1))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture = Image.fromarray(x).convert("RGB") if suffix == "webp" else Image.fromarray(x)
    picture.save(tmp_path / f"turned.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(only(tmp_path, f"turned.{suffix}")[0], upright)


def test_a_large_jpeg_is_close_to_what_it_shows(tmp_path):
    y, x = np.mgrid[:240, :320]
    smooth = np.stack([x * 255 // 319, y * 255 // 239, (x + y) * 255 // 558], -1).astype(np.uint8)
    for i in range(20):
        Image.fromarray(np.roll(smooth, i, -1) // (1 + i // 3)).save(tmp_path / f"{i:02}.jpg", quality=95)
    dataset = load_data(str(tmp_path), ImageOptions(size=(16, 16)))
    where = next(name for name in SPLITS if "00.jpg" in dataset.names[name])
    got = getattr(dataset, where).x[dataset.names[where].index("00.jpg")].numpy().astype(float)
    middle = smooth[:, 40:280].reshape(16, 15, 16, 15, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(got - middle).max() < 6  # JPEG noise and the resampling filter at the edges


def test_crop_keeps_the_middle_and_stretch_keeps_everything(tmp_path):
    x = np.zeros((8, 24), np.uint8)
    x[:, 16:] = 200
    for i in range(20):
        x[:, 8:16] = 100 + i
        save(tmp_path / f"{i:02}.png", x)
    cropped = load_data(str(tmp_path), ImageOptions(size=(8, 8)))
    for file, image in zip(cropped.names["train"], cropped.train.x, strict=True):
        assert image.unique().tolist() == [100 + int(file[:2])]
    stretched = load_data(str(tmp_path), ImageOptions(size=(8, 6), fit="stretch")).test.x[0, 0]
    assert (stretched[:, 0] < 40).all()
    assert (stretched[:, 5] > 180).all()


def test_gray_levels_are_x_times_levels_over_256(photos):
    folder, truth = photos
    dataset = load_data(str(folder), ImageOptions(levels=2))
    for file, x in zip(dataset.names["train"], dataset.train.x.numpy(), strict=True):
        assert np.array_equal(x[0], truth[file] >= 128)
    assert dataset.spec.levels == 2


# splits


def test_duplicates_never_stand_in_two_splits(tmp_path):
    x = noise(40, 4, 4)
    for i in range(200):
        # five files of each image, in formats that differ in every byte
        save(tmp_path / f"{i:03}.{'png' if i % 2 else 'bmp'}", x[i % 40])
    for test, validation in ((0.1, 0.05), (0.3, 0.3), (0.02, 0.02)):
        dataset = load_data(str(tmp_path), ImageOptions(test=test, validation=validation))
        seen = [set(images(getattr(dataset, name))) for name in SPLITS]
        assert not any(a & b for a, b in itertools.combinations(seen, 2))
        assert sum(len(getattr(dataset, name)) for name in SPLITS) == 200
        assert abs(len(dataset.test) - 200 * test) <= 5  # whole groups of 5


@pytest.mark.parametrize("mapped", [False, True])
def test_mirror_images_never_stand_in_two_splits_where_training_flips(tmp_path, monkeypatch, mapped):
    if mapped:
        monkeypatch.setattr(load, "MEMORY_LIMIT", 100)
        monkeypatch.setattr(store, "CHUNK", 6 * 5 * 7)
    for i, image in enumerate(noise(40, 6, 5)):
        save(tmp_path / "photos" / f"{i:02}.png", image)
        save(tmp_path / "photos" / f"{i:02}-mirrored.png", image[:, ::-1])
    options = ImageOptions(flip=True, test=0.3, validation=0.3)
    data = load_data(str(tmp_path / "photos"), options, tmp_path / "cache")
    for name in SPLITS:
        there = set(images(data.split(name)))
        assert {image[:, :, ::-1].tobytes() for image in data.split(name).x.numpy()} == there, name
    straight = load_data(str(tmp_path / "photos"), replace(options, flip=False), tmp_path / "cache")
    torn = [set(images(straight.split(name))) for name in SPLITS]
    mirrored = [{i[:, :, ::-1].tobytes() for i in straight.split(name).x.numpy()} for name in SPLITS]
    assert torn != mirrored, "this would prove nothing"


def test_flips_leave_the_splits_alone_where_there_are_no_mirror_images(photos):
    folder, _ = photos
    straight, flipped = (load_data(str(folder), ImageOptions(flip=flip)) for flip in (False, True))
    assert flipped.fingerprint == straight.fingerprint


def test_what_differs_only_before_quantization_does_not_leak_either(tmp_path):
    x = noise(40, 4, 4) & 0xFE
    for i in range(80):
        save(tmp_path / f"{i:03}.png", x[i % 40] | np.uint8(i // 40))
    dataset = load_data(str(tmp_path), ImageOptions(levels=128))
    seen = [set(images(getattr(dataset, name))) for name in SPLITS]
    assert not any(a & b for a, b in itertools.combinations(seen, 2))


def test_train_loses_what_official_held_out_splits_have_and_test_stays_whole(tmp_path):
    x = noise(60, 4, 4)
    parts = {"train": [*range(40), 50], "val": [*range(40, 50), 3, 51], "test": [*range(50, 60), 7, 50]}
    for part, members in parts.items():
        for position, i in enumerate(members):
            save(tmp_path / part / f"{position:02}.png", x[i])
    dataset = load_data(str(tmp_path), OPTIONS)
    content = {name: images(getattr(dataset, name)) for name in SPLITS}
    assert sorted(content["test"]) == sorted(x[i].tobytes() for i in parts["test"])
    assert sorted(content["validation"]) == sorted(x[i].tobytes() for i in [*range(40, 50), 3])
    assert sorted(content["train"]) == sorted(x[i].tobytes() for i in set(range(40)) - {3, 7})
    assert dataset.duplicates == 4  # 50, 7 and 3 of train, 51 of validation
    assert dataset.describe()["duplicates_left_out"] == 4


def test_the_description_is_json_and_the_splits_can_be_written(photos, tmp_path):
    dataset = load_data(str(photos[0]), OPTIONS)
    described = json.loads(json.dumps(dataset.describe()))
    assert described["sizes"] == {"train": 51, "validation": 3, "test": 6}
    assert described["fingerprint"] == dataset.fingerprint
    dataset.write_splits(tmp_path / "splits.json")
    assert {
        name: tuple(files) for name, files in json.loads((tmp_path / "splits.json").read_text()).items()
    } == dataset.names


# files in the place of memory


@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(load, "MEMORY_LIMIT", 100)
    monkeypatch.setattr(store, "CHUNK", 6 * 5 * 7)  # seven images at once


def same(a, b):
    for name in SPLITS:
        assert torch.equal(getattr(a, name).x, getattr(b, name).x)
        assert torch.equal(getattr(a, name).labels, getattr(b, name).labels)
    kept = {name: getattr(a, name) for name in (*SPLITS, "preparation")}
    assert a == a.__class__(**{**vars(b), **kept})


def with_odd_files(folder):
    (folder / "ants" / "00a.png").write_text("no image")
    (folder / "cats" / "99.png").touch()


@pytest.mark.parametrize("threads", [False, True])
def test_each_image_is_opened_once_and_in_threads_only_where_they_pay(photos, monkeypatch, threads):
    monkeypatch.setattr(progress, "_PAYS", 1e-9 if threads else 60.0)
    opened, in_threads, read = [], set(), Image.open

    def note(file, **options):
        opened.append(Path(file).name)
        in_threads.add(threading.current_thread() is not threading.main_thread())
        return read(file, **options)

    monkeypatch.setattr(Image, "open", note)
    load_data(str(photos[0]))
    assert sorted(opened) == sorted(["00.png", *(f"{i:02}.png" for i in range(60))])  # the first is looked at
    assert in_threads == ({False, True} if threads else {False})


@pytest.mark.parametrize("options", [OPTIONS, ImageOptions(size=(4, 4)), ImageOptions(mode="gray")])
@pytest.mark.parametrize("colored", [None, "ants/00.png", "cats/34.png"])
@pytest.mark.parametrize("threads", [False, True])
def test_what_is_decoded_on_the_way_is_what_is_decoded_later(photos, monkeypatch, options, colored, threads):
    folder, truth = photos
    if colored:
        save(folder / colored, np.stack([truth[colored]] * 2 + [truth[colored] ^ 1], -1))
    palette = (
        Image.fromarray(noise(6, 5, 3)).quantize(7) if colored else Image.fromarray(noise(6, 5)).convert("P")
    )
    palette.save(folder / "cats/16.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    save(folder / "cats/17.png", noise(6, 5), exif=exif)
    save(folder / "cats/98.tiff", noise(5, 6), tiffinfo={274: 6})
    (folder / "ants/21.png").write_bytes((folder / "ants/21.png").read_bytes()[:60])
    (folder / "cats/01.png").write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(survey, "_like_the_first", lambda *_: None)
        later = load_data(str(folder), options)
    monkeypatch.setattr(progress, "_PAYS", 1e-9 if threads else 60.0)
    on_the_way = load_data(str(folder), options)
    assert on_the_way.fingerprint == later.fingerprint
    assert on_the_way.skipped == later.skipped
    assert on_the_way.names == later.names
    assert len(later.skipped) == 2


def test_mapped_files_hold_what_memory_holds(photos, tmp_path, monkeypatch):
    folder, _ = photos
    with_odd_files(folder)
    expected = load_data(str(folder), OPTIONS)
    monkeypatch.setattr(load, "MEMORY_LIMIT", 100)
    monkeypatch.setattr(store, "CHUNK", 6 * 5 * 7)
    built = load_data(str(folder), OPTIONS, tmp_path / "cache")
    same(built, expected)
    monkeypatch.setattr(
        store, "_decoded", None
    )  # nothing is decoded again, whatever happens to training examples
    same(load_data(str(folder), ImageOptions(shift=2), tmp_path / "cache"), expected)
    (home,) = (tmp_path / "cache").iterdir()
    assert sorted(file.name for file in home.iterdir()) == [
        "lock",
        "meta.json",
        "rows.npz",
        "test.npy",
        "train.npy",
        "validation.npy",
    ]
    assert np.array_equal(np.load(home / "train.npy"), expected.train.x.numpy())


@pytest.mark.usefixtures("small_memory")
def test_the_cache_follows_the_files_and_the_options(photos, tmp_path):
    folder, truth = photos
    first = load_data(str(folder), OPTIONS, tmp_path / "cache")
    assert load_data(str(folder), ImageOptions(levels=4), tmp_path / "cache").fingerprint != first.fingerprint
    save(folder / "ants" / "00.png", truth["ants/00.png"] ^ 1)
    assert load_data(str(folder), OPTIONS, tmp_path / "cache").fingerprint != first.fingerprint


class Killed(BaseException):
    """What no handler catches."""


def test_a_killed_build_goes_on_where_it_was(photos, tmp_path, monkeypatch):
    folder, _ = photos
    with_odd_files(folder)
    expected = load_data(str(folder), OPTIONS)
    monkeypatch.setattr(load, "MEMORY_LIMIT", 100)
    monkeypatch.setattr(store, "CHUNK", 6 * 5 * 7)
    decode, calls = store.decode, itertools.count()

    def dying(image, target):
        if next(calls) == 30:
            raise Killed
        return decode(image, target)

    monkeypatch.setattr(store, "decode", dying)
    with pytest.raises(Killed):
        load_data(str(folder), OPTIONS, tmp_path / "cache")
    (home,) = (tmp_path / "cache").iterdir()
    journal = home / "journal.jsonl"
    done = [json.loads(line)["done"] for line in journal.read_text().splitlines()]
    assert done == [7, 14, 21, 28]
    with journal.open("a") as file:
        file.write('{"done": 35, "hash')  # torn by the kill

    again = []
    monkeypatch.setattr(store, "decode", lambda image, target: again.append(1) or decode(image, target))
    same(load_data(str(folder), OPTIONS, tmp_path / "cache"), expected)
    assert len(again) == 60 - 27  # of the 28 rows that were there, one is an unusable file


def tear(file):
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train.npy", tear),
        ("test.npy", Path.unlink),
        ("validation.npy", lambda file: file.write_bytes(b"no array")),
        ("rows.npz", tear),
        ("meta.json", lambda file: file.write_text('{"levels": "many"}')),
        ("meta.json", tear),
        ("test.npy", lambda file: file.write_bytes((file.parent / "train.npy").read_bytes())),
    ],
)
def test_damaged_decoded_images_are_decoded_again(photos, tmp_path, monkeypatch, name, damage):
    folder, _ = photos
    expected = load_data(str(folder), OPTIONS)
    monkeypatch.setattr(load, "MEMORY_LIMIT", 100)
    load_data(str(folder), OPTIONS, tmp_path / "cache")
    (home,) = (tmp_path / "cache").iterdir()
    damage(home / name)
    same(load_data(str(folder), OPTIONS, tmp_path / "cache"), expected)
    decoded = []
    decode = store.decode
    monkeypatch.setattr(store, "decode", lambda image, target: decoded.append(1) or decode(image, target))
    same(load_data(str(folder), OPTIONS, tmp_path / "cache"), expected)
    assert not decoded, "once"


def test_a_build_killed_at_any_write_or_rename_ends_with_the_same_files(photos, tmp_path, monkeypatch):
    folder, _ = photos
    with_odd_files(folder)
    expected = load_data(str(folder), OPTIONS)
    monkeypatch.setattr(load, "MEMORY_LIMIT", 100)
    monkeypatch.setattr(store, "CHUNK", 6 * 5 * 25)

    def mortal(function, steps, last):
        def wrapped(*arguments):
            if next(steps) == last:
                raise Killed
            return function(*arguments)

        return wrapped

    for last in itertools.count():
        steps = itertools.count()
        killed = False
        with monkeypatch.context() as context:
            context.setattr(store, "_write", mortal(store._write, steps, last))
            context.setattr(store, "_sync", mortal(store._sync, steps, last))
            context.setattr(files, "_sync", mortal(files._sync, steps, last))
            context.setattr(Path, "replace", mortal(Path.replace, steps, last))
            try:
                load_data(str(folder), OPTIONS, tmp_path / str(last))
            except Killed:
                killed = True
        same(load_data(str(folder), OPTIONS, tmp_path / str(last)), expected)
        if not killed:
            break
    assert last > 20  # so many moments were tried


@pytest.mark.usefixtures("small_memory")
def test_a_full_disk_says_how_many_bytes_are_needed(photos, tmp_path, monkeypatch):
    folder, _ = photos
    with monkeypatch.context() as context:
        context.setattr(store.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
        with pytest.raises(
            UserError,
            match=r"expected 1,05\d,\d{3} bytes free in .* for 60 images of \(1, 6, 5\), "
            r"got 1,000 bytes free; free some",
        ):
            load_data(str(folder), OPTIONS, tmp_path / "cache")

    def full(file, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(store, "_write", full)
        with pytest.raises(UserError, match=r"expected 1,05\d,\d{3} bytes free .* got a full disk"):
            load_data(str(folder), OPTIONS, tmp_path / "cache")
    assert len(load_data(str(folder), OPTIONS, tmp_path / "cache").train) == 51


def test_what_a_killed_process_left_half_written_is_removed(photos, tmp_path, monkeypatch):
    folder, _ = photos
    monkeypatch.setattr(load, "MEMORY_LIMIT", 100)
    expected = load_data(str(folder), OPTIONS, tmp_path / "cache")
    (home,) = (tmp_path / "cache").iterdir()
    (home / "meta.json").unlink()
    (home / ".validation.npy.123.tmp").write_bytes(b"half")
    for name in (*SPLITS, "rows"):
        (home / f"{name}.np{'z' if name == 'rows' else 'y'}").unlink()
    same(load_data(str(folder), OPTIONS, tmp_path / "cache"), expected)
    assert not list(home.glob(".*"))


# data sets


def test_splits_by_name(photos):
    dataset = load_data(str(photos[0]), OPTIONS)
    assert dataset.split("test") is dataset.test
    assert torch.equal(dataset.split("train", 3).x, dataset.train.x[:3])
    assert torch.equal(dataset.split("train", 3).labels, dataset.train.labels[:3])
    joined = dataset.split("all")
    assert torch.equal(joined.x, torch.cat([getattr(dataset, name).x for name in SPLITS]))
    assert torch.equal(joined.labels, torch.cat([getattr(dataset, name).labels for name in SPLITS]))
    for limit in (1, 51, 52, 54, 55, 60, 100):  # the splits have 51, 3 and 6
        assert torch.equal(dataset.split("all", limit).x, joined.x[:limit])
    with pytest.raises(
        UserError, match="expected a split, got dev; choose from train, validation, test, all"
    ):
        dataset.split("dev")
    with pytest.raises(UserError, match="expected at least 1 example, got 0"):
        dataset.split("train", 0)


def test_a_data_set_built_by_hand_may_have_contexts(tmp_path):
    def part(n, seed):
        x = torch.from_numpy(noise(n, 1, 2, 2, seed=seed))
        return Batch(x, torch.arange(n) % 3, (x[:, :, :1] // 2, x[..., 0].float()))

    spec = Spec(shape=(1, 2, 2), classes=3)
    parts = {name: part(n, n) for name, n in zip(SPLITS, (5, 2, 3), strict=True)}
    dataset = Dataset(source="mine", spec=spec, **parts)
    joined = dataset.split("all", 6)
    assert torch.equal(joined.contexts[1], torch.cat([parts[n].contexts[1] for n in SPLITS])[:6])
    assert repr(dataset) == (
        "Dataset('mine': image (1, 2, 2), 256 levels, 3 classes; 5 train, 2 validation, 3 test)"
    )
    assert type(dataset.preparation) is Preparation
    assert json.loads(json.dumps(dataset.describe()))["fingerprint"] == dataset.fingerprint
    dataset.write_splits(tmp_path / "splits.json")
    assert json.loads((tmp_path / "splits.json").read_text())["validation"] == ["0", "1"]

    changed = Batch(parts["test"].x, parts["test"].labels, (parts["test"].contexts[0], torch.zeros(3, 1, 2)))
    other = Dataset(source="mine", spec=spec, **(parts | {"test": changed}))
    assert other.fingerprint != dataset.fingerprint


# preparation


def test_the_source_says_which_preparation_it_takes():
    kinds = {"images": ImageOptions, "sound": SoundOptions, "table": TableOptions, "own": Preparation}
    assert kinds == PREPARATIONS
    assert preparation_of("table:a.csv") is TableOptions
    assert preparation_of("digits") is preparation_of("photos/") is preparation_of("hub:a/b") is ImageOptions
    assert load_data("digits").preparation == ImageOptions()
    with pytest.raises(
        UserError, match=r"expected data for TableOptions \(table\), got digits \(images\); name other data"
    ):
        load_data("digits", TableOptions())
    with pytest.raises(UserError, match=r"expected data for ImageOptions \(images\), got table:a\.csv"):
        load_data("table:a.csv", ImageOptions())
    with pytest.raises(UserError, match=r"there is no folder \./none"):
        load_data("./none", SoundOptions())


@pytest.mark.parametrize(
    "options",
    [ImageOptions(size=(3, 4), flip=True, test=0.3), TableOptions(standardize=False, validation=0.2)],
)
def test_preparations_are_written_with_their_kind_and_read_back(options):
    written = json.loads(json.dumps(to_json(options)))
    assert from_json(PREPARATIONS[written["kind"]], written) == options


def test_preparations_are_fitted_to_a_model():
    gray = Spec(shape=(1, 28, 20), levels=16)
    assert ImageOptions(flip=True).fitted(gray) == ImageOptions(
        size=(28, 20), mode="gray", levels=16, flip=True
    )
    asked = ImageOptions(size=(8, 8), mode="rgb", levels=2)
    assert asked.fitted(gray) == asked
    table = Spec(shape=(4,), levels=None)
    assert TableOptions(standardize=False).fitted(table) == TableOptions(standardize=False)
    for spec in (
        Spec(shape=(2, 8, 8)),
        table,
        Spec(shape=(1, 8, 8), levels=512),
        Spec(shape=(1, 8, 8), domain="codes"),
    ):
        with pytest.raises(
            UserError, match=r"expected a model of images with 1 or 3 channels .* got one of \("
        ):
            ImageOptions().fitted(spec)
    for spec in (gray, Spec(shape=(4,), levels=3)):
        with pytest.raises(UserError, match="expected a model of tables"):
            TableOptions().fitted(spec)


# tables


def numbers(rows=200, columns=3, seed=0):
    return np.random.default_rng(seed).normal(3, 2, (rows, columns)).astype(np.float32)


def write_csv(path, x, names=("height", "weight", "age")):
    lines = [",".join(names)] * bool(names) + [",".join(repr(float(v)) for v in row) for row in x]
    path.write_text("\n".join(lines) + "\n")
    return f"table:{path}"


def test_a_table_is_read_from_either_file_and_standardized_by_its_training_split(tmp_path):
    x = numbers()
    dataset = load_data(write_csv(tmp_path / "a.csv", x))
    assert dataset.spec == Spec(shape=(3,), levels=None)
    assert dataset.columns.names == ("height", "weight", "age")
    assert dataset.source == f"table:{tmp_path.resolve() / 'a.csv'}"
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (171, 9, 20)
    rows = {name: np.array(dataset.names[name], int) for name in SPLITS}
    assert sorted(itertools.chain(*rows.values())) == list(range(200))
    mean, scale = x[rows["train"]].mean(0, dtype=float), x[rows["train"]].std(0, dtype=float)
    np.testing.assert_allclose(dataset.columns.means, mean)
    np.testing.assert_allclose(dataset.columns.scales, scale)
    for name in SPLITS:
        split = getattr(dataset, name)
        assert split.x.dtype == torch.float32
        np.testing.assert_allclose(split.x.numpy(), (x[rows[name]] - mean) / scale, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dataset.columns.restored(split.x), x[rows[name]], rtol=1e-6, atol=1e-6)
        dataset.spec.check(split.x)

    described = json.loads(json.dumps(dataset.describe()))
    assert from_json(Columns, described["columns"], where="columns") == dataset.columns
    # the density of a row of the file is that of x times |det dx/d(row)|
    normal = torch.distributions.Normal(torch.tensor(mean), torch.tensor(scale))
    raw = torch.from_numpy(x[rows["test"]]).double()
    standard = torch.distributions.Normal(0, 1).log_prob((raw - torch.tensor(mean)) / torch.tensor(scale))
    torch.testing.assert_close(standard.sum(1) + dataset.log_determinant, normal.log_prob(raw).sum(1))

    np.save(tmp_path / "a.npy", x)
    array = load_data(f"table:{tmp_path / 'a.npy'}")
    assert array.columns.names == ("x1", "x2", "x3")
    assert array.fingerprint == dataset.fingerprint
    parquet = {"height": x[:, 0].astype(float), "weight": x[:, 1], "age": x[:, 2]}
    pq.write_table(pa.table(parquet), tmp_path / "a.parquet")
    columns = load_data(f"table:{tmp_path / 'a.parquet'}")
    assert (columns.columns, columns.fingerprint) == (dataset.columns, dataset.fingerprint)
    plain = load_data(f"table:{tmp_path / 'a.npy'}", TableOptions(standardize=False))
    assert np.array_equal(plain.train.x.numpy(), x[rows["train"]])
    assert (plain.columns.means, plain.columns.scales, plain.log_determinant) == ((), (), 0.0)
    assert plain.names == array.names
    assert plain.fingerprint != array.fingerprint


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["a", "b", "c"], "expected columns of numbers in F, got string in column kind; leave it out"),
        ([1.0, None, 3.0], "got a missing value in row 1 (counted from 0), column kind; mend it"),
        ([1.0, 2.0, float("inf")], "got inf in row 2 (counted from 0), column kind"),
        ([], "expected rows of numbers in F, got none"),
    ],
)
def test_parquet_columns_that_are_no_numbers(tmp_path, column, message):
    path = tmp_path / "F.parquet"
    rows = pa.table({"size": pa.array([1, 2, 3][: len(column)], pa.int32()), "kind": column})
    pq.write_table(rows, path)
    with pytest.raises(UserError) as error:
        load_data(f"table:{path}")
    assert message in str(error.value).replace(str(path), "F")


def test_constant_columns_are_refused(tmp_path):
    x = numbers()
    x[:, 1] = 0.1
    with pytest.raises(UserError, match=r"got the same number all over column weight; leave it out"):
        load_data(write_csv(tmp_path / "a.csv", x))


def test_columns_have_names_of_their_own_and_fit_the_examples(tmp_path):
    with pytest.raises(
        UserError, match=r"expected columns of different names in .*, got a twice; rename one"
    ):
        load_data(write_csv(tmp_path / "a.csv", numbers(), names=("a", "b", "a")))
    with pytest.raises(UserError, match="a mean and a scale for each of 2 columns, got 1 means, 2 scales"):
        Columns(names=("a", "b"), means=(0.0,), scales=(1.0, 1.0))
    with pytest.raises(UserError, match="scales"):
        Columns(names=("a",), means=(0.0,), scales=(0.0,))
    rows = Batch(torch.zeros(4, 3))
    with pytest.raises(UserError, match="a column for each value of an example, got 2 columns for table"):
        Dataset(source="mine", spec=Spec(shape=(3,), levels=None), train=rows, validation=rows, test=rows,
                columns=Columns(names=("a", "b")))  # fmt: skip


def test_equal_rows_stay_together_and_splits_follow_the_content(tmp_path):
    x = np.tile(numbers(60), (4, 1))
    x[0], x[60] = 0.0, -0.0  # the same number
    dataset = load_data(write_csv(tmp_path / "a.csv", x))
    seen = [{row.tobytes() for row in getattr(dataset, name).x.numpy()} for name in SPLITS]
    assert not any(a & b for a, b in itertools.combinations(seen, 2))
    order = np.random.default_rng(1).permutation(len(x))
    shuffled = load_data(write_csv(tmp_path / "b.csv", x[order]), TableOptions(standardize=False))
    assert {int(order[int(i)]) for i in shuffled.names["test"]} == set(map(int, dataset.names["test"]))


def test_files_of_tables_as_people_write_them(tmp_path):
    x = numbers(40)
    expected = load_data(write_csv(tmp_path / "a.csv", x)).fingerprint
    plain = load_data(write_csv(tmp_path / "plain.csv", x, names=()))
    assert (plain.columns.names, plain.fingerprint) == (("x1", "x2", "x3"), expected)
    lines = [" , ".join(f'"{float(v)!r}"' for v in row) for row in x]
    text = "\n".join(['\ufeff"the, height",,age ', "", *lines]).replace("\n", "\r\n")
    (tmp_path / "odd.csv").write_bytes(text.replace('" , "', '","').encode())
    odd = load_data(f"table:{tmp_path / 'odd.csv'}")
    assert (odd.columns.names, odd.fingerprint) == (("the, height", "x2", "age"), expected)
    np.save(tmp_path / "integers.npy", np.arange(80).reshape(40, 2))
    assert load_data(f"table:{tmp_path / 'integers.npy'}").train.x.dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,\n", "got a missing value in line 3, column b; mend it"),
        ("a,b\n1,2\nx,4\n", "got x in line 3, column a; mend it"),
        ("a,b\n1,nan\n", "got nan in line 2, column b"),
        ("a,b\n1,2\n\n-inf,1\n", "got -inf in line 4, column a"),
        ("a,b\n1,1e39\n", "expected finite numbers (of 32 bits) in F, got 1e39 in line 2, column b"),
        ("a,b\n1,2\n3\n", "expected 2 values in each row of F, got 1 in line 3"),
        ("1,b\n1,2\n", "got b in line 1, column x2"),
        ("1;2\n3;4\n", "got 3;4 in line 2, column 1;2"),
        ("a,b\n", "expected rows of numbers in F, got names alone"),
        ("\n\n", "expected rows of numbers in F, got nothing"),
        ("a\n1\n2\n", "expected examples in every split of F, got "),
    ],
)
def test_tables_that_are_no_numbers(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_data(f"table:{path}")
    assert message in str(caught.value).replace(str(path), "F")
    assert "\n" not in str(caught.value)


def test_arrays_that_are_no_tables(tmp_path, monkeypatch):
    def refused(name, array=None):
        if array is not None:
            np.save(tmp_path / name, array)
        with pytest.raises(UserError) as caught:
            load_data(f"table:{tmp_path / name}")
        return str(caught.value).replace(f"{tmp_path}/", "")

    x = numbers(5)
    x[3, 1] = np.inf
    assert "got inf in row 3, column 1 (counted from 0)" in refused("inf.npy", x)
    assert "got float64 of shape (4,); save them with" in refused("flat.npy", np.zeros(4))
    assert "got float64 of shape (0, 4)" in refused("none.npy", np.zeros((0, 4)))
    assert "got <U1 of shape (1, 1)" in refused("text.npy", np.array([["a"]]))
    assert "expected an array in object.npy" in refused("object.npy", np.array([[None]]))
    (tmp_path / "torn.npy").write_bytes(b"no array")
    assert "expected an array in torn.npy" in refused("torn.npy")
    assert "expected a table gone.csv, got nothing there" in refused("gone.csv")
    (tmp_path / "a.txt").write_text("1")
    assert "expected a table .csv, .parquet or .npy, got a.txt" in refused("a.txt")
    (tmp_path / "folder.csv").mkdir()
    assert "expected a table of each split in folder.csv, got none called train" in refused("folder.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"got the file inf\.npy; write table:inf\.npy if it is a table"):
        load_data("inf.npy")


# augmentation


def test_flips_and_shifts_are_crops_of_the_padded_image_or_its_mirror():
    x = torch.from_numpy(noise(300, 3, 6, 5))
    options = ImageOptions(flip=True, shift=2)
    y = augment(x, torch.Generator().manual_seed(0), flip=True, shift=2)
    assert torch.equal(y, augment(x, torch.Generator().manual_seed(0), flip=True, shift=2))
    assert not torch.equal(y, augment(x, torch.Generator().manual_seed(1), flip=True, shift=2))
    augmentation = options.augmentation()
    assert augmentation is not None
    assert torch.equal(y, augmentation(x, torch.Generator().manual_seed(0)))
    seen = set()
    for before, after in zip(x.numpy(), y.numpy(), strict=True):
        found = None
        for flip, i, j in itertools.product((False, True), range(5), range(5)):
            image = before[..., ::-1] if flip else before
            padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="edge")
            if np.array_equal(padded[:, i : i + 6, j : j + 5], after):
                found = (flip, i, j)
        assert found is not None
        seen.add(found)
    # 300 draws of 50 kinds: each is missing with probability 0.2%
    assert len(seen) >= 47


def test_each_augmentation_can_be_had_alone_and_none_changes_nothing():
    x = torch.from_numpy(noise(64, 1, 4, 4))
    generator = torch.Generator().manual_seed(0)
    assert augment(x, generator) is x
    assert OPTIONS.augmentation() is None
    assert TableOptions().augmentation() is None
    flipped = augment(x, generator, flip=True)
    is_flipped = (flipped == x.flip(-1)).all(-1).all(-1).all(-1)
    assert torch.equal(flipped[~is_flipped], x[~is_flipped])
    assert 16 < int(is_flipped.sum()) < 48  # four standard deviations
    assert augment(x, generator, shift=1).dtype == torch.uint8


# the Hub


@pytest.fixture
def stand_in(monkeypatch):
    """A way to say what ``datasets.load_dataset`` returns."""
    import datasets

    def put(**splits):
        features = datasets.Features(
            {
                "id": datasets.Value("int64"),
                "photo": datasets.Image(),
                "kind": datasets.ClassLabel(names=["hot", "cold"]),
            }
        )
        made = {}
        for name, (x, kinds) in splits.items():
            columns = {
                "id": list(range(len(x))),
                "photo": [Image.fromarray(image) for image in x],
                "kind": kinds,
            }
            made[name] = datasets.Dataset.from_dict(columns, features=features)
        monkeypatch.setattr(
            datasets, "load_dataset", lambda *name: asked.append(name) or datasets.DatasetDict(made)
        )

    asked = []
    put.asked = asked
    return put


def test_a_hub_data_set_with_its_own_splits(stand_in):
    x = noise(40, 4, 6)
    stand_in(
        train=(x[:20], [0, 1] * 10),
        validation=(x[20:25], [1] * 5),
        test=(x[25:30], [-1] * 5),
        extra=(x[30:], [0] * 10),
    )
    dataset = load_data("hub:someone/things/small", OPTIONS)
    assert stand_in.asked == [("someone/things", "small")]
    assert (dataset.spec.shape, dataset.classes) == ((1, 4, 6), ("hot", "cold"))
    assert np.array_equal(dataset.train.x[:, 0].numpy(), x[:20])
    assert dataset.train.labels.tolist() == [0, 1] * 10
    assert np.array_equal(dataset.validation.x[:, 0].numpy(), x[20:25])
    assert dataset.test.labels is None  # they are kept secret
    assert dataset.skipped == ("split extra: neither train nor validation nor test",)
    assert dataset.names["test"][0] == "test/0"


def test_a_hub_data_set_with_one_split_is_shared_out_and_can_be_mapped(stand_in, tmp_path, monkeypatch):
    x = noise(40, 4, 6, 3)
    stand_in(full=(x, [0, 1] * 20))
    expected = load_data("hub:someone/things", OPTIONS)
    assert (len(expected.train), len(expected.validation), len(expected.test)) == (34, 2, 4)
    assert sorted(
        itertools.chain(*map(images, (expected.train, expected.validation, expected.test)))
    ) == sorted(image.transpose(2, 0, 1).tobytes() for image in x)
    monkeypatch.setattr(load, "MEMORY_LIMIT", 100)
    same(load_data("hub:someone/things", OPTIONS, tmp_path), expected)


def test_what_can_go_wrong_with_the_hub(stand_in, monkeypatch):
    import datasets

    with pytest.raises(UserError, match=r"expected hub:OWNER/NAME, got hub:mnist; copy the name"):
        load_data("hub:mnist", OPTIONS)
    stand_in(fold1=(noise(3, 4, 4), [0] * 3), fold2=(noise(3, 4, 4), [0] * 3))
    with pytest.raises(UserError, match="hub:a/b has no split train, but fold1, fold2"):
        load_data("hub:a/b", OPTIONS)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(UserError, match="hub:a/b has no column of images, but text"):
        load_data("hub:a/b", OPTIONS)

    def offline(name):
        raise ConnectionError("Couldn't reach the Hub\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        UserError,
        match=r"cannot load a/b from the Hub \(ConnectionError: Couldn't reach the Hub\); "
        "check the name and the network",
    ):
        load_data("hub:a/b", OPTIONS)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        UserError, match=r"hub:a/b needs the package datasets; pip install 'ancestral\[hub\]'"
    ):
        load_data("hub:a/b", OPTIONS)


# bad input


def test_unknown_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"no data set 'fashion_mnist', nor such a folder in .*; did you mean fashion-mnist\?"
    ):
        load_data("fashion_mnist", OPTIONS)
    with pytest.raises(UserError, match="choose from asterisk, digits, fashion-mnist, gcin-voice, hub"):
        load_data("xyzzy", OPTIONS)
    with pytest.raises(
        UserError,
        match=re.escape(f"there is no folder ./cats (looked for {tmp_path / 'cats'}); check the path"),
    ):
        load_data("./cats", OPTIONS)
    with pytest.raises(UserError, match="no data set ''"):
        load_data("", OPTIONS)
    save(tmp_path / "cat.png", noise(4, 4))
    with pytest.raises(UserError, match=r"expected a folder of images or sounds, got the file cat\.png"):
        load_data("cat.png", OPTIONS)


def test_folders_that_cannot_be_used(tmp_path):
    def refused(folder, options=OPTIONS):
        with pytest.raises(UserError) as caught:
            load_data(str(folder), options)
        return str(caught.value)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(empty) == (
        f"folder {empty} holds no images or sounds (looked for .png .jpg .jpeg .webp .bmp .tiff .tif .gif "
        ".wav .flac .ogg .oga .opus .mp3 .aiff .aif .au); check the path"
    )

    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "a.png").write_text("no image")
    expected = (
        f"none of the 1 images of {odd} can be read (a.png: not an image that can be read); check the files"
    )
    assert refused(odd) == expected
    assert refused(odd, ImageOptions(size=(4, 4), mode="gray")) == expected

    mixed = tmp_path / "mixed"
    for i in range(5):
        save(mixed / f"{i}.png", noise(4, 6 if i < 3 else 8, seed=i))
    assert refused(mixed) == (
        f"expected images of one size in {mixed}, got 2 sizes (height x width): 4x6 (3), 4x8 (2); "
        "pass --images.size H W to bring them to one, such as --images.size 4 6"
    )

    few = tmp_path / "few"
    for i in range(9):
        save(few / f"{i}.png", noise(4, 4, seed=i % 2))
    assert "for test, so one would be empty; give more images that differ" in refused(few)
    assert refused(few).startswith(f"expected examples in every split of {few}, got ")

    beside = tmp_path / "beside"
    for part in ("train", "test", "extra"):
        save(beside / part / "1.png", noise(4, 4))
    assert refused(beside) == (
        f"folder {beside} has splits (test/, train/) and extra/ beside them; "
        "move what is no split to another folder"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 8)}, r"expected a size of two positive numbers, got \(0, 8\)"),
        ({"levels": 1}, r"expected levels in \[2, 256\], got 1"),
        ({"levels": 300}, r"expected levels in \[2, 256\], got 300"),
        ({"shift": -1}, "expected shift of at least 0, got -1"),
        ({"validation": 0.0}, r"expected validation in \(0, 1\), got 0.0"),
        ({"test": 1.0}, r"expected test in \(0, 1\), got 1.0"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        ImageOptions(**options)
