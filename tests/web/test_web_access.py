"""Who may ask the web page, and what a client's words cannot do to the disk of the server."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from matcher.errors import UsageError
from matcher.validation.words import options_from_words
from matcher.web.__main__ import WebOptions, main
from matcher.web.folders import PageFolders
from matcher.web.hosts import RequireHost

HOSTILE = ("../victim", "..", ".", "", "a/../../victim", "/etc", "a\0b", "x" * 5000, "ä\nö", "C:\\")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_session_is_no_path(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious.txt").write_text("x")
    folders = PageFolders(tmp_path / "downloads")
    other = folders.of("another session")
    mine = folders.of(name)
    assert mine.parent == tmp_path / "downloads"
    assert mine != other
    assert folders.of(name) == mine
    folders.forget(name)
    folders.forget(name)
    assert not mine.exists()
    assert other.is_dir()
    assert (victim / "precious.txt").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["downloads", "victim"]


def test_what_was_never_shown_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    PageFolders(tmp_path).forget("a folder")
    PageFolders(tmp_path).forget(None)
    assert (tmp_path / "a folder").is_dir()


def test_clients_without_a_session_share_nothing(tmp_path: Path) -> None:
    folders = PageFolders(tmp_path)
    assert folders.of(None) != folders.of(None)


def test_sessions_do_not_fill_the_disk(tmp_path: Path) -> None:
    folders = PageFolders(tmp_path, most=3)
    kept = folders.of("used again and again")
    for number in range(20):
        folders.of(None if number % 2 else str(number))
        assert folders.of("used again and again") == kept
    assert len(list(tmp_path.iterdir())) == 3


def answer(scope: dict[str, Any], **names: Any) -> list[MutableMapping[str, Any]]:
    """What a client is sent; the page behind the check answers 200."""
    sent: list[MutableMapping[str, Any]] = []

    async def page(*_: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {}

    asyncio.run(RequireHost(page, **names)(scope, receive, send))
    return sent


def status(*headers: tuple[bytes, bytes], **names: Any) -> int:
    return answer({"type": "http", "headers": list(headers)}, **names)[0]["status"]


@pytest.mark.parametrize(
    "host", [b"localhost", b"127.0.0.1:7860", b"LocalHost:7860", b"[::1]:7860", b"localhost."]
)
def test_this_machine_may_ask(host: bytes) -> None:
    assert status((b"host", host)) == 200
    assert status((b"Host", host), (b"origin", b"http" + b"://localhost:7860")) == 200


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"evil.example:7860", b"localhost.evil.example", b"127.0.0.1.evil.example",
     b"evil@localhost.example", b"", b"[", b"localhost, evil.example", b"192.168.1.20", b"\xff",
     b"localhost/../x", b"evil.example@localhost", b"localhost?x", b"localhost#x", b"localhost:1:2",
     b"localhost:x", b"localhost\\x", b"http://localhost", b" localhost", b"local\thost", b"::1"],
)  # fmt: skip
def test_another_name_is_refused(host: bytes) -> None:
    assert status((b"host", host)) == 403


def test_requests_across_sites_and_without_a_name_are_refused() -> None:
    local = (b"host", b"localhost:7860")
    assert status() == 403
    assert status(local, local) == 403
    assert status(local, (b"origin", b"https://evil.example")) == 403
    assert status(local, (b"origin", b"null")) == 403
    assert status(local, (b"origin", b"http://evil.example@localhost")) == 403
    assert answer({"type": "websocket", "headers": []})[0]["type"] == "websocket.close"
    assert answer({"type": "lifespan"})[0]["status"] == 200


def test_more_names_can_be_allowed() -> None:
    options = options_from_words(
        WebOptions, ["hosts=[Workstation,192.168.1.20,fe80::1]", "port=8000"]
    )
    hosts = options.allowed_hosts
    for name in (b"workstation:8000", b"192.168.1.20", b"localhost", b"[FE80::1]:8000"):
        assert status((b"host", name), hosts=hosts) == 200
    assert status((b"host", b"evil.example"), hosts=hosts) == 403


@pytest.mark.parametrize(
    "word",
    ["port=0", "port=99999999999999999999", "hosts=[]x", "host=a", "hosts=[workstation:8000]",
     "hosts=[http://workstation]", "hosts=[a/b]"],
)  # fmt: skip
def test_options_that_cannot_work_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match=r"E20[12] "):
        options_from_words(WebOptions, [word])


def test_help_needs_no_gradio(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "hosts=" in capsys.readouterr().out
