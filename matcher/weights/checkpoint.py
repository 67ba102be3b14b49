"""Weights on disk: safetensors with the configuration beside them, loaded strictly.

Nothing that a file holds is ever run: no pickle, no class named by a file.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from matcher.config import MatcherConfig
from matcher.errors import (
    CheckpointError,
    Code,
    MemoryLimitError,
    UsageError,
    missing,
    out_of_memory,
)
from matcher.files import sha256_of, write_atomically
from matcher.network.model import FeatureMatcher, build_matcher
from matcher.network.quality import QualityHead
from matcher.structures import CoarseMatches
from matcher.validation.checked import annotations_of, config_from_dict, unknown_option
from matcher.weights.torch_archive import MAX_FILE_BYTES
from matcher.weights.unpickle import MAX_TENSORS

Model = TypeVar("Model", bound=nn.Module)

COUNTER = ".num_batches_tracked"
"""Counts of training batches, which nothing here reads: not saved, and ignored where given."""
RETIRED = {"pyramid": "average", "lepe": False}
"""Options of the transformer that older files hold, and the one value that they may have."""
METADATA = frozenset({"canary", "config", "source_sha256", "training_pairs", "validation_auc"})
"""All that a file may say about its weights."""
QUALITY_OF = "weights_sha256"
ANOTHER = "give the name or the file of another model"
MAX_HEADER_BYTES = 10 * 2**20
SELFTEST_SIDE = 64
TOLERANCE = 1e-3
"""Largest difference in the self-test, relative to the expected statistic where that exceeds 1."""


class Weights(NamedTuple):
    """What a weights file holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def write_weights(path: Path | str, weights: Weights) -> None:
    """Publish `weights`, all of them or nothing (E401); the same weights give the same bytes."""
    data = safetensors.torch.save(*weights)
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    # The library leaves the order of the metadata open.
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(path, struct.pack("<Q", len(text)) + text + data[8 + size :])


def read_weights(path: Path | str) -> Weights:
    """Tensors and metadata of a safetensors file within the limits, not otherwise judged.

    Raises:
        UsageError: there is no such file (E111).
        CheckpointError: damaged (E501) or too large (E505).
        MemoryLimitError: memory ends (E131).
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise missing(path)
    try:
        _require_limits(path)
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise OverflowError(f"{len(names)} tensors are more than {MAX_TENSORS}")
            tensors = {name: file.get_tensor(name) for name in names}
            return Weights(tensors, dict(file.metadata() or {}))
    except OverflowError as error:
        raise CheckpointError(Code.LARGE_WEIGHTS, path, str(error)) from error
    except Exception as error:
        if out_of_memory(error):
            what = "out of memory while it is read"
            raise MemoryLimitError(Code.OUT_OF_MEMORY, path, what, "free some") from error
        what = f"not a readable safetensors file ({error})"
        raise CheckpointError(Code.DAMAGED_WEIGHTS, path, what) from error


def _require_limits(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise OverflowError(f"{size} bytes are more than {MAX_FILE_BYTES}")
    with path.open("rb") as file:
        head = file.read(8)
    if len(head) < 8:
        raise ValueError(f"{size} bytes")
    header = struct.unpack("<Q", head)[0]
    if header > MAX_HEADER_BYTES:
        raise OverflowError(f"a header of {header} bytes is more than {MAX_HEADER_BYTES}")


def require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not floats (E502) or not finite (E504)."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            what = f"tensor {name} is {tensor.dtype}, not a float"
            raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what)
        if not torch.isfinite(tensor).all():
            what = f"tensor {name} holds NaN or infinity"
            raise CheckpointError(Code.WEIGHTS_NOT_FINITE, path, what)


def save_safetensors(
    model: FeatureMatcher,
    path: Path | str,
    *,
    half: bool = True,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Publish the weights and the configuration of `model`: all of it or nothing.

    Args:
        half: store matrices and convolutions in fp16; vectors stay fp32.
        extra: more metadata, of the keys in `METADATA`.

    Raises:
        UsageError: another suffix than ``.safetensors``.
        CheckpointError: the weights are not finite (E504).
        StorageError: the file cannot be written (E401).
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(Code.REFUSED_WORD, path, "weights are saved as .safetensors")
    unknown = set(extra or ()) - METADATA
    if unknown:
        raise ValueError(f"metadata {sorted(unknown)}; allowed: {sorted(METADATA)}")
    state = model.state_dict().items()
    tensors = {name: _stored(t, half) for name, t in state if not name.endswith(COUNTER)}
    require_finite(path, tensors)
    stored = assemble(path, model.config, tensors, "")
    options = json.dumps(asdict(model.config), sort_keys=True)
    statistics = json.dumps(activation_statistics(stored))
    metadata = {"config": options, "canary": statistics, **(extra or {})}
    write_weights(path, Weights(tensors, metadata))


def selftest(path: Path | str) -> float:
    """How far what the weights compute now is from what they computed when they were saved.

    It is the largest relative difference of `activation_statistics`: sums and shapes do not show a
    changed interpretation of the same numbers; what a model makes of two fixed images does.

    Raises:
        CheckpointError: more than `TOLERANCE`, or nothing to compare with (E509); else as
            `load_safetensors`.
    """
    path = Path(path)
    try:
        expected = [float(value) for value in json.loads(read_weights(path).metadata["canary"])]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        what = "holds nothing to test it with"
        raise CheckpointError(Code.FAILED_SELFTEST, path, what, "save it anew") from error
    difference = largest_difference(activation_statistics(load_safetensors(path)), expected)
    if not difference <= TOLERANCE:
        what = f"its results differ by {difference:.2g}"
        remedy = "the file or the installation is damaged"
        raise CheckpointError(Code.FAILED_SELFTEST, path, what, remedy)
    return difference


def selftest_pair(side: int = SELFTEST_SIDE) -> tuple[Tensor, Tensor]:
    """Two (1, 1, side, side) images of one wavy pattern, the second moved by 8 pixels."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side + 8), indexing="ij")
    waves = (x * 0.37 + y * 0.11).sin() + (y * 0.53 - x * 0.07).sin() + (x * y * 0.013).sin()
    image = ((waves + 3) / 6)[None, None]
    return image[..., :side], image[..., 8:]


