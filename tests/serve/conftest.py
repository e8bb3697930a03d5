"""A served network: tiny, with random weights.

The result of a second one waits until a test lets it through.
"""

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.runtime import web
from sr3_jax.serve import app, jobs
from tests.tiny import tiny_checkpoint


class Served:
    """A running service, and a client for it."""

    def __init__(self, upscaler: Upscaler, work: jobs.Jobs, url: str):
        self.upscaler, self.jobs, self.url = upscaler, work, url

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """The status, and the JSON or bytes of the answer."""
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, data, kind = (
                    answer.status,
                    answer.read(),
                    answer.headers.get("content-type", ""),
                )
        except urllib.error.HTTPError as error:
            status, data, kind = error.code, error.read(), error.headers.get("content-type", "")
        return status, json.loads(data) if kind.startswith("application/json") else data

    def send(self, image: bytes, query: str = "name=a.png") -> tuple[int, Any]:
        return self.ask(f"images?{query}", "POST", image)

    def finish(
        self, id: str, until: tuple[str, ...] = ("done", "failed", "cancelled")
    ) -> dict[str, Any]:
        """The job's state, as soon as it is one of `until`."""
        for _ in range(3000):
            _, state = self.ask(f"images/{id}")
            if state["state"] in until:
                return state
            time.sleep(0.02)
        raise AssertionError(state)


@contextlib.contextmanager
def serving(
    upscaler: Upscaler, waiting: int = 4, pixels: int = 10**6, megabytes: int = 1
) -> Iterator[Served]:
    work = jobs.Jobs(upscaler, waiting=waiting, pixels=pixels)
    with web.listen("127.0.0.1", 0) as listener:
        application = app.make_app(upscaler, work, web.LOOPBACK, megabytes)
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Served(upscaler, work, web.url(listener))
        finally:
            server.should_exit = True
            thread.join()
            work.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(Upscaler(tiny_checkpoint(channels=3), batch_size=1)) as found:
        yield found


@pytest.fixture
def held() -> Iterator[tuple[Served, threading.Event]]:
    """A service of two waiting places.

    Its network stops after the first tiles, until the event is set.
    """
    upscaler, gate = Upscaler(tiny_checkpoint(channels=3), batch_size=1), threading.Event()
    picture = upscaler.picture

    def held_picture(given: Any, name: str, sampling: Any, on_tiles: Any) -> Any:
        def advance(count: int) -> None:
            on_tiles(count)
            assert gate.wait(60)
            on_tiles(0)

        return picture(given, name, sampling, advance)

    upscaler.picture = held_picture  # type: ignore[method-assign]
    with serving(upscaler, waiting=2) as found:
        try:
            yield found, gate
        finally:
            gate.set()
