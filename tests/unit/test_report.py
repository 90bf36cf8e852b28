"""The report: what it collects, and the page in a real browser, which axe-core checks."""

import base64
import itertools
import os
import re
import shutil
import subprocess
import tarfile
import time

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from spikecanary import report, sentinel, summary
from spikecanary.config import Config
from spikecanary.sentinel import BadPeriod, Failure, Interval, MapRow, Measured, Window
from spikecanary.summary import ending
from spikecanary.table.tsv import write_tsv
from workbench import ROOT, make_record, stopped

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
    "--hide-scrollbars",
]
#: Checks accessibility: https://github.com/dequelabs/axe-core
AXE = "axe-core@4.14.1"
#: Markup, an override of the writing direction that does not end, a word that does not fit.
ODD = "<script>alert(1)</script> & <b>more</b> \u202eright to left " + "x" * 300


def write_recording(results, name, canary, sort=None, n_figures=0):
    folder = results / name
    for file, record in {"canary.json": canary, "sort.json": sort}.items():
        if record is not None:
            kind = file.removesuffix(".json")
            sentinel.write_record(folder / file, record)
            sentinel.append_journal(folder / "attempts.jsonl", kind, record)
    for number in range(n_figures):
        draw(folder / f"figures/figure_{number}.png")


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((900, 500), 60).save(path)


def write_report(results, names, config=None):
    summary.write(results / "summary.tsv", summary.describe(results, {name: {} for name in names}))
    path = results / "report.html"
    report.write(path, config or Config(), results)
    return path


def sorted_record(name, **fields):
    measured = Measured(wall_s=7200.0, peak_rss_mb=900.0, disk_mb=5000.0)
    fields = {"n_units": 8, "n_spikes": 9000, "measured": measured} | fields
    return make_record(recording=name, outcome="sorted", **fields)


def failed(name, reason, failure=None):
    """Return a full sort that failed, which is in its journal alone."""
    return make_record(recording=name, outcome="failed", reason=reason, failure=failure)


