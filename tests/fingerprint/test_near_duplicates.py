"""Copies are found whatever was done to the file; pictures that only share a layout, or are flat, are left alone."""

import tracemalloc

import cv2
import numpy as np
import pytest

from autoseg.fingerprint import near_duplicates
from autoseg.fingerprint.near_duplicates import _PairList, compare, connected_groups, thumbnail


def scene(seed, side=128, layout=None):
    """Blobs of all sizes, as pictures have them, on a common layout if one is given; (H, W) uint8."""
    rng = np.random.default_rng(seed)
    soft = np.zeros((side, side), np.float32)
    for size in (40, 20, 10, 5):
        layer = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), side / size)
        soft += layer / layer.std() * (40 / size) ** 0.5
    picture = 128 + 40 * soft / soft.std()
    if layout is not None:
        picture = np.where(layout > 0, 0.25 * (picture - 128) + layout, 5)
    return picture.clip(0, 255).astype(np.uint8)


def disc(side=128):
    layout = np.zeros((side, side), np.float32)
    cv2.circle(layout, (side // 2, side // 2), side // 2 - 6, 150, -1)
    return layout


def alike(pictures):
    return compare([thumbnail(picture[None] if picture.ndim == 2 else picture) for picture in pictures])


CHANGES = {
    "recompressed": lambda p: cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 0),
    "halved": lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter": lambda p: (p * 0.8 + 40).astype(np.uint8),
    "gamma": lambda p: (255 * (p / 255.0) ** 0.7).astype(np.uint8),
    "blurred": lambda p: cv2.GaussianBlur(p, (0, 0), 1.5),
    "as floats": lambda p: p.astype(np.float32) * 13 - 1000,
    "as colours": lambda p: np.stack([p] * 3),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("others", [0, 30])
def test_a_changed_copy_is_the_same_picture(change, others):
    pictures = [scene(seed, layout=disc()) for seed in range(2 + others)]
    similar = alike([*pictures, CHANGES[change](pictures[0])])
    assert similar.same == ((0, len(pictures)),)


@pytest.mark.parametrize("number", [2, 12, 60])
def test_one_layout_does_not_make_one_picture(number):
    pictures = [scene(seed, layout=disc()) for seed in range(number)]
    similar = alike(pictures)
    assert similar.same == () and similar.scene == ()


def test_flat_images_are_like_nothing():
    flat = [np.full((64, 64), value, np.uint8) for value in (0, 0, 90, 255)]
    nearly = np.full((64, 64), 100, np.uint8)
    nearly[3, 3] = 101
    assert thumbnail(nearly[None]) is None
    similar = alike([*flat, nearly, scene(1), scene(2)])
    assert similar.same == () and similar.scene == ()


def test_frames_of_one_recording_are_a_scene_or_the_same():
    pictures = [scene(seed) for seed in range(40)]
    frame = np.roll(pictures[7], (2, 2), (0, 1)).astype(np.float32)
    frame = (0.85 * frame + 0.15 * scene(1000)).astype(np.uint8)
    similar = alike([*pictures, frame])
    assert (7, 40) in (*similar.same, *similar.scene)
    assert len(similar.same) + len(similar.scene) == 1


def test_a_set_that_is_all_one_scene_is_not_tied_together():
    base = scene(0).astype(np.float32)
    pictures = [(0.7 * base + 0.3 * scene(seed)).astype(np.uint8) for seed in range(1, 31)]
    pictures += [scene(seed) for seed in range(100, 130)]
    assert alike(pictures).scene == ()


def plain(thumbnails):
    """The same by all pairs at once, in memory: pairs that are the same picture, and that are one scene."""
    places = [place for place, small in enumerate(thumbnails) if small is not None]
    small = np.stack([thumbnails[place].ravel() for place in places])
    details = np.stack([near_duplicates._detail(thumbnails[place]) for place in places]).astype(np.float64)
    alike, far = details @ details.T >= 0.9, np.zeros((len(places), len(places)), bool)
    if len(places) >= 20:
        centred = details - details.mean(0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        some = centred[np.linspace(0, len(places) - 1, min(len(places), 1000)).astype(int)]
        usual = (some @ some.T)[np.triu_indices(len(some), 1)]
        middle = np.median(usual)
        likeness = centred @ centred.T
        alike |= likeness >= 0.75
        far = (likeness - middle) / (1.4826 * np.median(np.abs(usual - middle))) >= 6
    far &= ~alike & (small @ small.T >= 0.9)
    pairs = [np.argwhere(np.triu(chosen, 1)) for chosen in (alike, far)]
    return tuple([(places[one], places[other]) for one, other in similar] for similar in pairs)


def drawn(number, seed=0):
    """Thumbnails of soft noise on one layout, with copies, scenes and flat images among them."""
    rng = np.random.default_rng(seed)

    def noise(blur):
        return cv2.GaussianBlur(rng.normal(0, 1, (32, 32)).astype(np.float32), (0, 0), blur)

    layout, thumbnails = noise(3), []
    for index in range(number):
        small = 5 * noise(1.5) + layout
        if index % 11 == 3 and index > 30 and thumbnails[index // 2] is not None:
            small = thumbnails[index // 2] + rng.uniform(0, 0.03) * rng.normal(0, 1, (32, 32)).astype(np.float32)
        elif index % 13 == 4:
            small = noise(2) if index < 500 or thumbnails[index % 500] is None else thumbnails[index % 500] + 0.02 * noise(1.2)
        small = small - small.mean()
        thumbnails.append(None if index % 37 == 5 else (small / np.linalg.norm(small)).astype(np.float32))
    return thumbnails


@pytest.mark.parametrize("number", [2, 15, 40, 700, 1300])
def test_pairs_are_those_of_a_plain_comparison(number):
    thumbnails = drawn(number)
    same, scene = plain(thumbnails)
    similar = compare(thumbnails)
    assert list(similar.same) == same and list(similar.scene) == scene
    assert number < 1000 or (len(same) > 20 and len(scene) > 5)


def test_images_known_to_be_equal_make_no_pairs():
    thumbnails = drawn(200)
    every = compare(thumbnails).same
    one, other = every[0]
    keys = [str(place) for place in range(200)]
    keys[other] = keys[one]
    assert compare(thumbnails, keys).same == every[1:]


def test_a_set_that_is_one_picture_keeps_no_square_of_its_number(monkeypatch):
    base = drawn(1)[0]
    rng = np.random.default_rng(0)
    copies = [base + 0.002 * rng.normal(0, 1, (32, 32)).astype(np.float32) for _ in range(600)]
    every = compare(copies).same
    monkeypatch.setattr(near_duplicates, "_PairList", lambda items: _PairList(items, 1000))
    similar = compare(copies).same
    assert len(similar) < 1600 < len(every) <= 600 * 599 // 2
    assert connected_groups(similar) == connected_groups(every) == [tuple(range(600))]
    assert compare([base] * 600, ["one"] * 600).same == ()


def test_memory_does_not_grow_with_the_images():
    rng = np.random.default_rng(5)
    tracemalloc.start()
    try:
        with near_duplicates.ThumbnailIndex() as gallery:
            for _ in range(3000):
                small = rng.normal(0, 1, (32, 32)).astype(np.float32)
                gallery.add((small - small.mean()) / np.linalg.norm(small - small.mean()))
            held, _ = tracemalloc.get_traced_memory()
            gallery.find_similar(map(str, range(3000)))
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Thumbnails and details alone are 24 MB.
    assert held < 1.5e6 and peak < 12e6


def pairs_of(seed, items, number):
    pairs = np.sort(np.random.default_rng(seed).integers(0, items, (number, 2)), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


@pytest.mark.parametrize(("items", "number", "most"), [(30, 12, 50), (30, 100, 7), (200, 180, 0), (60, 2000, 40)])
def test_groups_are_those_of_all_pairs(items, number, most):
    pairs = pairs_of(items, items, number)
    pair_list, names = _PairList(items, most), np.arange(items) * 2
    for some in np.array_split(pairs, 5):
        pair_list.add(some)
    reduced, every = pair_list.with_names(names), [(2 * one, 2 * other) for one, other in pairs.tolist()]
    assert connected_groups(reduced) == connected_groups(every)
    assert set(reduced) <= set(every) and list(reduced) == sorted(set(reduced))
    assert len(reduced) <= most + items and (len(every) > most or list(reduced) == every)


def test_pairs_that_are_not_asked_for_connect_nothing_new():
    pairs = pairs_of(1, 40, 200)
    pair_list = _PairList(40, 0)
    for some in np.array_split(pairs, 9):
        pair_list.add(some[pair_list.may_connect(some[:, 0], some[:, 1])])
    reduced = pair_list.with_names(np.arange(40))
    assert connected_groups(reduced) == connected_groups(map(tuple, pairs.tolist()))
    assert len(reduced) < 80 < len(pairs)
    pair_list.add(pairs)
    assert not pair_list.may_connect(pairs[:, 0], pairs[:, 1]).any()


def test_groups_are_transitive():
    assert connected_groups([(4, 2), (7, 9), (2, 1)]) == [(1, 2, 4), (7, 9)]
    assert connected_groups([("b", "d"), ("a", "d"), ("c", "e")]) == [("a", "b", "d"), ("c", "e")]
    assert connected_groups([]) == []


def test_the_order_of_many_images_changes_nothing():
    """More images than the sample holds: it is drawn by their keys, and the mean is exact."""
    rng = np.random.default_rng(0)
    thumbnails = [thumbnail(rng.normal(100, 20, (1, 32, 32)).astype(np.float32)) for _ in range(1100)]
    keys = [f"{number:08x}" for number in rng.permutation(1100)]
    found = []
    for order in (range(1100), rng.permutation(1100)):
        with near_duplicates.ThumbnailIndex() as index:
            for place in order:
                index.add(thumbnails[place])
            index._fill_details()
            mean = (index._sum / 1100).astype(np.float32)
            found.append((index._sum, index._similarity_statistics(mean, [keys[place] for place in order])))
    assert (found[0][0] == found[1][0]).all() and found[0][1] == pytest.approx(found[1][1], rel=1e-6)
