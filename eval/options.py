"""What an evaluation is asked to do, checked on construction."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field

from eval.benchmarks.options import BenchmarkOptions
from matcher.options import Device
from matcher.validation.checked import (
    Name,
    Positive,
    Share,
    Threads,
    checked,
    config_from_dict,
    invalid,
)

Names = Annotated[tuple[str, ...], Field(min_length=1, description="at least one name")]


@checked()
class EvalOptions:
    """Benchmark, methods and protocols of an evaluation, and how it is run."""

    benchmark: BenchmarkOptions = field(kw_only=True)
    method: Names = ("compact",)
    """Weights by name or path, rootsift, orb, kornia_loftr_outdoor, kornia_loftr_indoor,
    kornia_disk, xfeat, aliked, module:function, or all; several are separated by commas, which a
    path may hold too."""
    protocol: tuple[Literal["poselib", "magsac", "loftr"], ...] = ("poselib",)
    """poselib, magsac or loftr; several are separated by commas."""
    output: Name = "outputs/eval"
    """Folder of results and of cached predictions."""
    limit: Positive | None = None
    """Only the first this many pairs."""
    workers: Threads = 1
    """Processes."""
    threads: Threads = 1
    """Threads of each process."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of estimators and of the bootstrap."""
    bootstrap: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    """Samples of the confidence intervals; 0: none."""
    ransac_threshold: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    """Pixels; null: the protocol's own."""
    keypoints: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Most keypoints an image of methods with detectors."""
    ratio: Annotated[float, Field(ge=1e-6, le=1)] = 0.85
    """Ratio of the ratio test, at most."""
    xfeat: Name | None = None
    """File of XFeat's weights (.npz, batch norms folded into convolutions), for method=xfeat."""
    aliked: Name | None = None
    """File of ALIKED-n16's weights (.npz of its state dict), for method=aliked."""
    threshold: Share | None = None
    """Confidence of this project's matcher; null: the weights' own."""
    refine: Literal["photometric", "none"] = "photometric"
    """As in match.py; protocol=loftr measures the network alone, as published."""
    zoom: Literal["auto", "off"] = "auto"
    """As in match.py; protocol=loftr matches images once."""
    device: Device | None = None
    """cpu, cuda or mps; null: cuda where there is one, else cpu."""
    offline: bool = True
    """Never download weights: such methods are reported as unavailable."""
    overwrite: bool = False
    """Compute predictions anew."""
    report: bool = True
    """Write figures and report.html."""
    drawn: Annotated[int, Field(ge=0, le=1000)] = 6
    """Pairs drawn in the report, worst and best of each method."""
    document: Name | None = None
    """Also write the tables to this Markdown file."""

    def __post_init__(self) -> None:
        if not self.protocol:
            raise invalid("protocol", self.protocol, "at least one protocol")
        if self.document and not self.document.lower().endswith(".md"):
            raise invalid("document", self.document, "a name ending in .md")


def eval_options(values: Mapping[str, Any]) -> EvalOptions:
    """Options from composed plain values; `UsageError` as `config_from_dict`."""
    plain: dict[str, Any] = dict(values)
    for name in ("method", "protocol"):
        plain[name] = list(split_names(plain.get(name, ())))
    return config_from_dict(EvalOptions, plain)


def split_names(value: Any) -> tuple[str, ...]:
    """``a,b`` or a list as names, each once; a file keeps the commas of its path."""
    words = whole_paths(value.split(",")) if isinstance(value, str) else map(str, value)
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip()))


def whole_paths(parts: list[str]) -> Iterator[str]:
    """The parts between commas, those of the path of a file put together again."""
    while parts:
        joined = ((n, ",".join(parts[:n]).strip()) for n in range(len(parts), 1, -1))
        count, name = next((j for j in joined if os.path.isfile(j[1])), (1, parts[0]))
        yield name
        parts = parts[count:]
