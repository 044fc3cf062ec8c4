"""Base class of all JSON files of autoseg: name, version, and migrations of older versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

Content = dict[str, Any]
# Changes the content of a file, as `json` gives it, from one version to the next; it may change it in place.
Migration = Callable[[Content], Content]


class Artefact:
    """Base of every dataclass that has a JSON file of its own.

    NAME: kind of the file. VERSION: increases by one whenever an older file becomes invalid or
    changes its meaning: a field was renamed, removed, or added without a default. MIGRATIONS: the first one turns version
    1 into 2, the next one 2 into 3, and so on up to VERSION. UNMARKED: files of version 1 do not name a version.
    """

    NAME: ClassVar[str]
    VERSION: ClassVar[int]
    MIGRATIONS: ClassVar[tuple[Migration, ...]] = ()
    UNMARKED: ClassVar[bool] = False

    def problems(self) -> Iterator[str]:
        """Fields that contradict each other, in words, beginning with a field's path. Types and ranges were checked before."""
        return iter(())

    @classmethod
    def migrate(cls, content: Content, version: int) -> Content:
        """The content of a file of an older version, migrated step by step to VERSION."""
        for step in cls.MIGRATIONS[version - 1 :]:
            content = step(content)
        return content


def rename(content: Content, old_name: str, new_name: str) -> None:
    """Rename the field `old_name`, at the same position; does nothing if it is missing."""
    if old_name in content:
        fields = list(content.items())
        content.clear()
        content.update((new_name if name == old_name else name, value) for name, value in fields)
