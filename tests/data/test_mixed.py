"""Rendered and real pairs in one run: whole batches in a fixed rhythm, resumable at any pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from data.datamodule import PairData, build_datamodule
from data.mixed import CoarseOnly, MixedStream
from data.order import PairStream
from matcher.errors import UsageError
from matcher.training.supervision import supervise
from tests.data.test_datamodule import SMALL, at_pair, batches
from tests.helpers.miniature import megadepth_tree
from tests.helpers.planes import plane_pair, shuffled


def stream(start: int, share: float = 0.3, rank: int = 0, world: int = 1) -> MixedStream:
    clock = PairStream(shuffled(7, seed=1), 2, start=start, rank=rank, world=world)
    return MixedStream(clock, shuffled(5, seed=2), share)


def first(of: MixedStream, count: int) -> list[list[tuple[bool, tuple[int, int]]]]:
    drawn = iter(of)
    return [next(drawn) for _ in range(count)]


def test_every_batch_is_of_one_source_and_the_share_is_kept() -> None:
    kinds = [{real for real, _ in batch} for batch in first(stream(0), 40)]
    assert all(len(kind) == 1 for kind in kinds)
    assert sum(kind == {True} for kind in kinds) == 12


@pytest.mark.parametrize("start", [1, 5, 16])
def test_a_run_that_starts_later_sees_what_an_earlier_one_would_have_seen(start: int) -> None:
    assert first(stream(2 * start), 9) == first(stream(0), start + 9)[start:]


def test_ranks_share_no_pair_and_are_of_one_kind() -> None:
    of_ranks = [first(stream(0, rank=rank, world=2), 10) for rank in (0, 1)]
    for one, other in zip(*of_ranks, strict=True):
        assert one[0][0] == other[0][0]
        assert not set(one) & set(other)


def test_both_sources_appear_whole() -> None:
    drawn = [entry for batch in first(stream(0, 0.5), 20) for entry in batch]
    assert {key[1] for real, key in drawn if real} == set(range(5))
    assert {key[1] for real, key in drawn if not real} == set(range(7))


def test_pairs_for_cells_alone_teach_no_fraction_of_a_pixel() -> None:
    pair = CoarseOnly([plane_pair(0)])[0]
    cells, fine = supervise(pair, stride=8, reach=4.0)
    assert cells.batch.numel() > 20
    assert not fine.valid.any()
    joined = type(pair).collate([pair, pair])
    assert joined.geometry is not None
    assert joined.geometry.fine is not None
    assert joined.geometry.fine.tolist() == [False, False]


def mixed(root: Path) -> PairData:
    index = megadepth_tree(root) / "index"
    files: dict[str, Any] = {
        "root": str(root / "test"),
        "index": str(index),
        "scenes": str(index / "list.txt"),
        "val_scenes": str(index / "list.txt"),
        "framing": {"size": [64, 96]},
        "coarse_only": True,
    }
    return build_datamodule({**SMALL, "real": "megadepth", "real_share": 0.5, "files": files}, 1)


def test_rendered_and_real_batches_come_from_one_loader(tmp_path: Path) -> None:
    plain, real = batches(at_pair(mixed(tmp_path), 0, tmp_path), 2)
    assert plain.geometry is not None
    assert real.geometry is not None
    assert plain.geometry.fine is None
    assert real.geometry.fine is not None
    assert not real.geometry.fine.any()
    assert torch.isfinite(real.image0).all()


def test_a_mixed_run_validates_on_the_real_pairs_that_are_named(tmp_path: Path) -> None:
    pair = next(iter(at_pair(mixed(tmp_path), 0, tmp_path).val_dataloader()))
    assert pair.names[0][0].endswith(".jpg")


def test_real_pairs_beside_real_pairs_are_refused() -> None:
    with pytest.raises(UsageError, match=r"E201 data\.real: .*null"):
        build_datamodule({"source": "rgbd", "real": "colmap"}, 1)
