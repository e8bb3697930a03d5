"""The HTTP interface of `sr3 serve --stage=…`, against a running server."""

import io
import os
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

from sr3_jax import cli
from sr3_jax.checkpoints.exported import export
from sr3_jax.runtime import parallel
from tests.serve.conftest import CLASSES, cascade, generating


def ask(served, query):
    """A request that is accepted, and its state when it has ended."""
    status, job = served.send(None, query)
    assert status == 202, job
    return served.finish(job["id"])


def images(served, job):
    found = []
    for number in range(len(job["images"])):
        status, png = served.ask(f"generations/{job['id']}/{number}.png")
        assert status == 200
        found.append(np.asarray(Image.open(io.BytesIO(png))))
    return np.stack(found)


def close(a, b):
    """Equal to a level: another batch size is another program, and may round otherwise."""
    return np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_the_images_are_those_that_the_generator_makes_in_python(made):
    job = ask(made, "count=5&classes=2,0&guidance=2.5&augment=10&seed=3")
    assert (job["state"], job["done"], job["error"]) == ("done", job["total"], "")
    expected = made.network(5, classes=[2, 0], guidance=2.5, augment=10, seed=3)
    assert close(images(made, job), expected[..., 0])
    # without a choice each stage has its own, and the class is drawn
    assert close(images(made, ask(made, "count=3&seed=3")), made.network(3, seed=3)[..., 0])
    each = ask(made, "count=2&guidance=2,1&seed=3")
    assert close(images(made, each), made.network(2, guidance=(2, 1), seed=3)[..., 0])


def test_a_file_is_called_by_class_and_seed_and_a_name_is_no_path(made):
    job = ask(made, "count=3&classes=balanced&seed=7")
    assert [one["class"] for one in job["images"]] == list(CLASSES)
    names = [one["file"] for one in job["images"]]
    assert names == ["ankle-boot-seed-7-1.png", "T-shirt-top-seed-7-2.png", "bag-seed-7-3.png"]
    with urllib.request.urlopen(f"{made.url}generations/{job['id']}/1.png") as answer:
        disposition = answer.headers["content-disposition"]
    assert disposition == f"inline; filename*=UTF-8''{names[1]}"


def test_the_networks_are_described_and_what_they_cannot_is_left_out(made):
    assert made.ask("network")[1] == {
        "stages": ["base", "stage"],
        "size": 16,
        "classes": list(CLASSES),
        "guidance": 1.0,
        "augment": 20.0,
        "most": 16,
    }
    with generating(cascade(augment=0.0)) as found:
        assert found.ask("network")[1]["augment"] == 0
    with generating(cascade(classes=0, stages=1)) as found:
        about = found.ask("network")[1]
        assert (about["classes"], about["guidance"], about["augment"]) == ([], None, 0)
        job = ask(found, "count=1&seed=2")
        assert job["images"] == [{"class": "", "file": "image-seed-2-1.png"}]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("count=0", "count = '0' must be a whole number between 1 and 16"),
        ("count=17", "count = '17'"),
        ("count=%D9%A3", "count"),  # a digit, but not one of ours
        ("seed=-1", "seed = '-1'"),
        ("seed=99999999999", "seed"),
        ("classes=9", "runs/base has no class '9'"),
        ("classes=", "has no class ''"),
        ("guidance=much", "guidance = 'much' must be a number"),
        ("guidance=101", "guidance = 101 must lie between"),
        ("guidance=nan", "guidance = nan must lie between"),
        ("guidance=1,2,3", "each of the 2 stages"),
        ("augment=21", "augment = 21 must lie between 0 and 20"),
        ("augment=nan", "augment = nan must lie between 0 and 20"),
        ("steps=4", "steps is not known; there are count, classes, guidance, augment, seed"),
    ],
)
def test_a_bad_option_is_one_sentence_and_400(made, query, words):
    status, answer = made.send(None, query)
    assert status == 400
    assert words in answer["error"]
    assert "\n" not in answer["error"]


