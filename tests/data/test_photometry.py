"""Photometric changes of rendered views."""

from __future__ import annotations

import torch

from data.synthetic.photometry import NOISE_LENGTH, noise_field, normal_values


def test_noise_of_a_view_starts_where_it_is_told_and_repeats_in_large_ones() -> None:
    values = normal_values(torch.device("cpu"), 1)
    start = torch.full((1, 1, 1, 1), 3.0)
    small = noise_field(start, torch.zeros(1, 1, 2, 2))
    assert torch.equal(small.flatten(), values[3:7])
    large = noise_field(start, torch.zeros(1, 1, 1024, NOISE_LENGTH // 1024))
    assert torch.equal(large.flatten(), values.roll(-3))
