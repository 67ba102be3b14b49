#!/usr/bin/env bash
# OpenCV: its ONNX engine samples bicubically as bilinearly, and shrinks without the antialiasing.
#
# Versions: opencv-python-headless 5.0.0.93, onnx 1.23.2, onnxruntime 1.32.0 (as a check),
# numpy 2.4.6.
#
# Behavior: cv2.dnn of OpenCV 5 reads GridSample and Resize of an ONNX file, but not all that the
# file says of them: mode "cubic" of GridSample gives what "linear" gives, and Resize with
# antialias=1 what it gives without. Pooling with auto_pad SAME_LOWER pads below and to the right,
# as SAME_UPPER does. Nothing is raised or logged, and naming the engine (ENGINE_NEW,
# ENGINE_CLASSIC) changes nothing. The plain forms agree with ONNX Runtime to rounding.
#
# Output seen (a smooth image of 16 x 16 with values from -1 to 1; Resize to 5 x 5; largest
# difference from ONNX Runtime, and from ONNX Runtime with the plain form of the operator):
#   GridSample linear           0.000000
#   GridSample cubic            0.209746   from linear 0.000000
#   Resize linear               0.000001
#   Resize linear, antialias    0.430063   from no antialias 0.000001
#   Resize cubic                0.000001
#   Resize cubic, antialias     0.274500   from no antialias 0.000001
#   MaxPool, SAME_UPPER         0.000000
#   MaxPool, SAME_LOWER         1.166409   from SAME_UPPER 0.000000
#   AveragePool, SAME_UPPER     0.000000
#   AveragePool, SAME_LOWER     1.050753   from SAME_UPPER 0.000000
#
# For a user: PyTorch exports F.grid_sample(mode="bicubic") and F.interpolate(antialias=True) as
# these. A matcher or stereo network that shrinks its images itself sees aliased ones in OpenCV, one
# that reads features between cells blurred ones: it runs, and finds fewer and less exact matches.
# Compare with ONNX Runtime before deployment, and let images be shrunk outside of the file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
    numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93
"$work/venv/bin/python" - <<'PY'
import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

SIDE, SMALL = 16, 5
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

y, x = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
IMAGE = np.sin(x / 1.3 + y / 2.1)[None, None].astype(np.float32)
# Places 0.3 px right of and below the pixels, counted from -1 to 1, the edges of the image.
PLACES = ((np.stack([x, y], axis=-1) + 0.8) * 2 / SIDE - 1)[None].astype(np.float32)


def model(operator, size, **options):
    """One operator on the image; the places of GridSample and the size of Resize are constants."""
    constants, names = {}, ["image"]
    if operator == "GridSample":
        constants, names = {"places": PLACES}, ["image", "places"]
    elif operator == "Resize":
        constants, names = {"size": np.array([1, 1, size, size])}, ["image", "", "", "size"]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, side, side])]
        for name, side in (("image", SIDE), ("out", size))
    )
    node = helper.make_node(operator, names, ["out"], **options)
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "one", inputs, outputs, stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def by_opencv(made):
    net = cv2.dnn.readNetFromONNX(np.frombuffer(made, np.uint8))
    net.setInput(IMAGE, "image")
    return net.forward()


def by_runtime(made):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": IMAGE})[0]


def grid(mode):
    return model("GridSample", SIDE, mode=mode)


def resize(mode, antialias=0):
    return model("Resize", SMALL, mode=mode, antialias=antialias)


def pool(operator, where):
    return model(operator, SIDE, kernel_shape=[2, 2], auto_pad=where)


UPPER = {kind: pool(kind, "SAME_UPPER") for kind in ("MaxPool", "AveragePool")}
CASES = [
    ("GridSample linear", grid("linear"), "", b""),
    ("GridSample cubic", grid("cubic"), "linear", grid("linear")),
    ("Resize linear", resize("linear"), "", b""),
    ("Resize linear, antialias", resize("linear", 1), "no antialias", resize("linear")),
    ("Resize cubic", resize("cubic"), "", b""),
    ("Resize cubic, antialias", resize("cubic", 1), "no antialias", resize("cubic")),
]
for kind, upper in UPPER.items():
    lower = pool(kind, "SAME_LOWER")
    CASES += [(f"{kind}, SAME_UPPER", upper, "", b"")]
    CASES += [(f"{kind}, SAME_LOWER", lower, "SAME_UPPER", upper)]

print(f"OpenCV {cv2.__version__}")
for name, made, plain, of_plain in CASES:
    found = by_opencv(made)
    off = abs(found - by_runtime(made)).max()
    line = f"{name:26s}  {off:.6f}"
    if plain:
        same = abs(found - by_runtime(of_plain)).max()
        line += f"   from {plain} {same:.6f}"
        assert off > 0.1 and same < 1e-5, line
    else:
        assert off < 1e-5, line
    print(line)
print("as described")
PY
