"""Evaluation protocols by name: which estimator, in whose pixels, after which resizing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eval.benchmarks.sizing import EXACT, PUBLISHED, Convention
from matcher.geometry.robust import Estimator
from matcher.validation.checked import entry_of


@dataclass(frozen=True)
class Protocol:
    """How matches become a pose or a homography."""

    name: str
    pose: Estimator
    homography: Estimator
    convention: Convention = EXACT
    """How images are resized and their points scaled."""
    homography_matches: int | None = None
    """Best matches of a pair that a homography is estimated from; None: all."""


PROTOCOLS = {
    "loftr": Protocol(
        "loftr",
        Estimator("ransac", 0.5, confidence=0.99999, iterations=1000, published_focal=True),
        Estimator("ransac", 3.0, confidence=0.995, iterations=2000),
        PUBLISHED,
        homography_matches=1000,
    ),
    "poselib": Protocol("poselib", Estimator("poselib", 1.0), Estimator("poselib", 3.0)),
    "magsac": Protocol("magsac", Estimator("magsac", 1.0), Estimator("magsac", 3.0)),
}
"""``loftr`` is the published evaluation of LoFTR and QuadTree: OpenCV RANSAC at 0.5 px divided by
the published mean of focal lengths; of homographies at 3 px, from the 1,000 best matches. A pose
that cannot be estimated is an infinite error. The published code keeps OpenCV's limit of 50 steps
of the camera on the depth of points, which it means to lift; here it is lifted."""


def protocol_named(name: str, *, threshold: float | None = None, seed: int = 0) -> Protocol:
    protocol = entry_of("protocol", name, PROTOCOLS)
    pose, homography = (
        replace(e, seed=seed, threshold=e.threshold if threshold is None else threshold)
        for e in (protocol.pose, protocol.homography)
    )
    return replace(protocol, pose=pose, homography=homography)
