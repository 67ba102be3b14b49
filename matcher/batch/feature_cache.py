"""Images of a collection: read ahead of the network, their features kept while there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from matcher.images.normalize import pack_gray
from matcher.images.preprocess import PreparedImage
from matcher.predictor import Predictor
from matcher.structures import FeatureMaps


class Extracted(NamedTuple):
    """An image that went through the backbone; of its pixels what the refinement needs is left."""

    input: PreparedImage
    features: FeatureMaps

    @property
    def nbytes(self) -> int:
        """Of a photograph of 24 megapixels a third is its gray values, a byte each."""
        mask = self.input.mask
        pixels = self.input.image.gray.nbytes + (0 if mask is None else mask.nbytes)
        return pixels + sum(feature_map.nbytes for feature_map in self.features)


class ImageFeatures:
    """Features of images by number, of which `cache_bytes` are kept; least recently used go first.

    The backbone sees one image at a time, on its own canvas, so features do not depend on what
    else is asked for or still kept. So many `readers` are threads that read and decode ahead.
    `require_same` refuses the file of an image that is not the one it should be, `mask_of` names
    the file of its mask.
    """

    def __init__(
        self,
        predictor: Predictor,
        path_of: Callable[[int], str],
        *,
        cache_bytes: int,
        readers: int = 2,
        require_same: Callable[[int, str], None] = lambda image, path: None,
        mask_of: Callable[[int], str | None] = lambda image: None,
    ) -> None:
        self.predictor = predictor
        self.path_of = path_of
        self.require_same = require_same
        self.mask_of = mask_of
        self.cache_bytes = cache_bytes
        self.extractions = 0
        self._kept: OrderedDict[int, Extracted] = OrderedDict()
        self._kept_bytes = 0
        self._reading: dict[int, Future[PreparedImage]] = {}
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="reader")

    def read_ahead(self, images: Iterable[int]) -> None:
        """Begin to read those that are neither kept nor read already."""
        for image in images:
            if image not in self._kept and image not in self._reading:
                self._reading[image] = self._readers.submit(self._read, image)

    def input(self, image: int) -> PreparedImage:
        """An image as the network takes it; without its canvas if its features are kept. Raises as
        `matcher.images.load.load_image`."""
        if image in self._kept:
            return self._kept[image].input
        self.read_ahead([image])
        return self._reading[image].result()

    def features(self, image: int) -> FeatureMaps:
        """Features of an image, from the cache if they are kept; raises as `input`."""
        if image in self._kept:
            self._kept.move_to_end(image)
            return self._kept[image].features
        read = self.input(image)
        features = self.predictor.extract(read)
        self.extractions += 1
        self._keep(image, Extracted(read._replace(canvas=torch.empty(1, 0, 0)), features))
        return features

    def forget_reads(self, but: Iterable[int] = ()) -> None:
        """Let go of pixels that were read, but for some images."""
        wanted = set(but)
        for image in [i for i in self._reading if i not in wanted]:
            self._reading.pop(image).cancel()

    def clear(self) -> None:
        """Let go of all features, and of memory of the device that is not in use."""
        self._kept.clear()
        self._kept_bytes = 0
        if self.predictor.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        self._readers.shutdown(wait=True, cancel_futures=True)

    def _keep(self, image: int, extracted: Extracted) -> None:
        self._kept[image] = extracted
        self._kept_bytes += extracted.nbytes
        self._reading.pop(image, None)
        while self._kept_bytes > self.cache_bytes and self._kept:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes

    def read(self, image: int) -> PreparedImage:
        """An image read anew, with its pixels; raises as `input`."""
        return self.predictor.reader.read_one(self.path_of(image), self.mask_of(image))

    def _read(self, image: int) -> PreparedImage:
        read = self.read(image)
        # Afterwards: what is replaced between is then noticed, at worst for nothing.
        self.require_same(image, self.path_of(image))
        # The original in full size is needed for the refinement alone.
        refines = self.predictor.options.refine == "photometric"
        gray = pack_gray(read.image.gray) if refines else np.empty((0, 0), np.float32)
        bare = replace(read.image, gray=gray, valid=None)
        return read._replace(image=bare, mask=read.mask if refines else None)
