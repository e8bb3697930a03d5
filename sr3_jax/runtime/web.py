"""Serving web pages from this machine: a guard that checks requests, the socket, the server.

Needs the extra [serve].
"""

import contextlib
import ipaddress
import re
import signal
import socket
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sr3_jax.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ADDRESSES = "any address"  # in the host names of a guard: all that are numbers
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; "
    "frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses requests that name another host, or come from another site's page.

    The answers to all other requests get the security headers HEADERS.

    Args:
      app: the application behind the guard.
      hosts: the host names that requests may use, and ADDRESSES for all that are no names.
      origin: the host and port under which a proxy shows our pages; empty without a proxy.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], origin: str = ""):
        self.app, self.hosts, self.origin = app, hosts, origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on to the application, or answers it with 403."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._answers_to(_part("hostname", f"//{host}") or ""):
            refused = f"this server does not answer to the name {host!r}"
        elif origin is not None and _part("netloc", origin) not in (host, self.origin or host):
            refused = "requests from other web pages are refused"
        else:
            await self.app(scope, receive, _with_headers(send))
            return
        await JSONResponse({"error": refused}, 403)(scope, receive, send)

    def _answers_to(self, name: str) -> bool:
        return name in self.hosts or (ADDRESSES in self.hosts and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sending


def _part(name: str, url: str) -> str | None:
    try:
        return getattr(urlsplit(url), name)
    except ValueError:
        return None


def hosts(listener: socket.socket, *more: str) -> tuple[str, ...]:
    """The host names that requests to `listener` may use, with `more`, for `Guard`.

    If it serves other machines too, these are its own name and all addresses. Other names could be
    led here by whoever owns them (DNS rebinding).
    """
    address = listener.getsockname()[0]
    if ipaddress.ip_address(address).is_loopback:
        return (*LOOPBACK, address, *more)
    return (*LOOPBACK, socket.gethostname().lower(), *more, ADDRESSES)


def proxied(address: str | None) -> tuple[tuple[str, ...], str]:
    """What --url says for `Guard`: further host names, and the origin; raises UserError."""
    if not address:
        return (), ""
    if not re.fullmatch(r"https?://[^/\s]+/?", address):
        raise UserError(
            f"--url={address} must be an address without a path, such as https://sr3.example"
        )
    parts = urlsplit(address)
    return ((parts.hostname,) if parts.hostname else ()), parts.netloc


def told(listener: socket.socket, names: tuple[str, ...]) -> str:
    """What a user should know about who is answered; empty on this machine alone."""
    if ADDRESSES not in names:
        return ""
    known = ", ".join(name for name in names if name not in (*LOOPBACK, ADDRESSES))
    return f"asked by an address, or as {known}; for another name give --url"


async def http_error(_: Request, error: HTTPException) -> Response:
    """The answer to a request that is refused: {"error": one sentence}."""
    return JSONResponse({"error": error.detail}, error.status_code)


async def our_error(_: Request, error: Exception) -> Response:
    """The answer when the server itself failed: {"error": one sentence}, status 500."""
    return JSONResponse({"error": f"the server failed: {type(error).__name__}"}, 500)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises UserError if the address is taken or not of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with contextlib.ExitStack() as on_error:
            listener = on_error.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()  # requests that come before the network is loaded wait
            on_error.pop_all()
    except (OSError, UnicodeError) as error:
        detail = getattr(error, "strerror", None) or error
        raise UserError(f"--host={host} --port={port}: {detail}; give another") from error
    return listener


def url(listener: socket.socket) -> str:
    """The address of the pages that are served at `listener`."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def run(app: Starlette, listener: socket.socket) -> None:
    """Serves until Ctrl-C or SIGTERM, neither of which is an error."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn restores this handler when it has ended, and sends the signal again
        signal.signal(number, lambda *_: None)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    )
    server.run(sockets=[listener])
