"""Commands of weights files: `python -m matcher.weights COMMAND`.

python -m matcher.weights convert IN.ckpt OUT.safetensors [--config official.json]
python -m matcher.weights info WEIGHTS
python -m matcher.weights selftest WEIGHTS
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from matcher.config import MatcherConfig
from matcher.errors import Code, UsageError, missing
from matcher.files import sha256_of
from matcher.terminal.program import program
from matcher.weights.checkpoint import read_weights, require_finite, selftest
from matcher.weights.convert import config_from_official, convert
from matcher.weights.hub import resolve


@program()
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    arguments = parser().parse_args(words)
    if arguments.command == "convert":
        config = None if arguments.config is None else read_official_config(arguments.config)
        convert(arguments.source, arguments.target, config)
        show(arguments.target)
    elif arguments.command == "info":
        show(resolve(arguments.file, offline=True))
    else:
        path = resolve(arguments.file, offline=True)
        difference = selftest(path)
        sys.stdout.write(f"{path}: as when it was saved, up to {difference:.1g}\n")
    return 0


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m matcher.weights")
    commands = out.add_subparsers(dest="command", required=True, metavar="COMMAND")
    converting = commands.add_parser("convert", help="a published checkpoint to safetensors")
    converting.add_argument("source", type=Path, metavar="IN.ckpt")
    converting.add_argument("target", type=Path, metavar="OUT.safetensors")
    converting.add_argument("--config", type=Path, metavar="official.json")
    purposes = {
        "info": "what a safetensors file holds",
        "selftest": "does it compute what it did when saved?",
    }
    for name, purpose in purposes.items():
        command = commands.add_parser(name, help=purpose)
        command.add_argument("file", metavar="WEIGHTS", help="a name or a .safetensors file")
    return out


def read_official_config(path: Path) -> MatcherConfig:
    """The configuration in an official JSON file; E111, E204, or as `config_from_official`."""
    try:
        return config_from_official(json.loads(path.read_text()))
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(Code.UNUSABLE_WORD, path, f"not a JSON configuration: {error}") from error


def show(path: Path) -> None:
    """Print what a safetensors file holds, and whether its numbers are finite."""
    weights = read_weights(path)
    lines = [f"{key}: {value}" for key, value in sorted(weights.metadata.items())]
    count = sum(t.numel() for t in weights.tensors.values())
    lines += [f"sha256: {sha256_of(path)}", f"numbers: {count:,}"]
    sys.stdout.write("\n".join(lines) + "\n")
    require_finite(path, weights.tensors)
    sys.stdout.write("finite: yes\n")


if __name__ == "__main__":
    sys.exit(main())
