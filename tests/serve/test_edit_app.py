"""The HTTP interface of `sr3 serve --task=…`, against a running server."""

import io
import os
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr3_jax import Editor, cli
from sr3_jax.checkpoints.exported import export
from sr3_jax.inference.edits import EDITS
from sr3_jax.runtime import parallel
from tests.inference.test_editor import hole_of, load, restorer
from tests.serve.conftest import editing
from tests.serve.test_app import file, opened

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (45, 70, 3), np.uint8)
HOLE = hole_of((10, 20, 30, 44))


def send(served, pixels=PHOTO, name="a.png"):
    """The id of an image that was uploaded."""
    status, image = served.ask(f"images?name={name}", "POST", file(pixels))
    assert status == 201, image
    return image["id"]


def ask(served, query="", mask=None, pixels=PHOTO):
    """An edit that is accepted, and its state when it has ended."""
    body = None if mask is None else file(mask)
    status, job = served.send(body, f"image={send(served, pixels)}&{query}")
    assert status == 202, job
    return served.finish(job["id"])


def result(served, job):
    assert job["state"] == "done", job
    status, png = served.ask(f"edits/{job['id']}/result.png")
    assert status == 200
    return opened(png)


def test_a_hole_is_filled_as_the_editor_does_it_in_python_and_all_else_stays(filling):
    job = ask(filling, "steps=3&seed=5&sampler=ddim", HOLE)
    assert (job["width"], job["height"], job["done"]) == (70, 45, job["total"])
    made = result(filling, job)
    options = {"steps": 3, "seed": 5, "sampler": "ddim", "name": "a.png"}
    np.testing.assert_array_equal(made, filling.network(PHOTO, mask=HOLE, **options))
    np.testing.assert_array_equal(made[HOLE == 0], PHOTO[HOLE == 0])
    with urllib.request.urlopen(f"{filling.url}edits/{job['id']}/result.png") as answer:
        disposition = answer.headers["content-disposition"]
    assert disposition == "inline; filename*=UTF-8''a-inpaint.png"


def test_an_upload_can_be_edited_again_with_other_masks_and_seeds(filling):
    id = send(filling)
    other = hole_of((0, 9, 0, 9))
    for mask, seed in ((HOLE, 0), (HOLE, 1), (other, 1)):
        _, job = filling.send(file(mask), f"image={id}&seed={seed}")
        made = result(filling, filling.finish(job["id"]))
        np.testing.assert_array_equal(
            made, filling.network(PHOTO, mask=mask, seed=seed, name="a.png")
        )


@pytest.mark.parametrize("mask", [None, HOLE])
def test_margins_are_added_with_and_without_a_mask(filling, mask):
    job = ask(filling, "margin=3,4,5,6", mask)
    assert (job["width"], job["height"]) == (80, 53)
    made = result(filling, job)
    expected = filling.network(PHOTO, mask=mask, margin=(3, 4, 5, 6), name="a.png")
    np.testing.assert_array_equal(made, expected)


def test_margins_of_nothing_are_none(filling):
    job = ask(filling, "margin=0,0,0,0", HOLE)
    np.testing.assert_array_equal(
        result(filling, job), filling.network(PHOTO, mask=HOLE, name="a.png")
    )


def test_uncrop_is_served_by_the_same_network():
    with editing(load("inpaint"), "uncrop") as found:
        about = found.ask("network")[1]
        assert (about["task"], about["fills"]) == ("uncrop", True)
        assert result(found, ask(found, "margin=8,0,0,0")).shape == (53, 70, 3)


def test_grey_images_get_colours_and_keep_their_notes(colouring):
    grey = PHOTO[..., 0]
    job = ask(colouring, "seed=3", pixels=grey)
    np.testing.assert_array_equal(
        result(colouring, job), colouring.network(grey, seed=3, name="a.png")
    )
    assert job["notes"] == []
    assert ask(colouring)["notes"] == ["its own colours are given up: only its brightness is used"]


