"""The options of a predictor and of a pair, checked before anything heavy is imported or read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

from pydantic import Field

from matcher.images.opening import MAX_PIXELS
from matcher.results.formats import FOREIGN_SUFFIXES, FORMATS, PICTURE_SUFFIXES
from matcher.validation.checked import Name, Positive, Share, checked, invalid

if TYPE_CHECKING:
    import torch

    from matcher.images.load import Reading

MODEL_OF_STYLE = {"warp": ("homography",), "epipolar": ("fundamental", "essential", "pose")}
INTRINSICS = "[fx,fy,cx,cy] or nine numbers row by row, fx and fy above 0, no skew"
USAGE = """\
usage: {command} IMAGE0 IMAGE1 [key=value ...] [--debug]

Finds corresponding points in two images, and writes them and a picture where asked to.

examples:
  {command} a.jpg b.jpg output=auto
  {command} a.jpg b.jpg output=pairs/ab.csv threshold=0.4 top_k=1000
  {command} a.jpg b.jpg geometry=homography style=warp picture=warp.jpg
  {command} a.jpg b.jpg geometry=essential K=[520,520,319.5,239.5] estimator=magsac
  {command} a.jpg b.jpg geometry=pose cameras=exif
  {command} a.jpg b.jpg weights=outdoor device=cuda max_side=1600
  {command} a.jpg b.jpg points=ab.csv    where single points are
  {command} pairs=list.txt output=run export=colmap   (more: {command} pairs= --help)

options and their defaults:
{options}
  --debug     show the traceback of an error
  --version   show the version
  --help      show this

exit codes: 0 done (also with no match), 2 wrong usage or missing file, 3 unreadable or too
large image, 4 results cannot be written, 5 weights refused, 130 or 143 interrupted, 1 a bug
"""

Device = Annotated[
    str, Field(pattern=r"^(cpu|mps|cuda(:\d{1,3})?)$", description="cpu, cuda, cuda:<number>, mps")
]
Intrinsics = Annotated[tuple[float, ...], Field(description=INTRINSICS)]
Bands = Annotated[
    Positive | tuple[Positive] | tuple[Positive, Positive, Positive],
    Field(description="one band or three (red, green, blue), counted from 1"),
]
Turns = Annotated[
    Literal["auto", "off"] | tuple[Annotated[int, Field(ge=1, le=3)], ...],
    Field(description="auto, off or a list of quarter turns from 1 to 3"),
]


@checked()
class PredictorOptions:
    """What a predictor is told besides its weights."""

    device: Device | None = None
    """cpu, cuda, cuda:1 or mps; null: cuda where there is one, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic where that is safe: float32, bfloat16, float16; auto: bfloat16 where the device
    is faster in it, else float32."""
    offline: bool = False
    """Never download weights, fail instead."""
    threshold: Share | None = None
    """Confidence from 0 to 1 that a match must exceed; null: the weights' own."""
    max_side: Positive | None = 1024
    """Longer sides are shrunk to this many pixels, never enlarged; strips longer than 4 to 1 are
    limited by their area instead; null: no limit."""
    top_k: Positive | None = None
    """Keep only the best this many matches of a pair."""
    refine: Literal["photometric", "none"] = "photometric"
    """photometric: move matches to where the pixels around them agree, at the size as stored;
    none: leave them as the network places them."""
    snap: bool = False
    """refine=photometric: points of image 0 move to the strongest corner within 3 pixels first, so
    that pairs share them."""
    rotate: Turns = "off"
    """Quarter turns of image 1, counterclockwise, to try besides, such as [1,3]; the one with most
    inliers of a reliable verdict is taken. auto: all, where as it is there is no such verdict or
    few inliers; off: none. Coordinates stay those of the images as stored."""
    zoom: Literal["auto", "off"] = "auto"
    """auto: where few matches lie in a part of both images, that part is enlarged and matched too,
    and its matches are added; off: no."""
    apply_exif: bool = True
    """Turn images upright as EXIF says; coordinates stay those of the images as stored."""
    allow_truncated: bool = False
    """Take what there is of a damaged image."""
    max_pixels: Positive = MAX_PIXELS
    """Images of more pixels are refused."""
    bands: Bands | None = None
    """Band, or the three for red, green and blue, that are read of a TIFF, counted from 1; null:
    the first ones."""
    nodata: float | None = None
    """Value of pixels that hold nothing; null: what a TIFF says of itself, and what stands out."""
    stretch: bool | None = None
    """Widen 8-bit images of low contrast; null: where the weights gain by it, which those trained
    here do and published ones need not."""

    @property
    def reading(self) -> Reading:
        """How files become images, all but `stretch`."""
        return {
            "apply_exif": self.apply_exif,
            "allow_truncated": self.allow_truncated,
            "bands": self.bands,
            "nodata": self.nodata,
            "max_pixels": self.max_pixels,
        }


