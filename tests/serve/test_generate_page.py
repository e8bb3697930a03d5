"""The web page of `sr3 serve --stage=…`, in a real browser without a window."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser import needs_chromium, watched
from tests.serve.conftest import CLASSES, cascade, generating

pytestmark = needs_chromium


@pytest.fixture
def page(browser, made) -> Iterator:
    with watched(browser, made.url) as found:
        expect(found.locator("#generate")).to_be_enabled()
        yield found


def finished(page, count):
    """Waits for the last of the images."""
    expect(page.locator("#generate")).to_be_enabled(timeout=60_000)
    expect(page.locator("#images img")).to_have_count(count)
    page.wait_for_function("[...document.images].every(image => image.naturalWidth)")


def test_by_the_keyboard_a_class_is_chosen_guided_made_and_saved(page, made):
    expect(page.locator("#network")).to_have_text("base, then stage: images of 16 × 16 from noise")
    assert page.locator("#class option").all_inner_texts() == ["any", *CLASSES]
    page.focus("#class")
    page.keyboard.type("bag")
    page.keyboard.press("Tab")  # guidance
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#guidance-shown")).to_have_text("1.5")
    page.keyboard.press("Tab")  # augmentation
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#augment-shown")).to_have_text("3")
    page.keyboard.press("Tab")
    page.keyboard.type("3")
    page.keyboard.press("Tab")
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    finished(page, 3)
    expect(page.locator("#status")).to_have_text(
        "3 images of 16 × 16, seed 7, guidance 1.5, augmentation 3."
    )
    expected = made.network(3, classes="bag", guidance=1.5, augment=3, seed=7)
    page.locator("#images a").nth(1).focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "bag-seed-7-2.png"
    found = np.asarray(Image.open(download.value.path())).astype(int)
    assert np.abs(found - expected[1, ..., 0]).max() <= 1  # another batch size


def test_any_class_is_drawn_and_each_image_says_its_own(page, made):
    page.fill("#count", "2")
    with page.expect_request("**/generations?*") as sent:
        page.click("#generate")
    # what is not chosen is not sent, so each stage has its own
    assert sent.value.url.partition("?")[2] == "count=2&seed=0&classes=all"
    finished(page, 2)
    for item in page.locator("#images li").all():
        assert item.inner_text() in CLASSES
        assert item.locator("img").get_attribute("alt").startswith(item.inner_text())


def test_small_images_are_shown_by_whole_factors_without_smoothing(page):
    page.fill("#count", "1")
    page.click("#generate")
    finished(page, 1)
    image = page.locator("#images img")
    assert image.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    box = image.bounding_box()
    assert (box["width"], box["height"]) == (128, 128)


def test_controls_that_the_networks_do_not_have_are_hidden(browser, page):
    for name in ("class", "guidance", "augment"):
        expect(page.locator(f"#{name}")).to_be_visible()
    with generating(cascade(classes=0, stages=1)) as found:
        other = browser.new_page()
        other.goto(found.url)
        expect(other.locator("#generate")).to_be_enabled()
        for name in ("class", "guidance", "augment"):
            expect(other.locator(f"#{name}")).to_be_hidden()
        other.fill("#count", "1")
        with other.expect_request("**/generations?*") as sent:
            other.click("#generate")
        assert sent.value.url.partition("?")[2] == "count=1&seed=0"
        finished(other, 1)
        other.close()


def test_images_appear_as_they_are_made_and_those_stay_when_the_rest_is_cancelled(
    browser, held_cascade
):
    served, gate = held_cascade
    page = browser.new_page()
    page.goto(served.url)
    page.fill("#count", "4")
    page.click("#generate")
    expect(page.locator("#images img")).to_have_count(2, timeout=60_000)
    expect(page.locator("#status")).to_have_text("2 of 4 images …")
    assert float(page.get_attribute("#progress", "value")) == 0.5
    expect(page.locator("#generate")).to_be_disabled()
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.click("#cancel")
    gate.set()
    expect(page.locator("#status")).to_have_text("Cancelled; 2 images made.")
    finished(page, 2)
    expect(page.locator("#work")).to_be_hidden()
    page.close()


def test_errors_are_sentences_and_the_next_request_works(page, made, monkeypatch):
    page.fill("#count", "17")
    page.click("#generate")
    assert page.evaluate("document.querySelector('#count').validity.rangeOverflow")
    expect(page.locator("#work")).to_be_hidden()  # the browser says so, nothing is sent
    page.fill("#count", "1")
    with monkeypatch.context() as patched:
        patched.setattr(made.network, "images", lambda *_: 1 / 0)
        page.click("#generate")
        expect(page.locator("#status.error")).to_have_text(
            "the images: ZeroDivisionError: division by zero"
        )
    page.click("#generate")
    finished(page, 1)
    expect(page.locator("#status.error")).to_have_count(0)


def test_on_a_narrow_screen_and_in_the_dark_nothing_sticks_out_or_vanishes(browser, made):
    context = browser.new_context(viewport={"width": 320, "height": 600}, color_scheme="dark")
    page = context.new_page()
    page.goto(made.url)
    page.fill("#count", "3")
    page.click("#generate")
    finished(page, 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    colours = "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"
    ink, paper = (
        sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(",")))
        for colour in page.evaluate(colours)
    )
    assert ink > 600 > 100 > paper
    context.close()


def test_guidance_begins_with_the_networks_own_which_is_not_sent(browser):
    generator = cascade(stages=1)
    generator.checkpoints[0].config.sample.guidance = 2.25
    with generating(generator) as found:
        page = browser.new_page()
        page.goto(found.url)
        expect(page.locator("#generate")).to_be_enabled()
        assert 2.2 <= float(page.inner_text("#guidance-shown")) <= 2.3
        page.fill("#count", "1")
        with page.expect_request("**/generations?*") as sent:
            page.click("#generate")
        assert "guidance" not in sent.value.url
        finished(page, 1)
        page.focus("#guidance")
        page.keyboard.press("Home")
        with page.expect_request("**/generations?*") as sent:
            page.click("#generate")
        assert "guidance=0" in sent.value.url
        finished(page, 1)
        page.close()