def test_a_network_that_restores_is_told_of_the_flaws(restoring):
    signals = restoring.ask("network")[1]["signals"]
    assert {one["name"] for one in signals} == {"blur", "noise", "jpeg"}
    assert all(one["optional"] for one in signals)
    for query, options in (("", {}), ("noise=0&blur=1.5", {"noise": 0.0, "blur": 1.5})):
        expected = restoring.network(PHOTO, name="a.png", **options)
        np.testing.assert_array_equal(result(restoring, ask(restoring, query)), expected)


@pytest.mark.parametrize(
    ("task", "flaw"), [("deblur", "blur"), ("denoise", "noise"), ("restore_jpeg", "jpeg")]
)
def test_to_remove_one_flaw_only_that_one_can_be_told(task, flaw):
    with editing(Editor(restorer()), task) as found:
        assert [one["name"] for one in found.ask("network")[1]["signals"]] == [flaw]
        others = {"blur": 0.0, "noise": 0.0, "jpeg": 0.0} | {flaw: 1.0}
        expected = found.network(PHOTO, name="a.png", **others)
        np.testing.assert_array_equal(result(found, ask(found, f"{flaw}=1")), expected)
        other = next(name for name in others if name != flaw)
        status, answer = found.send(None, f"image={send(found)}&{other}=1")
        assert (status, answer["error"].startswith(f"{other} is not known; there are")) == (
            400,
            True,
        )


def test_the_network_is_described(filling, colouring):
    about = filling.ask("network")[1]
    assert (about["name"], about["task"], about["about"]) == (
        "inpaint",
        "inpaint",
        EDITS["inpaint"].about,
    )
    assert (about["fills"], about["signals"], about["default_steps"]) == (True, [], 2)
    assert not colouring.ask("network")[1]["fills"]