class Settings(TypedDict, total=False):
    """Single options of a predictor, as keywords; `PredictorOptions` holds their defaults."""

    device: str | torch.device | None
    dtype: str | torch.dtype | None
    offline: bool
    threshold: float | None
    max_side: int | None
    top_k: int | None
    rotate: Literal["auto", "off"] | Sequence[int]
    zoom: Literal["auto", "off"]
    refine: Literal["photometric", "none"]
    snap: bool
    apply_exif: bool
    allow_truncated: bool
    max_pixels: int
    bands: int | Sequence[int] | None
    nodata: float | None
    stretch: bool | None


def options_of(options: PredictorOptions | None, settings: Settings) -> PredictorOptions:
    """`options` with single ones replaced; E201 or E202 where that cannot be."""
    if options is not None and not settings:
        return options
    changes = dict(settings)
    if "device" in changes and changes["device"] is not None:
        changes["device"] = str(changes["device"])
    if "dtype" in changes:
        changes["dtype"] = str(changes["dtype"] or "auto").removeprefix("torch.")
    return replace(options or PredictorOptions(), **changes)


@checked()
class WeightsOptions(PredictorOptions):
    """What a predictor is made of."""

    weights: Name = "compact"
    """compact, outdoor, indoor, loftr_outdoor, loftr_indoor, loftr_indoor_new, or the path of
    yours; a .ckpt is converted on first use."""


