"""Weights on disk: safetensors with the configuration beside them, loaded strictly.

    python -m matcher.weights.checkpoint convert IN.ckpt OUT.safetensors [--config official.json]
    python -m matcher.weights.checkpoint info FILE.safetensors
    python -m matcher.weights.checkpoint selftest FILE.safetensors

Nothing that a file holds is ever run: no pickle, no class named by a file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matcher.config import MatcherConfig, config_from_dict, config_to_dict, invalid
from matcher.errors import CheckpointError, MatcherError, UsageError
from matcher.network.model import FeatureMatcher, build_matcher
from matcher.weights.convert import config_from_official, infer_config, rename_tensors
from matcher.weights.safetensors_file import (
    Weights,
    read_weights,
    require_finite,
    sha256_of,
    write_weights,
)
from matcher.weights.selftest import TOLERANCE, activation_statistics, largest_difference
from matcher.weights.torch_archive import read_tensors

COUNTER = ".num_batches_tracked"
"""Counts of training batches, which nothing here reads: not saved, and ignored where given."""
METADATA = frozenset({"canary", "config", "source_sha256", "training_pairs"})
"""All that a file may say about its weights."""


def save_safetensors(
    model: FeatureMatcher,
    path: Path | str,
    *,
    half: bool = True,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Publish the weights and the configuration of `model`: all of it or nothing.

    The same weights give the same bytes.

    Args:
        model: its state is saved, the counters of its batch norms excepted.
        path: a ``.safetensors`` file.
        half: store matrices and convolutions in fp16; vectors stay fp32.
        extra: more metadata, of the keys in `METADATA`.

    Raises:
        UsageError: another suffix.
        CheckpointError: the weights are not finite (E504).
        StorageError: the file cannot be written (E401).
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(203, path, "weights are saved as .safetensors")
    unknown = set(extra or ()) - METADATA
    if unknown:
        raise ValueError(f"metadata {sorted(unknown)}; allowed: {sorted(METADATA)}")
    tensors = {
        name: _stored(tensor, half)
        for name, tensor in model.state_dict().items()
        if not name.endswith(COUNTER)
    }
    require_finite(path, tensors)
    stored = _assemble(path, model.config, tensors, "")
    metadata = {
        "config": json.dumps(config_to_dict(model.config), sort_keys=True),
        "canary": json.dumps(activation_statistics(stored)),
        **(extra or {}),
    }
    write_weights(path, Weights(tensors, metadata))


def selftest(path: Path | str) -> float:
    """How far what the weights compute now is from what they computed when they were saved.

    Returns:
        The largest relative difference of the statistics of `matcher.weights.selftest`.

    Raises:
        CheckpointError: more than `selftest.TOLERANCE`, or nothing to compare with
            (E509); else as `load_safetensors`.
    """
    path = Path(path)
    expected = _stored_statistics(path)
    difference = largest_difference(activation_statistics(load_safetensors(path)), expected)
    if not difference <= TOLERANCE:
        remedy = "the file or the installation is damaged"
        raise CheckpointError(509, path, f"its results differ by {difference:.2g}", remedy)
    return difference


def _stored_statistics(path: Path) -> list[float]:
    try:
        return [float(value) for value in json.loads(read_weights(path).metadata["canary"])]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(509, path, "holds nothing to test it with", "save it anew") from error


def load_safetensors(
    path: Path | str, *, overrides: Mapping[str, Any] | None = None
) -> FeatureMatcher:
    """A matcher in evaluation mode, on the CPU and in fp32.

    Args:
        path: what `save_safetensors` wrote.
        overrides: options to change, such as ``{"coarse.threshold": 0.1}``.

    Raises:
        UsageError: there is no such file (E111), or an override is wrong.
        CheckpointError: the file is damaged (E501), does not fit its configuration (E502), holds
            NaN or infinity (E504), is larger than the limits (E505) or has no valid
            configuration (E508).
    """
    path = Path(path)
    weights = read_weights(path)
    config = override(_stored_config(path, weights.metadata), overrides or {})
    return _assemble(path, config, weights.tensors, "convert or train it anew")


def convert(
    source: Path | str,
    target: Path | str,
    config: MatcherConfig | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Turn a published torch checkpoint into a safetensors file in fp32.

    Args:
        source: a checkpoint in the official layout of LoFTR or QuadTreeAttention.
        target: the ``.safetensors`` file to write.
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
        found = infer_config(official)
    except ValueError as error:
        raise CheckpointError(502, source, str(error)) from error
    kind = f"{found.transformer.block} layers, variant {found.transformer.variant}"
    remedy = f"its names say: {kind}" if config else "give its official configuration: --config"
    config = override(config or found, overrides or {})
    model = _assemble(source, config, tensors, remedy)
    save_safetensors(model, target, half=False, extra={"source_sha256": sha256_of(source)})


def override(config: MatcherConfig, values: Mapping[str, Any]) -> MatcherConfig:
    """`config` with the options of the dotted names in `values` replaced.

    Raises:
        UsageError: an unknown option or a value that cannot work.
    """
    tree = config_to_dict(config)
    for name, value in values.items():
        group, _, option = name.partition(".")
        if not isinstance(tree.setdefault(group, {}), dict):
            raise invalid(group, tree[group], "a group of options")
        tree[group][option] = value
    return config_from_dict(MatcherConfig, tree)


def _stored_config(path: Path, metadata: Mapping[str, str]) -> MatcherConfig:
    try:
        return config_from_dict(MatcherConfig, json.loads(metadata["config"]))
    except KeyError:
        raise CheckpointError(508, path, "it holds no configuration") from None
    except UsageError as error:
        raise CheckpointError(508, path, f"option {error.subject}: {error.what}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(508, path, f"its configuration is damaged: {error}") from error


def _assemble(
    path: Path, config: MatcherConfig, tensors: Mapping[str, Tensor], remedy: str
) -> FeatureMatcher:
    """A matcher that holds exactly `tensors`; its own are never allocated."""
    tensors = {name: t for name, t in tensors.items() if not name.endswith(COUNTER)}
    parts = sum(config.backbone.depths) + len(config.transformer.layers)
    parts += len(config.transformer.topks) + len(config.fine.layers)
    if parts > len(tensors):
        raise CheckpointError(502, path, f"{len(tensors)} tensors for {parts} layers", remedy)
    try:
        with torch.device("meta"):
            model = build_matcher(config)
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        raise CheckpointError(508, path, f"its configuration cannot be built: {error}") from error
    expected = model.state_dict()
    counters = {name: t for name, t in expected.items() if name.endswith(COUNTER)}
    wanted = {name: tuple(t.shape) for name, t in expected.items() if name not in counters}
    _require_fit(path, wanted, {name: tuple(t.shape) for name, t in tensors.items()}, remedy)
    require_finite(path, tensors)
    state = {name: tensor.float() for name, tensor in tensors.items()}
    state |= {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in counters.items()}
    model.load_state_dict(state, assign=True)
    return model.eval()


def _require_fit(
    path: Path,
    wanted: Mapping[str, tuple[int, ...]],
    given: Mapping[str, tuple[int, ...]],
    remedy: str,
) -> None:
    faults = {
        "missing": sorted(set(wanted) - set(given)),
        "unexpected": sorted(n[:100] for n in set(given) - set(wanted)),
        "of another shape": [
            f"{name} {given[name]} for {wanted[name]}"
            for name in wanted
            if name in given and given[name] != wanted[name]
        ],
    }
    listed = [
        f"{len(names)} {fault}: {', '.join(names[:5])}" for fault, names in faults.items() if names
    ]
    if listed:
        raise CheckpointError(502, path, "tensors " + "; ".join(listed), remedy)


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().float()
    fits = tensor.ndim > 1 and tensor.abs().amax() <= torch.finfo(torch.float16).max
    return (tensor.half() if half and fits else tensor).contiguous()


def _convert_command(arguments: argparse.Namespace) -> None:
    config = None
    if arguments.config is not None:
        try:
            config = config_from_official(json.loads(arguments.config.read_text()))
        except FileNotFoundError:
            raise UsageError(111, arguments.config, "no such file") from None
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(204, arguments.config, f"not a JSON configuration: {error}") from error
    convert(arguments.source, arguments.target, config)
    _info_command(argparse.Namespace(file=arguments.target))


def _info_command(arguments: argparse.Namespace) -> None:
    weights = read_weights(arguments.file)
    lines = [f"{key}: {value}" for key, value in sorted(weights.metadata.items())]
    count = sum(t.numel() for t in weights.tensors.values())
    lines += [f"sha256: {sha256_of(arguments.file)}", f"numbers: {count:,}"]
    sys.stdout.write("\n".join(lines) + "\n")
    require_finite(arguments.file, weights.tensors)
    sys.stdout.write("finite: yes\n")


def _selftest_command(arguments: argparse.Namespace) -> None:
    difference = selftest(arguments.file)
    sys.stdout.write(f"{arguments.file}: as when it was saved, up to {difference:.1g}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit codes are those of `matcher.errors`."""
    parser = argparse.ArgumentParser(prog="python -m matcher.weights.checkpoint")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    convert_parser = commands.add_parser("convert", help="a published checkpoint to safetensors")
    convert_parser.add_argument("source", type=Path, metavar="IN.ckpt")
    convert_parser.add_argument("target", type=Path, metavar="OUT.safetensors")
    convert_parser.add_argument("--config", type=Path, metavar="official.json")
    convert_parser.set_defaults(run=_convert_command)
    info_parser = commands.add_parser("info", help="what a safetensors file holds")
    info_parser.add_argument("file", type=Path, metavar="FILE.safetensors")
    info_parser.set_defaults(run=_info_command)
    test_parser = commands.add_parser("selftest", help="does it compute what it did when saved?")
    test_parser.add_argument("file", type=Path, metavar="FILE.safetensors")
    test_parser.set_defaults(run=_selftest_command)
    parsed = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = parsed.run
    try:
        run(parsed)
    except MatcherError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
