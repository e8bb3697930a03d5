"""What the services of `sr3 serve` share that make a picture of an uploaded image."""

import abc
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.errors import UserError
from sr3_jax.images.encoding import encode
from sr3_jax.images.files import File
from sr3_jax.images.formats import FORMATS
from sr3_jax.images.metadata import Metadata
from sr3_jax.inference.sampling import LARGEST_SEED, Sampling
from sr3_jax.serve import answers
from sr3_jax.serve.jobs import Job, Pictures
from sr3_jax.serve.queues import DONE
from sr3_jax.tasks.task import Signal

STEPS = (1, 2, 4, 8, 16, 32, 64, 100)
MOST_STEPS = 1000

AnyPictures = TypeVar("AnyPictures", bound=Pictures)


class Endpoints(abc.ABC, Generic[AnyPictures]):
    """What is asked of one picture; each public method answers one route.

    Args:
      jobs: The queue.
    """

    def __init__(self, jobs: AnyPictures):
        self._jobs = jobs

    @abc.abstractmethod
    def _result_name(self, job: Job) -> str:
        """What the result is called when it is saved."""

    async def state(self, request: Request) -> Response:
        """How far an image is."""
        return JSONResponse(self._state(self._find(request)))

    async def result(self, request: Request) -> Response:
        """The picture that was made, as PNG."""
        job = self._find(request)
        if job.state != DONE:
            raise HTTPException(409, f"this image is {job.state}, not {DONE}")
        return answers.png(job.result, self._result_name(job))

    async def cancel(self, request: Request) -> Response:
        """Take an image out of the queue, or stop it."""
        self._jobs.cancel(self._find(request))
        return Response(status_code=204)

    def _find(self, request: Request) -> Job:
        job = self._jobs.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "no such image here: only the last few results are kept")
        return job

    def _state(self, job: Job) -> dict[str, Any]:
        return answers.state(self._jobs, job) | {
            "name": job.name,
            "width": job.cost.width,
            "height": job.cost.height,
            "notes": job.notes,
        }


def choices(checkpoint: Checkpoint) -> dict[str, Any]:
    """What can be chosen of a network, and its defaults."""
    own = checkpoint.method.objective.choices
    sample = checkpoint.config.sample
    offered = {*STEPS, *map(int, checkpoint.schedules), sample.steps}
    return {
        "name": Path(checkpoint.name).name,  # of a workdir not its path
        "channels": checkpoint.config.model.image_channels,
        "steps": [own.steps] if own.steps else sorted(offered),
        "default_steps": own.steps or sample.steps,
        "samplers": own.samplers,
        "default_sampler": own.sampler,
    }


def described(signal: Signal) -> dict[str, Any]:
    """A signal as a page asks for it."""
    return signal._asdict() | {"label": signal.label}


async def upload(request: Request, most: int) -> bytes:
    """The body of a request, which is an image file of so many bytes at the most."""
    data = await body(request, most)
    if not data:
        raise HTTPException(400, "no image came with the request")
    return data


async def body(request: Request, most: int) -> bytes:
    """The body of a request, which may be empty, and is of so many bytes at the most."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise HTTPException(
                413, f"the file is larger than {most // 2**20} MB, the most that this server takes"
            )
    return bytes(data)


async def shown(file: File) -> Response:
    """An uploaded image as PNG, as a page shows it beside the result."""
    picture = file.picture._replace(levels=255)
    # With its profile, as the result has it: the page compares them
    kept = Metadata(icc=file.metadata.icc)
    data, _ = await run_in_threadpool(encode, picture, FORMATS["PNG"], kept)
    return Response(data, media_type="image/png")


def file_name(query: Mapping[str, str]) -> str:
    """The name of an uploaded image, without folders."""
    return Path(query.get("name", "").replace("\\", "/")).name[:200] or "image"


def sampling(query: Mapping[str, str], fields: Sequence[str]) -> Sampling:
    """How an image is to be drawn, by those fields of a query; raises UserError."""
    given = [field for field in fields if field in query]
    options = {field: READ.get(field, answers.number)(field, query[field]) for field in given}
    return Sampling().with_options(options)


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
