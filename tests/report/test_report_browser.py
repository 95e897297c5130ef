"""The page in a browser: no error, no request, anchors and sorting work, nothing is wider than the window."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt install chromium, or set CHROMIUM)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, whole_run: Path) -> Iterator[Any]:
    window = browser.new_page(viewport={"width": 1280, "height": 900})
    window.problems = []
    window.requests = []
    window.on("pageerror", lambda error: window.problems.append(str(error)))
    window.on("console", lambda message: window.problems.append(message.text) if message.type == "error" else None)
    window.on("request", lambda request: window.requests.append(request.url))
    window.goto((whole_run / "report.html").as_uri())
    yield window
    window.close()


def test_it_renders_without_errors_and_without_requests(page: Any) -> None:
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in page.requests if url.startswith("file:")]) == 1
    assert page.evaluate("Array.from(document.images).filter(i => !i.complete || !i.naturalWidth).length") == 0


def test_every_anchor_leads_to_its_section(page: Any) -> None:
    links = page.locator("nav a")
    assert links.count() > 10
    for number in range(links.count()):
        target = links.nth(number).get_attribute("href")
        links.nth(number).click()
        assert page.url.endswith(target)
        assert page.locator(target).bounding_box()["y"] < 900


def test_a_click_on_a_heading_sorts_by_it_and_a_second_one_turns_the_order_round(page: Any) -> None:
    table = page.locator("#patients table")
    column = 4  # the output without attack

    def shown() -> list[float]:
        cells = table.locator(f"tbody tr > :nth-child({column + 1})").all_text_contents()
        return [float(text.strip().rstrip("\u2191\u2193")) for text in cells]

    before = shown()
    heading = table.locator("thead th").nth(column).locator("button")
    heading.click()
    assert shown() == sorted(before) != before
    heading.click()
    assert shown() == sorted(before, reverse=True)
    table.locator("thead th").nth(0).locator("button").click()
    names = [name.strip() for name in table.locator("tbody th").all_text_contents()]
    assert names == sorted(names)
    assert table.locator("thead th[aria-sort]").count() == 1


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_no_wider_than_its_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
