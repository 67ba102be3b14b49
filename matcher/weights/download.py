"""Fetch one file from one of several addresses: retried, resumed, checked, then published."""

from __future__ import annotations

import errno
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from matcher.errors import CheckpointError, Code, unwritable
from matcher.files import sha256_of
from matcher.weights.torch_archive import MAX_FILE_BYTES

ATTEMPTS = 3
PAUSE = 1.0
"""Seconds before the second try at an address; doubled before each further one."""
TIMEOUT = 30.0
BLOCK = 1 << 18
LOCAL_HOSTS = ("localhost", "127.0.0.1")
PASSING_CODES = (408, 425, 429)
"""Codes below 500 that pass with time."""
STORAGE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)
"""Faults of the disk; those of a connection carry other numbers or none."""


def download(urls: Sequence[str], target: Path, *, sha256: str | None = None) -> None:
    """Fetch `target` from the first address that serves it.

    Bytes go to a ``.part`` file, which is renamed once its size and hash are right. A try
    continues where the one before broke off if the server vouches that the file is the same.

    Raises:
        CheckpointError: no address served it (E506), or with another hash (E503; the file is
            kept with the suffix ``.bad``).
        StorageError: it cannot be written (E401).
    """
    part = target.with_name(f"{target.name}.part")
    failures = []
    for url in urls:
        require_secure(url)
        try:
            _fetch_patiently(url, part)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in STORAGE_FAULTS:
                raise unwritable(part, error, "set MATCHER_CACHE to a folder with space") from error
            failures.append(f"{urllib.parse.urlsplit(url).netloc}: {error or type(error).__name__}")
            part.unlink(missing_ok=True)
    else:
        what = f"not fetched ({', '.join(failures)})"
        remedy = "check the connection, or give the path of a file that you fetched yourself"
        raise CheckpointError(Code.NOT_FETCHED, target.name, what, remedy)
    require_sha256(part, sha256, target)
    os.replace(part, target)


def require_sha256(path: Path, expected: str | None, target: Path | None = None) -> None:
    """Refuse `path` (E503) and set it aside as ``.bad``, by the name of `target` if given, unless
    it has the `expected` hash."""
    if expected is None or (actual := sha256_of(path)) == expected:
        return
    named = target or path
    what = f"sha256 is {actual}, expected {expected}; kept as {set_aside(path, named).name}"
    remedy = "try again; if it stays so, do not trust the file"
    raise CheckpointError(Code.WRONG_HASH, named, what, remedy)


def set_aside(path: Path, named: Path) -> Path:
    """Rename `path` to `named` with the suffix ``.bad``; where that cannot be, leave it."""
    bad = named.with_name(f"{named.name}.bad")
    try:
        os.replace(path, bad)
    except OSError:
        return path
    return bad


def require_secure(url: str) -> None:
    """Refuse (E506) an address that is not https, those of this machine excepted."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL_HOSTS):
        what, remedy = f"scheme {parts.scheme!r}", "weights are fetched by https"
        raise CheckpointError(Code.NOT_FETCHED, url, what, remedy)


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        require_secure(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_patiently(url: str, part: Path) -> None:
    part.unlink(missing_ok=True)
    etag: str | None = None
    for number in range(ATTEMPTS):
        try:
            with _open(url, part, etag) as response:
                etag = response.headers.get("ETag")
                _receive(response, part)
            return
        except (OSError, http.client.HTTPException) as error:
            if number == ATTEMPTS - 1 or not _passing(error):
                raise
        time.sleep(PAUSE * 2**number)


def _passing(error: Exception) -> bool:
    """Whether another try at the same address makes sense."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code in PASSING_CODES
    return not (isinstance(error, OSError) and error.errno in STORAGE_FAULTS)


def _open(url: str, part: Path, etag: str | None) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "quadmatch"})
    done = part.stat().st_size if part.exists() else 0
    if done and etag is not None and not etag.startswith("W/"):
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", etag)
    handlers: list[urllib.request.BaseHandler] = [_SecureRedirects()]
    if urllib.parse.urlsplit(url).hostname in LOCAL_HOSTS:
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT)


def _receive(response: http.client.HTTPResponse, part: Path) -> None:
    """Append a partial answer to `part`, or write a whole one anew; its size must be as said."""
    resumed = response.status == 206
    done = part.stat().st_size if resumed else 0
    if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
        part.unlink()
        raise ConnectionError("the server continued elsewhere than asked")
    length = response.headers.get("Content-Length")
    total = None if length is None else done + int(length)
    if (total or 0) > MAX_FILE_BYTES:
        what = f"{total} bytes are more than {MAX_FILE_BYTES}"
        raise CheckpointError(Code.LARGE_WEIGHTS, part.stem, what)
    with (
        part.open("ab" if resumed else "wb") as file,
        tqdm(total=total, initial=done, unit="B", unit_scale=True, disable=None) as progress,
    ):
        while block := response.read(BLOCK):
            done += len(block)
            if done > MAX_FILE_BYTES:
                what = f"more than {MAX_FILE_BYTES} bytes"
                raise CheckpointError(Code.LARGE_WEIGHTS, part.stem, what)
            file.write(block)
            progress.update(len(block))
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise ConnectionError(f"ended after {done} of {total} bytes")
