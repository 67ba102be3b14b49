"""Focal lengths of EXIF beside COLMAP's own guess, on files made here."""

from __future__ import annotations

from pathlib import Path

import pycolmap
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from matcher.images.exif import exif_camera, gps_position

SIZES = [(640, 480), (480, 640), (1024, 683), (333, 500)]
INCH = 25.4
Tags = dict[int, object]


def photograph(path: Path, size: tuple[int, int], tags: Tags) -> Path:
    exif = Image.Exif()
    exif[Base.Orientation] = tags.pop(Base.Orientation, 1)
    exif.get_ifd(IFD.Exif).update(tags)
    Image.new("L", size).save(path, exif=exif)
    return path


def plane(length: float, sensor: float, width: int, unit: int = 2) -> Tags:
    """A lens of `length` mm before a sensor `sensor` mm wide of so many pixels."""
    per_unit = width / sensor * {2: INCH, 3: 10, 4: 1}[unit]
    return {
        Base.FocalLength: IFDRational(round(length * 1000), 1000),
        Base.FocalPlaneXResolution: IFDRational(round(per_unit * 1000), 1000),
        Base.FocalPlaneResolutionUnit: unit,
        Base.ExifImageWidth: width,
    }


def told(width: int) -> list[Tags]:
    """What photographs of so many pixels across may tell; what tells nothing is the last three."""
    return [
        {Base.FocalLengthIn35mmFilm: 50},
        {Base.FocalLengthIn35mmFilm: 24, Base.Orientation: 6},
        {Base.FocalLengthIn35mmFilm: 28, **plane(4.2, 5.6, width)},
        {Base.FocalLengthIn35mmFilm: 0, **plane(35.0, 23.5, width)},
        plane(50.0, 36.0, width, unit=3),
        plane(18.0, 22.3, width, unit=4),
        plane(6.1, 7.4, width),
        {},
        {Base.FocalLengthIn35mmFilm: 0},
        {Base.FocalLength: IFDRational(35)},
    ]


FILES = [(size, number) for size in SIZES for number in range(len(told(1)))]


@pytest.mark.parametrize(("size", "number"), FILES)
def test_the_focal_length_is_the_one_that_colmap_guesses(
    tmp_path: Path, size: tuple[int, int], number: int
) -> None:
    path = photograph(tmp_path / "a.jpg", size, told(size[0])[number])
    theirs, ours = pycolmap.infer_camera_from_image(path), exif_camera(path)
    assert ours is not None
    assert ours.size == (theirs.width, theirs.height)
    assert ours.focal_known == theirs.has_prior_focal_length == (number < 7)
    assert ours.focal[0] == pytest.approx(theirs.mean_focal_length(), abs=0.1)


def test_there_are_forty_files() -> None:
    assert len(FILES) == 40


def test_fifty_millimeters_at_640_by_480_go_by_the_diagonal(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg", (640, 480), {Base.FocalLengthIn35mmFilm: 50})
    camera = exif_camera(path)
    assert camera is not None
    assert camera.focal[0] == pytest.approx(924.4, abs=0.1)


def test_the_sensor_of_a_shrunk_picture_counts_at_the_size_that_it_had(tmp_path: Path) -> None:
    """COLMAP takes 9,130 pixels, ten times too many: a field of view of four degrees."""
    path = photograph(tmp_path / "a.jpg", (640, 480), plane(35.0, 23.0, 6000))
    camera = exif_camera(path)
    assert camera is not None
    assert camera.focal[0] == pytest.approx(35 / 23 * 640, abs=0.1)
    assert pycolmap.infer_camera_from_image(path).mean_focal_length() > 9000


@pytest.mark.parametrize("width", [None, 640])
def test_a_focal_plane_that_may_be_of_another_size_is_distrusted(
    tmp_path: Path, width: int | None
) -> None:
    tags = {**plane(35.0, 23.0, 6000), Base.ExifImageWidth: width}
    if width is None:
        del tags[Base.ExifImageWidth]
    camera = exif_camera(photograph(tmp_path / "a.jpg", (640, 480), tags))
    assert camera is not None
    assert not camera.focal_known


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe1\x00\x20Exif\x00\x00"])
def test_what_is_no_image_has_no_camera(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert exif_camera(path) is None


def test_a_tiff_says_where_and_how_it_was_taken(tmp_path: Path) -> None:
    tags = ImageFileDirectory_v2()
    tags[IFD.Exif] = {Base.FocalLengthIn35mmFilm: 50}
    tags[IFD.GPSInfo] = {GPS.GPSLatitude: (90.0, 0.0, 0.0), GPS.GPSLongitude: (0.0, 0.0, 0.0)}
    Image.new("L", (640, 480)).save(tmp_path / "a.tif", tiffinfo=tags)
    camera, place = exif_camera(tmp_path / "a.tif"), gps_position(tmp_path / "a.tif")
    assert camera is not None
    assert camera.focal_known
    assert place is not None
    assert place[2] == pytest.approx(6_356_752, abs=1)


def test_the_focal_length_of_a_picture_beyond_the_limit_of_pillow_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photograph(tmp_path / "a.jpg", (640, 480), {Base.FocalLengthIn35mmFilm: 50})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    camera = exif_camera(path)
    assert camera is not None
    assert camera.focal_known
