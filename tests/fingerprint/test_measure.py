"""The whole fingerprint of a set whose contents are known."""

import json
import shutil

import cv2
import numpy as np
import pytest

from autoseg.fingerprint import content_hash, fingerprint_dataset, quality_checks, table
from autoseg.io import RawDataset, read_image, write_image, write_label
from autoseg.schema.fingerprint import Fingerprint
from autoseg.support.errors import SeveralProblems
from autoseg.support.files import read_artefact
from tests.fingerprint.datasets import describe, mask, picture, raw_dataset


def kinds(fingerprint):
    return {finding.kind: set(finding.cases) for finding in fingerprint.findings}


def test_statistics_equal_those_of_the_images(tmp_path):
    fingerprint = fingerprint_dataset(raw_dataset(tmp_path), workers=2)
    pixels = np.stack([picture(index) for index in range(4)]).astype(float)
    inside = np.broadcast_to(mask() > 0, (4, 60, 80))
    assert fingerprint.dataset == "Dataset501_Shapes" and fingerprint.modality == "colour" and fingerprint.dtype == "uint8"
    assert [item.name for item in fingerprint.channels] == ["R", "G", "B"]
    for index, channel in enumerate(fingerprint.channels):
        values = pixels[:, index]
        assert (channel.mean, channel.std) == pytest.approx((values.mean(), values.std()))
        assert channel.foreground_mean == pytest.approx(values[inside].mean())
        assert channel.percentiles[1] == pytest.approx(np.median(values), abs=1)
    disc, line = fingerprint.classes
    assert (disc.cases, disc.presence, disc.objects) == (4, 1.0, 1.0)
    assert disc.thickness == pytest.approx(21, abs=2) and line.thickness == pytest.approx(3, abs=1.1)
    assert disc.pixel_share == pytest.approx((mask() == 1).mean()) == disc.area_share
    assert disc.relative_thickness == pytest.approx(disc.thickness / 60)
    assert fingerprint.median_size == (60, 80) and fingerprint.median_spacing is None
    assert fingerprint.duplicates == () and fingerprint.findings == ()
    first = fingerprint.cases[0]
    assert (first.case, first.size, first.channels) == ("case0", (60, 80), 3)
    assert (first.low, first.high) == (pixels[0].min(), pixels[0].max())
    assert first.foreground_mean == pytest.approx(pixels[0][:, mask() > 0].mean(1))


def test_fingerprint_is_reused_until_something_changes(tmp_path):
    dataset = raw_dataset(tmp_path)
    first = fingerprint_dataset(dataset)
    assert read_artefact(dataset.fingerprint, Fingerprint) == first
    written = dataset.fingerprint.stat().st_mtime_ns
    assert fingerprint_dataset(dataset) == first and dataset.fingerprint.stat().st_mtime_ns == written
    describe(dataset, 4, description="words for people only")
    assert content_hash(RawDataset.open(dataset)) == first.content_hash
    hashes = {first.content_hash}
    label = dataset.raw / "labelsTr" / "case2.png"
    write_label(label, np.flipud(mask()))
    hashes.add(fingerprint_dataset(dataset).content_hash)
    write_image(dataset.raw / "imagesTr" / "case2_0000.png", picture(77))
    hashes.add(fingerprint_dataset(dataset).content_hash)
    describe(dataset, 4, groups={"case0": "p"})
    changed = fingerprint_dataset(dataset)
    hashes.add(changed.content_hash)
    assert len(hashes) == 4 and changed.cases[0].group == "p"
    assert kinds(changed)["missing_group"] == {"case1", "case2", "case3"}


def test_damaged_fingerprint_is_made_again(tmp_path):
    dataset = raw_dataset(tmp_path)
    first = fingerprint_dataset(dataset)
    dataset.fingerprint.write_text("{")
    assert fingerprint_dataset(dataset) == first == read_artefact(dataset.fingerprint, Fingerprint)


def test_faults_write_nothing(tmp_path):
    dataset = raw_dataset(tmp_path)
    for index in (1, 3):
        write_label(dataset.raw / "labelsTr" / f"case{index}.png", mask() + 3)
    with pytest.raises(SeveralProblems) as caught:
        fingerprint_dataset(dataset)
    assert len(caught.value.problems) == 2 and not dataset.preprocessed.exists()