@torch.no_grad()
def activation_statistics(model: FeatureMatcher) -> list[float]:
    """Mean and deviation of every map that `model` makes of the pair, to four digits.

    They are the coarse and the fine features of the first image, both coarse maps after the
    transformer, and the heatmaps of every cell with the one at its place in the other image.
    """
    image0, image1 = selftest_pair(max(SELFTEST_SIDE, model.config.canvas))
    cells = torch.arange((image0.shape[-1] // model.config.backbone.resolution[0]) ** 2)
    matches = CoarseMatches(torch.zeros_like(cells), cells, cells, torch.ones(len(cells)))
    output = model.forward_training(image0, image1, None, None, matches, limit=len(cells))
    maps = (*output.features0, output.coarse0, output.coarse1, output.log_heatmap.exp())
    return [float(f"{v:.4g}") for x in maps for v in (x.mean().item(), x.std().item())]


def largest_difference(statistics: list[float], expected: list[float]) -> float:
    """Between two lists of statistics; infinite where their lengths differ."""
    if len(statistics) != len(expected):
        return float("inf")
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(statistics, expected, strict=True))


def load_safetensors(
    path: Path | str, *, overrides: Mapping[str, Any] | None = None
) -> FeatureMatcher:
    """A matcher in evaluation mode, on the CPU and in fp32, from what `save_safetensors` wrote.

    Options can be overridden, such as ``{"coarse.threshold": 0.1}``.

    Raises:
        UsageError: there is no such file (E111), or an override is wrong.
        CheckpointError: the file is damaged (E501), does not fit its configuration (E502), holds
            NaN or infinity (E504), is larger than the limits (E505) or has no valid
            configuration (E508).
    """
    path = Path(path)
    weights = read_weights(path)
    try:
        values = without_retired(json.loads(weights.metadata["config"]))
        config = config_from_dict(MatcherConfig, values)
    except (KeyError, UsageError, ValueError, TypeError, RecursionError) as error:
        what = f"its configuration is damaged: {error}"
        if isinstance(error, KeyError):
            what = "it holds no configuration"
        elif isinstance(error, UsageError):
            what = f"option {error.subject}: {error.what}"
        raise CheckpointError(Code.INVALID_CONFIGURATION, path, what) from error
    config = override(config, overrides or {})
    return assemble(path, config, weights.tensors, "convert or train it anew")


def override(config: MatcherConfig, values: Mapping[str, Any]) -> MatcherConfig:
    """`config` with the options of the dotted names in `values` replaced, or E201 or E202."""
    known, changed = list(annotations_of(MatcherConfig)), dict[str, dict[str, Any]]()
    for name, value in values.items():
        group, _, option = name.partition(".")
        if group not in known:
            raise unknown_option(group, known)
        changed.setdefault(group, {})[option] = value
    return replace(config, **{g: replace(getattr(config, g), **o) for g, o in changed.items()})


def without_retired(config: Any) -> Any:
    """A stored configuration of a matcher without the options that there are no more."""
    transformer = config.get("transformer") if isinstance(config, dict) else None
    if not isinstance(transformer, dict):
        return config
    kept = {k: v for k, v in transformer.items() if k not in RETIRED or v != RETIRED[k]}
    return {**config, "transformer": kept}


def assemble(
    path: Path, config: MatcherConfig, tensors: Mapping[str, Tensor], remedy: str
) -> FeatureMatcher:
    """A matcher in evaluation mode that holds exactly `tensors`; its own are never allocated.

    Raises:
        CheckpointError: names `path` and `remedy`: the tensors do not fit (E502), are not finite
            (E504), or no such model can be built (E508).
    """
    tensors = {name: t for name, t in tensors.items() if not name.endswith(COUNTER)}
    layers = sum(config.backbone.depths) + len(config.transformer.layers)
    layers += len(config.transformer.topks) + len(config.fine.layers)
    if layers > len(tensors):
        what = f"{len(tensors)} tensors for {layers} layers"
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what, remedy)
    try:
        with torch.device("meta"):
            model = build_matcher(config)
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        what = f"its configuration cannot be built: {error}"
        raise CheckpointError(Code.INVALID_CONFIGURATION, path, what) from error
    return fill(path, model, tensors, remedy)


