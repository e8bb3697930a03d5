"""The HTTP interface of `sr3 serve`, against a running server."""

import io
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr3_jax import cli
from sr3_jax.errors import UserError
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.runtime import web
from tests.inference.test_generator import stage_config
from tests.serve.conftest import serving
from tests.tiny import random_checkpoint, tiny_checkpoint

rng = np.random.default_rng(0)
COLOUR = rng.integers(0, 256, (11, 9, 3), np.uint8)


def file(pixels: np.ndarray = COLOUR, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_an_image_comes_back_as_the_upscaler_makes_it_in_python(served):
    status, job = served.send(
        file(), "name=my+picture.png&steps=3&seed=5&sampler=ddim&match_input=true"
    )
    assert (status, job["width"], job["height"]) == (202, 18, 22)
    state = served.finish(job["id"])
    assert (state["state"], state["done"], state["error"]) == ("done", state["total"], "")
    status, png = served.ask(f"images/{job['id']}/result.png")
    expected = served.network(
        COLOUR, steps=3, seed=5, sampler="ddim", match_input=True, name="my picture.png"
    )
    assert status == 200
    np.testing.assert_array_equal(opened(png), expected)
    with urllib.request.urlopen(f"{served.url}images/{job['id']}/result.png") as answer:
        assert (
            answer.headers["content-disposition"] == "inline; filename*=UTF-8''my%20picture-2x.png"
        )


def test_the_input_is_shown_upright_and_its_notes_are_told(served):
    exif = Image.Exif()
    exif[0x0112] = 6
    _, job = served.send(file(form="TIFF", exif=exif))
    _, png = served.ask(f"images/{job['id']}/input.png")
    np.testing.assert_array_equal(opened(png), np.rot90(COLOUR, -1))
    assert served.finish(job["id"])["notes"] == ["turned upright as its orientation says"]


def test_a_picture_of_16_bits_comes_back_with_16(served):
    pixels = rng.integers(0, 2**16, (8, 8), np.uint16)
    _, job = served.send(file(pixels))
    served.finish(job["id"])
    assert Image.open(io.BytesIO(served.ask(f"images/{job['id']}/result.png")[1])).mode.startswith(
        "I;16"
    )


def test_the_network_is_described(served):
    _, about = served.ask("network")
    assert (about["name"], about["scale"], about["default_steps"]) == ("tiny", 2, 2)
    assert {1, 2, 8, 100} <= set(about["steps"])
    assert about["samplers"] == ["ancestral", "ddim", "dpm_solver", "heun"]


def test_a_student_offers_only_what_it_has_learned():
    with serving(Upscaler(tiny_checkpoint(channels=3, objective="distill"), batch_size=1)) as found:
        _, about = found.ask("network")
        assert (about["steps"], about["samplers"], about["default_sampler"]) == (
            [2],
            ["ddim"],
            "ddim",
        )
        _, job = found.send(file(COLOUR), "name=a.png&steps=2&sampler=ddim")
        assert found.finish(job["id"])["state"] == "done"


def test_noise_and_blur_are_taken_off_by_a_network_that_can_up_to_what_it_was_trained_with(served):
    assert served.ask("network")[1]["signals"] == []
    with serving(
        Upscaler(tiny_checkpoint(channels=3, noise=10.0, blur=2.0), batch_size=1)
    ) as found:
        signals = found.ask("network")[1]["signals"]
        assert {signal["name"]: signal["high"] for signal in signals} == {
            "noise": 10.0,
            "blur": 2.0,
        }
        _, job = found.send(file(COLOUR), "name=a.png&noise=5&blur=1.5")
        assert found.finish(job["id"])["state"] == "done"
        made = Image.open(io.BytesIO(found.ask(f"images/{job['id']}/result.png")[1]))
        np.testing.assert_array_equal(
            np.asarray(made), found.network(COLOUR, noise=5.0, blur=1.5, name="a.png")
        )
        status, answer = found.send(file(COLOUR), "blur=2.5")
        assert (status, answer["error"]) == (
            400,
            "blur = 2.5 must lie between 0 and 2, which tiny was trained with",
        )


def test_a_class_is_no_signal_to_choose_by_a_slider():
    checkpoint = random_checkpoint(stage_config(classes=3, augment=20.0))
    with serving(Upscaler(checkpoint, batch_size=1)) as found:
        assert [signal["name"] for signal in found.ask("network")[1]["signals"]] == ["augment"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (
            "blur=1",
            "tiny was not trained with task.blur and task.tell_blur, so it cannot be told of blur",
        ),
        ("noise=much", "noise = 'much' must be a number"),
        ("steps=0", "steps = '0' must be a whole number between 1 and 1000"),
        ("steps=1e3", "steps = '1e3'"),
        ("steps=%D9%A3", "steps"),  # a digit, but not one of ours
        ("seed=-1", "seed = '-1'"),
        ("seed=99999999999", "seed"),
        ("sampler=magic", "sampler = 'magic' can be ancestral, ddim, dpm_solver, heun"),
        ("scale=0.5", "scale = 0.5 must lie between 1"),
        ("scale=nan", "scale"),
        ("scale=big", "scale = 'big' must be a number"),
        ("match_input=1", "match_input = '1' can be true or false"),
        ("tile=8", "tile is not known"),
    ],
)
def test_a_bad_option_is_one_sentence_and_400(served, query, words):
    status, answer = served.send(file(), query)
    assert status == 400
    assert words in answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize(
    "data", [b"", b"hello", file()[:60], file()[:-90], file(form="JPEG")[:200]]
)
def test_what_is_no_image_is_one_sentence_and_400(served, data):
    status, answer = served.send(data)
    assert (status, "\n" in answer["error"]) == (400, False)


