"""Served networks: tiny, with random weights.

The result of the second one of each kind waits until a test lets it through.
"""

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from sr3_jax.inference.editor import Editor
from sr3_jax.inference.generator import Generator
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.runtime import web
from sr3_jax.serve import app, edit_app, edits, generate_app, generations, jobs
from tests.inference.test_editor import load, restorer
from tests.inference.test_generator import base_config, stage_config
from tests.tiny import random_checkpoint, tiny_checkpoint

CLASSES = ("ankle boot", "T-shirt/top", "bag")


class Served:
    """A running service, and a client for it.

    Args:
      network: What is served.
      url: Where.
      jobs: The path of its jobs.
    """

    def __init__(self, network: Any, url: str, jobs: str):
        self.network, self.url, self.kind = network, url, jobs

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

    def send(self, image: bytes | None, query: str = "name=a.png") -> tuple[int, Any]:
        return self.ask(f"{self.kind}?{query}", "POST", image)

    def finish(
        self, id: str, until: tuple[str, ...] = ("done", "failed", "cancelled")
    ) -> dict[str, Any]:
        """The job's state, as soon as it is one of `until`."""
        return self.wait(id, lambda state: state["state"] in until)

    def wait(self, id: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The job's state, as soon as it is like that."""
        for _ in range(3000):
            _, state = self.ask(f"{self.kind}/{id}")
            if until(state):
                return state
            time.sleep(0.02)
        raise AssertionError(state)


@contextlib.contextmanager
def running(application: Starlette) -> Iterator[str]:
    """The address of an application while it is served."""
    with web.listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield web.url(listener)
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def serving(
    upscaler: Upscaler,
    waiting: int = 4,
    pixels: int = 10**6,
    megabytes: int = 1,
    shown: str | None = None,
) -> Iterator[Served]:
    names, origin = web.proxied(shown)
    with (
        contextlib.closing(jobs.Jobs(upscaler, waiting=waiting, pixels=pixels)) as work,
        running(app.make_app(upscaler, work, (*web.LOOPBACK, *names), megabytes, origin)) as url,
    ):
        yield Served(upscaler, url, "images")


@contextlib.contextmanager
def editing(
    editor: Editor, task: str, waiting: int = 4, pixels: int = 10**6, megabytes: int = 1
) -> Iterator[Served]:
    with (
        contextlib.closing(edits.Edits(editor, task, waiting=waiting, pixels=pixels)) as work,
        running(edit_app.make_app(work, web.LOOPBACK, megabytes)) as url,
    ):
        yield Served(editor, url, "edits")


@contextlib.contextmanager
def generating(generator: Generator, waiting: int = 4) -> Iterator[Served]:
    with (
        contextlib.closing(generations.Generations(generator, waiting=waiting)) as work,
        running(generate_app.make_app(generator, work, web.LOOPBACK)) as url,
    ):
        yield Served(generator, url, "generations")


def cascade(classes: int = 3, augment: float = 20.0, stages: int = 2) -> Generator:
    """8×8 by class from noise, and to 16×16."""
    base = base_config(classes)
    base.data.class_names = CLASSES[:classes]
    checkpoints = [random_checkpoint(base, "runs/base", 0.3)]
    if stages == 2:
        checkpoints.append(random_checkpoint(stage_config(classes, augment), "stage", 0.3))
    return Generator(checkpoints, batch_size=2)


@pytest.fixture(scope="module")
def made() -> Iterator[Served]:
    with generating(cascade()) as found:
        yield found


@pytest.fixture
def held_cascade() -> Iterator[tuple[Served, threading.Event]]:
    """A service of two waiting places, which makes two images at a time.

    It stops after the first two images, until the event is set.
    """
    generator, gate = cascade(), threading.Event()
    images = generator.images

    def held_images(stages: Any, numbers: Any, labels: Any, on_images: Any) -> Any:
        if numbers[0]:
            assert gate.wait(60)
        return images(stages, numbers, labels, on_images)

    generator.images = held_images  # type: ignore[method-assign]
    with generating(generator, waiting=2) as found:
        try:
            yield found, gate
        finally:
            gate.set()


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
    upscaler.picture = held_back(upscaler.picture, gate)  # type: ignore[method-assign]
    with serving(upscaler, waiting=2) as found:
        try:
            yield found, gate
        finally:
            gate.set()


def held_back(picture: Callable, gate: threading.Event) -> Callable:
    """What makes a picture, which then stops after the first tiles until the event is set."""

    def held_picture(given: Any, name: str, sampling: Any, on_tiles: Any) -> Any:
        def advance(count: int) -> None:
            on_tiles(count)
            assert gate.wait(60)
            on_tiles(0)

        return picture(given, name, sampling, advance)

    return held_picture


@pytest.fixture(scope="module")
def colouring() -> Iterator[Served]:
    with editing(load("colourise"), "colourise") as found:
        yield found


@pytest.fixture(scope="module")
def filling() -> Iterator[Served]:
    with editing(load("inpaint"), "inpaint") as found:
        yield found


@pytest.fixture(scope="module")
def restoring() -> Iterator[Served]:
    with editing(Editor(restorer()), "restore") as found:
        yield found


@pytest.fixture
def held_edit() -> Iterator[tuple[Served, threading.Event]]:
    """A service of edits, as `held` is one that enlarges."""
    editor, gate = load("colourise"), threading.Event()
    editor.colourise = held_back(editor.colourise, gate)  # type: ignore[method-assign]
    with editing(editor, "colourise", waiting=2) as found:
        try:
            yield found, gate
        finally:
            gate.set()
