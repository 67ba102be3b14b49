"""A teacher's features beside the matches: what is learned, what stays, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from eval.methods.xfeat import XFeatNet
from matcher.errors import CheckpointError
from matcher.structures import FeatureMaps, ImagePair, TrainingOutput
from matcher.training.distillation import Distillation
from tests.helpers.planes import plane_pair
from tests.training.test_training import run


class Blocks:
    """A teacher that sees the mean of each 8 x 8 cell, and how it differs from the image's."""

    channels = 2

    def features(self, image: Tensor) -> Tensor:
        mean = nn.functional.avg_pool2d(image, 8)
        return torch.cat([mean, mean - image.mean()], dim=1)


def output(pair: ImagePair, mask: Tensor | None = None) -> TrainingOutput:
    """A network whose coarse maps are the teacher's features, mixed."""
    maps = [
        FeatureMaps(torch.cat([f[:, :1] + f[:, 1:], f[:, :1] - f[:, 1:]], dim=1), f)
        for f in (Blocks().features(image) for image in (pair.image0, pair.image1))
    ]
    unused = torch.zeros(0)
    return TrainingOutput(
        features0=maps[0],
        features1=maps[1],
        coarse0=maps[0].coarse,
        coarse1=maps[1].coarse,
        mask0=mask,
        mask1=mask,
        refined=unused,
        log_heatmap=unused,
        offset=unused,
        deviation=unused,
    )


def test_the_head_learns_to_see_what_the_teacher_sees() -> None:
    torch.manual_seed(0)
    distillation, pair = Distillation(Blocks(), 2), plane_pair(0)
    optimizer = torch.optim.Adam(distillation.parameters(), lr=0.05)
    losses = []
    for _ in range(150):
        loss = distillation(output(pair), pair)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.1
    assert losses[-1] < 1e-3


def test_cells_without_content_teach_nothing() -> None:
    torch.manual_seed(0)
    distillation, pair = Distillation(Blocks(), 2), plane_pair(0)
    mask = torch.ones(1, 8, 12, dtype=torch.bool)
    mask[:, :, 6:] = False
    seen = output(pair, mask)
    before = distillation(seen, pair)
    for side in (seen.features0, seen.features1):
        side.coarse[..., 6:] = 100.0
    assert torch.equal(distillation(seen, pair), before)


def test_the_teacher_goes_to_the_device_of_the_network() -> None:
    network = XFeatNet()
    distillation = Distillation(network, 2).to("meta")
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert set(distillation.state_dict()) == {"head.weight", "head.bias"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "xfeat.npz"
    state: dict[str, Any] = XFeatNet().state_dict()
    np.savez(path, **{name: value.numpy() for name, value in state.items()})
    return f"teacher={path}"


def test_a_run_learns_from_its_teacher_and_exports_the_matcher_alone(
    tmp_path: Path, teacher: str
) -> None:
    metrics = run(tmp_path, teacher, "trainer.max_steps=2")
    assert 0 < metrics["train/teacher"] < 2
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "distillation" in name]
    assert run(tmp_path, teacher, "trainer.max_steps=3", "resume=auto")["steps"] == 3


def test_a_checkpoint_with_a_teacher_does_not_go_on_without(tmp_path: Path, teacher: str) -> None:
    run(tmp_path, teacher, "trainer.max_steps=1")
    with pytest.raises(CheckpointError, match=r"E502 resume: .*set teacher= to match"):
        run(tmp_path, "trainer.max_steps=2", "resume=auto")
