"""The study's page in a real browser, with simulated subjects of known ability."""

import functools
import http.server
import json
import random
import threading

import pytest
from playwright.sync_api import expect

from sr3_jax.study import report, site
from sr3_jax.study.answers import Answers
from tests.browser import needs_chromium

pytestmark = needs_chromium

# What a subject sees: the brighter image is real, or, if they are equally bright, the one with more
# detail.
LOOK = """() => {
  const of = id => {
    const image = document.getElementById(id), canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const values = context.getImageData(0, 0, canvas.width, canvas.height).data\
.filter((_, i) => i % 4 === 0);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    return { mean, spread: values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length };
  };
  const left = of("left"), right = of("right"), other = left.mean < right.mean ? left : right;
  return { left: Math.abs(left.mean - right.mean) > 20 ? left.mean > right.mean \
: left.spread > right.spread,
           plain: Math.abs(left.mean - right.mean) <= 20, noisy: other.spread > 50 };
}"""


def take_part(page, link, chance, keyboard, reload_at):
    """Goes through the study and finds the real image.

    In pairs with a noisy one it is found by `chance`.
    """
    page.goto(link)
    page.click("#agree")
    for number in range(10):
        expect(page.locator("#choose-left")).to_be_enabled()
        # The time is over
        assert (
            page.evaluate("getComputedStyle(document.getElementById('left')).visibility")
            == "hidden"
        )
        if number == reload_at:
            page.reload()
            expect(page.locator("#choose-left")).to_be_enabled()
        seen = page.evaluate(LOOK)
        left = seen["left"] if seen["plain"] or not seen["noisy"] or chance() else not seen["left"]
        if keyboard:
            page.keyboard.press("ArrowLeft" if left else "ArrowRight")
        else:
            page.click("#choose-left" if left else "#choose-right")
        if number < 2:
            expect(page.locator("#feedback")).to_have_text("Right.")
            page.keyboard.press("Space") if keyboard else page.click("#next")
    expect(page.locator("#done")).to_be_visible()


@pytest.mark.parametrize("task", [1, 2])
def test_the_report_recovers_what_simulated_subjects_can_do(browser, make, serve, task):
    folder, study = make(task=task)
    client, tokens = serve(folder, study, subjects=4)
    rng = random.Random(task)
    for i, token in enumerate(tokens):
        page = browser.new_page()
        problems = []
        page.on("pageerror", lambda error, problems=problems: problems.append(str(error)))
        take_part(
            page,
            f"{client.url}s/{token}",
            lambda: rng.random() < 0.5,
            keyboard=i % 2 == 0,
            reload_at=5 if i == 3 else -1,
        )
        page.reload()
        expect(page.locator("#done")).to_be_visible()
        page.close()
        assert not problems
    answers = Answers(folder)
    results = report.analyse(study, answers.all())
    answers.close()
    assert (results["subjects"], results["trials"], results["excluded"]) == (4, 24, [])
    assert results["methods"]["flat"]["fool_rate"] == 0
    low, high = results["methods"]["noisy"]["interval"]
    assert low < 0.5 < high
    assert results["methods"]["noisy"]["n"] == 12
    assert results["trials_shown_again"] <= 1  # the page that was loaded again


@pytest.fixture
def hosted(tmp_path):
    """Any web host: hands out the files of tmp_path/web."""
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path / "web")
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path / "web", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("task", [1, 2])
def test_an_exported_study_needs_no_server_and_its_answers_come_back_as_files(
    browser, make, hosted, tmp_path, task
):
    folder, study = make(task=task)
    answers = Answers(folder)
    web, url = hosted
    tokens, _ = site.export(web / "study", folder, study, answers, 3)
    rng, files = random.Random(task), []
    for i, token in enumerate(tokens):
        context = browser.new_context(accept_downloads=True)
        page, problems = context.new_page(), []
        page.on("pageerror", lambda error, problems=problems: problems.append(str(error)))
        page.on(
            "console",
            lambda said, problems=problems: (
                problems.append(said.text) if said.type == "error" else None
            ),
        )
        link = f"{url}/study/{token}/index.html"
        take_part(
            page, link, lambda: rng.random() < 0.5, keyboard=i == 0, reload_at=5 if i == 1 else -1
        )
        page.close()
        page = context.new_page()
        page.goto(link)  # what was answered outlasts the page
        expect(page.locator("#saving")).to_be_visible()
        expect(page.locator("#kept")).to_be_hidden()
        with page.expect_download() as download:
            page.click("#save")
        files.append(tmp_path / download.value.suggested_filename)
        download.value.save_as(files[-1])
        context.close()
        assert not problems
    shown = [
        [answer["shown"] for answer in json.loads(file.read_text())["answers"]] for file in files
    ]
    assert shown == [[1] * 10, [1] * 5 + [2] + [1] * 4, [1] * 10]  # the page that was loaded again
    assert [site.collect(study, answers, file) for file in files] == [10, 10, 10]
    results = report.analyse(study, answers.all())
    answers.close()
    assert (results["subjects"], results["trials"], results["excluded"]) == (3, 18, [])
    assert results["methods"]["flat"]["fool_rate"] == 0
    low, high = results["methods"]["noisy"]["interval"]
    assert low < 0.5 < high


def test_an_exported_study_works_from_the_disk_and_can_be_left_in_the_middle(
    browser, make, tmp_path
):
    folder, study = make()
    answers = Answers(folder)
    [token], _ = site.export(tmp_path / "site", folder, study, answers, 1)
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.goto((tmp_path / "site" / token / "index.html").as_uri())
    expect(page.locator("#saving")).to_be_hidden()
    page.click("#agree")
    expect(page.locator("#choose-left")).to_be_enabled()
    page.click("#choose-left")
    page.click("#next")
    with page.expect_download() as download:
        page.click("#save")
    [answer] = json.loads(download.value.path().read_text())["answers"]
    assert (answer["left"], answer["shown"]) == (True, 1)
    assert site.collect(study, answers, download.value.path()) == 1
    answers.close()
    context.close()


@pytest.fixture
def on_disk(make, tmp_path):
    """The address of the only subject's page of an exported study."""
    folder, study = make()
    answers = Answers(folder)
    [token], _ = site.export(tmp_path / "site", folder, study, answers, 1)
    answers.close()
    return (tmp_path / "site" / token / "index.html").as_uri()


def test_an_exported_study_in_a_browser_that_keeps_nothing_says_so(browser, on_disk):
    page = browser.new_page()
    page.add_init_script(
        "Storage.prototype.setItem = () => { throw new DOMException('no', 'QuotaExceededError'); }"
    )
    page.goto(on_disk)
    page.click("#agree")
    expect(page.locator("#problem")).to_contain_text("does not let a page keep anything")
    page.close()


def test_of_two_tabs_of_an_exported_study_one_answers(browser, on_disk):
    context = browser.new_context(accept_downloads=True)
    first, second = context.new_page(), context.new_page()
    for page in (first, second):
        page.goto(on_disk)
        if page is first:
            page.click("#agree")
        expect(page.locator("#choose-left")).to_be_enabled()
    first.click("#choose-left")
    expect(first.locator("#feedback")).not_to_be_empty()
    second.click("#choose-right")  # of the first trial, which has its answer
    expect(second.locator("#progress")).to_have_text("Practice 2 of 2")
    first.click("#next")
    with first.expect_download() as download:
        first.click("#save")
    assert [
        answer["left"] for answer in json.loads(download.value.path().read_text())["answers"]
    ] == [True]
    context.close()