def test_files_and_results_beyond_the_limits_are_refused_with_413(served):
    status, answer = served.send(bytes(2**20 + 1))
    assert (status, answer["error"]) == (
        413,
        "the file is larger than 1 MB, the most that this server takes",
    )
    status, answer = served.send(file(np.zeros((600, 600), np.uint8)))
    assert (status, "would become 1200×1200" in answer["error"]) == (413, True)
    # a scale that is not the network's own is made larger first
    status, answer = served.send(file(np.zeros((300, 300), np.uint8)), "scale=2.1")
    assert (status, "would become 1200×1200" in answer["error"]) == (413, True)


def test_an_image_that_nobody_has_sent_is_404_and_one_not_ready_409(served, held):
    for path in ("images/none", "images/none/result.png", "images/none/input.png", "nothing"):
        assert served.ask(path)[0] == 404
    other, _ = held
    _, job = other.send(file())
    status, answer = other.ask(f"images/{job['id']}/result.png")
    assert (status, "not done" in answer["error"]) == (409, True)


def test_a_full_queue_is_503_and_what_waits_knows_its_place_and_finishes(held):
    served, gate = held
    first = served.send(file())[1]["id"]
    served.finish(first, ("running",))
    others = [served.send(file())[1]["id"] for _ in range(2)]
    status, answer = served.send(file())
    assert (status, answer["error"]) == (503, "2 images are waiting already; try again in a while")
    assert [served.ask(f"images/{id}")[1]["ahead"] for id in others] == [1, 2]
    gate.set()
    assert {served.finish(id)["state"] for id in (first, *others)} == {"done"}


def test_a_running_and_a_waiting_image_can_be_cancelled_and_the_next_is_made(held):
    served, gate = held
    running, waiting = (served.send(file())[1]["id"] for _ in range(2))
    served.finish(running, ("running",))
    assert [served.ask(f"images/{id}", "DELETE")[0] for id in (waiting, running)] == [204, 204]
    assert served.ask(f"images/{waiting}")[1]["state"] == "cancelled"
    assert served.ask(f"images/{waiting}/input.png")[0] == 409
    # The places of those that were cancelled are free
    kept = [served.send(file())[1] for _ in range(2)]
    assert [job["ahead"] for job in kept] == [1, 2]
    for job in kept:
        served.ask(f"images/{job['id']}", "DELETE")
    after = served.send(file())[1]["id"]
    gate.set()
    assert [served.finish(id)["state"] for id in (running, waiting, after)] == [
        "cancelled",
        "cancelled",
        "done",
    ]
    assert served.ask(f"images/{after}", "DELETE")[0] == 204
    assert served.ask(f"images/{after}")[0] == 404


