"""The report's page in a real browser, which axe-core checks."""

import base64
import itertools
import os
import re
import shutil
import subprocess
import tarfile
import time

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from reports import ODD, fill, sorted_record, write_recording, write_report
from spikecanary import report
from spikecanary.config import Config
from spikecanary.table.tsv import write_tsv
from workbench import make_record

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
