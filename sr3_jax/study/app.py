"""The study as web pages, and the small HTTP interface behind them.

    GET  /s/TOKEN              a subject's page
    GET  /s/TOKEN/state        where the subject is:
                               {"stage", "number", "total", "task", "seconds", …}
    POST /s/TOKEN/agree        consent
    GET  /s/TOKEN/N/left       an image of trial N, the current one: also right, lr
    POST /s/TOKEN/N            {"left": true, "milliseconds": 812.0}: the answer,
                               on the disk before this returns

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


class Endpoints:
    """What a subject's page asks for; each method answers one route."""

    def __init__(self, folder: Path, study: Study, answers: Answers):
        self._folder, self._study, self._answers = folder, study, answers

    async def page(self, request: Request) -> Response:
        """The page itself."""
        self._subject(request)
        return FileResponse(PAGE / "index.html")

    async def state(self, request: Request) -> Response:
        """Where the subject is: consent, training, main part or done."""
        subject, agreed = self._subject(request)
        trials = studies.trials(self._study, subject)
        number = self._answers.given(subject)
        stage = "main"
        if not agreed:
            stage = "consent"
        elif number >= len(trials):
            stage = "done"
        elif trials[number].kind == TRAINING:
            stage = "training"
        return JSONResponse(
            studies.description(self._study)
            | {"stage": stage, "number": number, "total": len(trials)}
        )

    async def agree(self, request: Request) -> Response:
        """Note the subject's consent."""
        subject, _ = self._subject(request)
        await run_in_threadpool(self._answers.agree, subject)
        return Response(status_code=204)

    async def image(self, request: Request) -> Response:
        """An image of the next trial."""
        subject, number, trial = self._current(request)
        found = await run_in_threadpool(studies.images, self._folder, self._study, trial)
        side = request.path_params["side"]
        if side not in found:
            raise HTTPException(404, "there is no such image")
        if side == "left":
            await run_in_threadpool(self._answers.count_showing, subject, number)
        return Response(found[side], media_type="image/png")

    async def answer(self, request: Request) -> Response:
        """Record an answer; of a training trial say whether it was right."""
        subject, number, trial = self._current(request)
        body = await _short(request)
        try:
            left, milliseconds = checked(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, WANTED) from error
        if not await run_in_threadpool(
            self._answers.record, subject, number, trial, left, milliseconds
        ):
            raise HTTPException(409, "this is not the next trial")
        return JSONResponse({"right": left == trial.real_left} if trial.kind == TRAINING else {})

    def _subject(self, request: Request) -> tuple[int, bool]:
        """The subject whose link this is, and whether they have agreed."""
        found = self._answers.subject(request.path_params["token"])
        if found is None:
            raise HTTPException(404, "this link is not of this study")
        return found

    def _current(self, request: Request) -> tuple[int, int, Trial]:
        """The subject, and the trial that is asked for, which must be the next."""
        subject, agreed = self._subject(request)
        number = self._answers.given(subject)
        trials = studies.trials(self._study, subject)
        if not agreed or number >= len(trials) or request.path_params["number"] != number:
            raise HTTPException(409, "this is not the next trial")
        return subject, number, trials[number]


def make_app(
    folder: Path, study: Study, answers: Answers, hosts: tuple[str, ...], origin: str = ""
) -> Starlette:
    """The ASGI application; `hosts` and `origin` are those of `web.Guard`."""
    answer = Endpoints(folder, study, answers)
    routes = [
        Route("/s/{token}", answer.page),
        Route("/s/{token}/state", answer.state),
        Route("/s/{token}/agree", answer.agree, methods=["POST"]),
        Route("/s/{token}/{number:int}", answer.answer, methods=["POST"]),
        Route("/s/{token}/{number:int}/{side}", answer.image),
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
