"""Names of transformers and mmsegmentation for the tensors of MiT and SegFormer, turned into the official ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_Rows = list[tuple[re.Pattern[str], str]]
# Official attention has one matrix for key and value; these are not official names.
_KEY, _VALUE = ".attn.key.", ".attn.value."
_STACKED = ".attn.query_key_value."


def to_official(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The same tensors under the official names, joined, split and reshaped where the official layers differ."""
    if any(".patch_embeddings." in f".{name}" for name in tensors):
        return _join_key_and_value(_renamed(tensors, _TRANSFORMERS))
    if any(re.fullmatch(r"(?:backbone\.)?layers\.0\.0\.projection\.weight", name) for name in tensors):
        return _split_attention(_renamed(tensors, _MMSEGMENTATION))
    return tensors


def _transformers_rows() -> _Rows:
    """Both layouts of transformers: the published files (until version 4), and models saved with version 5."""
    model, rows = r"(?:segformer\.)?", []
    for i in range(4):
        n, block, ours = i + 1, rf"{model}(?:encoder\.block\.{i}|stages\.{i}\.blocks)\.(\d+)\.", rf"block{i + 1}.\1"
        embed = rf"{model}(?:encoder\.patch_embeddings\.{i}|stages\.{i}\.patch_embeddings)\."
        rows += [
            (embed + r"proj\.(.+)", rf"patch_embed{n}.proj.\1"),
            (embed + r"layer_norm\.(.+)", rf"patch_embed{n}.norm.\1"),
            (rf"{model}(?:encoder\.layer_norm\.{i}|stages\.{i}\.layer_norm)\.(.+)", rf"norm{n}.\1"),
            (block + r"(?:layer_norm_1|layernorm_before)\.(.+)", ours + r".norm1.\2"),
            (block + r"attention\.(?:self\.query|q_proj)\.(.+)", ours + r".attn.q.\2"),
            (block + r"attention\.(?:self\.key|k_proj)\.(.+)", ours + _KEY + r"\2"),
            (block + r"attention\.(?:self\.value|v_proj)\.(.+)", ours + _VALUE + r"\2"),
            (block + r"attention\.(?:self\.sr|sequence_reduction\.sequence_reduction)\.(.+)", ours + r".attn.sr.\2"),
            (block + r"attention\.(?:self|sequence_reduction)\.layer_norm\.(.+)", ours + r".attn.norm.\2"),
            (block + r"attention\.(?:output\.dense|o_proj)\.(.+)", ours + r".attn.proj.\2"),
            (block + r"(?:layer_norm_2|layernorm_after)\.(.+)", ours + r".norm2.\2"),
            (block + r"mlp\.(?:dense|fc)([12])\.(.+)", ours + r".mlp.fc\2.\3"),
            (block + r"mlp\.dwconv\.dwconv\.(.+)", ours + r".mlp.dwconv.dwconv.\2"),
            (rf"decode_head\.(?:linear_c|linear_projections)\.{i}\.proj\.(.+)", rf"decode_head.linear_c{n}.proj.\1"),
        ]
    rows += [
        (r"decode_head\.linear_fuse\.weight", "decode_head.linear_fuse.conv.weight"),
        (r"decode_head\.batch_norm\.(.+)", r"decode_head.linear_fuse.bn.\1"),
        (r"decode_head\.classifier\.(.+)", r"decode_head.linear_pred.\1"),
        (r"classifier\.(.+)", r"head.\1"),
    ]
    return [(re.compile(pattern), official) for pattern, official in rows]


def _mmsegmentation_rows() -> _Rows:
    model, rows = r"(?:backbone\.)?", []
    for i in range(4):
        n, block, ours = i + 1, rf"{model}layers\.{i}\.1\.(\d+)\.", rf"block{i + 1}.\1"
        rows += [
            (rf"{model}layers\.{i}\.0\.projection\.(.+)", rf"patch_embed{n}.proj.\1"),
            (rf"{model}layers\.{i}\.0\.norm\.(.+)", rf"patch_embed{n}.norm.\1"),
            (rf"{model}layers\.{i}\.2\.(.+)", rf"norm{n}.\1"),
            (block + r"norm([12])\.(.+)", ours + r".norm\2.\3"),
            (block + r"attn\.attn\.in_proj_(weight|bias)", ours + _STACKED + r"\2"),
            (block + r"attn\.attn\.out_proj\.(.+)", ours + r".attn.proj.\2"),
            (block + r"attn\.(sr|norm)\.(.+)", ours + r".attn.\2.\3"),
            (block + r"ffn\.layers\.0\.(.+)", ours + r".mlp.fc1.\2"),
            (block + r"ffn\.layers\.1\.(.+)", ours + r".mlp.dwconv.dwconv.\2"),
            (block + r"ffn\.layers\.4\.(.+)", ours + r".mlp.fc2.\2"),
        ]
    return [(re.compile(pattern), official) for pattern, official in rows]


_TRANSFORMERS, _MMSEGMENTATION = _transformers_rows(), _mmsegmentation_rows()


def _renamed(tensors: Mapping[str, Tensor], rows: _Rows) -> dict[str, Tensor]:
    return {_official_name(name, rows): tensor for name, tensor in tensors.items()}


def _official_name(name: str, rows: _Rows) -> str:
    matches = ((pattern.fullmatch(name), official) for pattern, official in rows)
    return next((match.expand(official) for match, official in matches if match is not None), name)


def _join_key_and_value(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    joined = {}
    for name, tensor in tensors.items():
        value = name.replace(_KEY, _VALUE)
        if _KEY in name and value in tensors:
            joined[name.replace(_KEY, ".attn.kv.")] = torch.cat([tensor, tensors[value]])
        elif not (_VALUE in name and name.replace(_VALUE, _KEY) in tensors):
            joined[name] = tensor
    return joined


def _split_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query apart from key and value; linear layers that are 1x1 convolutions there become matrices."""
    linear: Callable[[str], bool] = re.compile(r"block\d\.\d+\.mlp\.fc[12]\.weight").fullmatch  # type: ignore[assignment]
    split = {}
    for name, tensor in tensors.items():
        if _STACKED in name:
            query, key, value = tensor.chunk(3)
            split[name.replace(_STACKED, ".attn.q.")] = query
            split[name.replace(_STACKED, ".attn.kv.")] = torch.cat([key, value])
        else:
            split[name] = tensor.flatten(1) if linear(name) else tensor
    return split
