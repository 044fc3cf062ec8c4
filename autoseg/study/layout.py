"""Folders of a study: a root of its own for each seed, so that its plans and results replace none of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.schema.study import Scale
from autoseg.support.errors import AutosegError
from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.support.workspace import Workspace

STUDIES = "studies"
# Shared with the user's root. omnimodel: answers of services, which are paid for once.
_LINKED = ("raw", "weights", "omnimodel")


@dataclass(frozen=True)
class StudyFolders:
    """folder: of the study, `<root>/studies/<name>` or `<name>_small`."""

    workspace: Workspace
    folder: Path

    @classmethod
    def of(cls, workspace: Workspace, name: str, scale: Scale) -> StudyFolders:
        return cls(workspace, workspace.root / STUDIES / (name if scale == "full" else f"{name}_{scale}"))

    def root(self, seed: int) -> Path:
        """The root of a seed's plans and results; raw/, weights/ and omnimodel/ in it are links to the user's."""
        return self.folder / f"seed_{seed}"

    def splits(self, dataset: str) -> Path:
        """The folds of a dataset, as a text that others can use."""
        return self.folder / "folds" / f"{dataset}.txt"

    @property
    def downloads(self) -> Path:
        """Where archives lie by default."""
        return self.workspace.root / "downloads"

    def make_root(self, seed: int) -> Path:
        """The root of a seed, created with its links. Raises AutosegError if something else is in their place."""
        root = self.root(seed)
        with os_errors_as_autoseg_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            for name in _LINKED:
                target, link = self.workspace.root / name, root / name
                target.mkdir(parents=True, exist_ok=True)
                if link.is_symlink() or link.exists():
                    if not link.is_dir() or link.resolve() != target.resolve():
                        raise AutosegError(f"{link} is no link to {target}", f"move {root} away")
                    continue
                link.symlink_to(target, target_is_directory=True)
        return root
