from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from autoseg.preprocessing.array_dataset import SAMPLES, ArrayDataset, array_writer, preprocessing_hash, sample_foreground
from autoseg.schema.plan import PreprocessingConfig
from autoseg.support.errors import AutosegError


def make_config(dtype: str = "uint8", channels: int = 3) -> PreprocessingConfig:
    return PreprocessingConfig(key="patch_native", geometry="patch", dtype=dtype, channels=channels)  # type: ignore[arg-type]


def cases(dtype: str = "uint8", channels: int = 3) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(1)
    cases_by_name = {}
    for i in range(5):
        shape = (20 + i, 31 - 2 * i)
        label = random.integers(0, 4, shape).astype(np.uint8) if i else np.zeros(shape, np.uint8)
        cases_by_name[f"case_{i}"] = (random.integers(0, 250, (*shape, channels)).astype(dtype), label)
    return cases_by_name


def write(folder: Path, dtype: str = "uint8", channels: int = 3, content: str = "abc", ignore: int | None = None) -> None:
    with array_writer(folder, make_config(dtype, channels), content, ignore) as writer:
        for name, (image, label) in cases(dtype, channels).items():
            writer.add(name, image, label, (2 * image.shape[0], 2 * image.shape[1]))


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint16", 1), ("float32", 5)])
def test_written_arrays_are_read_back(tmp_path: Path, dtype: str, channels: int) -> None:
    write(tmp_path / "s", dtype, channels)
    store = ArrayDataset.open(tmp_path / "s", preprocessing_hash(make_config(dtype, channels), "abc"))
    assert store.cases == tuple(cases())
    with ThreadPoolExecutor(4) as pool:
        images = dict(zip(store.cases, pool.map(store.image, store.cases), strict=True))
    for name, (image, label) in cases(dtype, channels).items():
        assert images[name].dtype == np.dtype(dtype)
        np.testing.assert_array_equal(images[name], image)
        np.testing.assert_array_equal(store.label(name), label)
        assert store.shape(name) == image.shape
        assert store.original_size(name) == (2 * image.shape[0], 2 * image.shape[1])


def test_arrays_are_plain_read_only_npy_files(tmp_path: Path) -> None:
    write(tmp_path / "s")
    store = ArrayDataset.open(tmp_path / "s")
    assert np.load(tmp_path / "s" / "labels.npy").size == sum(label.size for _, label in cases().values())
    with pytest.raises(ValueError, match="read-only"):
        store.image("case_1")[0, 0, 0] = 1


def test_foreground_samples_are_pixels_of_their_class(tmp_path: Path) -> None:
    write(tmp_path / "s", ignore=3)
    store = ArrayDataset.open(tmp_path / "s")
    assert store.foreground("case_0") == {}
    for name in store.cases[1:]:
        samples = store.foreground(name)
        assert set(samples) == {1, 2}
        for value, points in samples.items():
            label = store.label(name)
            assert np.all(label[points[:, 0], points[:, 1]] == value)
            assert len(points) == min(SAMPLES, (label == value).sum())


def test_foreground_samples_are_distinct_and_evenly_spread() -> None:
    label = np.zeros((400, 300), np.uint8)
    label[50:350, 20:280] = 7
    points = sample_foreground(label)[7]
    assert points.shape == (SAMPLES, 2) and len(np.unique(points, axis=0)) == SAMPLES
    assert points[:, 0].min() == 50 and points[:, 0].max() == 349
    assert abs(points[:, 0].mean() - 199.5) < 3 and abs(points[:, 1].mean() - 149.5) < 25


def test_arrays_without_foreground_open(tmp_path: Path) -> None:
    with array_writer(tmp_path / "s", make_config(channels=1), "x") as writer:
        writer.add("blank", np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5), np.uint8), (4, 5))
    assert ArrayDataset.open(tmp_path / "s").foreground("blank") == {}


def test_failed_write_keeps_the_old_arrays(tmp_path: Path) -> None:
    write(tmp_path / "s")
    with pytest.raises(RuntimeError), array_writer(tmp_path / "s", make_config(), "new") as writer:
        writer.add("one", np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8), (4, 5))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert len(ArrayDataset.open(tmp_path / "s", preprocessing_hash(make_config(), "abc")).cases) == 5


def test_outdated_missing_and_damaged_arrays_raise(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with pytest.raises(AutosegError, match="no preprocessed data"):
        ArrayDataset.open(folder)
    write(folder)
    for other in (preprocessing_hash(make_config(), "changed"), preprocessing_hash(make_config("uint16"), "abc")):
        with pytest.raises(AutosegError, match=r"made from other images(.|\n)*autoseg_plan_and_preprocess"):
            ArrayDataset.open(folder, other)
    with pytest.raises(AutosegError, match="did you mean 'case_2'"):
        ArrayDataset.open(folder).image("case2")
    content = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(content[:-10])
    with pytest.raises(AutosegError, match="damaged"):
        ArrayDataset.open(folder)
    (folder / "images.npy").write_bytes(content)
    index = json.loads((folder / "index.json").read_text())
    for damage in ({**index, "sizes": [1, 2, 3]}, {"cases": {}}, {**index, "cases": {"a": {}}}, []):
        (folder / "index.json").write_text(json.dumps(damage))
        with pytest.raises(AutosegError, match=r"incomplete|index.json: (identity is missing|cases\.|expected an object)"):
            ArrayDataset.open(folder)


def zeros_in_the_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(64) + content[middle + 64 :]


def flipped_bit(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 4]) + content[-2:]


DAMAGE = {
    "empty": lambda content: b"",
    "header only": lambda content: content[:128],
    "truncated": lambda content: content[:-10],
    "longer": lambda content: content + b"more",
    "zeros": zeros_in_the_middle,
    "one bit": flipped_bit,
    "another file": lambda content: b"\x93NUMPY" + b"x" * 500,
    "a zip": lambda content: b"PK\x03\x04" + bytes(200),
}


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "foreground.npy"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_changed_content_is_found(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "s"
    write(folder)
    assert ArrayDataset.open(folder, verify=True).cases
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(DAMAGE[damage](content))
    assert (folder / name).read_bytes() != content
    with pytest.raises(AutosegError, match=rf"damaged: .*{name}"):
        ArrayDataset.open(folder, verify=True)
    (folder / name).unlink()
    with pytest.raises(AutosegError, match=rf"damaged: .*{name}"):
        ArrayDataset.open(folder, verify=True)


def test_places_of_other_cases_are_found(tmp_path: Path) -> None:
    """Offsets that exist, of another case: every label map would lie over the wrong image."""
    write(tmp_path / "s")
    path = tmp_path / "s" / "index.json"
    index = json.loads(path.read_text())
    cases_in_index = index["cases"]
    cases_in_index["case_1"]["label"], cases_in_index["case_2"]["label"] = 5, 9
    path.write_text(json.dumps(index))
    with pytest.raises(AutosegError, match=r"damaged: index\.json changed"):
        ArrayDataset.open(tmp_path / "s", verify=True)


@pytest.mark.parametrize(("field", "value"), [("image", 10**6), ("label", 10**6), ("shape", [2000, 2000, 3])])
def test_places_outside_the_arrays_are_named(tmp_path: Path, field: str, value: object) -> None:
    write(tmp_path / "s")
    path = tmp_path / "s" / "index.json"
    index = json.loads(path.read_text())
    index["cases"]["case_3"][field] = value
    path.write_text(json.dumps(index))
    with pytest.raises(AutosegError, match=r"index\.json: cases\.case_3: ends outside the arrays"):
        ArrayDataset.open(tmp_path / "s")
