"""A small study: real images are bright, and a method's are dark.

So a simulated subject can tell them apart by their pixels.
"""

import json
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import uvicorn

from sr3_jax.images import arrays
from sr3_jax.runtime import web
from sr3_jax.study import app
from sr3_jax.study import study as studies
from sr3_jax.study.answers import Answers

COUNT, SIDE = 12, 32


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        noise = rng.integers(0, 60, (SIDE, SIDE, 3), np.uint8)
        arrays.write(tmp_path / "real" / f"sub/{i:02d}.png", 180 + noise)
        arrays.write(tmp_path / "flat" / f"sub/{i:02d}.jpg", np.full_like(noise, 40))
        arrays.write(tmp_path / "noisy" / f"sub/{i:02d}.png", noise)
        arrays.write(tmp_path / "lr" / f"sub/{i:02d}.png", (180 + noise)[::4, ::4])
    return tmp_path


@pytest.fixture
def make(folders):
    def create(name="study", task=2, methods=("flat", "noisy"), **options):
        candidates = {method: folders / method for method in methods}
        options = {"seconds": 0.05, "per_subject": 6, "training": 2, "catch": 2} | options
        study = studies.create(
            folders / name,
            folders / "real",
            candidates,
            folders / "lr",
            studies.Design(task, **options),
        )
        return folders / name, study

    return create


class Client:
    def __init__(self, url: str):
        self.url = url

    def ask(
        self, path: str, body: object = None, method: str | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)


@pytest.fixture
def serve():
    """Serves a study; gives a client and the subjects' tokens."""
    running = []

    def start(folder, study, subjects=2):
        answers = Answers(folder)
        listener = web.listen("127.0.0.1", 0)
        application = app.make_app(folder, study, answers, web.LOOPBACK)
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        running.append((server, thread, listener, answers))
        return Client(web.url(listener)), answers.invite(subjects)

    yield start
    for server, thread, listener, answers in running:
        server.should_exit = True
        thread.join()
        listener.close()
        answers.close()