def fill(results):
    """Write a batch with each kind of end; return the recordings."""
    forecast = {
        "wall_s": Interval(low=1.0, likely=3600.0, high=9000.0),
        "mem_mb": Interval(low=500.0, likely=700.0, high=800.0),
    }
    healthy = {"flat": 0, "railed": 0, "non_finite": 0}
    signal = [
        MapRow(start_s=at, end_s=at + 10, active=3 + at % 20 // 10, noise_uV=5 + at % 3, **healthy)
        for at in range(0, 590, 10)
    ]
    dead = healthy | {"flat": 4}
    signal.append(MapRow(start_s=590.0, end_s=600.0, active=0, noise_uV=0.0, **dead))
    log = results.parent / "logs/canary/good.log"
    log.parent.mkdir(parents=True)
    log.write_text("a log\n")
    canary = make_record(
        recording="good",
        forecast=forecast,
        signal_map=signal,
        bad_periods=[BadPeriod(start_s=590.0, end_s=600.0, what="flat")],
        windows=[Window(start_s=0.0, end_s=30.0, why="leading", ended="8 units", n_units=8)],
        measured=Measured(wall_s=30.0, peak_rss_mb=800.0),
        started_at="2026-01-01T10:00:00+00:00",
        finished_at="2026-01-01T10:00:36+00:00",
        duration_s=600.0,
        n_channels=4,
        warnings=["the last 10 s are flat"],
        log=str(log),
    )
    write_recording(results, "good", canary, sorted_record("good"), n_figures=2)
    units = [
        {"unit": "7", "label": "good", "depth_um": "120.5", "snr": "9.25", "drift_ptp": ""},
        {"unit": "12", "label": "mua", "depth_um": "40", "snr": "31", "reasons": "snr 3.9 < 5"},
        {"unit": "N/A", "label": "good", "depth_um": "", "snr": "4.5"},
    ]
    columns = ["unit", "label", "reasons", "depth_um", "snr", "drift_ptp"]
    write_tsv(results / "good/units.tsv", columns, units)
    for unit in ("7", "12", "N%2FA"):
        draw(results / f"good/figures/units/{unit}.png")
    for folder in ("analyzer", "phy"):
        (results / "good" / folder).mkdir()
    write_recording(results, "big", stopped("resource").model_copy(update={"forecast": forecast}))
    failure = Failure(
        class_name="InsufficientActivityError",
        category="biological",
        message="no spikes",
        remedy="Look at the raw traces.",
    )
    quiet = make_record(verdict="stop", outcome="stopped", failure=failure, duration_s=120.0)
    write_recording(results, "quiet", quiet)
    draw(results / "quiet/canary.png")
    write_recording(
        results, "odd", make_record(outcome="unexpected", reason=ODD), sorted_record("odd")
    )
    # A half of a character, which no file can hold.
    sentinel.append_line(results / "odd/attempts.jsonl", {"kind": "canary", "reason": "\ud800"})
    write_recording(results, "broken", make_record())
    sentinel.append_journal(
        results / "broken/attempts.jsonl", "sort", failed("broken", "index 5 is out of bounds")
    )
    write_recording(
        results,
        "empty",
        make_record(n_units=8),
        sorted_record("empty", n_units=0, warnings=["none"]),
    )
    (results / "torn").mkdir()
    (results / "torn/canary.json").write_text("{")
    return ["good", "big", "quiet", "odd", "broken", "empty", "torn", "new"]


def test_totals_and_reasons(tmp_path):
    results = tmp_path / "results"
    page = write_report(results, fill(results)).read_text()
    rows = report.read_rows(results / "summary.tsv")
    totals = report.count(rows)
    assert totals["states"] == {"sorted": 3, "stopped": 2, "failed": 1, "pending": 2}
    assert (totals["n_units"], totals["n_good"], totals["n_needing"]) == (3 + 8 + 0, 2, 4)
    assert (totals["canaries_s"], totals["sorts_s"]) == (36.0, 3 * 7200.0)
    groups = [
        [row["recording"] for row in group] for group in ending.group(filter(report.is_told, rows))
    ]
    # Those that need a person come first; a failure without a class is among them.
    assert groups == [["big"], ["broken"], ["empty"], ["torn"], ["quiet"], ["odd"]]
    assert "<script>alert(1)" not in page
    assert not re.search(r"(src=|@import|<link)[^>]*https?://", page)


def test_a_warning_that_looks_like_two_is_one(tmp_path):
    results = tmp_path / "results"
    canary = make_record(warnings=["twice", "flat; from 3 s on"])
    write_recording(results, "a", canary, sorted_record("a", warnings=["twice"]))
    broken = failed("b", "no such thing").model_copy(update={"warnings": ["slow; very"]})
    write_recording(results, "b", make_record())
    sentinel.append_journal(results / "b/attempts.jsonl", "sort", broken)
    page = write_report(results, ["a", "b"]).read_text()
    found = re.findall(r"Warning:</b> <bdi>(.+?)</bdi>", page)
    assert found == ["twice", "flat; from 3 s on", "slow; very"]
    assert re.findall(r"\((\d warnings?)\)", page) == ["2 warnings", "1 warning"]


def test_one_group_a_reason(tmp_path):
    names = [f"rec{number:02d}" for number in range(50)]
    for number, name in enumerate(names):
        reason = f"IndexError: index {number} is out of bounds"
        write_recording(tmp_path, name, make_record(outcome="unexpected", reason=reason))
    write_report(tmp_path, names)
    (group,) = ending.group(report.read_rows(tmp_path / "summary.tsv"))
    assert [row["recording"] for row in group] == names


def test_what_is_of_another_sort_is_not_shown(tmp_path):
    results = tmp_path / "results"
    write_recording(results, "stopped", stopped("biological"), n_figures=1)
    write_recording(results, "sorted", make_record(), sorted_record("sorted"))
    write_recording(results, "pending", make_record(), n_figures=1)
    for name in ("stopped", "sorted"):
        draw(results / name / "canary.png")
    forced = stopped("biological").model_copy(update={"reason": "too quiet"})
    write_recording(results, "forced", forced, sorted_record("forced", forced=True))
    page = write_report(results, ["stopped", "sorted", "pending", "forced"]).read_text()
    rows = report.read_rows(results / "summary.tsv")
    found = {x["row"]["recording"]: x["figures"] for x in report.describe(rows, results)}
    assert {name: [each["name"] for each in some] for name, some in found.items()} == {
        "stopped": ["canary"],
        "sorted": [],
        "pending": [],
        "forced": [],
    }
    assert "1 without units" not in page
    assert "1 sorted" in page


def test_full_disk_hides_no_reason(tmp_path, monkeypatch, caplog):
    def write(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summary, "write", write)
    report.write_after_errors(tmp_path, {}, Config())
    assert "summary and report could not be written: [Errno 28]" in caplog.text
    assert (tmp_path / ".errors").exists()  # so that the next run makes them


def test_host_that_fails_as_others_do_not_is_named(tmp_path):
    for number in range(4):
        on = {"host": f"n{number % 2}"}
        canary = make_record() if number % 2 else stopped("environment")
        sort = make_record(outcome="sorted", **on) if number % 2 else None
        write_recording(tmp_path, f"r{number}", canary.model_copy(update=on), sort)
    write_report(tmp_path, [f"r{number}" for number in range(4)])
    page = (tmp_path / "report.html").read_text()
    assert "Host n0 fails as others do not: X, 2 of 2 sorts and canaries, and 0 of 2" in page


def test_captions_are_those_of_snakemakes_report(tmp_path):
    assert "captions.rst" in (ROOT / "rules/outputs.smk").read_text()
    write_recording(tmp_path, "one", make_record(), sorted_record("one"))
    for name in ("probe", "drift", "templates"):
        draw(tmp_path / f"one/figures/{name}.png")
    page = write_report(tmp_path, ["one"]).read_text()
    for text in ("Steps and slopes are drift.", "The contacts of the probe"):
        assert text in report.CAPTIONS.read_text()
        assert text in page


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """Write a report of a thousand recordings, with more figures and units than fit into it."""
    results = tmp_path_factory.mktemp("thousand")
    names = [f"rec{number:04d}" for number in range(1000)]
    write_recording(results, "one", make_record(), sorted_record("one"), n_figures=7)
    units = [{"unit": str(at), "label": "good", "depth_um": "123.456789"} for at in range(100)]
    write_tsv(results / "one/units.tsv", list(units[0]), units)
    for name in names:
        shutil.copytree(results / "one", results / name, copy_function=os.link)
    (results / names[-1] / "sort.json").unlink()  # in trouble, so its figures are the first
    return write_report(results, names)


def test_thousand_recordings_fit_into_13_mb(thousand):
    text = thousand.read_text()
    assert 12.5e6 < len(text.encode()) <= report.PAGE_BYTES
    assert 'src="rec0500/figures/figure_0.png"' in text
    assert 'src="rec0999/' not in text
    assert "See their table" in text  # of the last recordings, whose units are too many


def require(is_there, what):
    """Fail without a tool where all tests must run, as in CI; else skip."""
    if is_there:
        return
    if "1" in map(os.environ.get, ("SPIKECANARY_REQUIRE_BROWSER", "SPIKECANARY_REQUIRE_DATA")):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Start headless Chromium."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    require(binary and driver, "chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for switch in SWITCHES:
        options.add_argument(switch)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """Return axe-core's source, which npm fetches."""
    require(shutil.which("npm"), "npm is not installed, which fetches axe-core")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "pack", "--silent", AXE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"npm cannot fetch {AXE}: {done.stderr}")
    with tarfile.open(folder / done.stdout.strip()) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Write a batch with each kind of end, and its report."""
    results = tmp_path_factory.mktemp("batch") / "results"
    return write_report(results, fill(results))


def show(browser, path, address="", width=1400, scheme="light"):
    """Open a page: of the batch, or of a recording."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [feature]})
    browser.get("about:blank")
    browser.get(path.as_uri() + address)


