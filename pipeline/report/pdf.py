"""The page as a PDF, printed by Chromium; needs the extra `pdf` and a Chromium."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipeline.report.errors import ReportError


def write_pdf(page: Path) -> Path:
    """Print report.html into report.pdf beside it, A4.

    Args:
        page: report.html.

    Returns:
        Path of the PDF.

    Raises:
        ReportError: Playwright or Chromium is missing; the message says what to install.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise ReportError("a PDF needs the package playwright: pip install -e .[pdf]") from error
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise ReportError("a PDF needs Chromium: apt install chromium, or name one in the variable CHROMIUM")
    target = page.with_suffix(".pdf")
    with sync_playwright() as driver:
        # The page is ours and fetches nothing; in containers Chromium's sandbox is not to be had.
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        window = browser.new_page()
        window.goto(page.resolve().as_uri())
        window.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        window.pdf(path=target, format="A4", prefer_css_page_size=True)
        browser.close()
    return target
