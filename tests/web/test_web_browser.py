"""The web page in headless Chromium, from upload to download (`make test-web`).

`SCREENSHOTS=docs/images` also keeps what it saw there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.ExifTags import IFD, Base

from matcher.structures import Matches

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DRIVER = shutil.which("chromedriver") or ""
ASSETS = Path(__file__).resolve().parents[2] / "assets"
SECONDS = 120
TELEPHONE = 390, 844
END, ENTER = "\ue010", "\ue007"
"""WebDriver's codes of the keys that move a slider to its end and confirm a text."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER and find_spec("gradio") and find_spec("selenium")),
        reason="needs Chromium, chromedriver and the extra web: make test-web",
    ),
]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def url(results: Path) -> Iterator[str]:
    from matcher.web.page import build_page, launch

    page = build_page(results)
    _, url, _ = launch(page, prevent_thread_lock=True, quiet=True)
    yield url
    page.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    from selenium import webdriver  # pyright: ignore[reportMissingImports]

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1100,1800",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(tmp_path / "downloads")}
    )
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Visitor:
    """Somebody who sees the page and uses its controls."""

    def __init__(self, browser: Any, downloads: Path) -> None:
        self.browser, self.downloads = browser, downloads

    def all(self, css: str) -> list[Any]:
        return self.browser.find_elements("css selector", css)

    def seen(self, css: str, what: str) -> list[str]:
        """A property of all elements in sight, read at once: the page replaces them at will."""
        script = """return [...document.querySelectorAll(arguments[0])]
            .filter(e => e.offsetParent).map(e => e[arguments[1]])"""
        return self.browser.execute_script(script, css, what)

    def until(self, what: str, look: Callable[[], Any]) -> Any:
        """What `look` returns once it is something."""
        from selenium.common.exceptions import (  # pyright: ignore[reportMissingImports]
            StaleElementReferenceException,
        )
        from selenium.webdriver.support.ui import (  # pyright: ignore[reportMissingImports]
            WebDriverWait,
        )

        ignored = (StaleElementReferenceException,)
        waiting = WebDriverWait(self.browser, SECONDS, ignored_exceptions=ignored)
        return waiting.until(lambda _: look(), f"no {what}")

    def press(self, text: str) -> None:
        """Click the button of that name."""

        def pressed() -> bool:
            named = [
                b
                for b in self.all("button")
                if b.text.splitlines()[:1] == [text] and b.is_displayed()
            ]
            for button in named[:1]:
                button.click()
            return bool(named)

        self.until(text, pressed)

    def numbers(self) -> str:
        return next((t for t in self.seen("strong", "innerText") if "matches" in t), "")

    def count(self) -> int:
        return int(self.numbers().split()[0])

    def picture(self) -> str:
        """Address of the result on the selected tab."""
        return next(iter(self.seen("[role=tabpanel] img", "src")), "")

    def tab(self) -> str:
        return next(iter(self.seen("[role=tab][aria-selected=true]", "innerText")), "").strip()

    def open(self, tab: str) -> None:
        """Show the tab of that name and wait for its picture."""
        self.show(tab)
        self.until(tab, lambda: self.tab() == tab and self.picture())

    def show(self, tab: str) -> None:
        """Select the tab of that name, also where it is in the menu of those that do not fit."""
        script = """const all = document.querySelectorAll("[role=tab], .overflow-dropdown button");
            const named = [...all].find(e => e.offsetParent && e.innerText.trim() === arguments[0]);
            (named || document.querySelector(".overflow-menu > button")).click();
            return Boolean(named)"""
        self.until(tab, lambda: self.browser.execute_script(script, tab))

    def text(self) -> str:
        """What is written on the selected tab."""
        return " ".join(self.seen("[role=tabpanel]", "innerText"))

    def width(self) -> int:
        """Of the page, in its own pixels: more than the window's where one has to scroll."""
        return self.browser.execute_script("return document.documentElement.scrollWidth")

    def download(self, button: str, suffix: str) -> Path:
        self.press(button)
        return self.until(suffix, lambda: next(self.downloads.glob(f"*{suffix}"), None))

    def screenshot(self, name: str) -> None:
        """Keep a picture of the page where `SCREENSHOTS` says."""
        if folder := os.environ.get("SCREENSHOTS"):
            self.browser.execute_script("window.scrollTo(0, 0)")
            page = Image.open(BytesIO(self.browser.get_screenshot_as_png())).convert("RGB")
            _, top, _, bottom = ImageOps.invert(page).getbbox() or (0, 0, *page.size)
            page = page.crop((0, 0, page.width, min(bottom + top, page.height)))
            page.thumbnail((900, 1400))
            page.save(Path(folder) / name, quality=75, optimize=True)


