"""The published b0 classifier with our descent and with the port of the published operator.

`python -m benchmarks.pyramid [rounds=8] [side=224]`: forward passes of one image in turns, on one
thread, as processor time. Both compute the same logits.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.attention import published_messages
from matcher.network.pyramid import Pyramid, build_pyramid
from matcher.network.pyramid.attention import TreeMessages
from matcher.terminal.program import program
from matcher.validation.checked import Positive, checked
from matcher.validation.words import options_from_words


@checked()
class Options:
    """Of one call."""

    rounds: Positive = 8
    """How often both are timed."""
    side: Positive = 224
    """Pixels of the square image."""
    model: str = "quadtree_b0"
    """Name of a published pyramid."""


class PublishedMessages(TreeMessages):
    """The same levels, descended as published: every child gathers its own candidates."""

    def maps(
        self, query: Tensor, key: Tensor, values: list[Tensor]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Queries, keys and values of all levels, coarsest first."""
        queries, keys = [query], [key]
        for _ in self.topks[1:]:
            for maps in (queries, keys):
                maps.append(F.avg_pool2d(maps[-1], 2))
        return [*zip(queries[::-1], keys[::-1], values, strict=True)]

    def forward(
        self, query: Tensor, key: Tensor, values: list[Tensor], masks: list[Tensor | None]
    ) -> Tensor:
        if self.weight is None or self.get_vs is None:
            raise ValueError("the published operator is that of variant B with LePE")
        messages = published_messages(self.maps(query, key, values), self.heads, self.topks)
        total: Tensor | None = None
        for message, conv, value, share in zip(
            messages, self.get_vs, values, self.weight.softmax(dim=0), strict=True
        ):
            message = (message + conv(value)) * share
            if total is not None:
                message = message + F.interpolate(total, scale_factor=2)
            total = message
        if total is None:
            raise ValueError("no level")
        return total


def as_published(model: Pyramid) -> Pyramid:
    """A copy of a pyramid that shares its weights and descends as published."""
    other = Pyramid(model.config)
    other.load_state_dict(model.state_dict(), assign=True)
    for module in other.modules():
        if isinstance(module, TreeMessages):
            module.__class__ = PublishedMessages
    return other.eval()


def measure(options: Options) -> dict[str, list[float]]:
    """Processor seconds of each forward pass.

    Raises:
        ValueError: the logits differ.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = build_pyramid(options.model).eval()
    models = {"ours": ours, "published": as_published(ours)}
    image = torch.randn(1, 3, options.side, options.side)
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        logits = [model(image) for model in models.values()]
        if not torch.allclose(*logits, atol=1e-4):
            raise ValueError("both compute different logits")
        for _ in range(options.rounds):
            for name, model in models.items():
                start = time.process_time()
                model(image)
                times[name].append(time.process_time() - start)
    return times


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = options_from_words(Options, words)
    times = measure(options)
    ours, published = (statistics.median(times[name]) for name in ("ours", "published"))
    ratios = sorted(b / a for a, b in zip(times["ours"], times["published"], strict=True))
    sys.stdout.write(
        f"{options.model} at {options.side}: ours {1e3 * ours:.0f} ms, published "
        f"{1e3 * published:.0f} ms, {published / ours:.2f} times (rounds {ratios[0]:.2f} to "
        f"{ratios[-1]:.2f})\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
