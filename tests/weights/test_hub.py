"""Weights by name, fetched from a server on this machine."""

import http.server
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from kornia.feature.loftr.loftr import urls as kornia_urls

from matcher import load_matcher
from matcher.config import MatcherConfig
from matcher.errors import CheckpointError, MatcherError, StorageError, UsageError
from matcher.files import sha256_of
from matcher.weights import download, hub
from matcher.weights.checkpoint import load_safetensors, override
from matcher.weights.hub import PUBLISHED, Published, resolve

GOLDEN = Path(__file__).parents[1] / "golden"
CKPT = (GOLDEN / "loftr_quadtree_b_small.ckpt").read_bytes()
OTHER = (GOLDEN / "loftr_quadtree_a_small.ckpt").read_bytes()
SMALL = {
    "backbone.initial_dim": 32,
    "backbone.block_dims": (32, 48, 64),
    "transformer.heads": 4,
    "transformer.layers": ("self", "cross") * 2,
    "fine.heads": 4,
}


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; each request takes the next of `faults`, or is answered in full."""

    content = CKPT
    etag: str | None = '"1"'

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.requests: list[tuple[str, str | None]] = []

    def url(self, name: str = "small.ckpt", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        fault = self.server.faults.pop(0) if self.server.faults else "none"
        if fault.isdigit():
            self.send_error(int(fault))
        elif fault.startswith("to "):
            self.send_response(302)
            self.send_header("Location", fault.removeprefix("to "))
            self.end_headers()
        else:
            self.answer(asked, fault)

    def answer(self, asked: str | None, fault: str) -> None:
        content, etag, start = self.server.content, self.server.etag, 0
        if asked and etag and self.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            shown = 0 if fault == "elsewhere" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        length = 2**40 if fault == "huge" else len(content) - start
        self.send_header("Content-Length", str(length))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        cut = 300_000 if fault == "cut" else len(content)
        self.wfile.write(content[start : start + cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setitem(PUBLISHED, "small", Published((server.url(),), SMALL))
    monkeypatch.setattr(download, "PAUSE", 0.01)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATCHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MATCHER_OFFLINE", raising=False)
    return tmp_path / "cache"


def kept(cache: Path) -> set[str]:
    """Suffixes of the files in the cache, locks excepted."""
    return {path.suffix for path in cache.iterdir() if path.suffix != ".lock"}


def test_published_weights_are_fetched_converted_and_pinned_once(
    server: Server, cache: Path
) -> None:
    path = resolve("small")
    assert path.parent == cache
    assert load_safetensors(path).config == override(MatcherConfig(), SMALL)
    pinned = (cache / "small.ckpt.sha256").read_text()
    assert pinned == sha256_of(GOLDEN / "loftr_quadtree_b_small.ckpt")
    assert resolve("small") == path
    assert resolve("small", offline=True) == path
    assert server.requests == [("/small.ckpt", None)]
    assert kept(cache) == {".ckpt", ".sha256", ".safetensors"}


def test_a_matcher_by_name_is_the_one_by_path(server: Server) -> None:
    by_name = load_matcher("small", device="cpu")
    by_path = load_matcher(resolve("small", offline=True), device="cpu")
    ours, theirs = by_name.model.state_dict(), by_path.model.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(CheckpointError, match=r"E502 .*another shape.*--config"):
        load_matcher(GOLDEN / "loftr_quadtree_b_small.ckpt", device="cpu")


def test_a_failing_server_is_asked_again(server: Server) -> None:
    server.faults = ["500", "503"]
    assert load_safetensors(resolve("small")).config.transformer.heads == 4
    assert len(server.requests) == 3


def test_a_broken_transfer_is_resumed(server: Server, cache: Path) -> None:
    server.faults = ["cut", "cut"]
    resolve("small")
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-", "bytes=600000-"]
    assert (cache / "small.ckpt").read_bytes() == CKPT


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_a_broken_transfer_starts_anew_where_the_server_does_not_vouch(
    server: Server, cache: Path, etag: str | None
) -> None:
    server.etag = etag
    server.faults = ["cut"]
    resolve("small")
    assert [asked for _, asked in server.requests] == [None, None]
    assert (cache / "small.ckpt").read_bytes() == CKPT


def test_a_resumed_answer_from_elsewhere_is_dropped(server: Server, cache: Path) -> None:
    server.faults = ["cut", "elsewhere"]
    resolve("small")
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-", None]
    assert (cache / "small.ckpt").read_bytes() == CKPT


def test_nothing_is_left_of_a_transfer_that_keeps_breaking(server: Server, cache: Path) -> None:
    server.etag = None
    server.faults = ["cut"] * 3
    with pytest.raises(CheckpointError, match=r"E506 small\.ckpt.*ended after 300000 of") as caught:
        resolve("small")
    assert caught.value.exit_code == 5
    assert len(server.requests) == 3
    assert kept(cache) == set()


def test_a_missing_file_is_asked_for_once_and_the_next_mirror_serves(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = server.url("first.ckpt"), server.url("second.ckpt")
    monkeypatch.setitem(PUBLISHED, "small", Published(mirrors, SMALL))
    server.faults = ["404"]
    resolve("small")
    assert [path for path, _ in server.requests] == ["/first.ckpt", "/second.ckpt"]


def test_all_mirrors_are_named_when_none_serves(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = server.url("first.ckpt"), "https://localhost:9/second.ckpt"
    monkeypatch.setitem(PUBLISHED, "small", Published(mirrors, SMALL))
    server.faults = ["404"]
    with pytest.raises(CheckpointError, match=r"E506.*404.*localhost:9.*refused"):
        resolve("small")


def test_another_file_than_the_pinned_one_is_refused(server: Server, cache: Path) -> None:
    path = resolve("small")
    path.unlink()
    (cache / "small.ckpt").unlink()
    server.content, server.etag = OTHER, '"2"'
    with pytest.raises(CheckpointError, match="E503") as caught:
        resolve("small")
    for name in "ab":
        assert sha256_of(GOLDEN / f"loftr_quadtree_{name}_small.ckpt") in str(caught.value)
    assert caught.value.exit_code == 5
    assert (cache / "small.ckpt.bad").read_bytes() == OTHER
    assert not (cache / "small.ckpt").exists()
    server.content, server.etag = CKPT, '"1"'
    assert resolve("small") == path


def test_cached_weights_that_changed_are_refused_and_made_anew(server: Server) -> None:
    path = resolve("small")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"E503.*\.bad"):
        resolve("small")
    assert not path.exists()
    assert resolve("small") == path
    assert len(server.requests) == 1


def test_a_web_page_instead_of_weights_is_set_aside_and_not_pinned(
    server: Server, cache: Path
) -> None:
    server.content = b"<html>Sign in</html>"
    with pytest.raises(CheckpointError, match=r"E501.*web page"):
        resolve("small")
    assert kept(cache) == {".bad"}
    server.content = CKPT
    resolve("small")


def test_more_than_the_limit_is_not_fetched(server: Server) -> None:
    server.faults = ["huge"]
    with pytest.raises(CheckpointError, match="E505"):
        resolve("small")


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_offline_fails_at_once_and_touches_nothing(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "environment":
        monkeypatch.setenv("MATCHER_OFFLINE", "1")
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=r"E507 small: not in .*offline") as caught:
        resolve("small", offline=way == "argument")
    assert time.monotonic() - start < 0.5
    assert caught.value.exit_code == 5
    assert server.requests == []
    assert not cache.exists()


@pytest.mark.parametrize("url", ["http://example.org/x", "ftp://example.org/x", "file:///x"])
def test_weights_come_by_https_only(
    monkeypatch: pytest.MonkeyPatch, server: Server, url: str
) -> None:
    server.faults = [f"to {url}"]
    with pytest.raises(MatcherError, match="E506"):
        resolve("small")
    monkeypatch.setitem(PUBLISHED, "small", Published((url,), SMALL))
    with pytest.raises(CheckpointError, match=r"E506.*https"):
        resolve("small")
    assert len(server.requests) == 1


def test_processes_at_a_time_fetch_once(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(resolve, ["small"] * 4))
    assert len(paths) == 1
    assert len(server.requests) == 1


def test_a_cache_that_cannot_be_written_is_a_storage_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MATCHER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="MATCHER_CACHE"):
        resolve("small")
    assert server.requests == []


def test_a_checkpoint_by_path_is_converted_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def convert(source: Path, target: Path, *, overrides: dict[str, object]) -> None:
        made.append((source, overrides))
        shutil.copy(source, target)

    monkeypatch.setattr(hub, "convert", convert)
    path = tmp_path / "mine.ckpt"
    path.write_bytes(CKPT)
    target = resolve(path)
    assert target.parent == cache
    assert resolve(str(path), offline=True) == target
    assert made == [(path, {})]
    path.write_bytes(OTHER)
    assert resolve(path) != target
    assert len(made) == 2


def test_a_checkpoint_that_is_replaced_while_it_is_converted_is_not_kept_for_the_old_one(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.ckpt"

    def convert(source: Path, target: Path, *, overrides: dict[str, object]) -> None:
        path.write_bytes(OTHER)
        shutil.copy(source, target)

    path.write_bytes(CKPT)
    monkeypatch.setattr(hub, "convert", convert)
    with pytest.raises(CheckpointError, match=r"E503 .*mine\.ckpt: was replaced while"):
        resolve(path)
    assert path.read_bytes() == OTHER
    path.write_bytes(CKPT)
    monkeypatch.setattr(hub, "convert", lambda source, target, **_: shutil.copy(source, target))
    assert resolve(path).read_bytes() == CKPT


def test_a_refused_checkpoint_by_path_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.ckpt"
    path.write_bytes(b"hello")
    with pytest.raises(CheckpointError, match=r"E501 .*mine\.ckpt"):
        resolve(path)
    assert path.read_bytes() == b"hello"


def test_safetensors_are_taken_as_they_are(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"")
    assert resolve(path) == path
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("outdor", "E203 outdor.*did you mean 'outdoor'"),
        ("zzz", "E203 zzz.*known: compact, compact-1, outdoor"),
        ("none.ckpt", r"E111 none\.ckpt"),
        ("./outdoor", "E111 outdoor"),
        (".", r"E111 \.: a folder"),
    ],
)
def test_unknown_names_and_missing_files_are_usage_errors(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(name)


def test_addresses_are_those_of_the_publishers() -> None:
    for name, file in {
        "outdoor": "outdoor",
        "indoor": "indoor",
        "indoor_new": "indoor_new",
    }.items():
        assert list(PUBLISHED[f"loftr_{name}"].urls) == kornia_urls[file]
    release = "Tangshitao/QuadTreeAttention/releases/download/QuadTreeAttention_feature_match"
    for name in ("outdoor", "indoor"):
        assert PUBLISHED[name].urls == (f"https://github.com/{release}/{name}.ckpt",)
    for published in PUBLISHED.values():
        for url in published.urls:
            download.require_secure(url)


def test_options_of_published_weights_are_valid() -> None:
    for published in PUBLISHED.values():
        override(MatcherConfig(), published.options)
    assert PUBLISHED["outdoor"].options == {}
    assert PUBLISHED["indoor"].options == {"transformer.topks": (32, 16, 16)}


@pytest.mark.parametrize("name", ["outdoor", "small.ckpt"])
def test_a_cache_without_a_home_is_a_storage_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.ckpt").write_bytes(CKPT)
    monkeypatch.setenv("MATCHER_CACHE", "~nobody_of_this_name/cache")
    with pytest.raises(StorageError, match=r"^E401 .*home folder is not known.*MATCHER_CACHE"):
        resolve(name, offline=True)


def test_without_a_home_the_bundled_weights_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHER_CACHE", "~nobody_of_this_name/cache")
    assert resolve("compact").is_file()


@pytest.mark.parametrize("folder", ["x" * 300, "/proc/nothing", "/dev/null/cache"])
def test_a_cache_that_cannot_be_is_one_error(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHER_CACHE", folder)
    with pytest.raises(CheckpointError, match="E507"):
        resolve("outdoor", offline=True)
    with pytest.raises(StorageError, match=r"E401 .*MATCHER_CACHE"):
        resolve(GOLDEN / "loftr_quadtree_b_small.ckpt")


def test_a_name_that_is_too_long_is_a_missing_file() -> None:
    for name in ("x" * 5000, f"{'x' * 5000}.safetensors"):
        with pytest.raises(UsageError, match=r"E(111|203) "):
            resolve(name)