def fill(path: Path, model: Model, tensors: Mapping[str, Tensor], remedy: str) -> Model:
    """A model that was built without memory, in evaluation mode, with exactly `tensors`.

    Raises:
        CheckpointError: names `path` and `remedy`: tensors that are missing, unexpected or of
            another shape, which it lists (E502), or not finite (E504).
    """
    expected = model.state_dict()
    counters = {name: expected.pop(name) for name in list(expected) if name.endswith(COUNTER)}
    if faults := misfits(expected, tensors):
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, "tensors " + "; ".join(faults), remedy)
    require_finite(path, tensors)
    state = {name: tensor.float() for name, tensor in tensors.items()}
    state |= {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in counters.items()}
    model.load_state_dict(state, assign=True)
    return model.eval()


def save_model(path: Path | str, kind: str, model: nn.Module, **about: str) -> None:
    """Publish a model of a task, its `config` and its `kind`; `about` is metadata too.

    Raises:
        CheckpointError: the weights are not finite (E504).
        StorageError: it cannot be written (E401).
    """
    state = model.state_dict().items()
    tensors = {name: _stored(t, half=False) for name, t in state if not name.endswith(COUNTER)}
    require_finite(Path(path), tensors)
    config = json.dumps(asdict(cast(Any, model.config)), sort_keys=True)
    write_weights(path, Weights(tensors, {"model": kind, "config": config, **about}))


def load_model(
    path: Path | str, kind: str, build: Callable[[dict[str, Any]], Model]
) -> tuple[Model, dict[str, str]]:
    """What `save_model` wrote: the model, in evaluation mode, and the metadata.

    Args:
        build: a model of plain values of its configuration.

    Raises:
        UsageError: there is no such file (E111).
        CheckpointError: damaged (E501), of another kind or not fitting its configuration (E502),
            not finite (E504), or without a configuration that works (E508).
    """
    path = Path(path)
    tensors, metadata = read_weights(path)
    found = metadata.get("model", "matcher")
    if found != kind:
        what, remedy = f"weights of the model {found!r}", f"give weights of the model {kind!r}"
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what, remedy)
    try:
        with torch.device("meta"):
            model = build(json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError, RuntimeError, RecursionError, UsageError) as error:
        what = f"no usable configuration ({error})"
        raise CheckpointError(Code.INVALID_CONFIGURATION, path, what) from error
    return fill(path, model, tensors, ANOTHER), metadata


def misfits(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """What is missing, unexpected or of another shape, each in a few words."""
    wanted, given = ({n: tuple(t.shape) for n, t in x.items()} for x in (expected, tensors))
    reshaped = [name for name in wanted if given.get(name, wanted[name]) != wanted[name]]
    faults = {
        "missing": sorted(set(wanted) - set(given)),
        "unexpected": sorted(n[:100] for n in set(given) - set(wanted)),
        "of another shape": [f"{name} {given[name]} for {wanted[name]}" for name in reshaped],
    }
    return [f"{len(n)} {fault}: {', '.join(n[:5])}" for fault, n in faults.items() if n]


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().float()
    fits = tensor.ndim > 1 and tensor.abs().amax() <= torch.finfo(torch.float16).max
    return (tensor.half() if half and fits else tensor).contiguous()


def quality_path(weights: Path) -> Path:
    """The file of the quality head of weights, beside theirs: ``compact.quality.safetensors``."""
    return weights.with_name(f"{weights.stem}.quality.safetensors")


def quality_sha256(weights: Path) -> str:
    """Hash of the file of the quality head of weights; empty where there is none."""
    path = quality_path(weights)
    return sha256_of(path) if path.is_file() else ""


def save_quality(head: QualityHead, path: Path, weights: Path) -> None:
    """Publish a head for the weights in a file, which it names by their sha256 (E401)."""
    tensors = {name: values.contiguous() for name, values in head.state_dict().items()}
    write_weights(path, Weights(tensors, {QUALITY_OF: sha256_of(weights)}))


def load_quality(weights: Path) -> QualityHead | None:
    """The head of the weights in a file; None if there is none, or it was fitted to others.

    Raises:
        CheckpointError: it is damaged (E501), not finite (E504) or of other shapes (E502).
    """
    path = quality_path(weights)
    if not path.is_file():
        return None
    tensors, metadata = read_weights(path)
    if metadata.get(QUALITY_OF) != sha256_of(weights):
        return None
    with torch.device("meta"):
        head = QualityHead()
    return fill(path, head, tensors, "fit it anew").requires_grad_(False)
