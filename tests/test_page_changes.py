"""Changing something on the page: only with the token, by click and by keyboard; asked twice what can't be undone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from support.barn import TOKEN, Barn
from support.browser import Browser
from support.mosquitto import Mosquitto


@pytest.fixture
def barn(tmp_path: Path, broker: Mosquitto) -> Iterator[Barn]:
    made = Barn(tmp_path / "barn", broker)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def logged_in(browser: Browser, barn: Barn, view: str) -> None:
    """Open a view as somebody who has the token."""
    browser.open(barn.page, view)
    browser.click("Log in")
    browser.all("#token")[0].send_keys(TOKEN, Keys.ENTER)
    browser.shows("You may change things.", selector="nav")


def paused(barn: Barn, processor: str) -> bool:
    return bool(barn.sql("SELECT paused FROM cursors WHERE processor = ?", processor)[0][0])


def test_without_a_token_in_the_configuration_there_is_nothing_to_press(
    tmp_path: Path, broker: Mosquitto, browser: Browser
) -> None:
    barn = Barn(tmp_path / "barn", broker, token="")
    try:
        barn.start()
        browser.open(barn.page, "processors")
        browser.shows("courier")
        assert not browser.all("main button")
        assert "Nothing can be changed here: the configuration names no web.token." in browser.text("nav")
    finally:
        barn.kill()


def test_who_presses_a_button_is_asked_for_the_token_first(barn: Barn, browser: Browser) -> None:
    browser.open(barn.page, "processors")
    browser.click("Pause courier")
    browser.shows("the gateway wants to know that you may", selector="dialog")
    browser.all("#token")[0].send_keys("not-the-token-of-it", Keys.ENTER)
    browser.shows("the token is wrong", selector="dialog")
    assert not paused(barn, "courier")
    browser.all("#token")[0].send_keys(TOKEN, Keys.ENTER)
    browser.shows("courier is paused", selector="#notice")
    browser.named("Resume courier")
    assert paused(barn, "courier")
    browser.click("Log out")
    browser.shows("You look only.", selector="nav")


def test_where_looking_needs_the_token_the_page_asks_for_it(barn: Barn, browser: Browser) -> None:
    port = barn.page.rpartition(":")[2]
    barn.reload((barn.folder / "edgeq.yaml").read_text().replace(f'"127.0.0.1:{port}"', f'":{port}"'))
    browser.visit(barn.page)
    browser.shows("only to those who have the token", selector="dialog")
    assert "barn-1" not in browser.text("body")
    browser.click("Not now")
    browser.click("Log in")
    browser.all("#token")[0].send_keys(TOKEN, Keys.ENTER)
    browser.shows("barn-1", "Live", selector=".top")
    browser.shows("Session", "connected")


def test_when_the_session_is_over_the_page_says_so(barn: Barn, browser: Browser) -> None:
    logged_in(browser, barn, "processors")
    browser.forget()
    browser.click("Pause courier")
    browser.shows("That was not done: the token is missing or wrong", selector="#notice")
    browser.shows("You look only.", selector="nav")
    assert not paused(barn, "courier")


def test_a_processor_is_paused_and_resumed_by_keyboard_alone(barn: Barn, browser: Browser) -> None:
    browser.open(barn.page, "now")
    browser.press(Keys.TAB)
    assert browser.script("document.activeElement.textContent") == "Skip to the content"
    browser.tab_to("Processors")
    browser.press(Keys.ENTER)
    browser.named("Pause courier")
    browser.tab_to("Pause courier")
    assert browser.script("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"
    browser.press(Keys.ENTER)
    browser.until(lambda: browser.script("document.activeElement.id") == "token", "the field to have the focus")
    browser.press(*TOKEN, Keys.ENTER)
    browser.shows("courier is paused", selector="#notice")
    browser.named("Resume courier")
    browser.tab_to("Resume courier")
    browser.press(" ")
    browser.shows("courier goes on", selector="#notice")
    browser.named("Pause courier")
    assert not paused(barn, "courier")
    assert not browser.errors()


def test_a_dead_letter_is_redriven_by_click_and_discarded_by_keyboard(barn: Barn, browser: Browser) -> None:
    barn.publish(("doors/front/state", '{"state": "ajar"}'), ("doors/back/state", '{"state": "torn"}'))
    barn.reload((barn.folder / "edgeq.yaml").read_text().replace("closed: door.closed", "ajar: door.ajar"))
    logged_in(browser, barn, "dead-letters")
    browser.click("Redrive dead letter #1")
    browser.shows("Dead letter #1 gets another chance", selector="#notice")
    barn.until(
        lambda: barn.sql("SELECT 1 FROM dead_letters WHERE id = 1 AND redriven_at > 0"), "the letter to be redriven"
    )
    browser.tab_to("Discard dead letter #2")
    browser.press(Keys.ENTER)
    browser.shows("This can't be undone.", selector="dialog")
    browser.press(Keys.ESCAPE)
    browser.until(lambda: not browser.all("dialog"), "the question to go")
    assert barn.sql("SELECT 1 FROM dead_letters WHERE id = 2"), "it is still there"
    browser.tab_to("Discard dead letter #2")
    browser.press(Keys.ENTER)
    browser.shows("This can't be undone.", selector="dialog")
    browser.tab_to("Discard")
    browser.press(Keys.ENTER)
    browser.shows("Dead letter #2 is gone", selector="#notice")
    assert not barn.sql("SELECT 1 FROM dead_letters WHERE id = 2")
    assert not browser.errors()


def test_all_dead_letters_that_are_chosen_are_redriven_or_discarded_at_once(barn: Barn, browser: Browser) -> None:
    barn.publish(*(("doors/front/state", f'{{"state": "{state}"}}') for state in ("ajar", "ajar", "torn", "torn")))
    barn.publish(("sensors/a/temperature", b"\xff"))
    barn.reload((barn.folder / "edgeq.yaml").read_text().replace("closed: door.closed", "ajar: door.ajar"))
    logged_in(browser, barn, "dead-letters?reason=unmapped")
    browser.click("Redrive all 4 dead letters")
    browser.shows("Redrive 4 dead letters?", selector="dialog")
    browser.click("Redrive all", "dialog .danger")
    browser.shows("4 dead letters get another chance", selector="#notice")
    barn.until(
        lambda: barn.sql("SELECT id FROM dead_letters WHERE redriven_at > 0") == [(1,), (2,)], "two to be redriven"
    )
    browser.named("Discard all 2 dead letters")
    browser.click("Discard all 2 dead letters")
    browser.click("Discard all", "dialog .danger")
    browser.shows("2 dead letters are gone", selector="#notice")
    assert barn.sql("SELECT id FROM dead_letters WHERE redriven_at IS NULL") == [(5,)]
    assert not browser.errors()


def test_queues_jobs_and_notifications_are_changed_by_their_buttons(barn: Barn, browser: Browser) -> None:
    barn.fill()
    logged_in(browser, barn, "jobs")
    browser.click("Pause queue default")
    browser.shows("Queue default is paused", selector="#notice")
    browser.click("Try again job #1")
    browser.shows("Job #1 is to run again", selector="#notice")
    browser.click("Cancel job #1")
    browser.shows("Cancel job #1?", selector="dialog")
    browser.click("Cancel", "dialog .danger")
    browser.shows("Job #1 is cancelled", selector="#notice")
    assert barn.sql("SELECT state FROM jobs WHERE id = 1") == [("cancelled",)]
    browser.click("Resume queue default")
    browser.shows("Queue default goes on", selector="#notice")
    browser.go("notifications")
    browser.click("Try again")
    browser.shows("It is queued again", selector="#notice")
    browser.click("Acknowledge freezer-2")
    browser.shows("It is acknowledged", selector="#notice")
    assert barn.sql("SELECT 1 FROM threads WHERE acknowledged_at > 0")
    browser.until(
        lambda: not any(each.accessible_name.startswith("Acknowledge") for each in browser.all("main button")),
        "nothing to be left to acknowledge",
    )
    assert not browser.errors()


def test_what_was_discarded_where_it_was_read_is_told_in_the_list(barn: Barn, browser: Browser) -> None:
    barn.publish(("doors/front/state", '{"state": "ajar"}'))
    logged_in(browser, barn, "dead-letters/1")
    browser.click("Discard dead letter #1")
    browser.click("Discard", "dialog .danger")
    browser.shows("Dead letter #1 is gone", "There are no dead letters.")


def test_what_another_has_done_meanwhile_is_told(barn: Barn, browser: Browser) -> None:
    barn.publish(("doors/front/state", '{"state": "ajar"}'))
    logged_in(browser, barn, "dead-letters/1")
    assert barn.cli("dead-letters", "discard", "1").returncode == 0
    browser.click("Redrive dead letter #1")
    browser.shows("That was not done: there is no dead letter 1", selector="#notice")
