"""Results as the text that COLMAP imports, without pycolmap: ``colmap_text/``.

| file | for | what |
|---|---|---|
| ``features/<name>.txt`` | ``feature_importer --import_path features`` | keypoints of an image |
| ``matches.txt`` | ``matches_importer --match_list_path matches.txt --match_type raw`` | their numbers in pairs |

COLMAP asks for descriptors of 128 values: they are zero, as nothing is matched by them.
"""  # noqa: E501

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from matcher.batch.export.keypoints import Merged, PairMatches, merged_keypoints, pair_matches
from matcher.batch.run import Run
from matcher.errors import Code, UsageError
from matcher.files import make_folder, write_atomically
from matcher.geometry.pixels import to_colmap

FOLDER, MATCHES, FEATURES = "colmap_text", "matches.txt", "features"
DESCRIPTOR = " 1 0" + " 0" * 128
"""Scale, orientation and the values of a keypoint."""


def export_colmap_text(run: Run, side: float, converged_only: bool = False) -> Path:
    """Write keypoints and matches of a finished run; points of an image in a cell of `side` pixels
    become one keypoint.

    Returns:
        The file of matches.

    Raises:
        UsageError: the name of an image with a space, which ends it in COLMAP's lists, or that
            leads out of the folder (E209).
        StorageError: a shard is damaged (E402) or a file cannot be written (E401).
    """
    require_names(run.pairs.names)
    folder = run.folder / FOLDER
    with merged_keypoints(run, side, converged_only) as merged:
        for image, name in enumerate(run.pairs.names):
            target = folder / FEATURES / f"{name}.txt"
            make_folder(target.parent)
            write_atomically(target, _features(merged, image))
        text = _matches(run.pairs.names, merged, pair_matches(run, converged_only))
    write_atomically(folder / MATCHES, text)
    return folder / MATCHES


def require_names(names: Iterable[str]) -> None:
    """Refuse names that COLMAP's lists cannot hold (E209)."""
    for name in names:
        leads_out = name.startswith("/") or ".." in name.split("/")
        if leads_out or not name.isprintable() or " " in name:
            what, remedy = "cannot stand in COLMAP's text", "rename it: no spaces, inside of root"
            raise UsageError(Code.NAME_NOT_EXPORTABLE, ascii(name), what, remedy)


def _features(merged: Merged, image: int) -> bytes:
    points = to_colmap(merged.keypoints(image)[0])
    lines = [f"{len(points)} 128"]
    lines += [f"{x:.4f} {y:.4f}{DESCRIPTOR}" for x, y in points.tolist()]
    return ("\n".join(lines) + "\n").encode()


def _matches(names: list[str], merged: Merged, pairs: Iterable[PairMatches]) -> bytes:
    out = io.BytesIO()
    for pair in pairs:
        index, _ = merged.matches(pair)
        if len(index):
            out.write(f"{names[pair.image0]} {names[pair.image1]}\n".encode())
            np.savetxt(out, index, fmt="%d")
            out.write(b"\n")
    return out.getvalue()
