"""The PDF of a page, and what is said where it cannot be made."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.report import ReportError
from pipeline.report.pdf import write_pdf

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt install chromium, or set CHROMIUM)")
def test_the_pdf_holds_the_page(whole_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    page = tmp_path / "report.html"
    page.write_bytes((whole_run / "report.html").read_bytes())
    content = write_pdf(page).read_bytes()
    assert content.startswith(b"%PDF") and content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") >= 5


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(ReportError, match="pip install -e"):
        write_pdf(tmp_path / "report.html")
