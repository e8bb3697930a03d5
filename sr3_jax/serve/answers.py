"""What the web services of `sr3 serve` share: how requests are read and answered."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from sr3_jax.errors import UserError
from sr3_jax.runtime import web
from sr3_jax.serve.queues import Job, Queue

PAGE = Path(__file__).parent / "page"
SHARED = ("page.css", "icon.svg")


def application(routes: Sequence[Route], hosts: tuple[str, ...], origin: str = "") -> Starlette:
    """The ASGI application of some routes, guarded; errors are {"error": one sentence}.

    Args:
      routes: What it answers.
      hosts: The names under which it may be asked; see `web.Guard`.
      origin: The host and port under which a proxy shows the page; empty without a proxy.
    """
    handlers: dict[Any, Any] = {
        HTTPException: web.http_error,
        UserError: _user_error,
        ClientDisconnect: _gone,
        Exception: web.our_error,
    }
    guard = Middleware(web.Guard, hosts=hosts, origin=origin)
    return Starlette(routes=list(routes), exception_handlers=handlers, middleware=[guard])


def page(html: str, *scripts: str) -> list[Route]:
    """The routes of a page, which is the answer to /, of its scripts and its style."""
    return [_file("/", html), *(_file(f"/{name}", name) for name in (*scripts, *SHARED))]


def _file(path: str, name: str) -> Route:
    async def answer(_: Request) -> Response:
        return FileResponse(PAGE / name)

    return Route(path, answer)


def png(data: bytes, name: str) -> Response:
    """A PNG file, which is called `name` when it is saved."""
    headers = {"Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}"}
    return Response(data, media_type="image/png", headers=headers)


def state(queue: Queue, job: Job) -> dict[str, Any]:
    """How far a job is."""
    return {
        "id": job.id,
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "ahead": queue.ahead(job),
        "error": job.error,
    }


def check_fields(query: Iterable[str], fields: Sequence[str]) -> None:
    """Raises UserError if a query has other fields."""
    if unknown := set(query) - set(fields):
        raise UserError(f"{min(unknown)} is not known; there are {', '.join(fields)}")


def whole(name: str, text: str, least: int, most: int) -> int:
    """The whole number of a field of a query; raises UserError."""
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise UserError(f"{name} = {text!r} must be a whole number between {least} and {most}")
    return int(text)


def number(name: str, text: str) -> float:
    """The number of a field of a query; raises UserError."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{name} = {text!r} must be a number") from None


async def _user_error(_: Request, error: UserError) -> Response:
    return JSONResponse({"error": str(error)}, getattr(error, "status", 400))


async def _gone(_: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody reads it