def test_exact_and_near_duplicates(tmp_path):
    dataset = raw_dataset(tmp_path, 8)
    images, labels = dataset.raw / "imagesTr", dataset.raw / "labelsTr"
    shutil.copy(images / "case0_0000.png", images / "case4_0000.png")  # the same file, and the same mask
    cv2.imwrite(str(images / "case5_0000.png"), cv2.imread(str(images / "case1_0000.png")), [cv2.IMWRITE_PNG_COMPRESSION, 0])
    write_label(labels / "case5.png", np.flipud(mask()))
    write_image(images / "case6_0000.png", (picture(2) * 0.9 + 10).astype(np.uint8))
    fingerprint = fingerprint_dataset(dataset)
    assert fingerprint.duplicates == (("case0", "case4"), ("case1", "case5"), ("case2", "case6"))
    texts = {finding.cases: finding.text for finding in fingerprint.findings if finding.kind == "exact_duplicate"}
    assert "same file" in texts["case0", "case4"] and "same pixels" in texts["case1", "case5"]
    assert kinds(fingerprint)["near_duplicate"] == {"case2", "case6"}
    assert kinds(fingerprint)["conflicting_masks"] == {"case1", "case5"}


def test_near_duplicates_with_different_masks_are_reported(tmp_path):
    dataset = raw_dataset(tmp_path, 6)
    brighter = (picture(1) * 0.9 + 10).astype(np.uint8)
    write_image(dataset.raw / "imagesTr" / "case4_0000.png", brighter)
    assert "conflicting_masks" not in kinds(fingerprint_dataset(dataset))
    write_label(dataset.raw / "labelsTr" / "case4.png", np.fliplr(np.flipud(mask())))
    assert kinds(fingerprint_dataset(dataset))["conflicting_masks"] == {"case1", "case4"}


def test_contradictions_beyond_the_limit_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(quality_checks, "_MAX_LISTED", 2)
    dataset = raw_dataset(tmp_path, 4)
    for index in range(4):
        write_image(dataset.raw / "imagesTr" / f"case{index}_0000.png", (picture(1) * (1 - 0.05 * index)).astype(np.uint8))
    for index in (1, 3):
        write_label(dataset.raw / "labelsTr" / f"case{index}.png", np.fliplr(np.flipud(mask())))
    conflicts = [item for item in fingerprint_dataset(dataset).findings if item.kind == "conflicting_masks"]
    assert [item.cases for item in conflicts] == [("case0", "case1"), ("case0", "case3"), ()]
    assert conflicts[-1].text.startswith("2 more pairs")


def test_bit_depth_and_alpha_are_measured(tmp_path):
    dataset = raw_dataset(tmp_path, 3)
    opaque = np.dstack([*picture(0)[::-1], np.full((60, 80), 255, np.uint8)])
    cv2.imwrite(str(dataset.raw / "imagesTr" / "case0_0000.png"), opaque)
    fingerprint = fingerprint_dataset(dataset)
    assert kinds(fingerprint)["read_as"] == {"case0"} and "alpha" in fingerprint.cases[0].notes[0]
    assert dict(row for row in table.overview(fingerprint))["stored as"] == "uint8, with a constant alpha channel"
    assert {case.bits for case in fingerprint.cases} == {8}
    disc, line = fingerprint.classes
    assert disc.compactness > 0.8 > 0.4 > line.compactness > 0.1
    assert disc.object_area == (mask() == 1).sum() and disc.object_share == pytest.approx((mask() == 1).mean())


def test_masks_outside_the_content_are_found(tmp_path):
    dataset = raw_dataset(tmp_path, 3)
    framed = picture(0).copy()
    framed[:, :55] = 0
    write_image(dataset.raw / "imagesTr" / "case0_0000.png", framed)
    assert kinds(fingerprint_dataset(dataset))["mask_on_nothing"] == {"case0"}


def test_duplicates_are_reported_across_patients_only(tmp_path):
    dataset = raw_dataset(tmp_path, 6)
    for source, copy in ((0, 4), (1, 5)):
        darker = (picture(source) * 0.9).astype(np.uint8)
        write_image(dataset.raw / "imagesTr" / f"case{copy}_0000.png", darker)
    describe(dataset, 6, groups={"case0": "A", "case4": "A", "case1": "B", "case5": "C", "case2": "D", "case3": "E"})
    fingerprint = fingerprint_dataset(dataset)
    assert len(fingerprint.duplicates) == 2
    assert [finding.cases for finding in fingerprint.findings] == [("case1", "case5")]
    assert "B, C" in fingerprint.findings[0].text


