"""Published checkpoints in this project's terms: the names of tensors and the configuration.

The official layout is that of LoFTR and QuadTreeAttention, which kornia shares.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from matcher.config import CoarseConfig, MatcherConfig, PositionConfig, TransformerConfig
from matcher.errors import CheckpointError, Code, UsageError
from matcher.files import sha256_of
from matcher.validation.checked import config_from_dict, invalid
from matcher.weights.checkpoint import assemble, override, save_safetensors
from matcher.weights.torch_archive import read_tensors

IGNORED_TENSORS = re.compile(r"(^|\.)(pos_encoding\.pe|num_batches_tracked)$")
"""A table that is computed, and counters that inference and training do without."""

WRAPPERS = r"(^|\.)(?:(?:module|_orig_mod)\.)+"
"""What DistributedDataParallel and torch.compile put before the names of what they wrap."""

RENAMED_TENSORS = (
    (WRAPPERS, r"\1"),
    (r"^matcher\.", ""),
    (r"^backbone\.conv1\.", "backbone.stem."),
    (r"^backbone\.bn1\.", "backbone.stem_norm."),
    (r"^backbone\.layer1\.", "backbone.stages.0."),
    (r"^backbone\.layer2\.", "backbone.stages.1."),
    (r"^backbone\.layer3\.", "backbone.stages.2."),
    (r"^backbone\.layer4\.", "backbone.stages.3."),
    (r"\.bn([12])\.", r".norm\1."),
    (r"\.downsample\.", ".shortcut."),
    (r"^loftr_coarse\.layers\.", "transformer.blocks."),
    (r"^loftr_fine\.layers\.", "fine.transformer.blocks."),
    (r"^fine_preprocess\.down_proj\.", "fine.reduce_coarse."),
    (r"^fine_preprocess\.merge_feat\.", "fine.merge."),
    (r"^coarse_matching\.bin_score$", "coarse.bin_score"),
    (r"\.(attn\.)?q_proj\.", ".query."),
    (r"\.(attn\.)?k_proj\.", ".key."),
    (r"\.(attn\.)?v_proj\.", ".value."),
    (r"\.attn\.py_att\.weight$", ".attention.level_weights"),
    (r"\.attn\.proj\.", ".project."),
    (r"\.mlp\.fc1\.", ".mlp.expand."),
    (r"\.mlp\.dwconv\.dwconv\.", ".mlp.depthwise."),
    (r"\.mlp\.fc2\.", ".mlp.reduce."),
)
PROJECTIONS = re.compile(r"^transformer\..*\.(query|key|value)\.weight$")
"""1x1 convolutions in QuadTree checkpoints, linear layers here."""

RENAMED_OPTIONS = {
    "resolution": "backbone.resolution",
    "resnetfpn.initial_dim": "backbone.initial_dim",
    "resnetfpn.block_dims": "backbone.block_dims",
    "fine_window_size": "fine.window",
    "fine_concat_coarse_feat": "fine.use_coarse",
    "coarse.nhead": "transformer.heads",
    "coarse.layer_names": "transformer.layers",
    "coarse.block_type": "transformer.block",
    "coarse.attention": "transformer.attention",
    "coarse.attn_type": "transformer.variant",
    "coarse.topks": "transformer.topks",
    "match_coarse.thr": "coarse.threshold",
    "match_coarse.border_rm": "coarse.border",
    "match_coarse.match_type": "coarse.match_type",
    "match_coarse.dsmax_temperature": "coarse.temperature",
    "match_coarse.skh_iters": "coarse.sinkhorn_iterations",
    "match_coarse.skh_prefilter": "coarse.prefilter",
    "fine.nhead": "fine.heads",
    "fine.layer_names": "fine.layers",
}
REQUIRED_OPTIONS = {
    "backbone_type": "ResNetFPN",
    "fine.attention": "linear",
    "fine.block_type": "loftr",
}
"""Where the official code has a choice and this project does not."""
IGNORED_OPTIONS = (
    "coarse.temp_bug_fix",
    *("coarse.d_model", "coarse.d_ffn", "fine.d_model", "fine.d_ffn"),
    "match_coarse.skh_init_bin_score",
    "match_coarse.train_coarse_percent",
    "match_coarse.train_pad_num_gt_min",
    "match_coarse.sparse_spvs",
)
"""Said by other options or by the tensors, or for training only."""


def convert(
    source: Path | str,
    target: Path | str,
    config: MatcherConfig | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Turn a published torch checkpoint into a safetensors file in fp32.

    Args:
        source: in the official layout of LoFTR or QuadTreeAttention.
        config: None infers the published model from the names of the tensors.
        overrides: options to change, as in `load_safetensors`.

    Raises:
        UsageError: there is no such file (E111), or `target` has another suffix.
        CheckpointError: as `torch_archive.read_tensors`, or the tensors do not fit (E502).
        StorageError: `target` cannot be written (E401).
    """
    source = Path(source)
    official = read_tensors(source)
    try:
        tensors = rename_tensors(official)
        inferred = infer_config(official)
    except ValueError as error:
        raise CheckpointError(Code.WRONG_ARCHITECTURE, source, str(error)) from error
    kind = f"{inferred.transformer.block} layers, variant {inferred.transformer.variant}"
    remedy = f"its names say: {kind}" if config else "give its official configuration: --config"
    config = override(config or inferred, overrides or {})
    model = assemble(source, config, tensors, remedy)
    save_safetensors(model, target, half=False, extra={"source_sha256": sha256_of(source)})