def find(browser, selector):
    """Return the elements that are seen."""
    found = browser.find_elements(By.CSS_SELECTOR, selector)
    return [each for each in found if each.is_displayed()]


def texts(browser, selector):
    return [each.text for each in find(browser, selector)]


def press(browser, *keys):
    webdriver.ActionChains(browser).send_keys(*keys).perform()


@pytest.mark.parametrize("address", ["", "#rec=good", "#rec=quiet", "#rec=odd", "#rec=torn"])
def test_page_is_accessible(browser, axe, batch, tmp_path, address):
    """A page has no violation, and no line that is wider than the screen."""
    for width, scheme in itertools.product([1400, 390], ["light", "dark"]):
        show(browser, batch, address, width, scheme)
        browser.execute_script(
            "for (const each of document.querySelectorAll('details')) each.open = true"
        )
        root = "return document.documentElement"
        clip = {"x": 0, "y": 0, "width": width, "scale": 1}
        clip["height"] = browser.execute_script(f"{root}.scrollHeight")
        shot = browser.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
        picture = tmp_path / f"{address.removeprefix('#rec=') or 'batch'}_{width}_{scheme}.png"
        picture.write_bytes(base64.b64decode(shot["data"]))
        assert browser.execute_script(f"{root}.scrollWidth") <= width, picture
        if (width, scheme) in ((1400, "light"), (390, "dark")):
            assert violations(browser, axe) == []


