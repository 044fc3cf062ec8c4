"""Fingerprints of datasets without files: the values that rules read can be set, the others are plausible."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import CaseFingerprint, ChannelStatistics, ClassInCase, ClassStatistics, Fingerprint


@dataclass(frozen=True)
class FakeDataset:
    """classes: name -> thickness in pixels. presence: name -> fraction of cases with it (default 1)."""

    cases: int = 50
    size: tuple[int, int] = (400, 400)
    channels: int = 3
    dtype: str = "uint8"
    modality: str = "colour"
    classes: dict[str, float] = field(default_factory=lambda: {"lesion": 80.0})
    presence: dict[str, float] = field(default_factory=dict)
    share: float = 0.05
    spacings: tuple[tuple[float, float], ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    groups: dict[int, str] = field(default_factory=dict)
    duplicates: tuple[tuple[int, ...], ...] = ()
    gray_as_rgb: bool = False
    highs: tuple[float, ...] = (255.0,)
    labels: dict[str, Any] = field(default_factory=dict)
    regions_class_order: tuple[int, ...] | None = None

    @property
    def spec(self) -> DatasetSpec:
        labels = self.labels or {"background": 0, **{name: k + 1 for k, name in enumerate(self.classes)}}
        return DatasetSpec(
            channel_names={str(k): f"c{k}" for k in range(self.channels)},
            labels=labels,
            numTraining=self.cases,
            file_ending=".png",
            regions_class_order=self.regions_class_order,
        )

    @property
    def fingerprint(self) -> Fingerprint:
        spacing = self.spacings[len(self.spacings) // 2] if self.spacings else None
        channel = ChannelStatistics(
            name="c",
            mean=100.0,
            std=40.0,
            percentiles=(2.0, 90.0, 240.0),
            foreground_mean=120.0,
            foreground_std=30.0,
            foreground_percentiles=(20.0, 118.0, 200.0),
        )
        return Fingerprint(
            dataset="Dataset501_Made",
            content_hash="0" * 64,
            modality=self.modality,
            evidence="made",
            gray_as_rgb=self.gray_as_rgb,
            dtype=self.dtype,
            channels=(channel,) * self.channels,
            classes=tuple(self._class(name) for name in self.classes),
            cases=tuple(self._case(k) for k in range(self.cases)),
            median_size=self.size,
            median_spacing=spacing,
            duplicates=tuple(tuple(case_name(k) for k in cluster) for cluster in self.duplicates),
        )

    def _num_cases(self, name: str) -> int:
        return round(self.presence.get(name, 1.0) * self.cases)

    def _class(self, name: str) -> ClassStatistics:
        num_cases, thickness = self._num_cases(name), self.classes[name]
        share = self.share / len(self.classes)
        return ClassStatistics(
            name=name,
            cases=num_cases,
            presence=num_cases / self.cases,
            pixel_share=share,
            area_share=share,
            objects=1.0,
            thickness=thickness,
            relative_thickness=thickness / min(self.size),
        )

    def _case(self, k: int) -> CaseFingerprint:
        size = self.sizes[k % len(self.sizes)] if self.sizes else self.size
        class_pixels = {}
        for name, thickness in self.classes.items():
            pixels = (k % 7 + 1) * 100 if k < self._num_cases(name) else 0
            class_pixels[name] = ClassInCase(
                pixels=pixels, objects=int(pixels > 0), largest=pixels, thickness=thickness if pixels else 0.0
            )
        return CaseFingerprint(
            case=case_name(k),
            size=size,
            channels=self.channels,
            dtype=self.dtype,
            spacing=self.spacings[k % len(self.spacings)] if self.spacings else None,
            file_hash=f"f{k}",
            pixel_hash=f"p{k}",
            low=0.0,
            high=self.highs[k % len(self.highs)],
            border=0.0,
            classes=class_pixels,
            group=self.groups.get(k, ""),
        )


def case_name(k: int) -> str:
    return f"case_{k:03d}"
