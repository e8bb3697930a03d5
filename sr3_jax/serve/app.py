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

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sr3_jax.inference.sampling import Sampling
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.serve import answers, pictures
from sr3_jax.serve.jobs import Job, Jobs
from sr3_jax.tasks.corruptions import known_signals


class Endpoints(pictures.Endpoints[Jobs]):
    """What the page asks for; each method answers one route."""

    def __init__(self, upscaler: Upscaler, jobs: Jobs, megabytes: int):
        super().__init__(jobs)
        self._upscaler, self._megabytes = upscaler, megabytes

    async def network(self, _: Request) -> Response:
        """What the network can do, and its defaults."""
        upscaler = self._upscaler
        checkpoint = upscaler.checkpoint
        return JSONResponse(
            pictures.choices(checkpoint)
            | {
                "scale": upscaler.scale,
                "size": upscaler.lr_size,
                "match_input": checkpoint.config.sample.match_input,
                "signals": [
                    pictures.described(signal)
                    for signal in checkpoint.method.task.signals
                    if not signal.classes  # no quantity, so a slider is no control for it
                ],
                "megabytes": self._megabytes,
            }
        )

    async def add(self, request: Request) -> Response:
        """Queue an image."""
        name, sampling = _parse(dict(request.query_params))
        data = await pictures.upload(request, self._megabytes * 2**20)
        job = await run_in_threadpool(self._jobs.add, data, name, sampling)
        return JSONResponse(self._state(job), 202)

    async def given(self, request: Request) -> Response:
        """The image that was uploaded, as PNG."""
        job = self._find(request)
        if job.file is None:
            raise HTTPException(409, f"this image is {job.state}")
        return await pictures.shown(job.file)

    def _result_name(self, job: Job) -> str:
        return f"{Path(job.name).stem}-{self._scale(job):g}x.png"

    def _scale(self, job: Job) -> float | int:
        return job.sampling.scale or self._upscaler.scale

    def _state(self, job: Job) -> dict[str, Any]:
        return super()._state(job) | {"scale": self._scale(job)}


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
        *answers.page("index.html", "common.js", "pictures.js", "page.js"),
    ]
    return answers.application(routes, hosts, origin)


def _parse(query: dict[str, str]) -> tuple[str, Sampling]:
    """The query of POST /images: the image's name, and how it is to be drawn."""
    fields = ["name", "steps", "seed", "sampler", "scale", "match_input", *known_signals()]
    answers.check_fields(query, fields)
    return pictures.file_name(query), pictures.sampling(query, fields[1:])
