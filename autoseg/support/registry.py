"""Registries: names in plans and commands -> objects of autoseg or of installed packages.

A package adds to a registry with an entry point in the registry's group (see documentation/extend.md). Its code is imported
when the name is used, and not before: listing names reads the metadata of installed packages only.
"""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from autoseg.support.errors import AutosegError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Registry(Generic[T]):
    """Objects of one kind by name.

    kind: its name in messages ("loss"). group: of the entry points ("autoseg.losses"). built_in: name -> object, or
    where it is: "module" or "module:attribute". needs: attributes that added objects must have. prefixes: of names that are
    not listed -> where the function is that makes the object of such a name ("timm:" -> "module:function").
    """

    def __init__(
        self,
        kind: str,
        group: str,
        built_in: Mapping[str, T | str],
        needs: Sequence[str] = (),
        prefixes: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.group = group
        self.needs = needs
        self.prefixes = dict(prefixes or {})
        self._built_in = dict(built_in)
        self._local: dict[str, T | str] = {}
        self._loaded: dict[str, T] = {}

    @cached_property
    def _added(self) -> dict[str, list[EntryPoint]]:
        """Entry points of installed packages by name; a name has several where packages disagree."""
        added: dict[str, list[EntryPoint]] = {}
        for point in _installed(tuple(sys.path)).select(group=self.group):
            # Some paths are searched twice; equal entry points are counted once.
            if not any(point.value == other.value for other in added.get(point.name, [])):
                added.setdefault(point.name, []).append(point)
        return added

    def names(self) -> tuple[str, ...]:
        """Every name, autoseg's own first. Nothing is imported."""
        return tuple(dict.fromkeys([*self._built_in, *self.added()]))

    def added(self) -> tuple[str, ...]:
        """The names that are not autoseg's own. Nothing is imported."""
        return (*sorted(self._added), *self._local)

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._added or name in self._local or self._prefix(name) is not None

    def _prefix(self, name: object) -> str | None:
        """The prefix of a name that is made when it is used, None for other names."""
        return next((one for one in self.prefixes if isinstance(name, str) and name.startswith(one)), None)

    def get(self, name: str) -> T:
        """The object of a name. Raises AutosegError for an unknown name (with the nearest ones), for a name that two
        packages claim (with both), and for a package whose code cannot be imported or lacks something (with the package).
        """
        self._refuse_unknown(name)
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def check(self, *names: str) -> None:
        """Raises what `get` would raise. Only code of other packages is imported for this."""
        for name in names:
            self._refuse_unknown(name)
            if name in self.added() or self._prefix(name) is not None:
                self.get(name)

    def usable(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, T]]:
        """Names (None: all) with their objects. A name that `get` refuses is left out with a warning."""
        for name in self.names() if names is None else names:
            try:
                yield name, self.get(name)
            except AutosegError as error:
                logger.warning(f"{error.problem}: it is left out ({error.remedy})")

    def add(self, name: str, target: T | str) -> None:
        """Add a name in this process only, for notebooks; started processes (`autoseg_run`) do not see it.

        Raises AutosegError if the name exists.
        """
        if name in self:
            raise AutosegError(f"there is a {self.kind} {name!r} already, of {self.source(name)}", "choose another name")
        self._local[name] = target

    def remove(self, name: str) -> None:
        """Remove a name that `add` added."""
        del self._local[name]
        self._loaded.pop(name, None)

    def source(self, name: str) -> str:
        """Where a name comes from: "autoseg", "my-package 1.0 (my_package.losses:focal)" or "this program"."""
        return " and by ".join(self._owners(name))

    def _owners(self, name: str) -> list[str]:
        is_own = name in self._built_in or self._prefix(name) is not None
        own = [*(["autoseg"] if is_own else []), *(["this program"] if name in self._local else [])]
        return own + [_describe_origin(point) for point in self._added.get(name, [])]

    def _refuse_unknown(self, name: str) -> None:
        if name in self:
            return
        near = difflib.get_close_matches(name, self.names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        known = ", ".join([*self.names(), *(f"{prefix}NAME" for prefix in self.prefixes)])
        raise AutosegError(f"there is no {self.kind} {name!r}", f"{hint}known: {known}")

    def _load(self, name: str) -> T:
        owner = self.source(name)
        if len(self._owners(name)) > 1:
            raise AutosegError(
                f"the {self.kind} {name!r} is defined twice: by {owner}", "rename one of them, or uninstall its package"
            )
        if name in self._built_in:
            return _resolve(name, self._built_in[name], self.group)  # type: ignore[no-any-return]
        prefix = self._prefix(name)
        if prefix is not None and owner == "autoseg":
            return _resolve(prefix, self.prefixes[prefix], self.group)(name.removeprefix(prefix))  # type: ignore[no-any-return]
        try:
            loaded = _resolve(name, self._local[name] if name in self._local else self._added[name][0].value, self.group)
        except Exception as error:  # Code of other packages may raise anything.
            raise AutosegError(
                f"the {self.kind} {name!r} of {owner} cannot be loaded: {type(error).__name__}: {error}",
                "fix, update or uninstall that package",
            ) from error
        missing = [part for part in self.needs if not hasattr(loaded, part)]
        if missing:
            raise AutosegError(
                f"the {self.kind} {name!r} of {owner} has no {' and no '.join(missing)}",
                "see documentation/extend.md, or uninstall that package",
            )
        return loaded  # type: ignore[no-any-return]


def _resolve(name: str, target: Any, group: str) -> Any:
    """The object itself, or the one at "module" or "module:attribute"."""
    from importlib.metadata import EntryPoint

    return EntryPoint(name, target, group).load() if isinstance(target, str) else target


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> Any:
    """All entry points on Python's path. Reading the metadata of every package takes a moment: it is done once."""
    from importlib.metadata import entry_points  # here, so that other commands start sooner

    return entry_points()


def _describe_origin(point: EntryPoint) -> str:
    package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
    return f"{package} ({point.value})"
