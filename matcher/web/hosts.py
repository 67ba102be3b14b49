"""Requests that are meant for this page alone.

Another page in the visitor's browser can send requests to this machine: under a name of its own
that it lets point here, which the header ``Host`` tells, or across sites, which ``Origin`` tells.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any

LOCAL = ("localhost", "127.0.0.1", "::1")
"""Names under which a browser on this machine asks."""
SCHEME = re.compile("https?://")
ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^][:/?#@\\\s]+)(:\d+)?")
"""A host and perhaps a port, and nothing that a program could read as a path or a user."""
WRONG_HOST = b"this page is not served under that name; see the option hosts\n"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class RequireHost:
    """An ASGI application that refuses (403) requests made under other names than `hosts`."""

    def __init__(self, app: Application, hosts: Collection[str] = LOCAL) -> None:
        self.app = app
        self.hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self.allows(scope["headers"]):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": WRONG_HOST})

    def allows(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether exactly one ``Host``, and ``Origin`` where there is one, name a host of ours."""
        values = [(name.lower(), value.decode("latin-1")) for name, value in headers]
        named = [host_name(value) for name, value in values if name == b"host"]
        origins = [host_name(SCHEME.sub("", v)) for name, v in values if name == b"origin"]
        return len(named) == 1 and all(name in self.hosts for name in (*named, *origins))


def host_name(address: str) -> str:
    """The host of an address in lower case, without its port; empty where it is more than that."""
    found = ADDRESS.fullmatch(address)
    return found["host"].strip("[]").rstrip(".").lower() if found else ""
