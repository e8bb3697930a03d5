"""`sr3 serve --stage=…`: a Generator as a web page on this machine.

It is also the small HTTP interface that the page uses:

    GET    /                        the page
    GET    /network                 what is served: {"stages", "size", "classes", "guidance", …}
    POST   /generations?count=…     ask for images → {"id", …};
                                    also classes, guidance, augment, seed
    GET    /generations/ID          how far they are:
                                    {"state", "done", "total", "ahead", "images", "error"}
    GET    /generations/ID/N.png    image N, from 0, as soon as it is among "images"
    DELETE /generations/ID          stop; forget what has ended

Errors and protections are those of the module `app`.
"""

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sr3_jax.inference.generator import Drawing, Generator
from sr3_jax.inference.sampling import LARGEST_SEED
from sr3_jax.serve import answers
from sr3_jax.serve.generations import Generation, Generations
from sr3_jax.tasks.augmentation import SIGNAL as AUGMENT

MOST = 16  # images of one request
FIELDS = ("count", "classes", "guidance", "augment", "seed")


class Endpoints:
    """What the page asks for; each method answers one route."""

    def __init__(self, generator: Generator, jobs: Generations):
        self._generator, self._jobs = generator, jobs

    async def network(self, _: Request) -> Response:
        """What the networks can do, and their defaults."""
        generator = self._generator
        able = generator.can_be_guided
        own = [one.config.sample.guidance for one in generator.checkpoints]
        return JSONResponse(
            {
                # of workdirs not their paths
                "stages": [Path(one.name).name for one in generator.checkpoints],
                "size": generator.shape[0],
                "classes": generator.class_names,
                # none where it cannot be guided
                "guidance": float(own[able.index(True)]) if any(able) else None,
                "augment": _most_augment(generator),
                "most": MOST,
            }
        )

    async def add(self, request: Request) -> Response:
        """Queue a request for images."""
        count, classes, drawing = _parse(dict(request.query_params))
        job = await run_in_threadpool(self._jobs.add, count, classes, drawing)
        return JSONResponse(self._state(job), 202)

    async def state(self, request: Request) -> Response:
        """How far the images are."""
        return JSONResponse(self._state(self._find(request)))

    async def image(self, request: Request) -> Response:
        """One image, as PNG."""
        job, number = self._find(request), request.path_params["number"]
        if number >= job.count:
            raise HTTPException(404, f"there are {job.count} images, from 0 to {job.count - 1}")
        if number >= len(job.images):
            raise HTTPException(409, f"image {number} is not made; the request is {job.state}")
        return answers.png(job.images[number], job.file_name(number))

    async def cancel(self, request: Request) -> Response:
        """Take a request out of the queue, or stop it."""
        self._jobs.cancel(self._find(request))
        return Response(status_code=204)

    def _find(self, request: Request) -> Generation:
        job = self._jobs.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "no such images here: only the last few are kept")
        return job

    def _state(self, job: Generation) -> dict[str, Any]:
        images = [
            {"class": job.titles[number], "file": job.file_name(number)}
            for number in range(len(job.images))
        ]
        return answers.state(self._jobs, job) | {"count": job.count, "images": images}


def make_app(
    generator: Generator, jobs: Generations, hosts: tuple[str, ...], origin: str = ""
) -> Starlette:
    """The ASGI application.

    Args:
      generator: The networks.
      jobs: The queue.
      hosts: The names under which it may be asked; see `web.Guard`.
      origin: The host and port under which a proxy shows the page; empty without a proxy.
    """
    answer = Endpoints(generator, jobs)
    routes = [
        Route("/network", answer.network),
        Route("/generations", answer.add, methods=["POST"]),
        Route("/generations/{id}", answer.state),
        Route("/generations/{id}", answer.cancel, methods=["DELETE"]),
        Route("/generations/{id}/{number:int}.png", answer.image),
        *answers.page("generate.html", "common.js", "generate.js"),
    ]
    return answers.application(routes, hosts, origin)


def _most_augment(generator: Generator) -> float:
    """The highest level of augmentation that all stages after the first know; 0: there is none."""
    known = [
        {signal.name: signal.high for signal in engine.method.task.signals}
        for engine in generator.engines[1:]
    ]
    return min((signals.get(AUGMENT.name, 0.0) for signals in known), default=0.0)


def _parse(query: dict[str, str]) -> tuple[int, str, Drawing]:
    """The query of POST /generations: how many images, of which classes, how they are drawn."""
    answers.check_fields(query, FIELDS)
    drawing = Drawing(
        guidance=_numbers("guidance", query),
        augment=_numbers("augment", query),
        seed=answers.whole("seed", query.get("seed", "0"), 0, LARGEST_SEED),
    )
    count = answers.whole("count", query.get("count", "1"), 1, MOST)
    return count, query.get("classes", "all"), drawing


def _numbers(name: str, query: dict[str, str]) -> tuple[float, ...]:
    """One number, or one for each stage with commas between them, or none."""
    words = query.get(name, "")
    return tuple(answers.number(name, word) for word in words.split(",")) if words else ()
