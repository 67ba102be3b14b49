"""The matcher as a dense matcher of hloc (Hierarchical-Localization).

from hloc import match_dense
from matcher.interop import hloc as quadmatch

quadmatch.register()
features, matches = match_dense.main(quadmatch.CONF, pairs, images, export_dir=outputs)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import Tensor

from matcher.errors import Code, UsageError
from matcher.predictor import load_matcher

NAME = "quadmatch"
CONF = {
    "output": "matches-quadmatch",
    "model": {"name": NAME, "weights": "compact"},
    "preprocessing": {"grayscale": True, "resize_max": 1024, "dfactor": 8},
    "max_error": 1,
    "cell_size": 1,
}
"""For ``hloc.match_dense``: it shrinks images itself, and gives keypoints in those as stored."""


def register(package: str = "hloc", name: str = NAME) -> type:
    """Put the matcher among those of a package, where hloc looks for it by its name.

    Args:
        package: ``hloc``, or one that is built as it is.
        name: of the module that the package asks for.

    Returns:
        The class, a model of hloc: ``Class(conf)({"image0": ..., "image1": ...})``.

    Raises:
        UsageError: the package is not installed (E210).
    """
    try:
        base: Any = import_module(f"{package}.utils.base_model").BaseModel
    except ImportError as error:
        what, remedy = f"cannot be imported: {error}", "install it as its page says"
        raise UsageError(Code.MISSING_EXTRA, package, what, remedy) from error

    class QuadMatch(base):
        """Finds matches whose points of image 0 are refined, those of image 1 lie on a grid."""

        default_conf = {  # noqa: RUF012
            "weights": "compact",
            "match_threshold": None,
            "max_num_matches": None,
            "max_keypoints": None,
        }
        required_inputs = ["image0", "image1"]  # noqa: RUF012

        def _init(self, conf: Mapping[str, Any]) -> None:
            self.matcher = load_matcher(
                conf["weights"], max_side=None, threshold=conf["match_threshold"]
            )
            self.net = self.matcher.model

        def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
            # hloc merges the points of references, image 1, so these should be the coarse ones.
            limits = (self.conf["max_num_matches"], self.conf["max_keypoints"])
            limit = next((k for k in limits if k is not None and k > 0), None)
            found = self.matcher.match(data["image1"], data["image0"], top_k=limit)
            found = found.to(data["image0"].device)
            scores = {"scores": found.scores, "mconf": found.scores}
            return {"keypoints0": found.keypoints1, "keypoints1": found.keypoints0, **scores}

    module = ModuleType(f"{package}.matchers.{name}")
    QuadMatch.__module__ = module.__name__
    QuadMatch.__qualname__ = QuadMatch.__name__
    module.QuadMatch = QuadMatch  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules[module.__name__] = module
    return QuadMatch
