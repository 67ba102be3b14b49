"""The program match.py, with a small random model: what it writes, prints and returns."""

from __future__ import annotations

import dataclasses
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import match
from matcher.files import sha256_of
from matcher.network.model import FeatureMatcher, build_matcher
from matcher.options import MatchOptions
from matcher.results.record import read_matches
from matcher.weights.checkpoint import save_safetensors
from tests.helpers.models import COMPACT

ROOT = Path(__file__).resolve().parents[2]
DEMO = [str(ROOT / "assets" / f"demo{i}.jpg") for i in (0, 1)]
DEMO_K = "[520,520,319.5,239.5]"
DEMO_T = np.array(
    [
        [0.900336, -0.096737, 0.424308, -1.549564],
        [0.13185, 0.989792, -0.05411, 0.078466],
        [-0.414742, 0.104662, 0.9039, 0.240195],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
Outcome = tuple[int, str, str]


def words_of(geometry: str) -> list[str]:
    """What asks for a geometry, with the camera where it needs one."""
    return [f"geometry={geometry}", *([f"K={DEMO_K}"] if geometry == "essential" else [])]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random model that keeps every mutual pair of cells."""
    torch.manual_seed(0)
    tiny = dataclasses.replace(
        COMPACT,
        backbone=dataclasses.replace(COMPACT.backbone, initial_dim=8, block_dims=(8, 16, 32)),
        transformer=dataclasses.replace(COMPACT.transformer, layers=("self", "cross")),
        coarse=dataclasses.replace(COMPACT.coarse, threshold=0.0),
    )
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_safetensors(build_matcher(tiny), path)
    return str(path)


@pytest.fixture
def program(
    weights: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Outcome]:
    """match.py in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Outcome:
        given = {word.partition("=")[0] for word in words[2:]}
        quick = {"output": "matches.h5"}
        if "weights" not in given:
            quick |= {"weights": weights, "max_side": "256", "rotate": "off"}
        code = match.main([*words, *(f"{k}={v}" for k, v in quick.items() if k not in given)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 255, (64, 96, 3), dtype=np.uint8)


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".csv", ".json"])
def test_the_demo_pair_gives_a_file_and_a_picture(
    program: Callable[..., Outcome], tmp_path: Path, weights: str, suffix: str
) -> None:
    code, out, err = program(*DEMO, f"output=m{suffix}")
    assert (code, err) == (0, "")
    assert listing(tmp_path) == sorted([f"m{suffix}", "m.png"])
    record = read_matches(tmp_path / f"m{suffix}")
    found = re.search(r"matches +(\d+) in ([\d.]+) s", out)
    assert found is not None
    assert int(found[1]) == len(record.matches) > 0
    assert f"output    m{suffix}\n" in out
    assert "picture   m.png\n" in out
    assert (record.image0.name, record.image0.width, record.image0.height) == (DEMO[0], 640, 480)
    assert record.provenance["weights_sha256"] == sha256_of(weights)
    assert record.provenance["exif"] == "applied"
    assert record.provenance["orientation1"] == 1
    assert record.provenance["values0"] == "plain"
    assert record.verdict
    assert f"verdict   {record.verdict}" in out
    assert len(str(record.provenance["config_sha256"])) == 64
    for keypoints in (record.matches.keypoints0, record.matches.keypoints1):
        assert (keypoints > -0.5).all()
        assert (keypoints < torch.tensor([639.5, 479.5])).all()
    assert Image.open(tmp_path / "m.png").size[0] > 1000


def test_two_runs_write_the_same_bytes(program: Callable[..., Outcome], tmp_path: Path) -> None:
    files = []
    for _ in range(2):
        assert program(*DEMO)[0] == 0
        files.append((tmp_path / "matches.h5").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("geometry", ["homography", "fundamental", "essential"])
@pytest.mark.parametrize("estimator", ["poselib", "magsac"])
def test_models_are_written_with_their_inliers(
    program: Callable[..., Outcome], tmp_path: Path, geometry: str, estimator: str
) -> None:
    words = ("picture=null", *words_of(geometry), f"estimator={estimator}")
    code, out, err = program(*DEMO, *words)
    assert (code, err) == (0, "")
    record = read_matches(tmp_path / "matches.h5")
    assert record.geometry == geometry
    assert record.inliers is not None
    assert f"{geometry}: {record.inliers.sum()} inliers" in out
    assert (record.model is None) == (record.inliers.sum() == 0)
    assert (record.T_0to1 is None) == (record.model is None or geometry != "essential")


def test_the_bundled_weights_find_the_pose_of_the_demo_pair(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    """The cameras of the rendered pair are known (assets/README.md)."""
    code, out, err = program(*DEMO, "weights=compact", "geometry=essential", f"K={DEMO_K}")
    assert (code, err) == (0, "")
    record = read_matches(tmp_path / "matches.h5")
    assert len(record.matches) > 200
    assert record.T_0to1 is not None
    assert record.inliers is not None
    assert record.inliers.mean() > 0.5
    turn = record.T_0to1[:3, :3] @ DEMO_T[:3, :3].T
    assert np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) < 1
    assert record.verdict == "reliable"
    assert not record.translation_unknown
    assert re.search(
        r"pose +rotation by 26\.\d+ degrees about \[0\.1.*; translation along \[-0", out
    )
    direction = DEMO_T[:3, 3] / np.linalg.norm(DEMO_T[:3, 3])
    assert np.degrees(np.arccos(np.clip(record.T_0to1[:3, 3] @ direction, -1, 1))) < 3


@pytest.mark.parametrize("known", ["", "K0", "cameras"])
def test_the_pose_of_the_demo_pair_is_found_with_what_is_known(
    program: Callable[..., Outcome], tmp_path: Path, known: str
) -> None:
    """Focal lengths that nobody told are found and told: 520 pixels."""
    (tmp_path / "cameras.csv").write_text(f"*,{DEMO_K[1:-1]}\n")
    words = {"": [], "K0": [f"K0={DEMO_K}"], "cameras": ["cameras=cameras.csv"]}[known]
    style = ["style=epipolar", "picture=lines.jpg"]
    code, out, err = program(*DEMO, "weights=compact", "geometry=pose", *words, *style)
    assert (code, err) == (0, "")
    record = read_matches(tmp_path / "matches.h5")
    assert record.T_0to1 is not None
    turn = record.T_0to1[:3, :3] @ DEMO_T[:3, :3].T
    assert np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) < 2
    assert record.verdict == "reliable"
    assert record.cameras is not None
    for i, camera in enumerate(record.cameras):
        assert camera.focal[0] == pytest.approx(520, rel=0.05)
        assert camera.focal_known == (known == "cameras" or (known == "K0" and i == 0))
        told = f"focal     of image {i}: {camera.focal[0]:.1f} pixels, found"
        assert (told in out) != camera.focal_known


@pytest.mark.parametrize(
    ("style", "geometry"),
    [("overlay", "none"), ("coverage", "none"), ("warp", "homography"),
     ("epipolar", "fundamental"), ("epipolar", "essential"), ("matches", "homography")],
)  # fmt: skip
def test_every_style_is_drawn(
    program: Callable[..., Outcome], tmp_path: Path, style: str, geometry: str
) -> None:
    words = ("output=null", "picture=p.jpg", f"style={style}", *words_of(geometry))
    code, _, err = program(*DEMO, *words)
    assert (code, err) == (0, "")
    assert listing(tmp_path) == ["p.jpg"]


def test_no_match_is_no_failure(program: Callable[..., Outcome], tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 200, 3), 9, np.uint8)).save(tmp_path / "tiny.png")
    for geometry in ("none", "homography", "fundamental", "essential"):
        code, out, _ = program("tiny.png", DEMO[0], *words_of(geometry))
        assert code == 0
        assert "matches   0 (too_small)" in out
        record = read_matches(tmp_path / "matches.h5")
        assert record.matches.reason == "too_small"
        assert record.model is None


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_image_exits_2(
    program: Callable[..., Outcome], tmp_path: Path, which: int
) -> None:
    paths = list(DEMO)
    paths[which] = "gone.jpg"
    code, out, err = program(*paths)
    assert (code, out) == (2, "")
    assert err.startswith("E111 gone.jpg: no such file")
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "E101"),
        (b"just text", "E101"),
        (b"<!DOCTYPE html><html>404</html>", "E101"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "E101"),
        (Path(DEMO[0]).read_bytes()[:30_000], "E102"),
    ],
)
def test_an_unreadable_image_exits_3(
    program: Callable[..., Outcome], tmp_path: Path, content: bytes, code: str
) -> None:
    (tmp_path / "bad.jpg").write_bytes(content)
    status, out, err = program(DEMO[0], "bad.jpg")
    assert status == 3
    assert "matches " not in out
    assert err.startswith(f"{code} bad.jpg: ")
    assert err.count("\n") == 1
    assert listing(tmp_path) == ["bad.jpg"]


