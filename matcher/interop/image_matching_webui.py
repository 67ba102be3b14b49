"""The matcher in the slot ``loftr_quadtree`` of image-matching-webui.

    from imcui.hloc import match_dense
    from matcher.interop import image_matching_webui

    image_matching_webui.register(match_dense.confs)

Its ``imcui.hloc`` is built as hloc; the slot and the name of its module, ``quadtree``, stand in its
settings as comments.
"""

from __future__ import annotations

from typing import Any

from matcher.interop import hloc

SLOT, NAME = "loftr_quadtree", "quadtree"
CONF = {
    "output": "matches-loftr-quadtree",
    "model": {"name": NAME, "weights": "compact", "max_keypoints": 2000},
    "preprocessing": {
        "grayscale": True,
        "resize_max": 1024,
        "dfactor": 8,
        "width": 640,
        "height": 480,
        "force_resize": False,
    },
    "max_error": 1,
    "cell_size": 1,
}


def register(confs: dict[str, Any], package: str = "imcui.hloc") -> type:
    """Fill the slot in the settings of dense matchers, and put the matcher where they lead.

    Returns:
        The class; raises as `matcher.interop.hloc.register`.
    """
    model = hloc.register(package, NAME)
    confs[SLOT] = CONF
    return model