@checked()
class MatchOptions(WeightsOptions):
    """How one pair is matched."""

    mask0: Name | None = None
    """Gray image of the size of image 0: no match where it is black."""
    mask1: Name | None = None
    """Gray image of the size of image 1: no match where it is black."""
    geometry: Literal["none", "homography", "fundamental", "essential", "pose"] = "none"
    """Model to fit, which tells inliers: homography, fundamental, essential (needs K) or pose: as
    essential, through any lens, and focal lengths that are not known are found; none."""
    estimator: Literal["poselib", "magsac"] = "poselib"
    """What fits the model."""
    ransac_threshold: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    """Error of an inlier in pixels, at most."""
    K: Intrinsics | None = None
    """[fx,fy,cx,cy] in pixels of both images, for geometry=essential and pose."""
    K0: Intrinsics | None = None
    """K of image 0 alone."""
    K1: Intrinsics | None = None
    """K of image 1 alone."""
    cameras: Name | None = None
    """geometry=pose: cameras of images that have no K: a CSV file, a cameras.txt or a model of
    COLMAP, or exif; null: nothing is known of them."""
    rotate: Turns = "auto"
    points: Name | None = None
    """CSV file of x,y in pixels of image 0 as stored: instead of matches, where each of them is in
    image 1, or that it is not visible there."""
    output: Name | None = None
    """File of the results: .h5, .npz, .csv or .json; or for other programs: .vrt (GDAL), .points
    (QGIS), .pto (Hugin), .ply (a cloud of points, with a pose); auto: .h5, named after the images,
    in the current folder; with points= a .csv; null: none."""
    picture: Name | None = "auto"
    """Picture of the matches: .png, .jpg or .webp; auto: beside the output; null: none."""
    style: Literal["matches", "overlay", "coverage", "warp", "epipolar"] = "matches"
    """What is drawn; warp and epipolar need their geometry."""
    lines: Positive = 200
    """Draw at most this many matches."""

    def __post_init__(self) -> None:
        require_pinholes(self.K, self.K0, self.K1)
        if self.geometry == "essential" and not (self.K or (self.K0 and self.K1)):
            raise invalid("K", None, "[fx,fy,cx,cy] in pixels with geometry=essential")
        if self.cameras and self.geometry != "pose":
            raise invalid("geometry", self.geometry, "pose with cameras=")
        if self.cameras and all(self.intrinsics):
            raise invalid("cameras", self.cameras, "none beside K of both images")
        self._require_output()
        of_hugin = self.output and Path(self.output).suffix.lower() == ".pto"
        if any(self.intrinsics) and self.geometry not in ("essential", "pose") and not of_hugin:
            raise invalid("geometry", self.geometry, "essential or pose with K=, or output=ab.pto")
        if self.points:
            self._require_nothing_of_matches()
        path = self.picture_path
        if path and path.suffix.lower() not in PICTURE_SUFFIXES:
            expected = f"a name ending in {', '.join(PICTURE_SUFFIXES)}"
            raise invalid("picture", self.picture, expected)
        if path and self.output and path == Path(self.output):
            raise invalid("picture", self.picture, "another file than output")
        if self.geometry not in MODEL_OF_STYLE.get(self.style, (self.geometry,)):
            needed = " or ".join(MODEL_OF_STYLE[self.style])
            raise invalid("style", self.style, f"geometry={needed} with it, not {self.geometry}")

    def _require_output(self) -> None:
        """Refuse a file of results of a kind that is not written (E201)."""
        if self.output in (None, "auto"):
            return
        suffix, known = Path(self.output).suffix.lower(), (*FORMATS, *FOREIGN_SUFFIXES)
        if suffix not in known:
            raise invalid("output", self.output, f"a name ending in {', '.join(known)}")
        if suffix == ".ply" and self.geometry not in ("essential", "pose"):
            raise invalid(
                "geometry", self.geometry, "essential or pose, for a cloud of points (.ply)"
            )

    def _require_nothing_of_matches(self) -> None:
        """Refuse what only matches have, beside `points` (E201)."""
        if self.output not in (None, "auto") and Path(self.output).suffix.lower() != ".csv":
            raise invalid("output", self.output, "a name ending in .csv with points=")
        if self.geometry != "none":
            raise invalid("geometry", self.geometry, "none with points=")
        if self.style != "matches":
            raise invalid("style", self.style, "matches with points=")

    @cached_property
    def picture_path(self) -> Path | None:
        if self.picture != "auto":
            return Path(self.picture) if self.picture else None
        return Path(self.output).with_suffix(".png") if self.output else None

    @property
    def intrinsics(self) -> tuple[list[list[float]] | None, list[list[float]] | None]:
        """(3, 3) of both images; None where neither `K` nor that of the image is set."""
        first, second = (rows_of(K) if K else None for K in (self.K0 or self.K, self.K1 or self.K))
        return first, second


def require_intrinsics(name: str, K: tuple[float, ...] | None) -> None:
    """Refuse what no pinhole camera without skew has (E201); None is no camera."""
    if K is None:
        return
    wrong = len(K) not in (4, 9) or min(K[0], K[4 if len(K) == 9 else 1]) <= 0
    if wrong or (len(K) == 9 and (K[1], K[3], *K[6:]) != (0, 0, 0, 0, 1)):
        raise invalid(name, K, INTRINSICS)


def require_pinholes(
    K: tuple[float, ...] | None, K0: tuple[float, ...] | None, K1: tuple[float, ...] | None
) -> None:
    """Refuse what no pinhole camera has, and K beside one of K0 and K1 (E201)."""
    for name, value in (("K", K), ("K0", K0), ("K1", K1)):
        require_intrinsics(name, value)
    if K and (K0 or K1):
        raise invalid("K", K, "either K for both images, or K0 and K1")


def camera_of(K: tuple[float, ...]) -> tuple[float, float, float, float]:
    """(fx, fy, cx, cy) of the same four or of nine numbers row by row."""
    fx, fy, cx, cy = K if len(K) == 4 else (K[i] for i in (0, 4, 2, 5))
    return fx, fy, cx, cy


def rows_of(K: tuple[float, ...]) -> list[list[float]]:
    """The three rows of [fx,fy,cx,cy] or of nine numbers."""
    fx, fy, cx, cy = camera_of(K)
    return [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]
