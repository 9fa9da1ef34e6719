"""Each view of the page shows what there is, on any screen, whatever it may say; and says what there could be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.barn import Barn
from support.browser import Browser
from support.mosquitto import Mosquitto, free_port

VIEWS = {
    "now": ("things need attention", "freezer-cold is violated", "critical, by freezer-2", "connected", "Clock"),
    "flow": ("Broker", "doors/{door}/state", "sentinel", "courier", "queue default", "screen"),
    "routes": ("sensors/{device}/temperature", "cameras/{camera}/snapshot"),
    "processors": ("sentinel", "courier", "running", "none"),
    "contracts": ("freezer-cold", "The freezers stay cold.", "violated", "freezer-2", "-11.5"),
    "notifications": ("screen", "siren", "freezer-cold", "sent", "dead"),
    "jobs": ("default", "video", "barn:Snapshot", "the camera is off"),
    "dead-letters": ("doors/front/state", "intake", "ajar"),
    "events?type=power.reading&field=watts": ("power.reading", "pump", "watts of power.reading"),
}
SMALL = """return [...document.querySelectorAll("button, input, select")].filter((each) => each.checkVisibility())
    .map((each) => each.getBoundingClientRect()).filter((box) => box.height < 24 || box.width < 24).length"""
ASTRAY = """return [...document.querySelectorAll("td")].filter((td) => getComputedStyle(td).display === "grid")
    .flatMap((td) => [...td.children].filter((each) => each.offsetLeft < td.offsetLeft + 90))
    .map((each) => each.textContent)"""
CLOSED = ("doors/back/state", '{"state": "closed"}')
WIDTH = "return document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def barn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Barn]:
    folder = tmp_path_factory.mktemp("barn")
    broker = Mosquitto(folder / "mosquitto", "max_queued_messages 0", "max_inflight_messages 0")
    made = Barn(folder / "barn", broker)
    try:
        broker.start()
        made.start()
        made.fill()
        yield made
    finally:
        made.kill()
        broker.kill()


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_shows_what_there_is(barn: Barn, browser: Browser, view: str) -> None:
    browser.open(barn.page, view)
    browser.shows(*VIEWS[view])
    assert browser.script("document.querySelectorAll('h1').length") == 1
    assert browser.all(f"nav a[aria-current=page][href='#{view.partition('?')[0]}']")
    controls = [each for each in browser.all("button, a[href], input, select, svg[role]") if each.is_displayed()]
    assert not [each.get_attribute("outerHTML") for each in controls if not each.accessible_name]
    assert browser.script(SMALL) == 0
    assert browser.hosts() == {barn.host}
    assert not browser.errors()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_view_fits_a_small_telephone(barn: Barn, browser: Browser, view: str, dark: bool) -> None:
    browser.resize(320, 640, dark=dark)
    try:
        browser.open(barn.page, view)
        browser.shows(*VIEWS[view][:1])
        assert browser.script(WIDTH) <= 320
        assert browser.script(ASTRAY) == [], "it stands below its label and not beside it"
        red, green, blue = browser.script("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")[
            :3
        ]
        assert (red + green + blue < 3 * 80) is dark
    finally:
        browser.resize()


def test_nothing_moves_for_who_wants_it_still(barn: Barn, browser: Browser) -> None:
    moving = (
        "return [...document.querySelectorAll('.wire.moving')].map((each) => getComputedStyle(each).animationName)[0]"
    )
    try:
        for still in (False, True):
            browser.resize(still=still)
            browser.open(barn.page, "flow")
            name = browser.until(lambda: browser.script(moving) or barn.publish(CLOSED), "something to flow")
            assert (name == "none") is still
    finally:
        browser.resize()


def test_an_address_that_somebody_has_garbled_shows_something(barn: Barn, browser: Browser) -> None:
    for view in ("%", "events/%zz", "constructor", "events?span=%00&field[]=1", "jobs/-1"):
        browser.open(barn.page, view)
        assert not [each for each in browser.errors() if "status of 4" not in each]


def test_the_views_are_reached_from_each_other_and_the_way_back_works(barn: Barn, browser: Browser) -> None:
    browser.resize(360, 740)
    try:
        browser.open(barn.page, "now")
        assert browser.named("Menu").get_attribute("aria-expanded") == "false"
        browser.click("Menu")
        browser.click("Dead letters", "nav a")
        browser.shows("What could not be handled")
        assert browser.script("document.activeElement.tagName") == "H1", "a screen reader begins at the heading"
        browser.click("doors/front/state", "main a")
        browser.shows("Dead letter #1", '{"state": "ajar"}')
        browser.script("history.back()")
        browser.shows("What could not be handled")
        assert not browser.errors()
    finally:
        browser.resize()


def test_an_event_shows_its_data_and_what_came_of_it(barn: Barn, browser: Browser) -> None:
    browser.open(barn.page, "events?type=contract.violated")
    browser.click("contract.violated", "tbody a")
    browser.shows("What caused it", "temperature.reading freezer-2", '"contract": "freezer-cold"')
    browser.click("#4 temperature.reading", ".chain a")
    browser.shows("Event #4", "-11.5", "What it caused", "contract.violated freezer-2")


def test_a_chart_of_any_number_can_be_read_by_keyboard(barn: Barn, browser: Browser) -> None:
    browser.open(barn.page, "events?type=power.*&subject=pu*&field=watts")
    browser.shows("watts of power.* about pu*")
    browser.tab_to("watts of power.*")
    browser.press("\ue012")  # the left arrow
    browser.until(lambda: browser.all(".cursor"), "a point to be marked")
    first = browser.script("document.activeElement.getAttribute('aria-valuetext')")
    browser.press("\ue012")
    browser.until(
        lambda: browser.script("document.activeElement.getAttribute('aria-valuetext')") != first, "the point before it"
    )
    assert browser.all(".chart .line")


def test_a_view_of_a_job_shows_all_of_it(barn: Barn, browser: Browser) -> None:
    browser.open(barn.page, "jobs/1")
    browser.shows("Job #1", "barn:Snapshot", "dead", "Arguments", "the camera is off")
    browser.go("jobs/99")
    browser.until(lambda: browser.all(".wrong"), "that there is no such job")


def test_where_nothing_is_configured_the_page_says_what_could_be(
    tmp_path: Path, broker: Mosquitto, browser: Browser
) -> None:
    port = free_port()
    configuration = f'gateway: bare\nmqtt: {{url: "{broker.url}"}}\nweb: {{listen: "127.0.0.1:{port}"}}\n'
    appliance = Appliance(tmp_path / "bare", configuration)
    try:
        appliance.start()
        for view, sentence in {
            "now": "No routes are configured",
            "routes": "No routes are configured.",
            "processors": "No processors are configured.",
            "contracts": "No contracts are configured.",
            "notifications": "No channels are configured.",
            "dead-letters": "There are no dead letters.",
            "events": "There are no events yet.",
        }.items():
            browser.open(f"http://127.0.0.1:{port}", view)
            browser.shows(sentence)
        assert "Nothing can be changed here: the configuration names no web.token." in browser.text("nav")
        assert not browser.errors()
    finally:
        appliance.kill()


HOSTILE = '<script>window.bitten=1</script><img src=x onerror="window.bitten=1"> \u202egnihton'


def test_whatever_a_message_says_stays_text(tmp_path: Path, broker: Mosquitto, browser: Browser) -> None:
    barn = Barn(tmp_path / "barn", broker)
    try:
        barn.start()
        topic = HOSTILE.replace("/", "")[:60]
        huge = "x" * 100_000
        barn.publish(
            (f"sensors/{topic}/temperature", f'{{"value": 1, "note": "{huge}"}}'),
            (f"doors/{topic}/state", HOSTILE + huge),
            (f"doors/{topic}/state", b"\xff\x00\x1b[31m" + HOSTILE.encode()),
        )
        barn.until(lambda: len(barn.sql("SELECT 1 FROM dead_letters")) == 2, "both dead letters")
        browser.resize(320, 640)
        for view in ("now", "routes", "events", "events/1", "dead-letters", "dead-letters/1", "dead-letters/2"):
            browser.open(barn.page, view)
            browser.until(lambda view=view: view in ("now", "routes") or browser.all(".item, .raw, tbody tr"), view)
            assert browser.script(WIDTH) <= 320, view
            assert browser.script(
                "return [window.bitten, document.querySelectorAll('main img, main script').length]"
            ) == [None, 0]
            assert "\u202e" not in browser.text()
            assert not browser.errors()
        browser.shows("⟨U+202E⟩", "⟨U+001B⟩", "<img src=x onerror=", selector=".raw")
    finally:
        browser.resize()
        barn.kill()