def rename_tensors(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of an official checkpoint under this project's names; ValueError if two get the same.

    Names that are not known stay as they are, for strict loading to refuse.
    """
    rules = *RENAMED_TENSORS, *_merge_names(official)
    renamed: dict[str, Tensor] = {}
    for name, tensor in official.items():
        if IGNORED_TENSORS.search(name):
            continue
        for pattern, ours in rules:
            name = re.sub(pattern, ours, name)
        if name in renamed:
            raise ValueError(f"two tensors are named {name}")
        flat = PROJECTIONS.match(name) and tensor.shape[2:] == (1, 1)
        renamed[name] = tensor.flatten(1) if flat else tensor
    return renamed


def _merge_names(official: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Names of the feature pyramid, which counts its layers from the top."""
    top = 4 if any("backbone.layer4_outconv." in name for name in official) else 3
    return (
        (rf"^backbone\.layer{top}_outconv\.", "backbone.output."),
        (rf"^backbone\.layer{top - 1}_outconv\.", "backbone.merges.0.lateral."),
        (rf"^backbone\.layer{top - 1}_outconv2\.", "backbone.merges.0.merge."),
        (rf"^backbone\.layer{top - 2}_outconv\.", "backbone.merges.1.lateral."),
        (rf"^backbone\.layer{top - 2}_outconv2\.", "backbone.merges.1.merge."),
    )


def infer_config(official: Iterable[str]) -> MatcherConfig:
    """The published model that the names in an official checkpoint belong to.

    LoFTR layers mean LoFTR with the legacy position encoding, QuadTree layers the ``outdoor``
    model of their variant, neither of them is a ValueError.
    """
    names = list(official)
    match_type = "sinkhorn" if any("bin_score" in n for n in names) else "dual_softmax"
    coarse = CoarseConfig(match_type=match_type)
    if any("loftr_coarse.layers.0.q_proj." in n for n in names):
        return MatcherConfig(
            position=PositionConfig("legacy"),
            transformer=TransformerConfig(block="loftr", attention="linear"),
            coarse=coarse,
        )
    if any("loftr_coarse.layers.0.attn.q_proj." in n for n in names):
        variant = "B" if any(n.endswith("attn.py_att.weight") for n in names) else "A"
        return MatcherConfig(transformer=TransformerConfig(variant=variant), coarse=coarse)
    raise ValueError("it holds neither LoFTR nor QuadTree layers (loftr_coarse.layers)")


def config_from_official(values: Mapping[str, Any]) -> MatcherConfig:
    """The configuration that an official one (names as in LoFTR's, any case) describes.

    An unknown option is E202, one that this project cannot follow E201.
    """
    given = _flatten(values)
    options = {n[6:]: value for n, value in given.items() if n.startswith("loftr.")} or given
    tree: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if name in REQUIRED_OPTIONS and value != REQUIRED_OPTIONS[name]:
            raise invalid(name, value, repr(REQUIRED_OPTIONS[name]))
        if name in RENAMED_OPTIONS:
            group, option = RENAMED_OPTIONS[name].split(".")
            tree.setdefault(group, {})[option] = value
        elif name not in REQUIRED_OPTIONS and name not in IGNORED_OPTIONS:
            what = "unknown option of an official configuration"
            raise UsageError(Code.UNKNOWN_OPTION, name, what)
    transformer = tree.setdefault("transformer", {})
    if transformer.setdefault("block", "loftr") == "quadtree":
        transformer["attention"] = "quadtree"
    fixed = options.get("coarse.temp_bug_fix", transformer["block"] == "quadtree")
    tree["position"] = {"variant": "fixed" if fixed else "legacy"}
    backbone = tree.setdefault("backbone", {})
    if list(backbone.get("resolution", ())) == [16, 4]:
        backbone.setdefault("depths", [2, 2, 2, 2])
    return config_from_dict(MatcherConfig, tree)


def _flatten(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise invalid(path or "configuration", values, "a group of options")
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{path}{name}".lower()
        flat |= _flatten(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return flat