def test_images_beyond_memory_exit_3(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def match(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(FeatureMatcher, "match", match)
    code, _, err = program(*DEMO)
    assert code == 3
    assert err.startswith("E131 cpu: out of memory")
    assert err.count("\n") == 1
    assert "max_side" in err
    assert listing(tmp_path) == []


def test_a_truncated_image_is_taken_on_request(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "cut.jpg").write_bytes(Path(DEMO[0]).read_bytes()[:30_000])
    code, _, _ = program("cut.jpg", DEMO[1], "allow_truncated=true")
    assert code == 0
    assert "true" in str(read_matches(tmp_path / "matches.h5").provenance["options"])


def test_results_that_cannot_be_written_exit_4(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.h5").mkdir()
    for target in ("file/m.h5", "folder.h5", f"{'n' * 300}.h5"):
        code, out, err = program(*DEMO, f"output={target}")
        assert (code, out) == (4, "")
        assert err.startswith("E401 ")
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_input_is_never_replaced(program: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(Path(DEMO[0]).read_bytes())
    code, _, err = program("a.jpg", DEMO[1], "picture=./a.jpg")
    assert code == 2
    assert "would replace an input" in err
    assert (tmp_path / "a.jpg").read_bytes() == Path(DEMO[0]).read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("bad.safetensors", b"\x08\0\0\0\0\0\0\0{}      ", 5),
        ("bad.safetensors", b"", 5),
        ("bad.ckpt", b"no zip", 5),
        ("gone.safetensors", None, 2),
        ("compakt", None, 2),
    ],
)
def test_refused_weights_exit_5_and_unknown_ones_2(
    program: Callable[..., Outcome], tmp_path: Path, name: str, content: bytes | None, status: int
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, out, err = program(*DEMO, f"weights={name}")
    assert (code, out) == (status, "")
    assert re.match(rf"E\d+ {re.escape(name)}: ", err), err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "name",
    ["a b.jpg", "a=b.jpg", "--a.jpg", "+a.jpg", "~a.jpg", "a,b.jpg", "[a].jpg", "{a: b}.jpg",
     "${a}.jpg", "a(1)'\".jpg", "hydra.jpg", "äöü-漢字-🙂.jpg", "a\nb.jpg", "\\a.jpg", "#a.jpg",
     "threshold=0.5", "weights=gone"],
)  # fmt: skip
def test_image_names_hold_any_characters(
    program: Callable[..., Outcome], tmp_path: Path, texture: np.ndarray, name: str
) -> None:
    Image.fromarray(texture).save(tmp_path / name, format="PNG")
    code, _, err = program(name, name, "output=out.json", "picture=null")
    assert code == 0, err
    assert read_matches(tmp_path / "out.json").image1.name == name


def test_masks_keep_matches_out(program: Callable[..., Outcome], tmp_path: Path) -> None:
    mask = np.zeros((480, 640), np.uint8)
    mask[:, :320] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert program(*DEMO, "mask0=mask.png", "picture=null")[0] == 0
    record = read_matches(tmp_path / "matches.h5")
    assert len(record.matches) > 0
    assert (record.matches.keypoints0[:, 0] < 322).all()


def test_options_change_the_result(program: Callable[..., Outcome], tmp_path: Path) -> None:
    assert program(*DEMO, "picture=null")[0] == 0
    everything = read_matches(tmp_path / "matches.h5").matches
    assert program(*DEMO, "picture=null", "top_k=7")[0] == 0
    best = read_matches(tmp_path / "matches.h5").matches
    assert len(best) == 7
    assert torch.equal(best.scores, everything.scores[:7])
    assert program(*DEMO, "picture=null", "threshold=1")[0] == 0
    assert len(read_matches(tmp_path / "matches.h5").matches) == 0


def test_a_bug_exits_1_and_debug_shows_where(
    program: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("oh no")

    monkeypatch.setattr("matcher.pair.match_pair", broken)
    code, _, err = program(*DEMO)
    assert code == 1
    assert err.startswith("E1 match.py: internal error, RuntimeError: oh no")
    assert err.count("\n") == 1
    for words in ((*DEMO, "--debug"), ("--debug", *DEMO)):
        code, _, err = program(*words)
        assert code == 1
        assert "Traceback" in err


def test_too_few_arguments_are_a_usage_error(program: Callable[..., Outcome]) -> None:
    assert match.main([]) == 2
    code = match.main([DEMO[0]])
    assert code == 2


def in_a_process(*words: str, cwd: Path, **kwargs: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "match.py"), *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_help_and_version_are_quick(tmp_path: Path) -> None:
    """Counted in processor time, which other programs do not stretch."""
    for word, expected in (("--help", "python match.py a.jpg b.jpg"), ("--version", "0.")):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = in_a_process(word, cwd=tmp_path)
        out, err = process.communicate()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process.returncode == 0, err
        assert expected in out
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 1.0
    assert listing(tmp_path) == []


def test_help_names_every_option() -> None:
    process = in_a_process("--help", cwd=ROOT)
    out, _ = process.communicate()
    for option in dataclasses.fields(MatchOptions):
        assert f"  {option.name}=" in out


def test_it_runs_from_any_folder_beside_decoys(tmp_path: Path, weights: str) -> None:
    for decoy in ("data", "matcher", "conf"):
        (tmp_path / decoy).mkdir()
        (tmp_path / decoy / "__init__.py").write_text("raise SystemExit(77)")
    process = in_a_process(
        *DEMO, f"weights={weights}", "max_side=256", "output=new/deep/m.h5", cwd=tmp_path
    )
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert listing(tmp_path / "new" / "deep") == ["m.h5", "m.png"]
    assert listing(tmp_path) == ["conf", "data", "matcher", "new"]


def wait_for_handlers(process: subprocess.Popen[str]) -> None:
    """Until the program catches SIGTERM, which Linux tells, and is at work on something."""
    status = Path(f"/proc/{process.pid}/status")
    for _ in range(600):
        caught = re.search(r"SigCgt:\s+(\w+)", status.read_text() if status.exists() else "")
        if caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            break
        time.sleep(0.05)
    time.sleep(0.3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_behind(
    tmp_path: Path, weights: str, number: signal.Signals, code: int
) -> None:
    process = in_a_process(*DEMO, f"weights={weights}", "max_side=640", cwd=tmp_path)
    wait_for_handlers(process)
    started = time.perf_counter()
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == code, err
    assert time.perf_counter() - started < 10
    assert "Traceback" not in err
    assert listing(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_amid_the_import_of_torch_ends_the_program_at_once(
    number: signal.Signals, code: int
) -> None:
    source = (
        "import importlib.abc, importlib.util, os, sys\n"
        "from matcher.program.match import catch_signals\n"
        "catch_signals()\n"
        "class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        return importlib.util.spec_from_loader(name, self) if name == 'torch' else None\n"
        "    def exec_module(self, module):\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Slow())\n"
        "import torch\n"
        "print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_nothing_is_written_unasked(program: Callable[..., Outcome], tmp_path: Path) -> None:
    code, out, _ = program(*DEMO, "output=null")
    assert code == 0
    assert "output    none; output=auto writes matches and a picture" in out
    assert listing(tmp_path) == []


def test_results_named_after_the_pair_say_what_they_replace(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    for said in ("", " (replaced)"):
        _, out, _ = program(*DEMO, "output=auto")
        assert f"output    demo0-demo1.h5{said}\n" in out
        assert f"picture   demo0-demo1.png{said}\n" in out
    assert listing(tmp_path) == ["demo0-demo1.h5", "demo0-demo1.png"]


def test_a_photograph_on_its_side_is_turned_and_coordinates_stay(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    with Image.open(DEMO[1]) as image:
        image.resize((320, 240)).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.png")
        image.resize((320, 240)).save(tmp_path / "up.png")
    with Image.open(DEMO[0]) as image:
        image.resize((320, 240)).save(tmp_path / "a.png")
    found = {}
    for name, rotate in (("up", "auto"), ("side", "auto"), ("side", "off")):
        _, out, _ = program("a.png", f"{name}.png", "weights=compact", f"rotate={rotate}")
        found[name, rotate] = read_matches(tmp_path / "matches.h5"), out
    upright, side, off = (record for record, _ in found.values())
    assert "turned    image 1 by 270 degrees counterclockwise" in found["side", "auto"][1]
    assert (upright.matches.turned, side.matches.turned, off.matches.turned) == (0, 3, 0)
    assert len(off.matches) < len(upright.matches) / 4
    assert torch.equal(side.matches.keypoints0, upright.matches.keypoints0)
    x, y = side.matches.keypoints1.unbind(1)
    back = torch.stack([319 - y, x], dim=1)
    assert (back - upright.matches.keypoints1).abs().max() < 1e-3


def test_a_photograph_that_exif_turns_says_so(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(DEMO[1]) as image:
        image.save(tmp_path / "turned.jpg", exif=exif)
    code, out, err = program(DEMO[0], "turned.jpg")
    assert (code, err) == (0, "")
    assert "image     turned.jpg (640x480, turned upright by EXIF)\n" in out
    record = read_matches(tmp_path / "matches.h5")
    assert record.provenance["orientation1"] == 6
    assert (record.image1.width, record.image1.height) == (640, 480)
    _, out, _ = program(DEMO[0], "turned.jpg", "apply_exif=false")
    assert "EXIF" not in out


def test_unrelated_photographs_do_not_look_like_success(
    program: Callable[..., Outcome], texture: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(texture).resize((320, 240)).save(tmp_path / "other.png")
    for geometry in ("none", "fundamental", "essential", "homography"):
        code, out, _ = program(
            DEMO[0], "other.png", *words_of(geometry), "weights=compact",
            "max_side=256", "rotate=off", "picture=null",
        )  # fmt: skip
        assert code == 0
        assert "verdict   too few to tell: wrong matches can agree as well as these\n" in out
        assert "pose" not in out
        assert read_matches(tmp_path / "matches.h5").verdict == "too few to tell"


def test_a_pure_rotation_leaves_the_translation_unknown(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    with Image.open(DEMO[0]) as image:
        for name, left in (("a.png", 0), ("b.png", 20)):
            image.resize((320, 240)).crop((left, 0, left + 280, 240)).save(tmp_path / name)
    code, out, _ = program(
        "a.png", "b.png", "weights=compact", "geometry=essential", "K=[1000,1000,140,120]"
    )
    assert code == 0
    assert "translation unknown (pure rotation or plane)" in out
    record = read_matches(tmp_path / "matches.h5")
    assert (record.verdict, record.translation_unknown) == ("reliable", True)


def test_options_of_reading_reach_the_image(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    with Image.open(DEMO[0]) as image:
        gray = np.asarray(image.convert("L").resize((160, 120))).astype(np.uint16) * 12
    gray[:, :40] = 9000
    Image.fromarray(gray).save(tmp_path / "a.tif")
    code, _, err = program("a.tif", "a.tif", "nodata=9000", "bands=1", "max_pixels=19200")
    assert code == 0
    assert "nodata (9000) and are masked" in err
    record = read_matches(tmp_path / "matches.h5")
    assert record.matches.keypoints0[:, 0].min() > 36
    assert "nodata 9000, 25.00% masked" in str(record.provenance["values0"])
    code, _, err = program("a.tif", "a.tif", "max_pixels=19199")
    assert code == 3
    assert "raise max_pixels" in err
    code, _, err = program("a.tif", "a.tif", "bands=2")
    assert (code, err[:4]) == (3, "E105")
