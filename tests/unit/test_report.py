"""The report: its figures and counts, and the page in a real browser."""

import os
import re
import shutil
import time

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

from spikecanary import report, sentinel, summary
from spikecanary.config import Config
from spikecanary.sentinel import Failure, Interval, Measured
from spikecanary.table import read_tsv
from workbench import make_record, stopped

#: Chromium's switches for a machine without a screen or a network.
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1300,1400",
]


def write_recording(results, name, canary, sort=None, n_figures=0):
    sentinel.write_record(results / name / "canary.json", canary)
    if sort is not None:
        sentinel.write_record(results / name / "sort.json", sort)
    folder = results / name / "figures"
    folder.mkdir(exist_ok=True)
    for number in range(n_figures):
        path = folder / f"figure_{number}.png"
        Image.effect_noise((900, 500), 60).save(path)


def write_report(results, names, config=None):
    summary.write(results / "summary.tsv", summary.describe(results, {name: {} for name in names}))
    path = results / "report.html"
    report.write(path, config or Config(), results)
    return path


def sorted_record(name, wall_s=7200.0):
    return make_record(
        recording=name,
        outcome="sorted",
        n_units=8,
        measured=Measured(wall_s=wall_s, peak_rss_mb=900.0),
    )


def fill(results):
    """Write a batch with each kind of end; return the recordings."""
    forecast = {"wall_s": Interval(low=1.0, likely=3600.0, high=9000.0)}
    canary = make_record(forecast=forecast, measured=Measured(wall_s=36.0), duration_s=600.0)
    write_recording(results, "good", canary, sorted_record("good"), n_figures=2)
    too_big = stopped("resource").model_copy(update={"forecast": forecast})
    write_recording(results, "big", too_big)
    failure = Failure(
        class_name="InsufficientActivityError",
        category="biological",
        message="no spikes",
        remedy="Look at the raw traces.",
    )
    quiet = make_record(verdict="stop", outcome="stopped", failure=failure, duration_s=120.0)
    write_recording(results, "quiet", quiet)
    Image.effect_noise((900, 500), 60).save(results / "quiet/canary.png")
    odd = make_record(outcome="unexpected", reason="<script>alert(1)</script> & more")
    write_recording(results, "odd", odd, sorted_record("odd"))
    return ["good", "big", "quiet", "odd"]


def test_totals_and_reasons(tmp_path):
    names = fill(tmp_path)
    page = write_report(tmp_path, names).read_text()
    rows = read_tsv(tmp_path / "summary.tsv")
    totals = report.count(rows, tmp_path)
    assert totals["states"] == {"sorted": 2, "stopped": 2}
    assert (totals["n"], totals["n_unexpected"], totals["n_units"]) == (4, 1, 16)
    assert totals["canaries_h"] == pytest.approx(0.01)
    assert totals["sorts_h"] == pytest.approx(4.0)
    # The forecast of one, and of the other the rates: a minute, and one for each minute.
    assert totals["saved_h"] == pytest.approx((3600 + 60 + 120) / 3600)
    groups = report.group_reasons(rows)
    assert {(g["category"], g["failure"], tuple(g["recordings"])) for g in groups} == {
        ("resource", "X", ("big",)),
        ("biological", "InsufficientActivityError", ("quiet",)),
    }
    assert "<script>alert(1)" not in page
    assert not re.search(r"(src=|@import|<link)[^>]*https?://", page)


def test_thousand_recordings_fit_into_20_mb(tmp_path):
    names = [f"rec{number:04d}" for number in range(1000)]
    write_recording(tmp_path, names[0], make_record(), sorted_record(names[0]), n_figures=7)
    for name in names[1:]:
        shutil.copytree(tmp_path / names[0], tmp_path / name)
        for path in (tmp_path / name).glob("*.json"):
            path.write_text(path.read_text().replace(names[0], name))
    path = write_report(tmp_path, names)
    assert 5e6 < path.stat().st_size < 20e6
    rows = [{"recording": name, "sort": "sorted", "outcome": "passed"} for name in names]
    rows[-1]["sort"] = "failed"
    shown = report.choose_figures(tmp_path, rows)
    assert not any(figure["data"] for figure in shown["rec0500"])
    assert shown["rec0500"][0]["path"] == "rec0500/figures/figure_0.png"
    assert all(figure["data"] for figure in shown["rec0999"])  # in trouble, so among the first
    few = report.choose_figures(tmp_path, rows[:3])
    assert all(figure["data"] for figure in few["rec0001"])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Start headless Chromium; skip where there is none, but not in CI."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        if os.environ.get("SPIKECANARY_REQUIRE_BROWSER") == "1":
            pytest.fail("chromium and chromium-driver are not installed")
        pytest.skip("no chromium with chromium-driver here")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for switch in SWITCHES:
        options.add_argument(switch)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def shown_rows(browser):
    """Return the first cells of the table's rows."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#batch tbody td:first-child')].map(c => c.innerText)"
    )


def open_page(browser, path):
    browser.get(path.as_uri())
    box = (By.CSS_SELECTOR, ".dt-search input")
    WebDriverWait(browser, 20).until(expected_conditions.element_to_be_clickable(box))


def test_page_in_a_browser(browser, tmp_path):
    names = fill(tmp_path)
    open_page(browser, write_report(tmp_path, names))
    assert shown_rows(browser) == names
    assert "2\nsorted" in browser.find_element(By.ID, "totals").text
    assert "<script>alert(1)</script> & more" in browser.find_element(By.ID, "unexpected").text
    head = next(
        each
        for each in browser.find_elements(By.CSS_SELECTOR, "thead th")
        if each.text == "recording"
    )
    head.click()
    assert shown_rows(browser) == sorted(names)
    box = browser.find_element(By.CSS_SELECTOR, ".dt-search input")
    box.send_keys("biological")
    assert shown_rows(browser) == ["quiet"]
    browser.find_element(By.CSS_SELECTOR, "#batch tbody tr td").click()
    dialog = browser.find_element(By.ID, "recording")
    assert dialog.is_displayed()
    assert "Look at the raw traces." in dialog.text
    picture = dialog.find_element(By.TAG_NAME, "img")
    assert int(picture.get_property("naturalWidth")) == 900
    assert browser.current_url.endswith("#quiet")
    assert browser.save_screenshot(str(tmp_path / "page.png"))
    with Image.open(tmp_path / "page.png") as shot:
        assert len(shot.convert("L").getcolors(1_000_000)) > 20
    dialog.find_element(By.TAG_NAME, "button").click()
    assert not dialog.is_displayed()
    links = browser.find_elements(By.CSS_SELECTOR, "#reasons button")
    assert [link.text for link in links] == ["1", "1"]
    box.clear()
    links[1].click()
    assert len(shown_rows(browser)) == 1
    assert not [e for e in browser.get_log("browser") if e["level"] == "SEVERE"]


def test_thousand_recordings_open_in_about_a_second(browser, tmp_path):
    names = [f"rec{number:04d}" for number in range(1000)]
    for name in names:
        write_recording(tmp_path, name, make_record(recording=name), sorted_record(name))
    # As large as a page of a thousand recordings becomes.
    Image.effect_noise((3000, 3000), 80).save(tmp_path / "rec0001/figures/large.png")
    path = write_report(tmp_path, names)
    began = time.monotonic()
    open_page(browser, path)
    took_s = time.monotonic() - began
    assert path.stat().st_size > 5e6
    assert len(shown_rows(browser)) == 25
    assert took_s < 5, "about a second on a quiet machine"
