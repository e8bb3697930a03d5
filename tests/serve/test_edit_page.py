"""The web page of `sr3 serve --task=…`, in a real browser without a window."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from sr3_jax.inference import holes
from tests.browser import needs_chromium, watched
from tests.inference.test_editor import load
from tests.serve.conftest import editing

pytestmark = needs_chromium

HEIGHT, WIDTH = 64, 96
PHOTO = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
SENT: list[np.ndarray] = []  # the masks that the server has got in a test


@pytest.fixture(autouse=True)
def _masks_are_seen(monkeypatch):
    read = holes.of_mask_bytes

    def seen(*given):
        SENT.append(read(*given))
        return SENT[-1]

    SENT.clear()
    monkeypatch.setattr(holes, "of_mask_bytes", seen)


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "my picture.png"
    Image.fromarray(PHOTO).save(path)
    return path


def opened(browser, served, image):
    """A watched page with an image."""
    with watched(browser, served.url) as found:
        found.set_input_files("#file", image)
        expect(found.locator("#edit")).to_be_enabled()
        yield found


@pytest.fixture
def page(browser, filling, image) -> Iterator:
    yield from opened(browser, filling, image)


@pytest.fixture
def colours(browser, colouring, image) -> Iterator:
    yield from opened(browser, colouring, image)


@pytest.fixture
def flaws(browser, restoring, image) -> Iterator:
    yield from opened(browser, restoring, image)


def stroke(page, *points):
    """Paints by the mouse from point to point, each (x, y) in pixels of the image."""
    page.locator("#mask").scroll_into_view_if_needed()
    box = page.locator("#mask").bounding_box()
    for number, (x, y) in enumerate(points):
        at = box["x"] + x / WIDTH * box["width"], box["y"] + y / HEIGHT * box["height"]
        page.mouse.move(*at, steps=4)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def brush(page, size):
    page.locator("#size").fill(str(size))
    expect(page.locator("#size-shown")).to_have_text(f"{size} px")


def edited(page):
    """What is made, and the mask that was sent for it; None if there was none."""
    SENT.clear()
    page.click("#edit")
    expect(page.locator("#edit")).to_be_enabled(timeout=60_000)
    expect(page.locator("#status")).to_contain_text("steps, seed")
    expect(page.locator("#result")).to_be_visible()
    with page.expect_download() as download:
        page.click("#download")
    return np.asarray(Image.open(download.value.path())), SENT[0] if SENT else None


def painted(page):
    """Whether anything is painted, and where, as the page shows it."""
    return np.asarray(
        page.evaluate(
            """() => {
                const mask = document.querySelector("#mask");
                const { data } = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height);
                const found = [];
                for (let at = 3; at < data.length; at += 4) found.push(data[at] > 127);
                return found;
            }"""
        )
    ).reshape(HEIGHT, WIDTH)


def test_what_is_painted_over_is_filled_and_all_else_stays(page, filling):
    expect(page.locator("#network")).to_have_text("inpaint: fill the holes of a mask")
    expect(page.locator("#status")).to_contain_text("96 × 64: paint over")
    brush(page, 10)
    stroke(page, (20, 20), (60, 20), (60, 40))
    made, mask = edited(page)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[15:25, 20:60] = expected[20:40, 55:65] = True
    assert mask[expected].all()
    around = np.zeros_like(mask)
    around[14:46, 14:66] = True  # with its round ends
    around[26:, :54] = False
    assert not mask[~around].any()
    np.testing.assert_array_equal(painted(page), mask)  # what is shown is what is sent
    np.testing.assert_array_equal(made[~mask], PHOTO[~mask])
    assert (made[mask] != PHOTO[mask]).mean() > 0.9
    np.testing.assert_array_equal(made, filling.network(PHOTO, mask=mask, name="my picture.png"))
    assert page.get_attribute("#download", "download") == "my picture-inpaint.png"


def test_a_click_paints_a_dot_and_the_eraser_takes_it_away(page):
    brush(page, 12)
    stroke(page, (30, 30))
    stroke(page, (70, 30))
    assert 90 < painted(page)[:, :50].sum() < 140  # π · 6²
    page.check("#eraser")
    stroke(page, (60, 30), (80, 30))
    made, mask = edited(page)
    assert mask[24:36, 24:36].mean() > 0.7
    assert not mask[:, 50:].any()
    np.testing.assert_array_equal(made[:, 50:], PHOTO[:, 50:])


def test_strokes_are_taken_back_one_by_one_and_so_is_clearing(page):
    for name in ("#undo", "#clear"):
        expect(page.locator(name)).to_be_disabled()
    brush(page, 8)
    shots = [painted(page)]
    for x in (20, 50, 80):
        stroke(page, (x, 10), (x, 50))
        shots.append(painted(page))
    page.click("#clear")
    assert not painted(page).any()
    expect(page.locator("#clear")).to_be_disabled()
    page.click("#undo")
    np.testing.assert_array_equal(painted(page), shots[3])
    page.keyboard.press("Control+z")
    np.testing.assert_array_equal(painted(page), shots[2])
    for _ in range(2):
        page.click("#undo")
    assert not painted(page).any()
    expect(page.locator("#undo")).to_be_disabled()


def test_margins_are_shown_around_the_image_and_added(page, filling):
    for name, pixels in (("above", 8), ("right", 0), ("below", 4), ("left", 32)):
        page.fill(f"#{name}", str(pixels))
    stage, sheet = (page.locator(name).bounding_box() for name in ("#stage", "#sheet"))
    assert abs(sheet["width"] / stage["width"] - WIDTH / (WIDTH + 32)) < 0.01
    assert abs((sheet["y"] - stage["y"]) / stage["height"] - 8 / (HEIGHT + 12)) < 0.01
    made, mask = edited(page)
    assert mask is None
    assert made.shape == (HEIGHT + 12, WIDTH + 32, 3)
    np.testing.assert_array_equal(made[8:-4, 32:], PHOTO)
    expect(page.locator("#status")).to_have_text("128 × 76, 2 steps, seed 0.")
    # what was given is where it is in the result
    after, before = (page.locator(name).bounding_box() for name in ("#after", "#before"))
    assert abs((before["x"] - after["x"]) / after["width"] - 32 / (WIDTH + 32)) < 0.01
    brush(page, 10)
    stroke(page, (50, 30))
    made, mask = edited(page)
    np.testing.assert_array_equal(
        made, filling.network(PHOTO, mask=mask, margin=(8, 0, 4, 32), name="my picture.png")
    )


def test_uncrop_asks_for_margins_first_and_inpaint_for_the_brush(browser, page, image):
    def order(page):
        legends = page.locator("legend")
        tops = [legends.nth(number).bounding_box()["y"] for number in range(2)]
        texts = legends.all_inner_texts()
        assert tops == sorted(tops)  # as they are read aloud
        return [text.split()[0] for text in texts]

    assert order(page) == ["Paint", "Add"]
    with editing(load("inpaint"), "uncrop") as found:
        for other in opened(browser, found, image):
            assert order(other) == ["Add", "Paint"]
            other.fill("#below", "6")
            assert edited(other)[0].shape == (HEIGHT + 6, WIDTH, 3)


def test_a_mask_from_a_file_can_be_painted_on_and_one_of_another_size_is_told(page, tmp_path):
    hole = np.zeros((HEIGHT, WIDTH), np.uint8)
    hole[10:30, 10:40] = 255
    good, small, bad = (tmp_path / name for name in ("good.png", "small.png", "bad.png"))
    Image.fromarray(hole).save(good)
    Image.fromarray(hole[:-1]).save(small)
    bad.write_bytes(b"no image")
    page.set_input_files("#mask-file", small)
    expect(page.locator("#status.error")).to_have_text(
        "The mask is 96 × 63, and the image 96 × 64: they must be of one size."
    )
    page.set_input_files("#mask-file", bad)
    expect(page.locator("#status.error")).to_have_text(
        "bad.png is no image that this browser can read."
    )
    assert not painted(page).any()
    page.set_input_files("#mask-file", good)
    expect(page.locator("#status.error")).to_have_count(0)
    np.testing.assert_array_equal(painted(page), hole > 0)
    brush(page, 10)
    stroke(page, (70, 50))
    mask = edited(page)[1]
    np.testing.assert_array_equal(mask[:40, :50], hole[:40, :50] > 0)
    assert mask[50, 70]


def test_nothing_and_everything_to_fill_are_sentences(page):
    page.click("#edit")
    expect(page.locator("#status.error")).to_contain_text("Nothing is to be filled yet")
    brush(page, 32)
    stroke(page, (50, 30))
    page.check("#eraser")
    stroke(page, (30, 30), (70, 30))
    page.click("#edit")
    expect(page.locator("#status.error")).to_have_text(
        "the mask has no hole: nothing in it is white"
    )
    page.check("#brush")
    stroke(page, *((x, y) for y in range(5, 65, 9) for x in (0, WIDTH - 1)))
    assert painted(page).all()
    page.click("#edit")
    expect(page.locator("#status.error")).to_contain_text("the mask is all hole")
    page.click("#undo")
    page.click("#undo")
    edited(page)
    expect(page.locator("#status.error")).to_have_count(0)


def test_an_image_that_the_server_has_forgotten_is_sent_again(page, filling):
    brush(page, 10)
    stroke(page, (30, 30))
    first, _ = edited(page)
    id = page.evaluate("image.id")
    assert filling.ask(f"images/{id}", "DELETE")[0] == 204
    np.testing.assert_array_equal(edited(page)[0], first)
    assert page.evaluate("image.id") != id


def test_another_image_begins_anew_and_what_is_none_is_told(page, tmp_path, image):
    brush(page, 10)
    stroke(page, (30, 30))
    page.fill("#above", "5")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    page.set_input_files("#file", bad)
    expect(page.locator("#status.error")).to_contain_text("bad.png")
    expect(page.locator("#editor")).to_be_hidden()
    expect(page.locator("#edit")).to_be_disabled()
    page.set_input_files("#file", image)
    expect(page.locator("#edit")).to_be_enabled()
    assert not painted(page).any()
    assert page.input_value("#above") == "0"


def test_strokes_of_a_finger_and_a_pen_paint_and_what_is_interrupted_is_dropped(page):
    brush(page, 10)
    page.evaluate(
        """() => {
            const mask = document.querySelector("#mask"), box = mask.getBoundingClientRect();
            mask.setPointerCapture = () => {}; // there is no such pointer in truth
            const send = (type, kind, x, isPrimary = true) => mask.dispatchEvent(new PointerEvent(type, {
                pointerId: isPrimary ? 5 : 6, pointerType: kind, isPrimary, bubbles: true,
                clientX: box.left + x / 96 * box.width, clientY: box.top + box.height / 2 }));
            for (const [kind, x, end] of [["touch", 10, "up"], ["pen", 40, "up"], ["touch", 70, "cancel"]]) {
                send("pointerdown", kind, x);
                send("pointerdown", kind, x + 20, false);
                send("pointermove", kind, x + 10);
                send(`pointer${end}`, kind, x + 10);
            }
        }"""  # noqa: E501
    )
    columns = painted(page).any(0)
    assert columns[[8, 15, 22, 38, 45, 52]].all()
    assert not columns[[30, 60, 75, 90]].any()


def test_colours_are_made_and_another_sample_is_another(colours, colouring):
    expect(colours.locator("#editor")).to_be_hidden()
    expect(colours.locator("#flaws")).to_be_hidden()
    first, mask = edited(colours)
    assert mask is None
    np.testing.assert_array_equal(first, colouring.network(PHOTO, name="my picture.png"))
    expect(colours.locator("#status")).to_contain_text("its own colours are given up")
    colours.click("#sample")
    expect(colours.locator("#status")).to_contain_text("steps, seed", timeout=60_000)
    expect(colours.locator("#edit")).to_be_enabled()
    seed = int(colours.input_value("#seed"))
    assert seed
    with colours.expect_download() as download:
        colours.click("#download")
    made = np.asarray(Image.open(download.value.path()))
    np.testing.assert_array_equal(made, colouring.network(PHOTO, seed=seed, name="my picture.png"))


def test_flaws_are_unknown_until_their_sliders_say_how_strong_they_are(flaws, restoring):
    expect(flaws.locator("#editor")).to_be_hidden()
    for name in ("blur", "noise", "jpeg"):
        expect(flaws.locator(f"#{name}-shown")).to_have_text("unknown")
        expect(flaws.get_by_label(name)).to_have_attribute("aria-valuetext", "unknown")
    with flaws.expect_request("**/edits?*") as sent:
        edited(flaws)
    assert not any(f"{name}=" in sent.value.url for name in ("blur", "noise", "jpeg"))
    flaws.focus("#noise")
    flaws.keyboard.press("ArrowRight")
    expect(flaws.locator("#noise-shown")).to_have_text("none")
    flaws.focus("#blur")
    for _ in range(13):
        flaws.keyboard.press("ArrowRight")
    expect(flaws.locator("#blur-shown")).to_have_text("1.2")
    made, _ = edited(flaws)
    np.testing.assert_array_equal(
        made, restoring.network(PHOTO, noise=0.0, blur=1.2, name="my picture.png")
    )


def test_the_strongest_flaws_that_can_be_chosen_are_known_to_the_network(flaws):
    for name in ("blur", "noise", "jpeg"):
        flaws.focus(f"#{name}")
        flaws.keyboard.press("End")
    edited(flaws)


def test_an_edit_under_way_can_be_cancelled(browser, held_edit, image):
    served, gate = held_edit
    for page in opened(browser, served, image):
        page.click("#edit")
        page.wait_for_selector("#progress[value]")
        expect(page.locator("#edit")).to_be_disabled()
        with page.expect_response(lambda answer: answer.request.method == "DELETE"):
            page.click("#cancel")
        gate.set()
        expect(page.locator("#status")).to_have_text("Cancelled.")
        expect(page.locator("#work")).to_be_hidden()
        expect(page.locator("#edit")).to_be_enabled()


def test_on_a_narrow_screen_and_in_the_dark_nothing_sticks_out_or_vanishes(
    browser, filling, restoring, image
):
    context = browser.new_context(viewport={"width": 320, "height": 600}, color_scheme="dark")
    page = context.new_page()
    for served in (filling, restoring):
        page.goto(served.url)
        page.set_input_files("#file", image)
        expect(page.locator("#edit")).to_be_enabled()
        if served is filling:
            page.fill("#left", "900")
            stroke(page, (50, 30))
        edited(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
    context.close()


def test_a_finger_on_a_phone_paints_and_does_not_scroll_the_page(browser, filling, image):
    context = browser.new_context(
        viewport={"width": 390, "height": 500}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(filling.url)
    page.set_input_files("#file", image)
    expect(page.locator("#edit")).to_be_enabled()
    page.locator("#mask").scroll_into_view_if_needed()
    box, scrolled = page.locator("#mask").bounding_box(), page.evaluate("scrollY")
    screen = context.new_cdp_session(page)

    def touch(kind, *shares):
        points = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in shares
        ]
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.5, 0.8))
    for number in range(10):
        touch("touchMove", (0.5, 0.8 - number / 15))
    touch("touchEnd")
    assert painted(page)[[15, 30, 50], WIDTH // 2].all()
    assert page.evaluate("scrollY") == scrolled
    edited(page)
    context.close()
