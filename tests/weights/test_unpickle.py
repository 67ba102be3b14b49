"""Torch checkpoints are read in full, and nothing in them is run."""

import collections
import json
import pickle
import subprocess
import sys
import types
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import tests.helpers.hostile as hostile
from matcher.errors import CheckpointError, UsageError
from matcher.weights.checkpoint import override
from matcher.weights.torch_archive import read_tensors
from tests.helpers.models import COMPACT

GOLDEN = Path(__file__).parents[1] / "golden"

WATCHED = """
import json, os, sys, time
from matcher.weights.checkpoint import load_safetensors
from matcher.weights.convert import convert
from matcher.errors import MatcherError

folder, warm = sys.argv[1:]
target = os.path.join(folder, "out.safetensors")
ACTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "os.remove", "os.rename",
        "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.putenv", "subprocess.",
        "socket.", "shutil.", "ctypes.", "urllib.", "webbrowser.", "import", "exec", "compile")
events = []

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

def watch(event, arguments):
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        if set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            events.append([event, str(arguments[0])])
    elif event.startswith(ACTS):
        events.append([event, str(arguments)[:200]])

def outcome(path):
    try:
        load_safetensors(path) if path.endswith(".safetensors") else convert(path, target)
    except MatcherError as error:
        return error.exit_code, str(error)
    return 0, "accepted"

outcome(warm)
outcome(os.path.join(folder, sorted(os.listdir(folder))[-1]))
"".encode("cp437")
sys.addaudithook(watch)
results = []
memory = peak()
for name in sorted(os.listdir(folder)):
    events.clear()
    start = time.monotonic()
    code, message = outcome(os.path.join(folder, name))
    results.append([name, code, message, list(events), time.monotonic() - start])
print(json.dumps([results, peak() - memory]))
"""


class ModelCheckpoint:
    """A callback of a library that the reader does not have."""

    def __init__(self) -> None:
        self.best = torch.ones(2)
        self.path = Path("somewhere")


class Namespace(dict):
    """A configuration object of such a library."""

    def __init__(self, **values: object) -> None:
        super().__init__(values)
        self.frozen = True


@pytest.fixture
def old_lightning(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint with callbacks, configuration objects and optimizer state, whose classes are
    gone when it is read."""
    library = types.ModuleType("gone_library")
    for kind in (ModelCheckpoint, Namespace):
        setattr(library, kind.__name__, kind)
    base = torch.arange(24.0).reshape(4, 6)
    state = collections.OrderedDict(
        plain=torch.randn(3, 5),
        transposed=base.T,
        strided=base[1:, ::2],
        repeated=torch.ones(1).expand(3, 4),
        half=torch.randn(7).half(),
        brain=torch.randn(7).bfloat16(),
        double=torch.randn(2).double(),
        count=torch.tensor(7),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
    )
    state._metadata = {"": {"version": 1}}  # pyright: ignore[reportAttributeAccessIssue]
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))])
    saved = {
        "epoch": 3,
        "state_dict": state,
        "callbacks": {ModelCheckpoint: {"state": ModelCheckpoint()}},
        "hyper_parameters": Namespace(lr=1e-3, inner=Namespace(layers=["self"])),
        "optimizer_states": [optimizer.state_dict()],
        "loops": {"sets": {1, 2}, "frozen": frozenset({3}), "bytes": b"abc", "types": [int]},
    }
    path = tmp_path / "old.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "gone_library", library)
        for kind in (ModelCheckpoint, Namespace):
            patch.setattr(kind, "__module__", "gone_library")
        torch.save(saved, path)
    return path, state


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return hostile.checkpoints(tmp_path_factory.mktemp("hostile") / "sentinel")


def test_a_checkpoint_of_unknown_classes_is_read(
    old_lightning: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    path, state = old_lightning
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    found = read_tensors(path)
    assert list(found) == list(state)
    for name, tensor in found.items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, state[name].detach())
        assert tensor.is_contiguous()
        assert type(tensor) is torch.Tensor
    assert "gone_library" not in sys.modules


@pytest.mark.parametrize("variant", ["a", "b"])
def test_tensors_are_those_of_torch(variant: str) -> None:
    path = GOLDEN / f"loftr_quadtree_{variant}_small.ckpt"
    expected = torch.load(path, weights_only=True)["state_dict"]
    found = read_tensors(path)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_deflated_entries_are_read(tmp_path: Path) -> None:
    source = GOLDEN / "loftr_quadtree_a_small.ckpt"
    packed = tmp_path / "packed.ckpt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert packed.stat().st_size < source.stat().st_size
    expected, found = read_tensors(source), read_tensors(packed)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_hostile_extras_of_a_good_checkpoint_stay_inert(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    call = hostile.Call(hostile.os.system, f"touch {sentinel}")
    torch.save({"state_dict": {"w": torch.ones(2)}, "callbacks": [call]}, tmp_path / "x.ckpt")
    assert torch.equal(read_tensors(tmp_path / "x.ckpt")["w"], torch.ones(2))
    assert not sentinel.exists()


def test_hostile_files_are_refused_without_side_effects(tmp_path: Path) -> None:
    folder, sentinel = tmp_path / "files", tmp_path / "sentinel"
    folder.mkdir()
    config = json.dumps(asdict(override(COMPACT, {"fine.layers": ["self"]})))
    files = {f"{name}.ckpt": data for name, data in hostile.checkpoints(sentinel).items()}
    files |= {f"{name}.safetensors": data for name, data in hostile.weights(config).items()}
    names = {}
    for i, (name, data) in enumerate(files.items()):
        names[f"{i}{Path(name).suffix}"] = name
        (folder / f"{i}{Path(name).suffix}").write_bytes(data)
    warm = GOLDEN / "loftr_quadtree_a_small.ckpt"
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(folder), str(warm)],
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    results, kilobytes = json.loads(done.stdout)
    assert len(results) == len(files) > 75
    accepted = [(names[name], text) for name, code, text, _, _ in results if code != 5]
    acted = [(names[name], events) for name, _, _, events, _ in results if events]
    slow = [(names[name], seconds) for name, *_, seconds in results if seconds > 20]
    assert (accepted, acted, slow) == ([], [], [])
    assert not sentinel.exists()
    assert kilobytes < 300_000


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("tar", 501, "tar format"),
        ("format before 1.6", 501, "before version 1.6"),
        ("git-lfs pointer", 501, "git-lfs pointer"),
        ("web page", 501, "web page"),
        ("cut short", 501, "cut short"),
        ("empty", 501, "empty file"),
        ("zip bomb", 505, "unpack to"),
        ("repeated to a terabyte", 505, "bytes"),
        ("offset beyond the storage", 501, "beyond its storage"),
        ("calls os.system", 501, "'weight'"),
    ],
)
def test_a_refusal_says_why(
    tmp_path: Path, checkpoints: dict[str, bytes], name: str, code: int, words: str
) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(checkpoints[name])
    with pytest.raises(CheckpointError, match=words) as caught:
        read_tensors(path)
    assert caught.value.code == code
    assert str(caught.value).count("\n") == 0


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E111"):
        read_tensors(tmp_path / "none.ckpt")
