"""Tests of the page in a browser: pick, type, search, by keyboard, and on a phone. Needs Chromium and playwright."""

import shutil

import pytest

from tests.serving.conftest import png

playwright = pytest.importorskip("playwright.sync_api", exc_type=ImportError)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not BROWSER, reason="no Chromium is installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield opened
        opened.close()


@pytest.fixture(params=[(1100, 900), (390, 844)], ids=["desk", "phone"])
def page(browser, server, request):
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "console", lambda line: errors.append(line.text) if line.type == "error" and "422" not in line.text else None
    )
    opened.goto(server.url)
    opened.wait_for_selector("#names li")
    yield opened
    assert not errors
    # Nothing is wider than the window.
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


def test_an_uploaded_picture_and_a_text_find_pictures_and_maps(page):
    page.set_input_files("#file", {"name": "mine.png", "mimeType": "image/png", "buffer": png()})
    page.fill("#text", "make the dog small")
    page.click("#go")
    page.wait_for_selector("#results li")
    assert page.locator("#results li").count() == 12 and page.inner_text("#said") == "12 pictures."
    scores = [float(text) for text in page.locator("#results b").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    page.wait_for_selector("#maps canvas")
    assert page.locator("#maps span").all_inner_texts() == ["make", "the dog small"]


def test_the_keyboard_is_enough(page):
    page.focus("#names li:nth-child(3) button")
    page.keyboard.press("Enter")
    assert page.get_attribute("#shown", "alt") == "02.png"
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("with a red hat")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results li")
    names = page.locator("#results img").evaluate_all("images => images.map(image => image.alt)")
    assert len(names) == 11 and "02.png" not in names


def test_mistakes_are_shown_beside_the_button(page):
    page.click("#go")
    assert page.inner_text("#said") == "Choose a picture, write a text, or both."
    page.fill("#text", "a")
    page.set_input_files("#file", {"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.click("#go")
    page.wait_for_function("document.getElementById('said').className === 'wrong'")
    assert "can't be read as a picture" in page.inner_text("#said")
    assert page.is_enabled("#go")


def test_a_text_alone_and_a_picture_alone_are_asked_within_limits(page):
    page.fill("#text", "a dog")
    page.fill("#k", "3")
    page.click("#go")
    page.wait_for_function("document.getElementById('said').textContent === '3 pictures.'")
    page.click("#names li:nth-child(3) button")
    page.fill("#text", "")
    page.fill("#threshold", "1")
    page.click("#go")
    page.wait_for_function("document.getElementById('said').textContent === '0 pictures.'")
    page.click("#clear")
    page.click("#go")
    assert page.inner_text("#said") == "Choose a picture, write a text, or both." and page.is_hidden("#seen")
