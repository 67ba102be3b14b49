"""How near to the true match attention looks: weights of every kind, the number, pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from eval.attention_kinds.focus import (
    OTHERS,
    WINDOWS,
    finest,
    kinds_of,
    main,
    near_share,
    recorded,
    table,
    weights_of,
)
from matcher.attention.record import AttentionCall
from matcher.config import TransformerConfig
from matcher.network.model import build_matcher
from tests.helpers.models import COMPACT_TINY

CONFIG = TransformerConfig(layers=("self",), heads=2, topks=(3, 2, 2), window=4)
QUERIES = torch.tensor([0, 17, 95])


def call(kind: str = "full") -> AttentionCall:
    """Of maps of 8 x 12 cells."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 8, 8, 12, generator=generator) for _ in range(3))
    attention = {**OTHERS, **WINDOWS}[kind](CONFIG)
    assert isinstance(attention, torch.nn.Module)
    return AttentionCall(0, "0", attention, query, key, value, None, None)


def test_weights_of_full_attention_are_its_softmax() -> None:
    asked = call()
    weights = weights_of(asked.attention, asked, QUERIES)
    q, k = (x[0].flatten(1).unflatten(0, (2, 4)) for x in (asked.query, asked.key))
    expected = (q[:, :, QUERIES].transpose(1, 2) @ k * 4**-0.5).softmax(dim=-1)
    torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", [*OTHERS, *WINDOWS])
def test_weights_of_every_kind_make_its_message(kind: str) -> None:
    asked = call(kind)
    weights = weights_of(asked.attention, asked, QUERIES)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3), atol=1e-5, rtol=0)
    value = asked.value[0].flatten(1).unflatten(0, (2, 4))
    with torch.no_grad():
        message = asked.attention(*asked.arguments)[0].flatten(1).unflatten(0, (2, 4))
    mine = (weights @ value.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(mine, message[:, :, QUERIES], atol=1e-5, rtol=1e-4)


def test_a_window_weighs_nothing_outside_of_it() -> None:
    asked = call("swin")
    first = weights_of(asked.attention, asked, QUERIES)[:, 0].unflatten(1, (8, 12))
    assert (first[:, :4, :4] > 0).all()
    assert float(first.sum()) == pytest.approx(float(first[:, :4, :4].sum()))


def test_the_share_near_the_match_is_counted_in_cells() -> None:
    """Of 10 x 10 cells alike, 25 are near one in the middle and 9 near a corner."""
    alike = torch.full((2, 2, 100), 0.01)
    assert near_share(alike, torch.tensor([55, 55]), 10) == pytest.approx(0.25)
    assert near_share(alike, torch.tensor([0, 99]), 10) == pytest.approx(0.09)


def test_squares_share_their_weight_among_their_cells() -> None:
    weights = torch.tensor([[[0.25, 0.75]]])
    assert finest(weights, (2, 4), 2)[0, 0].view(2, 4)[0].tolist() == [
        0.0625, 0.0625, 0.1875, 0.1875,
    ]  # fmt: skip


def test_a_trained_pvt_is_spread_over_its_cells() -> None:
    pvt = replace(COMPACT_TINY.transformer, attention="pvt", reduction=2)
    model = build_matcher(replace(COMPACT_TINY, transformer=pvt)).eval()
    images = (torch.rand(1, 1, 64, 96) for _ in range(2))
    (cross,) = [c for c in recorded(model, *images) if c.direction == "0to1"]
    found = kinds_of(model, cross, OTHERS, QUERIES)
    assert list(found) == ["pvt, as trained"]
    assert found["pvt, as trained"].shape == (2, 3, 96)
    torch.testing.assert_close(found["pvt, as trained"].sum(dim=-1), torch.ones(2, 3))


def test_the_table_has_a_column_a_layer() -> None:
    lines = table([{"full": [0.25, 0.5]}, {"full": [0.35, 0.5]}]).splitlines()
    assert lines[2].startswith("| full | 30.0 (25.0 to 35.0) | 50.0 (50.0 to 50.0) |")


def test_the_command_measures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pairs=1", "size=64x96", "queries=4", "max_side=128", f"output={tmp_path}"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "focus.md").read_text() == text
    names = [line.split("|")[1].strip() for line in text.splitlines()[2:]]
    assert names == ["quadtree, as trained", *OTHERS, "everywhere alike"]
    assert {p.name for p in tmp_path.iterdir()} == {"focus.md", "cross.jpg", "self.jpg"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["max_side=100"], "E201 max_side"),
        (["point=[640,3]"], "E201 point: got (640.0, 3.0); expected (x, y) within 640 x 480 pix"),
        (["weights=compcat"], "E203 compcat: no weights of this name"),
    ],
)
def test_what_cannot_be_drawn_is_told(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pairs=0", *words, f"output={tmp_path}"]) == 2
    assert told in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_photographs_of_a_canvas_are_drawn(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.linear_gradient("L").save(tmp_path / f"{name}.png")
    images = f"images=[{tmp_path / 'a.png'},{tmp_path / 'b.png'}]"
    assert main(["pairs=0", "max_side=32", images, f"output={tmp_path}"]) == 0
    assert (tmp_path / "self.jpg").is_file()
