"""Where points of image 0 lie in image 1, from the words of a command line to lines and files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from matcher.drawing import matches as drawing
from matcher.options import MatchOptions
from matcher.pair import check_files, lines_of_images, named_after, read_color, read_input
from matcher.predictor import load_matcher
from matcher.results.points import read_points, write_points
from matcher.runtime import warm_allocator
from matcher.structures import LocatedPoints, Matches
from matcher.terminal.program import tell

SHOWN = 20
"""Points that are told one by one; a file holds all."""


def locate_points(path0: str, path1: str, options: MatchOptions) -> None:
    """Locate the points that `options` name, write what is asked for and tell it.

    Raises:
        MatcherError: it cannot be done; then nothing is written.
    """
    options = named_after(options, path0, path1, suffix=".csv")
    check_files((path0, path1), options)
    points = read_points(options.points or "")
    warm_allocator()
    matcher = load_matcher(options.weights, options)
    image0, mask0 = read_input(path0, options.mask0, "mask0", matcher)
    image1, mask1 = read_input(path1, options.mask1, "mask1", matcher)
    located = matcher.locate(image0, image1, points, mask0=mask0, mask1=mask1)
    tell(*lines_of_images((path0, image0), (path1, image1)), *lines_of_points(located))
    if options.output:
        write_points(options.output, located)
        tell(f"output    {options.output}")
    if options.picture_path:
        drawing.write_picture(options.picture_path, draw(path0, path1, located, options))
        tell(f"picture   {options.picture_path}")


def lines_of_points(located: LocatedPoints) -> Iterator[str]:
    """A line a point."""
    for i in range(min(len(located), SHOWN)):
        (x0, y0), (x1, y1) = located.points0[i].tolist(), located.points1[i].tolist()
        there = f"({x1:.2f}, {y1:.2f})" if located.visible[i] else "not visible"
        confidence = float(located.confidence[i])
        yield f"point     ({x0:g}, {y0:g}) -> {there}, confidence {confidence:.2f}"
    if len(located) > SHOWN:
        yield f"          and {len(located) - SHOWN} more, which output=FILE.csv holds"
    yield f"visible   {int(located.visible.sum())} of {len(located)} points"


def draw(path0: str, path1: str, located: LocatedPoints, options: MatchOptions) -> np.ndarray:
    """The visible points as matches, by confidence."""
    image0, image1 = (read_color(path, options) for path in (path0, path1))
    seen = Matches(located.points0, located.points1, located.confidence)[located.visible]
    return drawing.draw_matches(image0, image1, seen, max_lines=options.lines)
