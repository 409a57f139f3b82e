"""A notebook opened in JupyterLab in a real browser, and run from top to bottom as it stands."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from lwnb.base.places import CHECKOUT

CHROMIUM = shutil.which("chromium")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOKEN = "test"
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
QUIET = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}


pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed: a notebook cannot be opened")


@pytest.fixture
def lab(house, tmp_path):
    """A JupyterLab over a copy of the notebooks; lwnb itself, its parameters and its runs are the test's."""
    notebooks, settings = tmp_path / "notebooks", tmp_path / "settings"
    shutil.copytree(CHECKOUT / "notebooks", notebooks)
    for name, content in QUIET.items():
        (settings / name).parent.mkdir(parents=True, exist_ok=True)
        (settings / name).write_text(json.dumps(content))
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={PORT}", f"--IdentityProvider.token={TOKEN}"]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--LabServerApp.user_settings_dir={settings}"]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=notebooks, stdout=log, stderr=log, env=os.environ)
        yield
        server.terminate()
        server.wait(20)


def kernels():
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/kernels?token={TOKEN}") as answer:
        return json.load(answer)


def wait(ready, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if found := ready():
                return found
        except OSError:  # the server is not up yet
            pass
        time.sleep(0.5)
    raise TimeoutError(f"not within {seconds} s")


@pytest.fixture
def opened(lab):
    """Open a notebook in JupyterLab in a browser and run all its cells."""
    from playwright.sync_api import sync_playwright

    wait(lambda: kernels() == [], 60)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page()

        def run(name):
            page.goto(f"http://127.0.0.1:{PORT}/lab/tree/{name}?token={TOKEN}")
            wait(lambda: kernels() and kernels()[0]["execution_state"] == "idle" and kernels()[0]["connections"], 60)
            page.wait_for_timeout(500)
            run_all(page)
            return page

        yield run
        browser.close()


def run_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def errors(page):
    """How many outputs tell of an error: an output of its own kind up to JupyterLab 4.5, then one on standard error."""
    kinds = ", ".join(
        f".jp-RenderedText[data-mime-type='application/vnd.jupyter.{kind}']" for kind in ("error", "stderr")
    )
    return page.locator(kinds).filter(has_text=re.compile(r"\w(Error|Exception|Interrupt)\b")).count()


@pytest.mark.slow
def test_a_planted_error_is_seen_and_a_progress_bar_is_none(opened, tmp_path):
    file = tmp_path / "notebooks" / "explore.ipynb"
    content = json.loads(file.read_text())
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    for cell, source in zip(cells, ["from tqdm import trange\nfor _ in trange(3): pass", "raise KeyError('planted')"]):
        cell["source"] = source
    file.write_text(json.dumps(content))
    page = opened(file.name)
    page.locator("text=/3\\/3/").first.wait_for(timeout=60_000)
    wait(lambda: errors(page), 60)
    assert errors(page) == 1


@pytest.mark.slow
def test_a_notebook_runs_from_top_to_bottom_in_jupyterlab_with_live_progress(opened, tmp_path):
    file = tmp_path / "notebooks" / "03_augmentation.ipynb"
    content = json.loads(file.read_text())
    cell = next(c for c in content["cells"] if "parameters" in c["metadata"].get("tags", []))
    cell["source"] = "".join(cell["source"]) + '\ntrain_size = 100\nepochs = 2\npolicies = ["none", "crop"]'
    file.write_text(json.dumps(content))
    page = opened(file.name)
    wait(lambda: page.locator("text=/2\\/2/").count(), 120)  # the bar of the runs
    page.locator("text=/Budget/").first.wait_for(timeout=120_000)
    page.wait_for_timeout(1000)
    assert errors(page) == 0
    run_all(page)  # in the same kernel, with all that the first time has left there
    count = 2 * sum(cell["cell_type"] == "code" for cell in content["cells"])
    wait(lambda: errors(page) or page.get_by_text(f"[{count}]:", exact=True).count(), 120)
    assert errors(page) == 0
    images = page.locator(".jp-OutputArea img[src^='data:image/svg']")
    assert images.count() == 2 and all(
        image.evaluate("i => i.naturalWidth") > 0 and image.get_attribute("alt") for image in images.all()
    )


@pytest.mark.slow
def test_the_sliders_of_explore_answer_in_jupyterlab(two, opened):
    page = opened("explore.ipynb")
    page.get_by_text("2 of 2 fit").wait_for(timeout=60_000)
    size = page.locator(".widget-hslider", has_text="file, MB").locator(".widget-readout")
    size.fill("3")
    size.press("Enter")
    page.get_by_text("1 of 2 fit").wait_for(timeout=30_000)
    assert errors(page) == 0
    assert "SqueezeNet" in page.locator(".widget-html", has_text="of 2 fit").inner_text()
    assert page.locator(".jp-OutputArea img[src^='data:image/svg']").count() == 1
