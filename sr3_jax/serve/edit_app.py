"""`sr3 serve --task=…`: an Editor as a web page on this machine.

It is also the small HTTP interface that the page uses. An image is sent once, and edited as often
as one likes, with another mask, margin or seed:

    GET    /                        the page
    GET    /network                 what is served: {"name", "task", "fills", "steps", "signals", …}
    POST   /images?name=…           an image file as the body → {"id", "width", "height", …}
    GET    /images/ID/input.png     that image, upright
    DELETE /images/ID               forget it
    POST   /edits?image=ID&steps=…  edit it → {"id", …}; also seed, sampler, and the strengths of
                                    flaws. To fill it: a mask as the body, an image file of the
                                    same size, white where to fill; or margin=T,R,B,L; or both
    GET    /edits/ID                how far it is:
                                    {"state", "done", "total", "ahead", "notes", "error"}
    GET    /edits/ID/result.png     the result
    DELETE /edits/ID                stop, and forget

Errors and protections are those of the module `app`.
"""

from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sr3_jax.errors import UserError
from sr3_jax.inference.edits import EDITS
from sr3_jax.inference.holes import Margin
from sr3_jax.serve import answers, pictures
from sr3_jax.serve.edits import Edits, Upload
from sr3_jax.serve.jobs import Job

WIDEST = 10**5  # pixels of a margin; the server's own limit is that of the result


class Endpoints(pictures.Endpoints[Edits]):
    """What the page asks for; each method answers one route."""

    def __init__(self, jobs: Edits, megabytes: int):
        super().__init__(jobs)
        self._megabytes = megabytes

    async def network(self, _: Request) -> Response:
        """What the network can do, and its defaults."""
        jobs = self._jobs
        return JSONResponse(
            pictures.choices(jobs.editor.checkpoint)
            | {
                "task": jobs.task,
                "about": EDITS[jobs.task].about,
                "fills": jobs.fills,
                "signals": [pictures.described(signal) for signal in jobs.signals],
                "megabytes": self._megabytes,
            }
        )

    async def upload(self, request: Request) -> Response:
        """Keep an image, to be edited."""
        query = dict(request.query_params)
        answers.check_fields(query, ["name"])
        data = await pictures.upload(request, self._megabytes * 2**20)
        found = await run_in_threadpool(self._jobs.upload, data, pictures.file_name(query))
        height, width = found.size
        return JSONResponse(
            {"id": found.id, "name": found.name, "width": width, "height": height}, 201
        )

    async def given(self, request: Request) -> Response:
        """The image that was uploaded, as PNG."""
        upload = self._uploaded(request.path_params["id"])
        return await pictures.shown(await run_in_threadpool(upload.decoded))

    async def forget(self, request: Request) -> Response:
        """Forget an image."""
        self._jobs.forget(self._uploaded(request.path_params["id"]))
        return Response(status_code=204)

    async def add(self, request: Request) -> Response:
        """Queue an edit of an image."""
        query = dict(request.query_params)
        choices = ["steps", "seed", "sampler", *(signal.name for signal in self._jobs.signals)]
        answers.check_fields(query, ["image", *["margin"] * self._jobs.fills, *choices])
        upload = self._uploaded(query.get("image", ""))
        sampling = pictures.sampling(query, choices)
        margin = _margin(query.get("margin", ""))
        mask = await pictures.body(request, self._megabytes * 2**20)
        job = await run_in_threadpool(self._jobs.add, upload, sampling, mask, margin)
        return JSONResponse(self._state(job), 202)

    def _uploaded(self, id: str) -> Upload:
        found = self._jobs.uploaded(id)
        if found is None:
            raise HTTPException(
                404, "no such image here: only the last few are kept; send it again"
            )
        return found

    def _result_name(self, job: Job) -> str:
        return f"{Path(job.name).stem}-{self._jobs.task}.png"


def make_app(jobs: Edits, hosts: tuple[str, ...], megabytes: int, origin: str = "") -> Starlette:
    """The ASGI application.

    Args:
      jobs: The uploads, and the queue.
      hosts: The names under which it may be asked; see `web.Guard`.
      megabytes: The largest upload.
      origin: The host and port under which a proxy shows the page; empty without a proxy.
    """
    answer = Endpoints(jobs, megabytes)
    routes = [
        Route("/network", answer.network),
        Route("/images", answer.upload, methods=["POST"]),
        Route("/images/{id}", answer.forget, methods=["DELETE"]),
        Route("/images/{id}/input.png", answer.given),
        Route("/edits", answer.add, methods=["POST"]),
        Route("/edits/{id}", answer.state),
        Route("/edits/{id}", answer.cancel, methods=["DELETE"]),
        Route("/edits/{id}/result.png", answer.result),
        *answers.page("edit.html", "common.js", "pictures.js", "edit.js"),
    ]
    return answers.application(routes, hosts, origin)


def _margin(text: str) -> Margin | tuple[()]:
    """Four numbers of pixels with commas between them; nothing, or four times 0, is no margin."""
    if not text:
        return ()
    words = text.split(",")
    if len(words) != 4:
        raise UserError(
            f"margin = {text!r} must be four numbers of pixels with commas between them: above, "
            "right, below, left"
        )
    top, right, bottom, left = (answers.whole("margin", word, 0, WIDEST) for word in words)
    margin = top, right, bottom, left
    return margin if any(margin) else ()
