"""What all files of autoseg have in common: a name, a version, and the steps that bring older versions up to date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

Content = dict[str, Any]
# Changes the content of a file, as `json` gives it, from one version to the next; it may change it in place.
Migration = Callable[[Content], Content]


class Artefact:
    """Base of every dataclass that has a JSON file of its own.

    NAME: says in the file what it is. VERSION: goes up by one whenever a file that was valid before is not any more, or
    means something else: a field was renamed, removed, or added without a default. MIGRATIONS: the first one turns version
    1 into 2, the next one 2 into 3, and so on up to VERSION. UNMARKED: files of version 1 do not name a version.
    """

    NAME: ClassVar[str]
    VERSION: ClassVar[int]
    MIGRATIONS: ClassVar[tuple[Migration, ...]] = ()
    UNMARKED: ClassVar[bool] = False

    @classmethod
    def migrate(cls, content: Content, version: int) -> Content:
        """The content of a file of an older version, step by step brought to VERSION."""
        for step in cls.MIGRATIONS[version - 1 :]:
            content = step(content)
        return content


def rename(content: Content, before: str, after: str) -> None:
    """The field `before` under another name, in its place; nothing where there is none."""
    if before in content:
        fields = list(content.items())
        content.clear()
        content.update((after if name == before else name, value) for name, value in fields)
