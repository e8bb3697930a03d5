"""Web pages that this machine serves: the guard before them, and the socket below.

Needs the extra [serve].
"""

import contextlib
import ipaddress
import signal
import socket
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sr3_jax.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses requests under another name than ours, or made by another site's page; sets headers for the rest.

    `hosts` are the names under which the server may be asked, () for any; `origin` is the host and
    port under which a proxy shows its pages.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], origin: str = ""):
        self.app, self.hosts, self.origin = app, hosts, origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts and _part("hostname", f"//{host}") not in self.hosts:
            refused = f"this server does not answer to the name {host!r}"
        elif origin is not None and _part("netloc", origin) not in (host, self.origin or host):
            refused = "requests from other web pages are refused"
        else:
            await self.app(scope, receive, _with_headers(send))
            return
        await JSONResponse({"error": refused}, 403)(scope, receive, send)


def _with_headers(send: Send) -> Send:
    extra = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return sending


def _part(name: str, url: str) -> str | None:
    try:
        return getattr(urlsplit(url), name)
    except ValueError:
        return None


def hosts(listener: socket.socket, *more: str) -> tuple[str, ...]:
    """The names under which a server there may be asked, and `more`; () for any, when it is not for this machine alone."""
    address = listener.getsockname()[0]
    return (*LOOPBACK, address, *more) if ipaddress.ip_address(address).is_loopback else ()


async def http_error(_: Request, error: HTTPException) -> Response:
    """{"error": one sentence}."""
    return JSONResponse({"error": error.detail}, error.status_code)


async def our_error(_: Request, error: Exception) -> Response:
    """The same, for what should not have happened."""
    return JSONResponse({"error": f"the server failed: {type(error).__name__}"}, 500)


def listen(host: str, port: int) -> socket.socket:
    """A socket at that address; raises UserError if it is taken or not of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with contextlib.ExitStack() as on_error:
            listener = on_error.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()  # whoever comes before the network is loaded waits
            on_error.pop_all()
    except (OSError, UnicodeError) as error:
        detail = getattr(error, "strerror", None) or error
        raise UserError(f"--host={host} --port={port}: {detail}; give another") from error
    return listener


def url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def run(app: Starlette, listener: socket.socket) -> None:
    """Serves until Ctrl-C or SIGTERM, which are no errors here."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # what uvicorn calls again when it has ended
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    )
    server.run(sockets=[listener])
