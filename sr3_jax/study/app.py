"""The study as web pages, and the small HTTP interface behind them.

    GET  /s/TOKEN              a subject's page
    GET  /s/TOKEN/state        where the subject is: {"stage", "number", "total", "task", "seconds", …}
    POST /s/TOKEN/agree        consent
    GET  /s/TOKEN/N/left       an image of trial N, the current one: also right, lr
    POST /s/TOKEN/N            {"left": true, "milliseconds": 812.0}: the answer, on the disk before this returns

Which image is real can be told from the pixels alone: addresses name sides, files of a pair are
equally large, and neither has metadata or is kept in a cache.
"""

import json
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sr3_jax.runtime import web
from sr3_jax.study import study as studies
from sr3_jax.study.answers import WANTED, Answers, checked
from sr3_jax.study.study import TRAINING, Study, Trial

PAGE = Path(__file__).parent / "page"


def make_app(
    folder: Path, study: Study, answers: Answers, hosts: tuple[str, ...], origin: str = ""
) -> Starlette:
    """The ASGI application; `hosts` and `origin` are those of `web.Guard`."""

    def who(request: Request) -> tuple[int, bool]:
        found = answers.subject(request.path_params["token"])
        if found is None:
            raise HTTPException(404, "this link is not of this study")
        return found

    def current(request: Request) -> tuple[int, int, Trial]:
        """The subject, and the trial that is asked for, which must be the next."""
        subject, agreed = who(request)
        number, trials = answers.given(subject), studies.trials(study, subject)
        if not agreed or number >= len(trials) or request.path_params["number"] != number:
            raise HTTPException(409, "this is not the next trial")
        return subject, number, trials[number]

    async def page(request: Request) -> Response:
        who(request)
        return FileResponse(PAGE / "index.html")

    async def state(request: Request) -> Response:
        subject, agreed = who(request)
        trials, number = studies.trials(study, subject), answers.given(subject)
        done = number >= len(trials)
        stage = (
            "consent"
            if not agreed
            else "done"
            if done
            else "training"
            if trials[number].kind == TRAINING
            else "main"
        )
        return JSONResponse(
            studies.description(study) | {"stage": stage, "number": number, "total": len(trials)}
        )

    async def agree(request: Request) -> Response:
        subject, _ = who(request)
        await run_in_threadpool(answers.agree, subject)
        return Response(status_code=204)

    async def image(request: Request) -> Response:
        subject, number, trial = current(request)
        found = await run_in_threadpool(studies.images, folder, study, trial)
        side = request.path_params["side"]
        if side not in found:
            raise HTTPException(404, "there is no such image")
        if side == "left":
            await run_in_threadpool(answers.count_showing, subject, number)
        return Response(found[side], media_type="image/png")

    async def answer(request: Request) -> Response:
        subject, number, trial = current(request)
        left, milliseconds = _answer(await _short(request))
        if not await run_in_threadpool(answers.record, subject, number, trial, left, milliseconds):
            raise HTTPException(409, "this is not the next trial")
        feedback: dict[str, Any] = (
            {"right": left == trial.real_left} if trial.kind == TRAINING else {}
        )
        return JSONResponse(feedback)

    routes = [
        Route("/s/{token}", page),
        Route("/s/{token}/state", state),
        Route("/s/{token}/agree", agree, methods=["POST"]),
        Route("/s/{token}/{number:int}", answer, methods=["POST"]),
        Route("/s/{token}/{number:int}/{side}", image),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    handlers: dict[Any, Any] = {HTTPException: web.http_error, Exception: web.our_error}
    return Starlette(
        routes=routes,
        exception_handlers=handlers,
        middleware=[Middleware(web.Guard, hosts=hosts, origin=origin)],
    )


async def _short(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > 1000:
            raise HTTPException(413, WANTED)
    return bytes(body)


def _answer(body: bytes) -> tuple[bool, float]:
    try:
        return checked(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, WANTED) from error
