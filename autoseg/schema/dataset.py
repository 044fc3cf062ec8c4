"""Description of a raw dataset: nnU-Net v2's `dataset.json` with a few optional fields of autoseg."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, permutations

from autoseg.schema.artefact import Artefact
from autoseg.schema.limits import Count, FileName, LabelNumber

LabelValue = LabelNumber | tuple[LabelNumber, ...]
# A channel of this name keeps its values, as in nnU-Net (compared without regard to case).
NO_NORMALISATION = "nonorm"
_MOST_PERMUTED = 6


@dataclass(frozen=True, kw_only=True)
class LabelScheme:
    """Which values a label map may hold and what the network's outputs mean.

    names: one per output. Plain classes: background first, output k is label value k, softmax. Regions: no background,
    output k is the union of `members[k]`, sigmoid. members: label values of each output. ignore: a value that is
    neither learned nor scored. paint: for regions, the value each output writes, later ones over earlier ones.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    regions: bool = False
    ignore: int | None = None
    paint: tuple[int, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of logit maps."""
        return len(self.names)

    @property
    def foreground(self) -> dict[str, tuple[int, ...]]:
        """Name -> label values of everything that is scored."""
        pairs = list(zip(self.names, self.members, strict=True))
        return dict(pairs if self.regions else pairs[1:])

    @property
    def values(self) -> tuple[int, ...]:
        """All valid values of a label map, sorted."""
        labels = {0} | {value for member in self.members for value in member}
        return tuple(sorted(labels | ({self.ignore} if self.ignore is not None else set())))


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Artefact):
    """`dataset.json`. channel_names: index -> name; labels: name -> value, or values for a region.

    groups: case -> patient (or any other unit that must not be split). independent_cases: the user says that each case is of
    another patient. Field names are nnU-Net v2's where it has them.
    Files of nnU-Net name no version.
    """

    NAME = "dataset"
    VERSION = 1
    UNMARKED = True

    channel_names: dict[str, str]
    labels: dict[FileName, LabelValue]
    numTraining: Count  # noqa: N815 (nnU-Net's spelling)
    file_ending: str
    name: str = ""
    regions_class_order: tuple[LabelNumber, ...] | None = None
    groups: dict[FileName, str] = field(default_factory=dict)
    modality: str = ""
    licence: str = ""
    reference: str = ""
    description: str = ""
    independent_cases: bool = False

    def problems(self) -> Iterator[str]:
        """Labels that contradict each other."""
        try:
            self.label_scheme()
        except ValueError as error:
            yield f"labels: {error}"

    def label_scheme(self) -> LabelScheme:
        """The outputs these labels ask for. Raises ValueError if the labels are contradictory."""
        return label_scheme(self.labels, self.regions_class_order)


def label_scheme(labels: Mapping[str, LabelValue], order: tuple[int, ...] | None) -> LabelScheme:
    """nnU-Net's label dictionary as outputs. Raises ValueError naming the fault."""
    entries = dict(labels)
    ignore = entries.pop("ignore", None)
    if ignore is not None and not isinstance(ignore, int):
        raise ValueError(f"the ignore label must be one value, not {ignore}")
    if entries.get("background") not in (0, (0,)):
        raise ValueError('labels must hold "background": 0')
    if any(isinstance(value, tuple) and len(value) != 1 for value in entries.values()):
        return _regions(entries, order, ignore)
    plain = {name: value if isinstance(value, int) else value[0] for name, value in entries.items()}
    names = sorted(plain, key=lambda name: plain[name])
    values = [plain[name] for name in names]
    if values != list(range(len(values))) or len(values) < 2:
        raise ValueError(f"label values must be 0, 1, 2, ... without gaps and at least two of them, found {values}")
    if ignore is not None and ignore != len(values):
        raise ValueError(f"the ignore label must be the highest value plus one ({len(values)}), found {ignore}")
    return LabelScheme(names=tuple(names), members=tuple((value,) for value in values), ignore=ignore)


def _regions(entries: dict[str, LabelValue], order: tuple[int, ...] | None, ignore: int | None) -> LabelScheme:
    names = [name for name in entries if name != "background"]
    if order is None or len(order) != len(names):
        raise ValueError(f"regions need regions_class_order with one value for each of {names}")
    members = [value if isinstance(value, tuple) else (value,) for value in (entries[name] for name in names)]
    empty = [name for name, values in zip(names, members, strict=True) if not values]
    if empty:
        raise ValueError(f"the region {empty[0]} has no values")
    _check_paint(names, members, order)
    return LabelScheme(names=tuple(names), members=tuple(members), regions=True, ignore=ignore, paint=tuple(order))


def _check_paint(names: Sequence[str], members: Sequence[tuple[int, ...]], order: Sequence[int]) -> None:
    """Raises ValueError if perfect regions do not give the label values back, with an order that does.

    Each region paints its value of `order`, later ones over earlier ones. The value that is painted last where a value lies
    must lie in exactly the same regions.
    """
    regions = {value: {index for index, member in enumerate(members) if value in member} for value in chain(*members)}
    wrong = [value for value, inside in sorted(regions.items()) if regions.get(order[max(inside)]) != inside]
    if not wrong:
        return
    became = order[max(regions[wrong[0]])]
    fault = f"regions_class_order {list(order)} cannot give the regions back: the value {wrong[0]} would become {became}"
    for listing in _listings(members):
        paint = _paint(listing, members, regions)
        if paint is not None:
            listed = "" if listing == sorted(listing) else f", with labels in the order {', '.join(names[i] for i in listing)}"
            raise ValueError(f"{fault}; this works: {paint}{listed}")
    raise ValueError(f"{fault}; no order can, since regions overlap without one inside the other")


def _listings(members: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Orders of the regions to try: as listed, the largest first, and all of a few."""
    yield list(range(len(members)))
    yield sorted(range(len(members)), key=lambda index: -len(members[index]))
    if len(members) <= _MOST_PERMUTED:
        yield from map(list, permutations(range(len(members))))


def _paint(listing: list[int], members: Sequence[tuple[int, ...]], regions: Mapping[int, set[int]]) -> list[int] | None:
    """The value that each region paints, in the order of `listing`; None if the regions cannot be painted so."""
    place = {region: position for position, region in enumerate(listing)}
    paint = []
    for region in listing:
        last = [value for value, inside in sorted(regions.items()) if max(inside, key=place.__getitem__) == region]
        if any(regions[value] != regions[last[0]] for value in last):
            return None
        paint.append(last[0] if last else min(members[region]))
    return paint