def violations(browser, axe):
    """Return what axe-core finds; it cannot decide the contrast of mere symbols."""
    browser.execute_script(axe)
    root = "document.querySelector('dialog[open]') || document"
    found = browser.execute_async_script(f"axe.run({root}).then(arguments[0])")
    assert "color-contrast" in [each["id"] for each in found["passes"]]
    undecided = [node["html"] for each in found["incomplete"] for node in each["nodes"]]
    assert [html for html in undecided if re.search(r">[^<]*\w", html)] == []
    return [(each["id"], node["html"]) for each in found["violations"] for node in each["nodes"]]


def test_batch_by_mouse_and_keyboard(browser, batch):
    show(browser, batch)
    rows = "#batch tbody th"
    assert texts(browser, rows) == ["good", "big", "quiet", "odd", "broken", "empty", "torn", "new"]
    assert texts(browser, ".states .badge")[0] == "✓ 3 sorted"
    assert "36 s" in find(browser, ".facts")[0].text
    assert ODD[:30] in find(browser, "#reasons")[0].text
    assert find(browser, "#reasons td") == []  # folded
    find(browser, "#reasons summary")[0].send_keys(Keys.ENTER)
    assert texts(browser, "#reasons a") == ["big"]
    by_name = find(browser, "#batch thead button")[0]
    by_name.send_keys(Keys.ENTER)
    assert texts(browser, rows) == sorted(texts(browser, rows))
    by_name.send_keys(Keys.ENTER)
    assert texts(browser, rows)[0] == "torn"
    Select(find(browser, "#batch select")[0]).select_by_value("stopped")
    assert texts(browser, rows) == ["quiet", "big"]
    assert texts(browser, "#shown") == ["2 of 8 are shown."]
    # From a row to its page, to the next of those that are shown, and back.
    find(browser, "#batch tbody a")[0].send_keys(Keys.ENTER)
    assert browser.current_url.endswith("#rec=quiet")
    assert browser.title.startswith("quiet")
    assert browser.switch_to.active_element.text.startswith("quiet")
    assert texts(browser, "article nav a") == ["All recordings", "Next: big"]
    find(browser, "article nav a")[1].click()
    assert texts(browser, "h1") == ["big ■ stopped: resource"]
    find(browser, "article nav a")[0].click()
    assert browser.switch_to.active_element.text == "big"
    find(browser, "#batch input")[1].send_keys("no such text")
    assert texts(browser, rows) == []
    assert not [each for each in browser.get_log("browser") if each["level"] == "SEVERE"]