def test_quality_checks_find_problems(tmp_path):
    dataset = raw_dataset(tmp_path, 6)
    images, labels = dataset.raw / "imagesTr", dataset.raw / "labelsTr"
    empty = np.zeros((60, 80), np.uint8)
    write_label(labels / "case0.png", empty)
    write_image(images / "case1_0000.png", np.full((3, 60, 80), 100, np.uint8))
    write_image(images / "case2_0000.png", np.repeat(picture(2)[:1], 3, 0))
    tiny = mask().copy()
    tiny[tiny == 2] = 0
    tiny[3, 3] = 2
    big = np.zeros((120, 100), np.uint8)
    big[3, 3] = 1
    write_label(labels / "case3.png", tiny)
    write_image(images / "case4_0000.png", picture(4, (120, 100)))
    write_label(labels / "case4.png", big)
    describe(dataset, 9, labels={"background": 0, "disc": 1, "line": 2, "never": 3})
    fingerprint = kinds(fingerprint_dataset(dataset))
    assert fingerprint["empty_mask"] == {"case0"}
    assert fingerprint["blank_image"] == {"case1"}
    assert fingerprint["mixed_gray"] == {"case1", "case2"}
    assert fingerprint["specks"] == {"case3", "case4"}
    assert fingerprint["tiny_objects"] == {"case4"}
    assert "absent_class" in fingerprint and "case_count" in fingerprint


def test_gray_stored_as_rgb(tmp_path):
    dataset = raw_dataset(tmp_path, 3)
    for index in range(3):
        write_image(dataset.raw / "imagesTr" / f"case{index}_0000.png", np.repeat(picture(index)[:1], 3, 0))
    fingerprint = fingerprint_dataset(dataset)
    assert fingerprint.gray_as_rgb and fingerprint.modality == "gray" and not kinds(fingerprint)


def test_regions_ignore_label_spacing_and_16_bit(tmp_path):
    dataset = raw_dataset(tmp_path, 0)
    labels = {"background": 0, "all": (1, 2), "line": 2, "ignore": 3}
    describe(dataset, 2, labels=labels, regions_class_order=(1, 2), channel_names={"0": "MR", "1": "T2"}, file_ending=".nii.gz")
    from autoseg.io import Image

    label = mask()
    label[55:, :] = 3
    for index in range(2):
        for channel in range(2):
            pixels = picture(index)[channel : channel + 1].astype(np.uint16) * 20
            path = dataset.raw / "imagesTr" / f"c{index}_{channel:04d}.nii.gz"
            write_image(path, pixels, Image(array=pixels, spacing=(0.5 + index, 1.0)))
        write_label(dataset.raw / "labelsTr" / f"c{index}.nii.gz", label, read_image(path))
    fingerprint = fingerprint_dataset(dataset)
    assert fingerprint.dtype == "uint16" and fingerprint.modality == "mr"
    assert fingerprint.median_spacing == pytest.approx((1.0, 1.0))
    sizes = {item.name: item.pixel_share * label.size for item in fingerprint.classes}
    assert sizes == pytest.approx({"all": ((label == 1) | (label == 2)).sum(), "line": (label == 2).sum()})
    inside = np.stack([picture(index)[0] for index in range(2)])[:, (label == 1) | (label == 2)] * 20.0
    assert fingerprint.channels[0].foreground_mean == pytest.approx(inside.mean())


def test_constant_borders(tmp_path):
    dataset = raw_dataset(tmp_path, 2)
    framed = np.zeros((3, 60, 80), np.uint8)
    framed[:, 15:45, 20:60] = picture(0)[:, 15:45, 20:60]
    write_image(dataset.raw / "imagesTr" / "case0_0000.png", framed)
    fingerprint = fingerprint_dataset(dataset)
    assert [case.border for case in fingerprint.cases] == pytest.approx([0.75, 0.0], abs=0.02)


def test_tables_contain_the_numbers(tmp_path):
    fingerprint = fingerprint_dataset(raw_dataset(tmp_path))
    assert ("size", "60 x 80 (from 60 x 80 to 60 x 80)") in table.overview(fingerprint)
    for rows, names in ((table.channels(fingerprint), ["R", "G", "B"]), (table.classes(fingerprint), ["disc", "line"])):
        assert [row[0] for row in rows[1:]] == names
        assert {len(row) for row in rows} == {len(rows[0])}
    assert table.findings(fingerprint) == []


def test_fingerprint_file_is_plain_json(tmp_path):
    dataset = raw_dataset(tmp_path)
    fingerprint_dataset(dataset)
    content = json.loads(dataset.fingerprint.read_text())
    assert content["schema_version"] == Fingerprint.VERSION and len(content["cases"]) == 4
