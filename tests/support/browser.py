"""A headless Chromium that looks at the status page as people do: by names, by sight, by keyboard."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from .mosquitto import free_port

DEADLINE_SECONDS = 120.0

_ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


class Browser:
    """One window. What isn't there yet is waited for; what went wrong in the page is in `errors`."""

    def __init__(self, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in (*_ARGUMENTS, f"--user-data-dir={folder}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = Service(shutil.which("chromedriver"), port=free_port())
        self._driver = webdriver.Chrome(options=options, service=service)
        self._driver.set_page_load_timeout(DEADLINE_SECONDS)
        self.resize()

    def open(self, base: str, view: str = "now") -> None:
        """A fresh look at a view, without what was remembered; returns when it shows its heading and figures."""
        self.visit(base, view)
        self.until(lambda: self.all(".view h1") and not self.script(_LOADING), f"{view} to be shown")

    def visit(self, base: str, view: str = "now") -> None:
        """The same, whatever it then shows."""
        self._driver.get("about:blank")
        self.forget()
        self.logs()
        self._driver.get(f"{base}/#{view}")

    def forget(self) -> None:
        """Lose the cookies."""
        self._driver.execute_cdp_cmd("Network.clearBrowserCookies", {})

    def go(self, view: str) -> None:
        """Follow a link to a view, as the address bar would."""
        self.script(f"location.hash = {json.dumps(view)}")

    def resize(self, width: int = 1280, height: int = 800, *, dark: bool = False, still: bool = False) -> None:
        """Another window: its size in pixels, and whether its user prefers it dark, and without motion."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, motion]})

    def text(self, selector: str = "main") -> str:
        """What can be read there."""
        with suppress(StaleElementReferenceException):
            return " ".join(each.text for each in self.all(selector))
        return ""

    def all(self, selector: str) -> list[WebElement]:
        """The elements that a selector finds."""
        return self._driver.find_elements(By.CSS_SELECTOR, selector)

    def named(self, name: str, selector: str = "button") -> WebElement:
        """The control whose name begins so."""

        def found() -> WebElement | None:
            with suppress(StaleElementReferenceException):
                return next((each for each in self.all(selector) if each.accessible_name.startswith(name)), None)
            return None

        return self.until(found, f"a {selector} called {name!r}")

    def click(self, name: str, selector: str = "button") -> None:
        """Click on the control whose name begins so."""

        def clicked() -> bool:
            with suppress(WebDriverException):  # it moved in the meantime
                self.named(name, selector).click()
                return True
            return False

        self.until(clicked, f"{name!r} to be clicked")

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        for key in keys:
            webdriver.ActionChains(self._driver).send_keys(key).perform()

    def tab_to(self, name: str) -> None:
        """Go by the Tab key to the control whose name begins so."""
        for _ in range(200):
            self.press(Keys.TAB)
            with suppress(StaleElementReferenceException):
                if self._driver.switch_to.active_element.accessible_name.startswith(name):
                    return
        pytest.fail(f"Tab does not lead to {name!r}")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for it; what it is then. What it looks at may be replaced in the meantime."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            with suppress(StaleElementReferenceException):
                if found := condition():
                    return found
            assert time.monotonic() < deadline, (
                f"waited for {what}; the page says:\n{self.text('body')}\n{self.errors()}"
            )
            time.sleep(0.05)

    def shows(self, *texts: str, selector: str = "main") -> str:
        """Wait until all of it can be read there; what is."""

        def shown() -> str:
            text = self.text(selector)
            return text if all(each in text for each in texts) else ""

        found: str = self.until(shown, f"{texts} in {selector}")
        return found

    def script(self, code: str, *arguments: Any) -> Any:
        """What a function body in the page returns."""
        return self._driver.execute_script(code if "return" in code or "=" in code else f"return {code}", *arguments)

    def errors(self) -> list[str]:
        """What the page complained of since it was opened, but for a gateway that isn't there."""
        self.logs()
        return [line for line in self._console if "net::ERR_" not in line and "status of 503" not in line]

    def hosts(self) -> set[str]:
        """Whom the page asked for anything since it was opened."""
        self.logs()
        return {urlsplit(url).netloc for url in self._asked if urlsplit(url).scheme not in ("data", "about", "blob")}

    def logs(self) -> None:
        """Read what was logged since; what came before the page was opened is left out."""
        if self._driver.current_url == "about:blank":
            self._console: list[str] = []
            self._asked: list[str] = []
            for kind in ("browser", "performance"):
                self._driver.get_log(kind)
            return
        for line in self._driver.get_log("browser"):
            self._console.append(line["message"])
        for line in self._driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                params = message["params"]
                self._asked.append(params.get("url") or params["request"]["url"])

    def picture(self, path: Path) -> None:
        """What is seen, as PNG."""
        shot = self._driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End it."""
        self._driver.quit()


_LOADING = (
    "return document.body.innerText.includes('Asking the gateway') || document.body.innerText.includes('Looking it up')"
)


def browsers() -> Iterator[Browser]:
    """What a fixture yields: a browser, ended afterwards."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("Chromium isn't installed: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(prefix="edgeq-chromium-", ignore_cleanup_errors=True) as folder:
        browser = Browser(Path(folder))
        try:
            yield browser
        finally:
            browser.close()
