"""`sr3 serve`: an Upscaler as a web page on this machine.

It is also the small HTTP interface that the page uses:

    GET    /                        the page
    GET    /network                 what is served: {"name", "scale", "steps", "samplers", …}
    POST   /images?name=…&steps=…   an image file as the body → {"id", …};
                                    also seed, sampler, scale, match_input, signals
    GET    /images/ID               how far it is:
                                    {"state", "done", "total", "ahead", "notes", "error"}
    GET    /images/ID/result.png    the result;  /images/ID/input.png what was given, upright
    DELETE /images/ID               stop, and forget

Errors are {"error": one sentence}. The page needs nothing from elsewhere, and other web pages
cannot use this service: requests that come from one (Origin) or, as long as it listens to this
machine alone, under another name (Host) are refused.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sr3_jax.errors import UserError
from sr3_jax.images.encoding import encode
from sr3_jax.images.formats import FORMATS
from sr3_jax.images.metadata import Metadata
from sr3_jax.inference.sampling import LARGEST_SEED, Sampling
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.serve import answers
from sr3_jax.serve.jobs import Job, Jobs
from sr3_jax.serve.queues import DONE
from sr3_jax.tasks.corruptions import known_signals

STEPS = (1, 2, 4, 8, 16, 32, 64, 100)
MOST_STEPS = 1000


class Endpoints:
    """What the page asks for; each method answers one route."""

    def __init__(self, upscaler: Upscaler, jobs: Jobs, megabytes: int):
        self._upscaler, self._jobs, self._megabytes = upscaler, jobs, megabytes

    async def network(self, _: Request) -> Response:
        """What the network can do, and its defaults."""
        upscaler = self._upscaler
        checkpoint = upscaler.checkpoint
        sample = checkpoint.config.sample
        choices = checkpoint.method.objective.choices
        offered = {*STEPS, *map(int, checkpoint.schedules), sample.steps}
        return JSONResponse(
            {
                "name": Path(checkpoint.name).name,  # of a workdir not its path
                "scale": upscaler.scale,
                "size": upscaler.lr_size,
                "channels": upscaler.channels,
                "steps": [choices.steps] if choices.steps else sorted(offered),
                "default_steps": choices.steps or sample.steps,
                "samplers": choices.samplers,
                "default_sampler": choices.sampler,
                "match_input": sample.match_input,
                "signals": [
                    signal._asdict() | {"label": signal.label}
                    for signal in checkpoint.method.task.signals
                    if not signal.classes  # no quantity, so a slider is no control for it
                ],
                "megabytes": self._megabytes,
            }
        )

    async def add(self, request: Request) -> Response:
        """Queue an image."""
        name, sampling = _parse(dict(request.query_params))
        data = await _body(request, self._megabytes * 2**20)
        job = await run_in_threadpool(self._jobs.add, data, name, sampling)
        return JSONResponse(self._state(job), 202)

    async def state(self, request: Request) -> Response:
        """How far an image is."""
        return JSONResponse(self._state(self._find(request)))

    async def result(self, request: Request) -> Response:
        """The larger image, as PNG."""
        job = self._find(request)
        if job.state != DONE:
            raise HTTPException(409, f"this image is {job.state}, not {DONE}")
        return answers.png(job.result, f"{Path(job.name).stem}-{self._scale(job):g}x.png")

    async def given(self, request: Request) -> Response:
        """The image that was uploaded, as PNG."""
        job = self._find(request)
        file = job.file
        if file is None:
            raise HTTPException(409, f"this image is {job.state}")
        picture = file.picture._replace(levels=255)
        # With its profile, as the result has it: the page compares them
        kept = Metadata(icc=file.metadata.icc)
        data, _ = await run_in_threadpool(encode, picture, FORMATS["PNG"], kept)
        return Response(data, media_type="image/png")

    async def cancel(self, request: Request) -> Response:
        """Take an image out of the queue, or stop it."""
        self._jobs.cancel(self._find(request))
        return Response(status_code=204)

    def _find(self, request: Request) -> Job:
        job = self._jobs.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "no such image here: only the last few results are kept")
        return job

    def _scale(self, job: Job) -> float | int:
        return job.sampling.scale or self._upscaler.scale

    def _state(self, job: Job) -> dict[str, Any]:
        return answers.state(self._jobs, job) | {
            "name": job.name,
            "scale": self._scale(job),
            "width": job.cost.width,
            "height": job.cost.height,
            "notes": job.notes,
        }


def make_app(
    upscaler: Upscaler, jobs: Jobs, hosts: tuple[str, ...], megabytes: int, origin: str = ""
) -> Starlette:
    """The ASGI application.

    Args:
      upscaler: The network that enlarges.
      jobs: The queue.
      hosts: The names under which it may be asked; see `web.Guard`.
      origin: The host and port under which a proxy shows the page; empty without a proxy.
      megabytes: The largest upload.
    """
    answer = Endpoints(upscaler, jobs, megabytes)
    routes = [
        Route("/network", answer.network),
        Route("/images", answer.add, methods=["POST"]),
        Route("/images/{id}", answer.state),
        Route("/images/{id}", answer.cancel, methods=["DELETE"]),
        Route("/images/{id}/result.png", answer.result),
        Route("/images/{id}/input.png", answer.given),
        *answers.page("index.html", "common.js", "page.js"),
    ]
    return answers.application(routes, hosts, origin)


async def _body(request: Request, most: int) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise HTTPException(
                413, f"the file is larger than {most // 2**20} MB, the most that this server takes"
            )
    if not data:
        raise HTTPException(400, "no image came with the request")
    return bytes(data)


def _parse(query: dict[str, str]) -> tuple[str, Sampling]:
    """The query of POST /images: the image's name, and how it is to be drawn."""
    fields = ["name", "steps", "seed", "sampler", "scale", "match_input", *known_signals()]
    answers.check_fields(query, fields)
    name = Path(query.get("name", "").replace("\\", "/")).name[:200] or "image"
    given = [field for field in fields[1:] if field in query]
    options = {field: READ.get(field, answers.number)(field, query[field]) for field in given}
    return name, Sampling().with_options(options)


def _truth(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise UserError(f"{name} = {text!r} can be true or false")
    return text == "true"


# How the fields of a query are read that are no numbers: (field, text) to a value
READ: dict[str, Callable[[str, str], Any]] = {
    "steps": functools.partial(answers.whole, least=1, most=MOST_STEPS),
    "seed": functools.partial(answers.whole, least=0, most=LARGEST_SEED),
    "sampler": lambda _, text: text,
    "match_input": _truth,
}
