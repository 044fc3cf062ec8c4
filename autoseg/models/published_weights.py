"""What is known of a published weights file: where it is, what it was trained on and how, its licence and its hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# Of torchvision's, timm's and most authors' trainings on ImageNet.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NVIDIA = "NVIDIA Source Code License (non-commercial)"
# Allows commercial use, under terms of its own that reach networks trained from the weights.
DINOV3 = "DINOv3 licence"
# Whether a licence allows commercial use. One that is not here is not known.
_COMMERCIAL = {
    "Apache-2.0": True, "MIT": True, "BSD-3-Clause": True, DINOV3: True, NVIDIA: False, "CC-BY-NC-4.0": False,
}  # fmt: skip
# Licences whose terms reach what is made from the weights, and where they can be read.
DERIVED_TERMS = {
    DINOV3: "https://ai.meta.com/resources/models-and-libraries/dinov3-license/ (a copy goes with networks trained from them)",
    "CC-BY-NC-4.0": "https://creativecommons.org/licenses/by-nc/4.0/ (non-commercial)",
    NVIDIA: "https://github.com/NVlabs/SegFormer/blob/master/LICENSE (non-commercial)",
}
# Names that many repositories of the Hugging Face hub give to their file.
_COMMON_NAMES = ("model.safetensors", "pytorch_model.bin")
HUB = "https://huggingface.co"


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A published checkpoint file. `--pretrained auto` looks for it in the weights folder and in installed packages.

    variant: the variant it fits; "" for all. part: the part of the network it fills, if the parts have separate files.
    package: an installable package that contains it. url: the file's direct address. repository: of the Hugging Face hub,
    instead of an address; revision: its commit, "" if it is not known. sha256: in hex, or its first digits as far as they are
    known; size: bytes, 0 if not known; megabytes: about as many, for display. gated: only for users whom the publisher gave
    access. study: an encoder that the first study used, and the network's own authors did not (`--pretrained study`).
    mean, std: normalisation of its training, for values in 0..1.
    """

    file: str
    trained_on: str
    variant: str = ""
    part: str = ""
    package: str = ""
    url: str = ""
    repository: str = ""
    revision: str = ""
    licence: str = ""
    sha256: str = ""
    size: int = 0
    megabytes: int = 0
    gated: bool = False
    study: bool = False
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def path(self) -> str:
        """Its path in the weights folder. A file of the hub has its repository in front: many have the same name."""
        return f"{self.repository}/{self.file}" if self.repository else self.file

    @property
    def places(self) -> tuple[str, ...]:
        """Paths in the weights folder where it is looked for: a file put there by hand lies at the top."""
        return (self.path,) if self.file in _COMMON_NAMES else tuple(dict.fromkeys([self.path, self.file]))

    @property
    def address(self) -> str:
        """Where a browser gets it; "" if it has no address of its own."""
        return f"{HUB}/{self.repository}/resolve/{self.revision or 'main'}/{self.file}" if self.repository else self.url

    @property
    def host(self) -> str:
        """The host of the address, "" without one."""
        return urlsplit(self.address).hostname or ""

    @property
    def commercial(self) -> bool | None:
        """Whether the licence allows commercial use; None if that is not known."""
        return _COMMERCIAL.get(self.licence)


def direct(url: str, **facts: Any) -> PublishedWeights:
    """A file by its address; publishers that put the first digits of the hash into the name are recognised."""
    file = url.rpartition("/")[2]
    digits = file.rpartition(".")[0].rpartition("-")[2]
    known = len(digits) == 8 and all(digit in "0123456789abcdef" for digit in digits)
    facts = {"sha256": digits if known else ""} | facts
    return PublishedWeights(file=file, url=url, **facts)


def on_hub(repository: str, file: str = "model.safetensors", **facts: Any) -> PublishedWeights:
    """A file of a repository of the Hugging Face hub."""
    return PublishedWeights(repository=repository, file=file, **facts)
