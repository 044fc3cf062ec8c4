from __future__ import annotations

import numpy as np
import pytest

from autoseg.omnimodel.answers import EchoedImage, UnreadableAnswer, read_answer
from autoseg.omnimodel.reader import merge_masks
from autoseg.schema.dataset import LabelScheme, label_scheme
from tests.omnimodel.conftest import bright_box
from tests.omnimodel.mock_server import draw_answer, png

IMAGE, MASK = bright_box()


@pytest.mark.parametrize("style", ["mask", "inverted", "coloured", "overlay"])
def test_every_style_of_drawing_gives_the_same_mask(style: str) -> None:
    answer = read_answer(png(draw_answer(IMAGE, style)), IMAGE)
    np.testing.assert_array_equal(answer.mask, MASK == 1)
    assert answer.notes == (() if style == "mask" else (style,))


def test_transparency_is_background() -> None:
    picture = np.full((48, 64, 4), 255, np.uint8)
    picture[..., 3] = MASK * 255
    np.testing.assert_array_equal(read_answer(png(picture), IMAGE).mask, MASK == 1)


def test_an_empty_mask_stays_empty_with_either_threshold() -> None:
    faint = np.random.default_rng(0).integers(0, 30, (48, 64), np.uint8)
    assert not read_answer(png(faint), IMAGE, "fixed").mask.any()
    assert not read_answer(png(faint), IMAGE, "otsu").mask.any()


def test_otsu_finds_a_dark_gray_drawing() -> None:
    picture = (MASK * 90 + 10).astype(np.uint8)
    assert not read_answer(png(picture), IMAGE, "fixed").mask.any()
    np.testing.assert_array_equal(read_answer(png(picture), IMAGE, "otsu").mask, MASK == 1)


def test_the_sent_image_is_not_a_mask() -> None:
    with pytest.raises(EchoedImage):
        read_answer(png(IMAGE), IMAGE)
    gray = np.repeat(IMAGE[..., :1], 3, axis=2)
    with pytest.raises(EchoedImage):
        read_answer(png(gray[..., 0]), gray)


def test_bytes_that_are_not_an_image() -> None:
    with pytest.raises(UnreadableAnswer):
        read_answer(b"\x89PNG and then nothing", IMAGE)


def test_a_stretched_picture_is_noted() -> None:
    square = np.asarray(draw_answer(IMAGE, "mask"))[:, :48]
    assert read_answer(png(square), IMAGE).notes == ("resized", "stretched")


def test_the_inner_structure_wins() -> None:
    outer, inner = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    outer[1:7, 1:7], inner[3:5, 3:5] = True, True
    scheme = label_scheme({"background": 0, "muscle": 1, "cavity": 2}, None)
    labels = merge_masks({"cavity": inner, "muscle": outer}, scheme)
    assert (labels == 2).sum() == 4 and (labels == 1).sum() == 32


def test_regions_are_painted_in_their_order() -> None:
    whole, core = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    whole[:], core[1:3, 1:3] = True, True
    scheme: LabelScheme = label_scheme({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))
    labels = merge_masks({"whole": whole, "core": core}, scheme)
    assert labels[0, 0] == 1 and labels[1, 1] == 2
