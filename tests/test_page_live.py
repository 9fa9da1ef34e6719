"""The page stays in touch: it shows what happens as it happens, says when it can't, and comes back by itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.barn import Barn
from support.browser import Browser
from support.mosquitto import Mosquitto

UPGRADED = """
import edgeq.version
edgeq.version.edgeq_version = lambda: "99.0"
from edgeq.cli.main import main
main(["run"])
"""
READING = ("sensors/freezer-1/temperature", '{"value": -20}')


@pytest.fixture
def barn(tmp_path: Path, broker: Mosquitto) -> Iterator[Barn]:
    made = Barn(tmp_path / "barn", broker)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def test_it_shows_what_happens_without_being_loaded_again(barn: Barn, browser: Browser) -> None:
    browser.open(barn.page, "routes")
    browser.script("window.stayed = true")
    browser.shows("none since the start")
    barn.publish(READING, READING, READING)
    browser.until(lambda: browser.text("tbody tr:first-child td:nth-child(3)") == "3", "three messages to be counted")
    assert browser.script("window.stayed") is True
    assert browser.text("#live") == "Live"
    assert not browser.errors()


def test_an_update_leaves_alone_what_somebody_is_doing(barn: Barn, browser: Browser) -> None:
    browser.open(barn.page, "events")
    browser.all("#filter-type")[0].send_keys("temperature.rea")
    barn.publish(READING)
    browser.shows("#1", "temperature.reading", selector="tbody")
    assert browser.script("document.activeElement.id") == "filter-type"
    assert browser.script("document.activeElement.value") == "temperature.rea"


def test_a_lost_connection_is_said_with_the_age_of_the_figures_and_regained(barn: Barn, browser: Browser) -> None:
    barn.publish(READING)
    browser.open(barn.page, "now")
    browser.until(lambda: browser.text("#live") == "Live", "the page to be live")
    barn.kill()
    browser.shows("The connection with the gateway is lost.", "s old", selector="#lost")
    browser.until(lambda: browser.text("#live") == "Not connected", "the sign above to say so")
    age = browser.text("#lost")
    browser.until(lambda: browser.text("#lost") != age, "the age to grow")
    assert "Session" in browser.text(), "the last figures stay"
    barn.start()
    browser.until(
        lambda: browser.text("#live") == "Live" and not browser.text("#lost"), "the connection to be regained"
    )
    assert not browser.errors()


def test_a_page_that_was_asked_for_in_vain_is_shown_when_the_gateway_is_back(barn: Barn, browser: Browser) -> None:
    barn.publish(READING)
    browser.open(barn.page, "now")
    browser.until(lambda: browser.text("#live") == "Live", "the page to be live")
    barn.until(lambda: barn.sql("SELECT 1 FROM events"), "the event to be stored")
    barn.kill()
    browser.go("events?before=99")
    browser.shows("The gateway can't be reached from here.")
    barn.start()
    browser.shows("temperature.reading", selector="tbody")
    assert "can't be reached" not in browser.text()


def test_after_an_upgrade_the_page_is_the_new_one(barn: Barn, browser: Browser) -> None:
    browser.open(barn.page, "now")
    browser.script("window.stayed = true")
    barn.stop()
    barn.command = (sys.executable, "-c", UPGRADED)
    barn.start()
    browser.shows("99.0")
    browser.until(lambda: browser.script("return window.stayed") is None, "the page to be loaded again")
    browser.until(lambda: browser.text("#live") == "Live", "the new page to be live")


def test_what_is_wrong_stands_first_and_goes_when_it_is_over(barn: Barn, browser: Browser, broker: Mosquitto) -> None:
    browser.open(barn.page, "now")
    browser.shows("connected")
    broker.stop()
    browser.shows("No connection with the broker", "since", "edgeq doctor", selector=".troubles li:first-child")
    browser.go("flow")
    browser.shows("Broker", "Routes", "Store")
    assert browser.all(".box.bad[aria-label*='127.0.0.1']"), "the broker's box says that something is wrong"
    browser.go("now")
    broker.start()
    browser.until(lambda: "No connection" not in browser.text(), "the trouble to be over")
    assert not browser.errors()