@pytest.mark.parametrize(
    ("query", "mask", "words"),
    [
        ("", None, "inpaint needs a mask, white where the image is to be filled, or a margin"),
        ("margin=0,0,0,0", None, "inpaint needs a mask"),
        ("", hole_of(size=(45, 69)), "the mask is 69×45, and the image 70×45"),
        ("", hole_of(), "the mask has no hole"),
        ("", hole_of() + np.uint8(255), "the mask is all hole"),
        ("margin=1,2", HOLE, "margin = '1,2' must be four numbers of pixels"),
        ("margin=1,2,3,-4", HOLE, "margin = '-4' must be a whole number between 0 and 100000"),
        ("margin=1,2,3,", HOLE, "margin = '' must be a whole number"),
        ("steps=0", HOLE, "steps = '0' must be a whole number between 1 and 1000"),
        ("seed=-1", HOLE, "seed = '-1'"),
        ("sampler=magic", HOLE, "sampler = 'magic' can be ancestral, ddim"),
        ("noise=1", HOLE, "noise is not known; there are image, margin, steps, seed, sampler"),
        ("scale=2", HOLE, "scale is not known"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_400(filling, query, mask, words):
    body = None if mask is None else file(mask)
    status, answer = filling.send(body, f"image={send(filling)}&{query}")
    assert status == 400
    assert words in answer["error"]
    assert "\n" not in answer["error"]


def test_a_strength_beyond_what_the_network_knows_is_one_sentence(restoring):
    status, answer = restoring.send(None, f"image={send(restoring)}&blur=3")
    assert (status, answer["error"]) == (
        400,
        "blur = 3 must lie between 0 and 2.82843, which restore was trained with",
    )


def test_masks_and_margins_for_a_network_that_fills_nothing_are_refused(colouring):
    id = send(colouring)
    status, answer = colouring.send(file(HOLE), f"image={id}")
    assert status == 400
    assert answer["error"] == "mask and margin are for a network of inpaint, not of colourise"
    status, answer = colouring.send(None, f"image={id}&margin=1,1,1,1")
    assert (status, "margin is not known" in answer["error"]) == (400, True)


@pytest.mark.parametrize(
    "data", [b"", b"hello", file()[:60], file()[:-90], file(form="JPEG")[:200]]
)
def test_what_is_no_image_is_one_sentence_and_400(filling, data):
    status, answer = filling.ask("images?name=a.png", "POST", data)
    assert (status, "\n" in answer["error"]) == (400, False)
    if data:
        status, answer = filling.send(data, f"image={send(filling)}")
        assert (status, "the mask" in answer["error"]) == (400, True)


def test_files_and_results_beyond_the_limits_are_refused_with_413(filling):
    for path in ("images?name=a", f"edits?image={send(filling)}"):
        status, answer = filling.ask(path, "POST", bytes(2**20 + 1))
        assert status == 413
        assert answer["error"] == "the file is larger than 1 MB, the most that this server takes"
    status, answer = filling.ask("images?name=a", "POST", file(np.zeros((1100, 1000), np.uint8)))
    assert (status, answer["error"]) == (
        413,
        "a is 1000×1100; this server makes up to 1 million pixels",
    )
    status, answer = filling.send(None, f"image={send(filling)}&margin=99999,0,0,0")
    assert (status, answer["error"]) == (
        413,
        "a.png is 70×45 and would become 70×100044; this server makes up to 1 million pixels",
    )


def test_a_mask_of_another_size_is_not_decoded(filling, monkeypatch):
    mask = file(np.zeros((5000, 5000), np.uint8))
    id = send(filling)
    with monkeypatch.context() as patched:
        patched.setattr("sr3_jax.images.files.parse", lambda *_: 1 / 0)
        status, answer = filling.send(mask, f"image={id}")
    assert (status, "the mask is 5000×5000" in answer["error"]) == (400, True)


def test_what_nobody_has_sent_is_404_and_what_is_not_ready_409(held_edit):
    served, gate = held_edit
    for path in ("images/none/input.png", "edits/none", "edits/none/result.png", "nothing"):
        assert served.ask(path)[0] == 404
    status, answer = served.send(None, "image=none")
    assert (status, "send it again" in answer["error"]) == (404, True)
    assert served.send(None, "")[0] == 404
    assert served.ask("images/none", "DELETE")[0] == 404
    _, job = served.send(None, f"image={send(served)}")
    status, answer = served.ask(f"edits/{job['id']}/result.png")
    assert (status, "not done" in answer["error"]) == (409, True)
    gate.set()


def test_a_full_queue_is_503_and_edits_can_be_cancelled(held_edit):
    served, gate = held_edit
    id = send(served)
    running = served.send(None, f"image={id}")[1]["id"]
    served.finish(running, ("running",))
    waiting = [served.send(None, f"image={id}")[1]["id"] for _ in range(2)]
    status, answer = served.send(None, f"image={id}")
    assert (status, answer["error"]) == (503, "2 images are waiting already; try again in a while")
    assert [served.ask(f"edits/{one}")[1]["ahead"] for one in waiting] == [1, 2]
    for one in (running, waiting[0]):
        assert served.ask(f"edits/{one}", "DELETE")[0] == 204
    # what waits needs the upload no more
    assert served.ask(f"images/{id}", "DELETE")[0] == 204
    gate.set()
    ended = [served.finish(one)["state"] for one in (running, *waiting)]
    assert ended == ["cancelled", "cancelled", "done"]
    assert served.ask(f"edits/{waiting[1]}", "DELETE")[0] == 204
    assert served.ask(f"edits/{waiting[1]}")[0] == 404
    assert served.ask(f"images/{id}/input.png")[0] == 404


def test_only_the_last_uploads_are_kept_by_number_and_by_size(filling, monkeypatch):
    def alive(ids):
        return [served_status(id) == 200 for id in ids]

    def served_status(id):
        return filling.ask(f"images/{id}/input.png")[0]

    with monkeypatch.context() as patched:
        patched.setattr("sr3_jax.serve.edits.KEPT", 2)
        assert alive([send(filling) for _ in range(3)]) == [False, True, True]
    with monkeypatch.context() as patched:
        patched.setattr("sr3_jax.serve.edits.KEPT_BYTES", 100)
        assert alive([send(filling) for _ in range(2)]) == [False, True]


def test_the_input_is_shown_upright_with_its_profile_and_the_result_keeps_both(filling):
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = file(PHOTO, "JPEG", exif=exif, icc_profile=profile, quality=95)
    status, image = filling.ask("images?name=..%2Fa.jpg", "POST", data)
    assert (status, image["name"], image["width"], image["height"]) == (201, "a.jpg", 45, 70)
    turned = np.rot90(opened(data), -1)
    hole = np.rot90(HOLE, -1)
    _, job = filling.send(file(hole), f"image={image['id']}")
    state = filling.finish(job["id"])
    assert state["notes"] == ["turned upright as its orientation says"]
    np.testing.assert_array_equal(result(filling, state)[hole == 0], turned[hole == 0])
    for path in (f"images/{image['id']}/input.png", f"edits/{job['id']}/result.png"):
        with Image.open(io.BytesIO(filling.ask(path)[1])) as found:
            assert found.info["icc_profile"] == profile
            assert found.size == (45, 70)


def test_an_error_of_ours_ends_its_edit_not_the_service(colouring, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(colouring.network, "colourise", lambda *_: 1 / 0)
        job = ask(colouring)
    assert job["error"] == "a.png: ZeroDivisionError: division by zero"
    assert ask(colouring)["state"] == "done"


def test_other_web_pages_and_other_names_are_refused(filling):
    host = filling.url.removeprefix("http://").rstrip("/")
    id = send(filling)
    assert filling.ask("network", Host="evil.example")[0] == 403
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert filling.ask("images?name=a", "POST", file(), Origin=origin)[0] == 403
        assert filling.ask(f"edits?image={id}", "POST", file(HOLE), Origin=origin)[0] == 403
    own = f"http://{host}"
    assert filling.ask(f"edits?image={id}", "POST", file(HOLE), Origin=own)[0] == 202


def test_the_page_needs_nothing_from_elsewhere(filling):
    with urllib.request.urlopen(filling.url) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        html = answer.read().decode()
    assert "://" not in html
    for name in ("page.css", "common.js", "pictures.js", "edit.js", "icon.svg"):
        assert f'"{name}"' in html
        assert filling.ask(name)[0] == 200
    for other in ("index.html", "page.js", "images", "../app.py"):
        assert filling.ask(other)[0] in (404, 405)


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    path = tmp_path_factory.mktemp("edit") / "inpaint.safetensors"
    export(load("inpaint").checkpoint, path)
    return f"--checkpoint={path}"


def test_the_command_tells_what_it_serves_and_ends_with_0_at_a_signal(inpainting):
    command = [sys.executable, "-m", "sr3_jax", "serve", "--port=0", "--task=uncrop", inpainting]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = process.stdout.readline()
        assert "serves uncrop by " in line
        with urllib.request.urlopen(line.split()[0] + "network", timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert (process.wait(60), process.stderr.read()) == (0, "")


def test_a_task_that_is_none_and_a_network_for_another_are_one_sentence(
    inpainting, capsys, monkeypatch
):
    monkeypatch.setattr(parallel, "start", lambda config=None: None)
    for words, message in (
        (["--task=paint"], "'paint' is not one of"),
        (
            ["--task=deblur", inpainting],
            "is a network for inpaint, and --task=deblur takes one for",
        ),
        (["--task=inpaint", "--checkpoint=photos-4x"], "is a network for"),
        (["--task=inpaint", "--checkpoint=nothing"], "no checkpoint at 'nothing'"),
    ):
        assert cli.main(["serve", "--port=0", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