def test_an_error_of_ours_ends_its_image_not_the_service(served, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(served.network, "enlarge", lambda *_: 1 / 0)
        state = served.finish(served.send(file())[1]["id"])
    assert (state["state"], state["error"]) == (
        "failed",
        "a.png: ZeroDivisionError: division by zero",
    )
    assert served.finish(served.send(file())[1]["id"])["state"] == "done"


def test_only_the_last_results_are_kept(served, monkeypatch):
    monkeypatch.setattr("sr3_jax.serve.queues.KEPT", 2)
    ids = []
    for _ in range(4):
        ids.append(served.send(file())[1]["id"])
        served.finish(ids[-1])
    assert [served.ask(f"images/{id}")[0] for id in ids] == [404, 200, 200, 200]


def test_other_web_pages_and_other_names_are_refused(served):
    host = served.url.removeprefix("http://").rstrip("/")
    # a name that was made to point at this machine
    assert served.ask("network", Host="evil.example")[0] == 403
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert served.ask("images?name=a", "POST", file(), Origin=origin)[0] == 403
    assert served.ask("images?name=a", "POST", file(), Origin=f"http://{host}")[0] == 202
    assert served.ask("network", Host="localhost:1")[0] == 200


def test_the_page_needs_nothing_from_elsewhere(served):
    with urllib.request.urlopen(served.url) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        html = answer.read().decode()
    assert "://" not in html
    for name in ("page.css", "page.js", "icon.svg"):
        assert f'"{name}"' in html
        assert served.ask(name)[0] == 200
    assert served.ask("../app.py")[0] == 404


def test_ids_cannot_be_guessed_and_a_name_is_no_path(served):
    jobs = [served.send(file(), "name=..%2F..%2Fetc%2Fa.png")[1] for _ in range(2)]
    assert {job["name"] for job in jobs} == {"a.png"}
    assert len({job["id"] for job in jobs}) == 2
    assert min(len(job["id"]) for job in jobs) >= 20


def test_the_command_tells_its_address_serves_and_ends_with_0_at_a_signal(tmp_path):
    command = [sys.executable, "-m", "sr3_jax", "serve", "--port=0", "--checkpoint=faces-16-64"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = process.stdout.readline()
        assert "serves faces-16-64; Ctrl-C ends it" in line
        address = line.split()[0]
        assert address.startswith("http://127.0.0.1:")
        for _ in range(200):
            try:
                with urllib.request.urlopen(address + "network") as answer:
                    assert answer.status == 200
                break
            except OSError:
                continue
        process.send_signal(signal.SIGTERM)
        assert (process.wait(60), process.stderr.read()) == (0, "")


def test_a_port_that_is_taken_and_flags_out_of_range_are_one_sentence(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["serve", f"--port={port}"]) == 2
    assert f"--port={port}: Address already in use; give another" in capsys.readouterr().err
    for flag in ("--port=70000", "--waiting=0", "--megabytes=0", "--host=no.such.host.invalid"):
        assert cli.main(["serve", flag]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_without_the_extra_the_command_says_what_to_install():
    program = (
        "import sys; sys.modules['uvicorn'] = None; from sr3_jax import cli; "
        "sys.exit(cli.main(['serve', '--port=0']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "serve needs the package uvicorn: pip install 'sr3_jax[serve]'" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_every_spelling_of_this_machine_is_guarded(host):
    with web.listen(host, 0) as listener:
        assert set(web.LOOPBACK) < {*web.hosts(listener, "more"), ""}
        assert "more" in web.hosts(listener, "more")


async def served_nowhere(scope, receive, send):
    pass


def test_on_a_public_address_only_addresses_and_names_that_are_ours_are_answered():
    with web.listen("0.0.0.0", 0) as listener:
        names = web.hosts(listener, *web.proxied("https://sr3.example")[0])
        assert "sr3.example" in web.told(listener, names)
    guard = web.Guard(served_nowhere, names)
    for name, answered in (
        ("192.0.2.7", True),
        ("2001:db8::1", True),
        ("localhost", True),
        ("sr3.example", True),
        ("evil.example", False),
        ("", False),
    ):
        assert guard._answers_to(name) == answered
    with web.listen("127.0.0.1", 0) as listener:
        assert not web.Guard(served_nowhere, web.hosts(listener))._answers_to("192.0.2.7")
        assert web.told(listener, web.hosts(listener)) == ""


@pytest.mark.parametrize("host", [{}, {"Host": "sr3.example"}])
def test_behind_a_proxy_uploads_of_its_page_are_taken(served, host):
    headers = {"Origin": "https://sr3.example", **host}
    with serving(served.network, shown="https://sr3.example/") as found:
        assert found.ask("images?name=a.png", "POST", file(COLOUR[:8, :8]), **headers)[0] == 202
    assert served.ask("images?name=a.png", "POST", file(COLOUR[:8, :8]), **headers)[0] == 403


def test_a_download_is_called_after_the_scale_that_was_asked_for(served):
    for query, name in (("", "a-2x.png"), ("&scale=1", "a-1x.png"), ("&scale=1.5", "a-1.5x.png")):
        id = served.send(file(COLOUR[:8, :8]), f"name=a.png{query}")[1]["id"]
        served.finish(id)
        with urllib.request.urlopen(f"{served.url}images/{id}/result.png") as answer:
            assert answer.headers["Content-Disposition"].endswith(f"''{name}")


def test_before_and_after_have_the_same_profile(served):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    id = served.send(file(COLOUR[:8, :8], icc_profile=profile))[1]["id"]
    served.finish(id)
    for name in ("input.png", "result.png"):
        with Image.open(io.BytesIO(served.ask(f"images/{id}/{name}")[1])) as image:
            assert image.info["icc_profile"] == profile


def test_progress_of_an_image_of_the_networks_own_size_ends_at_its_total(served):
    state = served.finish(served.send(file(COLOUR[:8, :8]), "steps=3")[1]["id"])
    assert (state["done"], state["total"]) == (3, 3)


def test_an_address_of_ipv6_is_written_in_brackets():
    try:
        listener = web.listen("::1", 0)
    except UserError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert web.url(listener).startswith("http://[::1]:")
