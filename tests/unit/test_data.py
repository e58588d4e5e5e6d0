"""Sources, splits that do not leak, odd files, and files that take the place of memory."""

import errno
import gzip
import hashlib
import itertools
import json
import re
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from ancestral.data import ImageOptions, augment, fashion_mnist, load, load_data, store
from ancestral.errors import UserError

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
    assert a == a.__class__(**{**vars(b), **{name: getattr(a, name) for name in SPLITS}})


def with_odd_files(folder):
    (folder / "ants" / "00a.png").write_text("no image")
    (folder / "cats" / "99.png").touch()


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
    same(load_data(str(folder), ImageOptions(flip=True, shift=2), tmp_path / "cache"), expected)
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
            match=r"expected 1,05\d,\d{3} bytes free in .* for 60 images of \(1, 6, 5\), got 1,000 bytes free; free some",
        ):
            load_data(str(folder), OPTIONS, tmp_path / "cache")

    def full(file, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(store, "_write", full)
        with pytest.raises(UserError, match=r"expected 1,05\d,\d{3} bytes free .* got a full disk"):
            load_data(str(folder), OPTIONS, tmp_path / "cache")
    assert len(load_data(str(folder), OPTIONS, tmp_path / "cache").train) == 51


# augmentation


def test_flips_and_shifts_are_crops_of_the_padded_image_or_its_mirror():
    x = torch.from_numpy(noise(300, 3, 6, 5))
    options = ImageOptions(flip=True, shift=2)
    y = augment(x, options, torch.Generator().manual_seed(0))
    assert torch.equal(y, augment(x, options, torch.Generator().manual_seed(0)))
    assert not torch.equal(y, augment(x, options, torch.Generator().manual_seed(1)))
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
    assert augment(x, OPTIONS, generator) is x
    flipped = augment(x, ImageOptions(flip=True), generator)
    is_flipped = (flipped == x.flip(-1)).all(-1).all(-1).all(-1)
    assert torch.equal(flipped[~is_flipped], x[~is_flipped])
    assert 16 < int(is_flipped.sum()) < 48  # four standard deviations
    assert augment(x, ImageOptions(shift=1), generator).dtype == torch.uint8


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
        match=r"cannot load a/b from the Hub \(ConnectionError: Couldn't reach the Hub\); check the name and the network",
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
    with pytest.raises(UserError, match="choose from digits, fashion-mnist, hub:OWNER/NAME"):
        load_data("xyzzy", OPTIONS)
    with pytest.raises(
        UserError,
        match=re.escape(f"there is no folder ./cats (looked for {tmp_path / 'cats'}); check the path"),
    ):
        load_data("./cats", OPTIONS)
    with pytest.raises(UserError, match="no data set ''"):
        load_data("", OPTIONS)
    save(tmp_path / "cat.png", noise(4, 4))
    with pytest.raises(UserError, match=r"expected a folder of images, got the file cat\.png"):
        load_data("cat.png", OPTIONS)


def test_folders_that_cannot_be_used(tmp_path):
    def refused(folder, options=OPTIONS):
        with pytest.raises(UserError) as caught:
            load_data(str(folder), options)
        return str(caught.value)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(empty) == (
        f"folder {empty} holds no images (looked for .png .jpg .jpeg .webp .bmp .tiff .tif .gif); check the path"
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
    assert (
        refused(beside)
        == f"folder {beside} has splits (test/, train/) and extra/ beside them; move what is no split to another folder"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 8)}, r"expected a size of two positive numbers, got \(0, 8\)"),
        ({"levels": 1}, "expected 2..256 levels, got 1"),
        ({"levels": 300}, "expected 2..256 levels, got 300"),
        ({"shift": -1}, "expected a shift of 0 or more pixels, got -1"),
        ({"validation": 0.0}, "expected a validation share between 0 and 1, got 0.0"),
        ({"test": 1.0}, "expected a test share between 0 and 1, got 1.0"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        ImageOptions(**options)
