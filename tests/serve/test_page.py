"""The web page of `sr3 serve`, in a real browser without a window."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Route, expect

from sr3_jax.inference.upscaler import Upscaler
from tests.browser import needs_chromium, watched
from tests.serve.conftest import serving
from tests.tiny import random_checkpoint, tiny_checkpoint, tiny_config

pytestmark = needs_chromium

COLOUR = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


@pytest.fixture
def page(browser, served) -> Iterator:
    with watched(browser, served.url) as found:
        yield found


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "my picture.png"
    Image.fromarray(COLOUR).save(path)
    return path


def test_an_image_is_chosen_enlarged_compared_and_downloaded(page, image, served):
    expect(page.locator("#enlarge")).to_be_disabled()
    page.set_input_files("#file", image)
    expect(page.locator("#enlarge")).to_be_enabled()  # the page has heard of the network
    page.fill("#seed", "7")
    page.locator("#steps").focus()
    page.keyboard.press("ArrowRight")  # from 2 steps to 4
    expect(page.locator("#steps-shown")).to_have_text("4")
    page.click("#enlarge")
    page.wait_for_selector("#result:visible")
    expect(page.locator("#status")).to_have_text("20 × 24, 4 steps, seed 7.")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "my picture-2x.png"
    found = np.asarray(Image.open(download.value.path()))
    np.testing.assert_array_equal(
        found, served.network(COLOUR, steps=4, seed=7, name="my picture.png", match_input=False)
    )


def test_only_a_network_that_can_take_off_noise_and_blur_is_asked_to_and_a_match_would_bring_them_back(  # noqa: E501
    browser, page, image
):
    page.set_input_files("#file", image)
    expect(page.locator("#enlarge")).to_be_enabled()
    for flaw in ("noise", "blur"):
        expect(page.locator(f"#{flaw}")).to_be_hidden()
    checkpoint = tiny_checkpoint(channels=3, noise=10.0, blur=2.0)
    checkpoint.config.sample.match_input = True
    with serving(Upscaler(checkpoint, batch_size=1)) as found:
        other = browser.new_page()
        other.goto(found.url)
        other.set_input_files("#file", image)
        expect(other.locator("#enlarge")).to_be_enabled()
        expect(other.locator("#match")).to_be_checked()
        other.fill("#noise", "5")
        expect(other.locator("#match")).not_to_be_checked()
        other.fill("#noise", "0")
        expect(other.locator("#match")).to_be_checked()
        other.fill("#blur", "1.5")
        expect(other.locator("#match")).not_to_be_checked()
        with other.expect_request("**/images?*") as sent:
            other.click("#enlarge")
        assert {"blur=1.5", "match_input=false"} <= set(sent.value.url.partition("?")[2].split("&"))
        assert "noise" not in sent.value.url
        other.wait_for_selector("#result:visible")
        other.close()


def test_how_much_to_invent_is_a_slider_with_its_value_beside_it(browser, image):
    config = tiny_config(channels=3)
    config.task.augment = 20.0
    with serving(Upscaler(random_checkpoint(config), batch_size=1)) as found:
        other = browser.new_page()
        other.goto(found.url)
        other.set_input_files("#file", image)
        field = other.locator("#augment-field")
        expect(field).to_contain_text("noise added before the network looks")
        expect(field).not_to_contain_text("to remove")
        expect(other.locator("#augment")).to_have_attribute("type", "range")
        expect(other.locator("#augment")).to_have_attribute("max", "20")
        expect(field.locator("output")).to_have_text("0")
        expect(other.locator("#enlarge")).to_be_enabled()
        other.focus("#augment")
        for _ in range(3):
            other.keyboard.press("ArrowRight")
        expect(field.locator("output")).to_have_text("3")
        with other.expect_request("**/images?*") as sent:
            other.click("#enlarge")
        assert "augment=3" in sent.value.url.partition("?")[2].split("&")
        other.wait_for_selector("#result:visible")
        other.close()


def test_the_slider_uncovers_the_result_by_mouse_and_by_keyboard(page, image):
    page.set_input_files("#file", image)
    page.click("#enlarge")
    page.wait_for_selector("#result:visible")
    page.check("#blocks")

    def shot() -> np.ndarray:
        return np.asarray(
            Image.open(io.BytesIO(page.locator("#compare").screenshot())).convert("RGB")
        ).astype(int)

    def to(share: float) -> np.ndarray:
        box = page.locator("#compare").bounding_box()
        page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        page.mouse.move(0, 0)
        return shot()

    after, half, before = to(0.001), to(0.5), to(0.999)
    width = after.shape[1]
    left, right = slice(10, width // 2 - 10), slice(width // 2 + 10, width - 10)
    assert np.abs(before[:, left] - after[:, left]).mean() > 10
    np.testing.assert_array_equal(half[:, left], before[:, left])
    np.testing.assert_array_equal(half[:, right], after[:, right])
    # the input's own pixels: the colour in the middle of the first
    side = before.shape[0] // 12
    assert np.abs(before[side // 2, side // 2] - COLOUR[0, 0]).max() <= 2
    page.locator("#slider").focus()
    page.keyboard.press("Home")
    np.testing.assert_array_equal(shot()[:, right], after[:, right])


def test_what_is_no_image_is_told_and_the_next_one_works(page, image, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    page.set_input_files("#file", bad)
    page.click("#enlarge")
    page.wait_for_selector("#status.error")
    expect(page.locator("#status")).to_contain_text("bad.png")
    large = tmp_path / "large.png"
    large.write_bytes(bytes(2**20 + 1))
    page.set_input_files("#file", large)
    expect(page.locator("#status")).to_contain_text("larger than 1 MB")
    page.set_input_files("#file", image)
    page.click("#enlarge")
    page.wait_for_selector("#result:visible")
    expect(page.locator("#status.error")).to_have_count(0)


def test_a_picture_under_way_can_be_cancelled(browser, held, image):
    served, gate = held
    page = browser.new_page()
    page.goto(served.url)
    page.set_input_files("#file", image)
    page.click("#enlarge")
    page.wait_for_selector("#progress[value]")
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.click("#cancel")
    gate.set()
    expect(page.locator("#status")).to_have_text("Cancelled.")
    expect(page.locator("#work")).to_be_hidden()
    expect(page.locator("#enlarge")).to_be_enabled()
    page.close()


def test_an_image_chosen_before_the_page_is_ready_is_taken(browser, served, image):
    page = browser.new_page()
    waiting: list[Route] = []
    page.route("**/network", lambda route: waiting.append(route))
    page.goto(served.url)
    page.set_input_files("#file", image)
    expect(page.locator("#enlarge")).to_be_disabled()
    expect(page.locator("#status")).to_have_text(
        f"{image.name} is taken as soon as the server has told of its network …"
    )
    waiting.pop().continue_()
    expect(page.locator("#enlarge")).to_be_enabled()
    expect(page.locator("#chosen")).to_contain_text(image.name)
    page.close()


def test_on_a_narrow_screen_nothing_sticks_out(browser, served, image):
    page = browser.new_page(viewport={"width": 320, "height": 600})
    page.goto(served.url)
    page.set_input_files("#file", image)
    page.click("#enlarge")
    page.wait_for_selector("#result:visible")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.close()