def test_images_can_be_fetched_as_soon_as_they_are_made_and_others_are_404_and_409(held_cascade):
    served, gate = held_cascade
    _, job = served.send(None, "count=3")
    served.wait(job["id"], lambda state: len(state["images"]) == 2)
    path = f"generations/{job['id']}"
    assert [served.ask(f"{path}/{number}.png")[0] for number in range(4)] == [200, 200, 409, 404]
    assert "image 2 is not made; the request is running" in served.ask(f"{path}/2.png")[1]["error"]
    gate.set()
    assert served.finish(job["id"])["state"] == "done"
    assert served.ask(f"{path}/2.png")[0] == 200
    for other in ("generations/none", "generations/none/0.png", f"{path}/-1.png", f"{path}/x.png"):
        assert served.ask(other)[0] == 404


def test_requests_wait_know_their_place_and_can_be_cancelled(held_cascade):
    served, gate = held_cascade
    running = served.send(None, "count=4")[1]["id"]
    served.finish(running, ("running",))
    waiting = [served.send(None, "count=1")[1]["id"] for _ in range(2)]
    status, answer = served.send(None, "count=1")
    assert status == 503
    assert answer["error"] == "2 requests are waiting already; try again in a while"
    assert [served.ask(f"generations/{id}")[1]["ahead"] for id in waiting] == [1, 2]
    served.wait(running, lambda state: len(state["images"]) == 2)
    for id in (running, waiting[0]):
        assert served.ask(f"generations/{id}", "DELETE")[0] == 204
    gate.set()
    ended = [served.finish(id) for id in (running, *waiting)]
    assert [job["state"] for job in ended] == ["cancelled", "cancelled", "done"]
    # what was made before stays, until it is forgotten
    assert len(ended[0]["images"]) == 2
    assert served.ask(f"generations/{running}/1.png")[0] == 200
    assert served.ask(f"generations/{running}", "DELETE")[0] == 204
    assert served.ask(f"generations/{running}")[0] == 404


def test_an_error_of_ours_ends_its_request_not_the_service(made, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(made.network, "images", lambda *_: 1 / 0)
        job = ask(made, "count=1")
    assert job["state"] == "failed"
    assert job["error"] == "the images: ZeroDivisionError: division by zero"
    assert ask(made, "count=1")["state"] == "done"


def test_other_web_pages_and_other_names_are_refused(made):
    host = made.url.removeprefix("http://").rstrip("/")
    assert made.ask("network", Host="evil.example")[0] == 403
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert made.ask("generations?count=1", "POST", Origin=origin)[0] == 403
    status, job = made.ask("generations?count=1", "POST", Origin=f"http://{host}")
    assert status == 202
    assert made.ask(f"generations/{job['id']}", "DELETE", Origin="null")[0] == 403


def test_the_page_needs_nothing_from_elsewhere(made):
    with urllib.request.urlopen(made.url) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        html = answer.read().decode()
    assert "://" not in html
    for name in ("page.css", "common.js", "generate.js", "icon.svg"):
        assert f'"{name}"' in html
        assert made.ask(name)[0] == 200
    for other in ("index.html", "page.js", "images", "../app.py"):
        assert made.ask(other)[0] == 404


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    files = [folder / "base.safetensors", folder / "stage.safetensors"]
    for checkpoint, file in zip(cascade().checkpoints, files, strict=True):
        export(checkpoint, file)
    return [f"--stage={file}" for file in files]


def test_the_command_tells_its_address_serves_and_ends_with_0_at_a_signal(stages):
    command = [sys.executable, "-m", "sr3_jax", "serve", "--port=0", *stages]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = process.stdout.readline()
        assert "base.safetensors and " in line
        with urllib.request.urlopen(line.split()[0] + "network", timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert (process.wait(60), process.stderr.read()) == (0, "")


def test_flags_that_do_not_go_together_and_stages_that_do_not_fit_are_one_sentence(
    stages, capsys, monkeypatch
):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)
    for words, message in (
        ([*stages, "--checkpoint=photos-4x"], "--checkpoint enlarges or edits images and --stage"),
        ([*stages, "--task=inpaint"], "--task edits images and --stage makes them from noise"),
        ([*stages, "--tile=64"], "--tile is for images that are enlarged"),
        ([*stages, "--megabytes=32"], "--megabytes is for images that are enlarged or edited"),
        ([*stages, "--megapixels=9"], "--megapixels is for images that are enlarged or edited"),
        ([stages[1]], "and the first stage has to make them from noise"),
        (["--stage=nothing"], "no checkpoint at 'nothing'"),
    ):
        assert cli.main(["serve", "--port=0", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
