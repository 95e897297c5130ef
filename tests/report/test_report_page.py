"""The page says what report.json says, asks nothing of a network, and survives hostile and missing input."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.report import ReportError, write_report
from pipeline.report.page import render_page

RunFactory = Callable[..., Path]
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Reads the page again: values with their JSON pointers, loose digits in tables, links, headings, balance."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.values: list[tuple[str, str]] = []
        self.loose: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.open: list[tuple[str, str | None]] = []
        self.text = self.fixed = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, f"unclosed elements {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag in VOID:
            return
        self.open.append((tag, found.get("data-at")))
        if found.get("data-at") is not None:
            self.values.append((str(found["data-at"]), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.open]
        if "style" not in tags and "svg" not in tags:
            self.text += data
        if self.open and self.open[-1][1] is not None:
            pointer, text = self.values[-1]
            self.values[-1] = (pointer, text + data)
        else:
            self.fixed += "" if {"style", "script", "svg", "pre"} & set(tags) else data
        if (not self.open or self.open[-1][1] is None) and "tbody" in tags and re.search(r"\d", data):
            self.loose.append(data.strip())


def look_up(report: Any, pointer: str) -> Any:
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        report = report[int(name)] if isinstance(report, list) else report[name]
    return report


def agrees(shown: str, value: Any) -> bool:
    """The text is the value, or the value rounded to the digits that the text shows."""
    if value is None:
        return shown == "–"
    if isinstance(value, str):
        return shown == value
    if shown == str(value):
        return True
    if shown == "–":
        return False
    text = shown.replace("−", "-").replace(",", "")
    scale = 0.01 if text.endswith("%") else 1.0
    mantissa, _, exponent = text.rstrip("%").partition("e")
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return abs(float(text.rstrip("%")) * scale - value) <= 0.5000001 * scale * 10.0**-decimals


def read_report(run: Path) -> Any:
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


def test_every_number_on_the_page_is_the_one_in_the_json(whole_run: Path) -> None:
    page, report = Page(whole_run / "report.html"), read_report(whole_run)
    wrong = [(pointer, shown) for pointer, shown in page.values if not agrees(shown, look_up(report, pointer))]
    assert wrong == []
    assert page.loose == [], "a table shows digits that do not come from report.json"
    pointers = {pointer for pointer, _ in page.values}
    for number, row in enumerate(report["patients"]["rows"]):
        wanted = {f"/patients/rows/{number}/probabilities/{index}" for index in range(len(row["probabilities"]))}
        assert wanted | {f"/patients/rows/{number}/patient_id"} <= pointers
    for number in range(len(report["robustness"]["points"])):
        assert {f"/robustness/points/{number}/auc/{key}" for key in ("value", "lower", "upper")} <= pointers


def moved(value: Any, key: str = "") -> Any:
    """The report with every figure a little different; places in lists and bounds of probabilities stay."""
    if isinstance(value, dict):
        return {name: moved(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [moved(item, key) for item in value]
    if isinstance(value, float) and value not in (0.0, 1.0):
        return value * 0.97
    return value + 1 if type(value) is int and value > 1 and key != "place" else value


def test_words_outside_marked_figures_do_not_depend_on_the_figures(whole_run: Path, tmp_path: Path) -> None:
    report = read_report(whole_run)
    pages = []
    for number, content in enumerate((report, moved(report))):
        path = tmp_path / f"{number}.html"
        path.write_text(render_page(content, whole_run), encoding="utf-8")
        pages.append(Page(path))
    assert [shown for _, shown in pages[0].values] != [shown for _, shown in pages[1].values]
    one, two = (re.split(r"(?<=[.;:])\s|\n", page.fixed) for page in pages)
    assert [(a, b) for a, b in zip(one, two, strict=True) if a != b] == []


def test_the_comparison_of_page_and_json_notices_a_changed_digit() -> None:
    assert agrees("0.731", 0.7312) and not agrees("0.732", 0.7312)
    assert agrees("73%", 0.7312) and not agrees("74%", 0.7312)
    assert agrees("1,775", 1775) and agrees("−0.430", -0.4301) and not agrees("0.430", -0.4301)
    assert agrees("1e−05", 1e-5) and not agrees("–", 0.5)


def test_the_page_fetches_nothing_and_runs_nothing_but_its_sorting(whole_run: Path) -> None:
    page = Page(whole_run / "report.html")
    assert page.addresses
    assert [address for address in page.addresses if not address.startswith(("data:", "#"))] == []
    assert not page.tags & {"iframe", "object", "embed"}
    text = (whole_run / "report.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)  # the one that sorts tables, and no other
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text and "default-src 'none'" in text
    assert re.findall(r"@import|url\((?!#)|<link(?![^>]*data:)", text) == []


def test_anchors_lead_to_sections_and_no_id_stands_twice(whole_run: Path) -> None:
    page = Page(whole_run / "report.html")
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_sections_stand_in_reading_order_below_the_notice(whole_run: Path) -> None:
    page = Page(whole_run / "report.html")
    order = ["overview", "flow", "cohort", "discrimination", "robustness", "strong", "gates", "certified",
             "operating_points", "calibration", "decision_curve", "subgroups", "dicom_attack", "gallery", "history",
             "patients", "reproducibility"]  # fmt: skip
    assert [name for name in page.ids if name in order] == order
    body = page.text[page.text.index("report") :]
    assert body.index("Research use only, not for diagnosis") < body.index("Report of run")


def test_hostile_text_is_shown_and_never_interpreted(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    attack = "<script>alert(1)</script>"
    for name in ("scores.csv", "cohort.csv"):
        table = pd.read_csv(run / name)
        table["patient_id"] = table["patient_id"].replace({table["patient_id"].iloc[-1]: attack})
        table.to_csv(run / name, index=False)
    (run / "config.json").write_text(json.dumps({"manifest": f"a/{attack}", "note": attack}), encoding="utf-8")
    (run / "provenance.json").write_text(json.dumps({"command": attack, "versions": {attack: attack}}))
    (run / "flow.json").write_text(json.dumps([{"stage": attack, "files": 1, "patients": 1, "note": "\"'&"}]))
    history = pd.read_csv(run / "history.csv").rename(columns={"attack_success": attack})
    history.to_csv(run / "history.csv", index=False)
    page = Page(write_report(run))
    assert (run / "report.html").read_text(encoding="utf-8").count("<script") == 1  # ours
    assert page.text.count(attack) >= 6


def test_missing_optional_files_are_said_with_their_reason(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    for path in ("history.csv", "cohort.csv", "rejects.csv", "flow.json", "config.json", "provenance.json"):
        (run / path).unlink()
    shutil.rmtree(run / "artefacts")
    page, report = Page(write_report(run)), read_report(run)
    for name in (
        "flow",
        "cohort",
        "strong",
        "gates",
        "certified",
        "dicom_attack",
        "history",
        "gallery",
        "reproducibility",
    ):
        assert report[name]["status"] == "missing"
        assert report[name]["reason"] in page.text
    for path in ("history.csv", "cohort.csv", "flow.json", "config.json", "provenance.json", "artefacts/gallery.json"):
        assert f"{path} is not in the run directory" in page.text


def test_one_class_in_the_test_patients_is_said_and_never_one_half(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    scores = pd.read_csv(run / "scores.csv")
    scores = scores[(scores["partition"] != "test") | (scores["patient_label"] == 0)]
    scores.to_csv(run / "scores.csv", index=False)
    (run / "artefacts" / "certified.json").unlink()  # measured on patients of both classes
    page, report = Page(write_report(run)), read_report(run)
    assert report["discrimination"]["status"] == report["robustness"]["status"] == "not_estimable"
    assert all(point["auc"]["value"] is None for point in report["robustness"]["points"])
    assert "0 malignant" in page.text
    shown = [text for pointer, text in page.values if pointer.endswith("/auc/value")]
    assert set(shown) == {"–"}


def test_without_validation_patients_the_threshold_is_not_estimable_but_the_auc_is(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    scores = pd.read_csv(run / "scores.csv")
    scores[scores["partition"] == "test"].to_csv(run / "scores.csv", index=False)
    page, report = Page(write_report(run)), read_report(run)
    assert report["operating_points"]["status"] == report["flips"]["status"] == "not_estimable"
    assert report["discrimination"]["status"] == "given"
    assert report["operating_points"]["reason"] in page.text


def test_dead_features_are_warned_of(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    assert "dead features" not in Page(write_report(run)).text
    history = pd.read_csv(run / "history.csv")
    history.loc[history["epoch"] >= 9, "share_dead"] = 0.97
    history.to_csv(run / "history.csv", index=False)
    page, report = Page(write_report(run)), read_report(run)
    assert report["history"]["warnings"][0]["epochs"] == [9, 10, 11, 12]
    assert "Warning: dead features" in page.text


def test_a_picture_that_cannot_be_shown_is_said_and_one_outside_the_run_is_refused(make_run: RunFactory) -> None:
    run = make_run(patients=40)
    content = json.loads((run / "artefacts/gallery.json").read_text())
    clean, attacked = content["images"][0]["scenes"]
    (run / clean["picture"]).unlink()
    (run / content["images"][1]["change"]).unlink()
    Image.fromarray(np.zeros((10, 90), np.uint8)).save(run / attacked["saliency"])
    page = Page(write_report(run))
    assert f"picture {clean['picture']} is not in the run directory" in page.text
    assert f"change {content['images'][1]['change']} is not in the run directory" in page.text
    assert "saliency is 90 x 10 pixels and does not fit the picture of 400 x 500" in page.text
    clean["picture"] = "../../secret.png"
    (run / "artefacts/gallery.json").write_text(json.dumps(content))
    with pytest.raises(ReportError, match="lies outside the run directory"):
        write_report(run)


def test_two_hundred_patients_make_a_page_below_five_megabytes(make_run: RunFactory) -> None:
    page = write_report(make_run(patients=1000))
    assert len(read_report(page.parent)["patients"]["rows"]) == 200
    assert page.stat().st_size < 5_000_000


def test_an_auc_that_may_be_chance_is_said_to_be_so(make_run: RunFactory) -> None:
    run = make_run(patients=240)
    said = "cannot be told from chance"
    assert said not in write_report(run).read_text(encoding="utf-8")
    scores = pd.read_csv(run / "scores.csv")
    scores["logit"] = np.random.default_rng(0).permutation(scores["logit"])
    scores.to_csv(run / "scores.csv", index=False)
    page = write_report(run).read_text(encoding="utf-8")
    clean = json.loads((run / "report.json").read_text())["overview"]["headline"][0]["auc"]
    assert clean["lower"] <= 0.5 and said in page
