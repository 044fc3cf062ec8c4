"""Position of each case in the cached features of a frozen encoder: `index.json` next to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoseg.schema.artefact import Artefact
from autoseg.schema.limits import FileName, Positive, Side


@dataclass(frozen=True, kw_only=True)
class FeatureIndex(Artefact):
    """`index.json`. identity: hash of what the features were made from. views: of each case; the first is not augmented.

    cases: in the order of the files; view v of case c is item c * views + v. maps: (C, h, w) of each of the encoder's maps.
    image: (C, H, W) of the encoder's input.
    """

    NAME = "features"
    VERSION = 1

    identity: str
    views: Positive
    cases: tuple[FileName, ...]
    maps: tuple[tuple[Positive, Side, Side], ...]
    image: tuple[Positive, Side, Side]

    def problems(self) -> Iterator[str]:
        """No cases or maps, and a case that is listed twice."""
        for name in ("cases", "maps"):
            if not getattr(self, name):
                yield f"{name}: expected at least one, found []"
        if len(set(self.cases)) < len(self.cases):
            yield "cases: expected each case once"