def test_recording_by_mouse_and_keyboard(browser, axe, batch):
    show(browser, batch, "#rec=good")
    page = find(browser, "article")[0].text
    for text in (
        "The full sort found 8 units; 3 left, 2 good.",
        "the last 10 s are flat",
        "0 s to 30 s",
        "1 h, between 1 s and 2 h 30 min",
        "9 min 50 s to 10 min flat",
        f"sigui --curation {batch.parent / 'good/analyzer'}",
        f"phy template-gui {batch.parent / 'good/phy/params.py'}",
        "logs/canary/good.log",
    ):
        assert text in page, text
    log = find(browser, "article .compare a")[0].get_property("href")
    assert log == (batch.parents[1] / "logs/canary/good.log").as_uri()
    units = "table.list tbody th"
    heads = find(browser, "article table.list thead button")
    assert [each.text for each in heads] == ["unit", "label", "depth, µm", "SNR", "why not good"]
    heads[3].click()
    assert [text.strip() for text in texts(browser, units)] == ["N/A", "7", "12"]
    heads[2].click()  # what is empty is last, either way
    assert [text.strip() for text in texts(browser, units)] == ["12", "7", "N/A"]
    heads[2].click()
    assert [text.strip() for text in texts(browser, units)] == ["7", "12", "N/A"]
    heads[4].click()  # the last column, which is empty in the last row
    assert [text.strip() for text in texts(browser, units)] == ["12", "7", "N/A"]
    heads[2].click()
    heads[2].click()
    assert [text.strip() for text in texts(browser, units)] == ["7", "12", "N/A"]
    dialog = browser.find_element(By.ID, "zoom")
    find(browser, "table.list a.zoom")[0].send_keys(Keys.ENTER)
    assert dialog.is_displayed()
    assert dialog.text.startswith("Unit 7")
    assert violations(browser, axe) == []
    press(browser, Keys.ARROW_RIGHT)
    assert dialog.text.startswith("Unit 12")
    image = dialog.find_element(By.TAG_NAME, "img")
    assert int(image.get_property("naturalWidth")) == 900
    before = image.size["width"]
    dialog.find_element(By.CSS_SELECTOR, "[aria-label=Larger]").click()
    assert image.size["width"] > 1.2 * before
    press(browser, Keys.ESCAPE)
    assert not dialog.is_displayed()
    find(browser, "article .figures a.zoom")[0].click()
    dialog.find_element(By.CSS_SELECTOR, "button:not([type])").click()
    assert not dialog.is_displayed()
    assert not [each for each in browser.get_log("browser") if each["level"] == "SEVERE"]


def test_page_that_was_moved_says_so(browser, batch, tmp_path, monkeypatch):
    show(browser, batch)
    assert find(browser, "#moved") == []
    monkeypatch.setattr(report, "PAGE_BYTES", 0)  # no figure is in the page
    report.write(batch.with_name("small.html"), Config(), batch.parent)
    show(browser, batch.with_name("small.html"), "#rec=quiet")
    wait_for(lambda: texts(browser, "article .lost") == [] and find(browser, "article img"))
    link = tmp_path / "results"  # to another disk
    link.symlink_to(batch.parent)
    report.write(link / "linked.html", Config(), link)
    for folder in (link, batch.parent):
        show(browser, folder / "linked.html")
        assert find(browser, "#moved") == []
    moved = shutil.copy(batch.with_name("small.html"), tmp_path / "mailed.html")
    show(browser, moved, "#rec=quiet")
    assert str(batch.parent) in find(browser, "#moved")[0].text
    wait_for(lambda: texts(browser, ".lost") == ["Not in this copy: quiet/canary.png"])
    shutil.copy(batch, moved)  # whose figures came along
    show(browser, moved, "#rec=quiet")
    assert find(browser, "#moved")
    assert find(browser, "article img")[0].get_property("naturalWidth") == 900
    assert texts(browser, ".lost") == []


def wait_for(is_so, most_s=10):
    end = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_scripts_and_on_paper(browser, batch):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, batch)
        assert len(texts(browser, "#batch tbody th")) == 8
        assert find(browser, "button, input, select, dialog") == []
        show(browser, batch, "#rec=good")
        assert find(browser, "#start") == []
        assert "unit\tlabel\tdepth" in find(browser, "pre.units")[0].get_property("textContent")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    show(browser, batch)
    assert "failure" not in texts(browser, "#batch thead th")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert "failure" in texts(browser, "#batch thead tr:first-child th")
    assert len(texts(browser, "#batch thead tr:first-child th")) == 15
    assert find(browser, "input, select, #more, dialog") == []


def test_no_recordings(browser, axe, tmp_path):
    show(browser, write_report(tmp_path, []))
    assert texts(browser, "h1") == ["Spike Canary: 0 recordings"]
    assert "The table has no recordings." in find(browser, "#start")[0].text
    assert violations(browser, axe) == []


def test_thousand_recordings_open_in_about_a_second(browser, thousand):
    took_s = []
    for _ in range(3):
        began = time.monotonic()
        show(browser, thousand)
        took_s.append(time.monotonic() - began)
    assert min(took_s) < 3, "about a second on a quiet machine"
    count_rows = "return document.querySelectorAll('#batch tbody tr:not(.beyond)').length"
    assert browser.execute_script(count_rows) == 100
    find(browser, "#more")[0].click()
    assert browser.execute_script(count_rows) == 1000
    show(browser, thousand, "#rec=rec0400")
    assert len(find(browser, "article table.list tbody tr")) == 100
