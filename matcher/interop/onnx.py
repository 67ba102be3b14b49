"""Matchers as ONNX files: written, and run by ONNX Runtime or OpenVINO.

A file holds the whole network for images of any size (`matcher.interop.graph`) and the
configuration of its weights. The extra ``onnx`` installs what both directions need.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch

from matcher.attention.operator import quadtree_operator
from matcher.attention.quadtree import attend
from matcher.config import MatcherConfig
from matcher.errors import CheckpointError, Code, missing, require_extra
from matcher.files import write_atomically
from matcher.images.preprocess import PreparedImage, PreparedPair, pad_bottom_right
from matcher.interop.graph import INPUTS, OUTPUTS, least_side, trace
from matcher.interop.onnx_quadtree import quadtree
from matcher.network.model import FeatureMatcher
from matcher.options import PredictorOptions, Settings, options_of
from matcher.predictor import Predictor
from matcher.structures import FeatureMaps, Matches
from matcher.validation.checked import config_from_dict

OPSET = 23
"""Below it, a query that may see nothing would get the mean of all values instead of nothing."""
CONFIG = "quadmatch"
"""Under which name a file holds the configuration of its weights."""
Runtime = Literal["onnxruntime", "openvino"]
Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
"""What takes the inputs of a graph, in order, and gives its outputs."""


def export_onnx(model: FeatureMatcher, path: str | os.PathLike[str], *, top_k: int = 4096) -> None:
    """Write a matcher as an ONNX file, all of it or nothing.

    Args:
        top_k: rows of every output: the most matches that a pair can have.

    Raises:
        UsageError: the extra ``onnx`` is missing (E210), or a matcher with Sinkhorn (E201).
        StorageError: the file cannot be written (E401).
    """
    require_extra("onnxscript", "onnx", "export onnx")
    program = torch.onnx.export(
        trace(model, top_k),
        custom_translation_table={quadtree_operator(attend): quadtree},
        input_names=INPUTS,
        output_names=OUTPUTS,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.model.metadata_props[CONFIG] = json.dumps(asdict(model.config))
    write_atomically(Path(path), program.model_proto.SerializeToString())


class OnnxPredictor(Predictor):
    """A predictor whose network is an ONNX file; everything else is as of `Predictor`.

    Args:
        path: a file that `export_onnx` wrote.
        runtime: what runs it, on the CPU.
        options, settings: as of `Predictor`; `device` and `dtype` have no effect on the graph.

    Raises:
        UsageError: a missing file (E111), package (E210), or a value that cannot work.
        CheckpointError: a file that is damaged (E501) or no matcher of ours (E508).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: PredictorOptions | None = None,
        *,
        runtime: Runtime = "onnxruntime",
        **settings: Unpack[Settings],
    ) -> None:
        if not os.path.isfile(path):
            raise missing(path)
        self.config = read_config(Path(path))
        self.run = open_runtime(Path(path), runtime)
        self._set_options(self.config, options_of(options, settings))
        self.weights = Path(path)

    def extract(self, image: PreparedImage) -> FeatureMaps:
        """The image itself: the graph does all at once."""
        return FeatureMaps(image.canvas[None], image.canvas[None])

    def match_features(
        self,
        pairs: Sequence[PreparedPair],
        features0: Sequence[FeatureMaps],
        features1: Sequence[FeatureMaps],
        threshold: float | None = None,
        top_k: int | None = None,
    ) -> list[Matches]:
        """Matches of each pair, from the graph."""
        given = (threshold, self.options.threshold, self.config.coarse.threshold)
        limit = next(value for value in given if value is not None)
        top_k = self.options.top_k if top_k is None else top_k
        found = zip((self._match_pair(pair).above(limit) for pair in pairs), pairs, strict=True)
        return [self._in_original(matches, pair, top_k) for matches, pair in found]

    def _match_pair(self, pair: PreparedPair) -> Matches:
        images, masks = zip(*map(self._inputs, pair), strict=True)
        keypoints0, keypoints1, scores = map(torch.from_numpy, self.run([*images, *masks]))
        return Matches(keypoints0, keypoints1, scores)

    def _inputs(self, image: PreparedImage) -> tuple[np.ndarray, np.ndarray]:
        """(1, 1, H, W) pixels and (1, H, W) mask, large enough for the graph."""
        stride, least = self.config.backbone.resolution[0], least_side(self.config)
        mask = image.valid.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
        size = (max(mask.shape[0], least), max(mask.shape[1], least))
        pixels = pad_bottom_right(image.canvas[None], size, mode="replicate")
        return pixels.numpy(), pad_bottom_right(mask[None], size).numpy()


def read_config(path: Path) -> MatcherConfig:
    """The configuration of the weights in an ONNX file; E210, E501, E508."""
    onnx = require_extra("onnx", "onnx", "an .onnx file")
    try:
        model: Any = onnx.load(path, load_external_data=False)
    except Exception as error:
        what = f"not a readable ONNX file ({error})"
        raise CheckpointError(Code.DAMAGED_WEIGHTS, path, what) from error
    props = {prop.key: prop.value for prop in model.metadata_props}
    if CONFIG not in props:
        what, remedy = "holds no matcher of ours", "write one with `quadmatch export onnx`"
        raise CheckpointError(Code.INVALID_CONFIGURATION, path, what, remedy)
    return config_from_dict(MatcherConfig, json.loads(props[CONFIG]))


def open_runtime(path: Path, runtime: Runtime) -> Run:
    """What runs the graph of a file on the CPU, with as many threads as PyTorch."""
    threads = torch.get_num_threads()
    if runtime == "openvino":
        openvino = require_extra("openvino", "dev", "runtime=openvino")
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(path, "CPU", settings)
        return lambda inputs: [
            compiled(dict(zip(INPUTS, inputs, strict=True)))[name] for name in OUTPUTS
        ]
    onnxruntime = require_extra("onnxruntime", "onnx", "runtime=onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(OUTPUTS, dict(zip(INPUTS, inputs, strict=True)))