def test_upload_match_click_threshold_download_leave(
    url: str, browser: Any, results: Path, tmp_path: Path
) -> None:
    visitor = Visitor(browser, tmp_path / "downloads")
    browser.get(url)
    fields = visitor.until("fields", lambda: visitor.all("input[type=file][accept='image/*']"))
    for number, field in enumerate(fields):
        field.send_keys(str(ASSETS / f"demo{number}.jpg"))
    visitor.until("images", lambda: len(visitor.all(".image-frame img")) == 2)

    visitor.press("Match")
    numbers = visitor.until("numbers", visitor.numbers)
    count = visitor.count()
    assert count > 100
    assert "inliers" in numbers
    assert numbers.endswith("reliable")
    first = visitor.until("picture", visitor.picture)
    visitor.screenshot("web_matches.jpg")

    visitor.all(".image-frame.selectable img")[0].click()
    visitor.until("point", lambda: visitor.tab() == "Point" and visitor.picture())
    assert re.search(r"of image 0 is (at \(|not visible)", visitor.text())
    visitor.open("Attention")
    visitor.screenshot("web_attention.jpg")
    visitor.open("Warp")
    assert "matches agree with one plane" in visitor.text()
    visitor.open("Matches")

    visitor.press("More settings")
    visitor.until("threshold", lambda: visitor.seen("input[type=range]", "value"))
    visitor.all("input[type=range]")[0].send_keys(END)
    visitor.until("other numbers", lambda: visitor.numbers() not in ("", numbers))
    assert visitor.count() < count / 2
    visitor.until("other picture", lambda: visitor.picture() not in ("", first))

    table = visitor.download("Matches (CSV)", ".csv")
    lines = [line for line in table.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert len(lines) - 1 == visitor.count()
    drawing = visitor.download("Picture (PNG)", ".png")
    assert np.asarray(Image.open(drawing)).std() > 10
    assert len(Matches.load(visitor.download("Matches (HDF5)", ".h5"))) == visitor.count()
    with ZipFile(visitor.download("COLMAP (ZIP)", ".zip")) as file:
        assert "database.db" in file.namelist()

    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]

    assert [*results.glob("*/matches.csv")]
    browser.get("about:blank")
    visitor.until("empty folder of results", lambda: not [*results.iterdir()])


def on_telephone(browser: Any, url: str, downloads: Path) -> Visitor:
    """The page on a small screen."""
    screen = {"width": TELEPHONE[0], "height": TELEPHONE[1], "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(url)
    return Visitor(browser, downloads)


def test_an_example_on_a_telephone_and_its_pose(url: str, browser: Any, tmp_path: Path) -> None:
    visitor = on_telephone(browser, url, tmp_path / "downloads")
    names = ["flat", "wide", "indoor", "turned"]
    captions = ".examples .caption-label"
    visitor.until("examples", lambda: visitor.seen(captions, "innerText") == names)
    assert visitor.width() <= TELEPHONE[0]

    visitor.all(".examples button.thumbnail-item")[names.index("indoor")].click()
    visitor.until("images", lambda: len(visitor.all(".image-frame.selectable img")) == 1)
    visitor.press("Match")
    visitor.until("numbers", visitor.numbers)
    visitor.show("Pose")
    visitor.until("pose", lambda: "rotation by 26" in visitor.text())
    assert "520.0 pixels (as given) of image 1" in visitor.text()
    assert visitor.width() <= TELEPHONE[0]


def test_exif_tells_a_camera_and_what_is_none_is_refused_in_a_line(
    url: str, browser: Any, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] = 28
    Image.open(ASSETS / "demo0.jpg").save(tmp_path / "exif.jpg", exif=exif, quality=92)
    visitor = on_telephone(browser, url, tmp_path / "downloads")
    fields = visitor.until("fields", lambda: visitor.all("input[type=file][accept='image/*']"))
    for field, path in zip(fields, (tmp_path / "exif.jpg", ASSETS / "demo1.jpg"), strict=True):
        field.send_keys(str(path))
    visitor.until("images", lambda: len(visitor.all(".image-frame img")) == 2)
    visitor.press("More settings")
    cameras = "[data-testid=textbox]"
    told = ["517.7, 517.7, 319.5, 239.5", ""]
    visitor.until("camera", lambda: visitor.seen(cameras, "value") == told)
    assert visitor.width() <= TELEPHONE[0]
    visitor.screenshot("web_cameras.jpg")

    visitor.press("Match")
    visitor.until("numbers", visitor.numbers)
    visitor.show("Pose")
    visitor.until("pose", lambda: "rotation by 26" in visitor.text())
    assert re.search(r"517\.7 pixels \(as given\) of image 0; 5\d\d", visitor.text())
    assert "(found from the matches) of image 1" in visitor.text()

    visitor.all(cameras)[1].send_keys("wide", ENTER)
    refused = "E201 camera 1: got 'wide'; expected fx, fy, cx, cy"
    visitor.until("line", lambda: refused in browser.find_element("css selector", "body").text)
    assert visitor.width() <= TELEPHONE[0]
    visitor.screenshot("web_refused.jpg")
