"""XFeat and ALIKED from files of weights: the published answers, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval.methods import MethodOptions, MethodUnavailableError, build_method
from eval.methods.xfeat import XFeatNet
from matcher.errors import CheckpointError

TEACHERS = Path(__file__).resolve().parents[3] / "shared" / "teachers"
needs_weights = pytest.mark.skipif(
    not TEACHERS.is_dir(), reason="needs ../shared/teachers, which is not distributed"
)


def noise(seed: int, size: tuple[int, int] = (96, 160)) -> np.ndarray:
    """(H, W, 3) uint8 blobs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // 4, size[1] // 4), np.uint8)
    return np.repeat(np.kron(coarse, np.ones((4, 4), np.uint8))[..., None], 3, 2)


@pytest.fixture(scope="module")
def xfeat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peers") / "xfeat.npz"
    torch.manual_seed(0)
    state: dict[str, Any] = XFeatNet().state_dict()
    np.savez(path, **{name: value.numpy() for name, value in state.items()})
    return path


@needs_weights
def test_xfeat_sees_what_the_published_network_sees() -> None:
    golden = np.load(TEACHERS / "xfeat" / "golden.npz")
    net = XFeatNet()
    weights = np.load(TEACHERS / "xfeat" / "xfeat.npz")
    net.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    maps = net(torch.from_numpy(golden["image"])[None, None].float() / 255)
    for found, name in zip(maps, ("features", "keypoint_logits", "heatmap"), strict=True):
        assert np.allclose(found[0].detach(), golden[name], atol=1e-4)


@needs_weights
@pytest.mark.parametrize("name", ["xfeat", "aliked"])
def test_peers_find_the_shift_between_two_cuts_of_a_picture(name: str) -> None:
    files: dict[str, Any] = {
        "xfeat": str(TEACHERS / "xfeat" / "xfeat.npz"),
        "aliked": str(TEACHERS / "aliked" / "aliked_n16.npz"),
    }
    picture = noise(1, (160, 288))
    method = build_method(name, MethodOptions(keypoints=256, **files))
    matches = method(picture[:, :256], picture[:, 32:])
    moved = matches.keypoints0 - matches.keypoints1 - torch.tensor([32.0, 0.0])
    assert len(matches) > 50
    assert (moved.norm(dim=1) < 1.5).float().mean() > 0.8


def test_an_image_in_which_nothing_stands_out_gives_no_match(xfeat: Path) -> None:
    weights = dict(np.load(xfeat))
    bias = np.zeros(65, np.float32)
    bias[64] = 50
    changed: dict[str, Any] = {**weights, "keypoint_head.3.bias": bias}
    np.savez(xfeat.with_name("none.npz"), **changed)
    method = build_method("xfeat", MethodOptions(xfeat=str(xfeat.with_name("none.npz"))))
    found = method(noise(2), noise(3))
    assert (len(found), found.reason) == (0, "too_few_keypoints")


def test_without_a_file_a_peer_is_unavailable() -> None:
    with pytest.raises(MethodUnavailableError, match="aliked=FILE"):
        build_method("aliked", MethodOptions())
    with pytest.raises(MethodUnavailableError, match=r"gone\.npz is no file"):
        build_method("xfeat", MethodOptions(xfeat="gone.npz"))


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, weight=np.zeros((2, 2), np.float32))
    with pytest.raises(CheckpointError, match=r"E502 .*missing or unexpected: weight"):
        build_method("xfeat", MethodOptions(xfeat=str(path)))
    path.write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match=r"E502 .*is no \.npz"):
        build_method("xfeat", MethodOptions(xfeat=str(path)))
