"""Two images of any kind and size to matches in their original pixels."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import NoReturn, Unpack

import numpy as np
import torch
from torch import Tensor

from matcher.config import MatcherConfig
from matcher.errors import Code, MatcherError, MemoryLimitError
from matcher.images.load import ImageSource, MaskSource, Reading
from matcher.images.preprocess import (
    PairReader,
    PreparedImage,
    PreparedPair,
    pad_feature_maps,
)
from matcher.network.model import FeatureMatcher
from matcher.network.photometric import refine_matches
from matcher.network.quality import QualityHead, figures_of
from matcher.network.query_points import locate_points, points_in
from matcher.options import PredictorOptions, Settings, options_of
from matcher.predictor.looks import best_turn, looked_closer
from matcher.runtime import find_device, find_dtype, in_halves, own_settings
from matcher.structures import FeatureMaps, LocatedPoints, Matches
from matcher.validation.checked import LARGEST, Positive, Share, checked, invalid

Pair = (
    tuple[ImageSource, ImageSource]
    | tuple[ImageSource, ImageSource, MaskSource | None, MaskSource | None]
)


@checked()
class CallOptions:
    """Options of one call of a predictor."""

    threshold: Share | None = None
    top_k: Positive | None = None
    batch_size: Positive = 4


class Predictor:
    """Matches images with a model.

    Args:
        model: is moved to `device` and set to evaluation mode.
        options: all options at once; single ones may be given as keywords instead:
        device, threshold, max_side, top_k, refine, snap, rotate, zoom, apply_exif, allow_truncated,
        max_pixels, bands, nodata, stretch: see `PredictorOptions`.
        dtype: likewise, or of torch; None: auto. With float32 on a GPU, PyTorch's own setting
            decides whether convolutions round to TF32.

    Raises:
        UsageError: a value that cannot work, or a device that is not there.
    """

    def __init__(
        self,
        model: FeatureMatcher,
        options: PredictorOptions | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        self._set_options(model.config, options_of(options, settings))
        # Channels last: the maps of the transformer are views of its tokens, and convolutions on
        # the CPU need no reordering.
        self.model = model.to(self.device).eval()
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def _set_options(self, config: MatcherConfig, options: PredictorOptions) -> None:
        """All that does not hang on the model itself."""
        self.options = options
        self.weights: Path | None = None
        """The file that `load_matcher` read."""
        self.quality: QualityHead | None = None
        """What tells how likely refined matches are right; `load_matcher` finds it."""
        stretch = gains_by_stretch(config) if options.stretch is None else options.stretch
        reading: Reading = {**options.reading, "stretch": stretch}
        self.reader = PairReader(config, options.max_side, reading)
        self.device = find_device(options.device)
        self.dtype = find_dtype(options.dtype, self.device)

    def match(
        self,
        image0: ImageSource,
        image1: ImageSource,
        *,
        mask0: MaskSource | None = None,
        mask1: MaskSource | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
    ) -> Matches:
        """Match two images.

        Args:
            image0: a path, an array, a tensor, a PIL image or a loaded one (see
                `matcher.images.load.load_image`); the sizes of the two images may differ.
            mask0: (H, W) in pixels of image 0 as stored, or a mask image: False (black) where
                nothing may match; `mask1` likewise.
            threshold: for this call, as `top_k`.

        Returns:
            Matches on the CPU, best first (`Matches.rank`), in pixels of the original images. A
            match that was refined to outside of its image is dropped. No match is a result, not an
            error; its reason is ``too_small`` for an image below 32 pixels and ``masked`` for one
            that is all masked.

        Raises:
            UsageError: a missing file (E111), or an option or a mask that cannot work (E201).
            ImageError: an image that cannot be used (E101 to E105).
            MemoryLimitError: the pair does not fit into memory (E131).
        """
        call = CallOptions(threshold, top_k)
        return self._match([self.reader.read(image0, image1, mask0, mask1)], call)[0]

    @own_settings()
    def locate(
        self,
        image0: ImageSource,
        image1: ImageSource,
        points: np.ndarray | Tensor | Sequence[Sequence[float]],
        *,
        mask0: MaskSource | None = None,
        mask1: MaskSource | None = None,
    ) -> LocatedPoints:
        """Where points of image 0 lie in image 1, and whether they can be seen there.

        The images are matched as by `match`, with all matches; from those around a point it is
        found by the pixels (`matcher.network.query_points`), also with ``refine=none``.

        Args:
            points: (N, 2) of (x, y) in pixels of image 0 as stored.

        Returns:
            The same points, on the CPU, with their places in pixels of image 1 as stored. A point
            that lies outside of image 1 is not visible.

        Raises:
            UsageError: points that are not of two finite numbers or not in image 0 (E201), and as
                `match`.
            ImageError, MemoryLimitError: as `match`.
        """
        pair = self.reader.read(image0, image1, mask0, mask1)
        points0 = points_in(points, pair.input0.image.size)
        found = self._match([pair], CallOptions(None, LARGEST))[0]
        if found.turned:
            pair = pair._replace(input1=self.reader.turned(pair.input1, found.turned))
        return locate_points(pair, found, points0, self.device)

    def match_many(
        self,
        pairs: Iterable[Pair],
        *,
        batch_size: int = 4,
        threshold: float | None = None,
        top_k: int | None = None,
    ) -> Iterator[Matches]:
        """Match pairs, several at a time; results come in order and equal those of `match`.

        The next batch is read while the network is busy. A batch that does not fit into memory is
        matched in halves.

        Args:
            pairs: (image0, image1) or (image0, image1, mask0, mask1), as `match` takes them.
            batch_size: pairs at a time; they need not be of one size.
            threshold: for this call, as `top_k`.

        Raises:
            MatcherError: as `match`, when the pair at fault comes up; nothing follows.
        """
        return self._match_batches(iter(pairs), CallOptions(threshold, top_k, batch_size))

    def _match_batches(self, pairs: Iterator[Pair], call: CallOptions) -> Iterator[Matches]:
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead: list[Future[PreparedPair]] = []
            while batch := list(islice(pairs, call.batch_size)):
                reading = [reader.submit(self._read, pair) for pair in batch]
                yield from self._match_read(ahead, call)
                ahead = reading
            yield from self._match_read(ahead, call)

    def _read(self, pair: Pair) -> PreparedPair:
        if not isinstance(pair, (tuple, list)) or len(pair) not in (2, 4):
            found = f"{type(pair).__name__} {pair!r}"[:80]
            raise invalid("pairs", found, "(image0, image1) or (image0, image1, mask0, mask1)")
        image0, image1, mask0, mask1 = pair if len(pair) == 4 else (*pair, None, None)
        return self.reader.read(image0, image1, mask0, mask1)

    def _match_read(
        self, reading: Sequence[Future[PreparedPair]], call: CallOptions
    ) -> Iterator[Matches]:
        """Match what could be read before the first fault, then raise that."""
        read: list[PreparedPair] = []
        fault: MatcherError | None = None
        for future in reading:
            try:
                read.append(future.result())
            except MatcherError as error:
                fault = error
                break
        yield from self._match(read, call)
        if fault is not None:
            raise fault

    @own_settings()
    def _match(self, pairs: Sequence[PreparedPair], call: CallOptions) -> list[Matches]:
        """Matches of a batch; of its halves where memory runs out."""
        return in_halves(lambda part: self._match_at_once(part, call), pairs, self._refuse)

    def _refuse(self, pair: PreparedPair) -> NoReturn:
        """Tell of a pair that does not fit into memory."""
        sizes = [f"{image.canvas.shape[2]} x {image.canvas.shape[1]}" for image in pair]
        what = f"out of memory with images of {' and '.join(sizes)} pixels"
        raise MemoryLimitError(Code.OUT_OF_MEMORY, self.device, what, "lower max_side")

    def _match_at_once(self, pairs: Sequence[PreparedPair], call: CallOptions) -> list[Matches]:
        reasons = [pair.reason for pair in pairs]
        able = [pair for pair, reason in zip(pairs, reasons, strict=True) if not reason]
        found: Iterator[Matches] = iter(())
        if able:
            features0, features1 = ([self.extract(p[side]) for p in able] for side in (0, 1))
            limits = call.threshold, call.top_k
            found = iter(self.match_prepared(able, features0, features1, *limits))
        return [Matches.empty(reason) if reason else next(found) for reason in reasons]

    def match_prepared(
        self,
        pairs: Sequence[PreparedPair],
        features0: Sequence[FeatureMaps],
        features1: Sequence[FeatureMaps],
        threshold: float | None = None,
        top_k: int | None = None,
    ) -> list[Matches]:
        """Matches as of `match_features`, and by what the options `rotate` and `zoom` add.

        Where the images are turned or looked at again, those of `pairs` must have their pixels.
        """
        if not self.looks_again:
            return self.match_features(pairs, features0, features1, threshold, top_k)
        # What top_k leaves may tell too little.
        found = self.match_features(pairs, features0, features1, threshold, sys.maxsize)
        looks = map(self._best_look, found, pairs, features0, repeat(threshold))
        top_k = self.options.top_k if top_k is None else top_k
        return [each.top(top_k) for each in looks]

    def _best_look(
        self, found: Matches, pair: PreparedPair, features0: FeatureMaps, threshold: float | None
    ) -> Matches:
        """Matches of a pair as the options `rotate` and `zoom` find them after a first look."""

        def look(image0: FeatureMaps, at: PreparedPair) -> Matches:
            features = [image0], [self.extract(at.input1)]
            return self.match_features([at], *features, threshold, sys.maxsize)[0]

        def look_at_part(part: PreparedPair) -> Matches:
            return look(self.extract(part.input0), part)

        if self.options.rotate != "off":
            turns, look_at_turned = self.options.rotate, partial(look, features0)
            found, pair = best_turn(found, pair, turns, self.reader, look_at_turned)
        if self.options.zoom != "off":
            found = looked_closer(found, pair, self.reader, look_at_part)
        return found

    @property
    def looks_again(self) -> bool:
        """Whether a pair may be looked at more than once."""
        return self.options.rotate != "off" or self.options.zoom != "off"

    def extract(self, image: PreparedImage) -> FeatureMaps:
        """Features of one image, on its own canvas: (1, C, h, w) and (1, D, H, W).

        This and `match_features` are parts of a match: who calls them does so in `own_settings`.
        """
        with self._arithmetic():
            return self.model.extract(image.canvas[None].to(self.device))

    def match_features(
        self,
        pairs: Sequence[PreparedPair],
        features0: Sequence[FeatureMaps],
        features1: Sequence[FeatureMaps],
        threshold: float | None = None,
        top_k: int | None = None,
    ) -> list[Matches]:
        """Matches of a batch from the features of its images, one by one from `extract`.

        Args:
            pairs: sizes, masks and the way back to original pixels; none with a `reason`.
        """
        threshold = self.options.threshold if threshold is None else threshold
        top_k = self.options.top_k if top_k is None else top_k
        if self._mixed and self.device.type == "cpu" and len(pairs) > 1:
            # Half-precision products round by the size of a batch, which gains nothing here.
            one_by_one = zip(pairs, features0, features1, strict=True)
            limits = threshold, top_k
            return [self.match_features([p], [f0], [f1], *limits)[0] for p, f0, f1 in one_by_one]
        cells0, cells1 = ([pair[side].valid.to(self.device) for pair in pairs] for side in (0, 1))
        batch0, mask0 = pad_feature_maps(features0, cells0)
        batch1, mask1 = pad_feature_maps(features1, cells1)
        with self._arithmetic():
            output = self.model.match(batch0, batch1, mask0, mask1, threshold=threshold)
        found = zip(output.split(len(pairs)), pairs, strict=True)
        return [self._in_original(matches, pair, top_k) for matches, pair in found]

    def _in_original(self, found: Matches, pair: PreparedPair, top_k: int | None) -> Matches:
        """The best matches of the network, on the CPU, in pixels of the originals; refined where
        that is asked for."""
        found = pair.in_full_size(found.to("cpu"))
        if self.options.refine == "photometric":
            refined = refine_matches(pair, found, self.device, snap=self.options.snap)
            if self.quality is not None:
                quality = self.quality(figures_of(pair, found, refined))
                refined = replace(refined, quality=quality)
            found = refined
        return pair.as_stored(found).top(top_k)

    @property
    def _mixed(self) -> bool:
        return self.dtype != torch.float32

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Mixed precision where asked for, and the same result every time."""
        with (
            torch.autocast(self.device.type, dtype=self.dtype, enabled=self._mixed),
            torch.backends.cudnn.flags(
                enabled=True, deterministic=True, allow_tf32=torch.backends.cudnn.allow_tf32
            ),
        ):
            yield


def gains_by_stretch(config: MatcherConfig) -> bool:
    """Whether images of low contrast are widened for these weights.

    Those with the lean pyramid are trained here: of seven pairs at 15% of their contrast they gave
    9,584 matches as they are and 11,314 widened, of 11,637 at full contrast. Published weights see
    pixels as in their published evaluation.
    """
    return config.backbone.pyramid == "lean"
