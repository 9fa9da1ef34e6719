"""The page behind a link: served by a real appliance, read by a real client and, where there is one, a browser."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest
from support.appliance import DEADLINE_SECONDS, Appliance
from support.mosquitto import free_port
from websockets.sync.client import connect

from edgeq.notifications.acknowledge import Told
from edgeq.notifications.links import TTL_SECONDS, Links

CONFIGURATION = """
gateway: gw
mqtt: {{url: "mqtt://127.0.0.1:1"}}
store: {{url: edgeq.db}}
channels: {{box: {{kind: inbox}}}}
notifications: {{public_url: "http://127.0.0.1:{port}", routes: [{{channels: [box], repeat: [1h]}}]}}
web: {{listen: "127.0.0.1:{port}"}}
"""
SAID = "<script>alert(1)</script> & \"more\" <img src=x onerror='alert(2)'>"


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


class Gateway:
    """An appliance that serves pages."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.edgeq = Appliance(folder, CONFIGURATION.format(port=self.port))

    def start(self, **environment: str) -> None:
        self.edgeq.spawn(**environment)
        self.edgeq.until(self.listens, "the page")

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=60).close()
        except OSError:
            return False
        return bool(self.edgeq.status().get("running", True))

    def happens(self, what: str = "violated", subject: str = "f1") -> None:
        """`contract.<what>` happens, and is told."""
        data = {"contract": "cold", "episode": 1, "severity": "warning", "message": SAID}
        begun = "SELECT 1 FROM cursors WHERE processor = 'courier'"  # what is there before, it doesn't tell of
        self.edgeq.until(lambda: self.edgeq.sql(begun), "the courier")
        count = self.told()
        words = ("--data", json.dumps(data), "--subject", subject, "--tag", "notification")
        done = self.edgeq.cli("emit", f"contract.{what}", *words)
        assert done.returncode == 0, done.stderr
        self.edgeq.until(lambda: self.told() > count, "the notification")

    def told(self) -> int:
        rows = self.edgeq.sql("SELECT count(*) FROM notifications")
        return int(rows[0][0]) if rows else 0

    def link(self) -> str:
        """The path of the link in the first notification."""
        (detail,) = self.edgeq.sql("SELECT detail FROM notifications ORDER BY id LIMIT 1")[0]
        url = json.loads(detail)["ack_url"]
        prefix = f"http://127.0.0.1:{self.port}"
        assert url.startswith(f"{prefix}/ack/")
        return str(url.removeprefix(prefix))

    def key(self) -> bytes:
        (value,) = self.edgeq.sql("SELECT value FROM meta WHERE key = 'acknowledge_key'")[0]
        return str(value).encode()

    def ask(self, method: str, path: str, body: str | None = None) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {} if body is None else {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            text = response.read().decode()
            return Answered(response.status, {name.lower(): value for name, value in response.getheaders()}, text)
        finally:
            connection.close()

    def raw(self, octets: bytes) -> bytes:
        """What is answered to these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(octets)
            answer = b""
            try:
                while more := connection.recv(65536):
                    answer += more
            except ConnectionResetError:
                pass
            return answer

    def acknowledged(self) -> list[str]:
        rows = self.edgeq.sql("SELECT data FROM events WHERE type = 'notification.acknowledged'")
        return [json.loads(data)["by"] for (data,) in rows]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path)
    yield made
    made.edgeq.kill()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway, with something open, for all that changes nothing."""
    made = Gateway(tmp_path_factory.mktemp("gateway"))
    try:
        made.start()
        made.happens()
        yield made
        assert not made.acknowledged()
    finally:
        made.edgeq.kill()


def test_to_open_the_link_shows_it_and_the_button_acknowledges(gateway: Gateway) -> None:
    gateway.start()
    gateway.happens()
    link = gateway.link()
    for method in ("GET", "HEAD", "GET"):  # a program that looks at links in mails
        assert gateway.ask(method, link).status == 200
    assert not gateway.acknowledged()
    shown = gateway.ask("GET", link)
    assert "<button>Acknowledge</button>" in shown.text
    assert "told by gw" in shown.text

    done = gateway.ask("POST", link, "by=Ann+Lee+%3Cb%3E")
    assert done.status == 200
    assert "<title>Acknowledged</title>" in done.text
    assert gateway.acknowledged() == ["Ann Lee <b>"]
    for method in ("GET", "POST"):
        again = gateway.ask(method, link, "by=Bob" if method == "POST" else None)
        assert "Already acknowledged" in again.text
        assert "Ann Lee &lt;b&gt;" in again.text
        assert "<button>" not in again.text
    assert gateway.acknowledged() == ["Ann Lee <b>"]

    gateway.happens("resolved")
    for method in ("GET", "POST"):
        assert "It is over" in gateway.ask(method, link).text


def test_a_link_holds_over_a_restart(gateway: Gateway) -> None:
    gateway.start()
    gateway.happens()
    link = gateway.link()
    gateway.edgeq.kill()
    gateway.start()
    assert "<button>" in gateway.ask("GET", link).text
    gateway.ask("POST", link, "by=ann")
    gateway.edgeq.kill()
    gateway.start()
    assert "Already acknowledged" in gateway.ask("GET", link).text


def test_of_many_who_press_the_button_at_once_one_is_the_first(gateway: Gateway) -> None:
    gateway.start()
    gateway.happens()
    link = gateway.link()
    texts: list[str] = []
    people = [
        threading.Thread(target=lambda number=number: texts.append(gateway.ask("POST", link, f"by=nr{number}").text))
        for number in range(20)
    ]
    for each in people:
        each.start()
    for each in people:
        each.join()
    assert sum("<title>Acknowledged</title>" in text for text in texts) == 1
    assert sum("<title>Already acknowledged</title>" in text for text in texts) == 19
    assert len(gateway.acknowledged()) == 1


def test_the_page_runs_nothing_loads_nothing_and_is_kept_nowhere(serving: Gateway) -> None:
    shown = serving.ask("GET", serving.link())
    assert "&lt;script&gt;alert(1)" in shown.text
    assert not re.search(r"<(script|img|link|iframe)|onerror='", shown.text)
    for page in (
        shown,
        serving.ask("GET", "/nothing"),
        serving.ask("GET", "/ack/x"),
        serving.ask("PUT", serving.link()),
    ):
        policy = page.headers["content-security-policy"]
        assert {"default-src 'none'", "frame-ancestors 'none'", "form-action 'self'"} <= set(policy.split("; "))
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["content-type"] == "text/html; charset=UTF-8"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_forged_truncated_and_expired_links(serving: Gateway, method: str) -> None:
    link = serving.link()
    other = "A" if link[-1] != "A" else "B"
    for forged in (
        f"{link[:-1]}{other}",
        link[:-1],
        link[: len(link) // 2],
        f"{link}A",
        "/ack/x",
        "/ack/.",
        "/ack/%00",
    ):
        answer = serving.ask(method, forged)
        assert (answer.status, "Unknown link" in answer.text) == (404, True), forged
    (fingerprint,) = serving.edgeq.sql("SELECT fingerprint FROM threads")[0]
    links, now = Links("", serving.key()), 1_700_000_000_000_000
    old = serving.ask(method, links.url(Told(fingerprint, 1), now - TTL_SECONDS * 1_000_000))
    assert (old.status, "too old" in old.text) == (410, True)


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"GET /ack/x HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
        (b"X" * 100_000, b"431"),
        (b"POST /ack/x HTTP/1.1\r\nContent-Length: 5000\r\n\r\n", b"413"),
        (b"POST /ack/x HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", b"400"),
        (b"POST /ack/x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /ack/x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
        (b"POST /ack/x HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\nab", b"400"),
        (b"POST /ack/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"GET\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"GET /ack/x\r\n\r\n", b"400"),
        (b"GET /ack/x HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"\xff\xfe /ack/x HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"400"),
        (b"GET /ack/x HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /ack/a/b HTTP/1.1\r\n\r\n", b"404"),
        (b"GET http://elsewhere/ack/x HTTP/1.1\r\n\r\n", b"404"),
        (b"DELETE /ack/x HTTP/1.1\r\n\r\n", b"405"),
    ],
)
def test_what_is_no_good_request_is_refused(serving: Gateway, octets: bytes, status: bytes) -> None:
    assert serving.raw(octets)[9:12] == status
    assert "Traceback" not in serving.edgeq.log
    assert serving.ask("GET", serving.link()).status == 200


def test_a_form_with_anything_in_it_is_taken(gateway: Gateway) -> None:
    gateway.start()
    gateway.happens()
    answer = gateway.ask("POST", gateway.link(), "by=%ff%fe%00%ED%A0%80&by=x&&=&" + "y" * 3000)
    assert answer.status == 200
    assert "Traceback" not in gateway.edgeq.log
    assert len(gateway.acknowledged()) == 1


def test_who_only_holds_the_line_keeps_nobody_out_for_long(serving: Gateway) -> None:
    idle = [socket.create_connection(("127.0.0.1", serving.port), timeout=60) for _ in range(32)]
    try:
        idle[0].sendall(b"GET / HT")
        assert serving.raw(b"GET / HTTP/1.1\r\n\r\n")[9:12] == b"503"
        assert idle[0].recv(4096)[9:12] == b"408"
    finally:
        for each in idle:
            each.close()
    serving.edgeq.until(lambda: serving.ask("GET", serving.link()).status == 200, "room")


def test_killed_in_the_moment_of_the_button_it_is_done_or_not(gateway: Gateway) -> None:
    gateway.start()
    gateway.happens()
    link = gateway.link()
    asking = threading.Thread(target=lambda: _any_error(gateway, link))
    asking.start()
    gateway.edgeq.send(signal.SIGKILL)
    gateway.edgeq.ended()
    asking.join()
    gateway.start()
    done = bool(gateway.edgeq.sql("SELECT * FROM threads WHERE acknowledged_at"))
    assert len(gateway.acknowledged()) == done
    gateway.ask("POST", link, "by=ann")
    assert len(gateway.acknowledged()) == 1


def _any_error(gateway: Gateway, link: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        gateway.ask("POST", link, "by=early")


def test_an_address_that_is_taken_is_said_and_had_when_it_is_free(gateway: Gateway) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", gateway.port))
        other.listen()
        gateway.edgeq.spawn()
        gateway.edgeq.until(lambda: "can't listen on" in gateway.edgeq.log, "the error")
    gateway.edgeq.until(gateway.listens, "the page")
    assert "Traceback" not in gateway.edgeq.log


def test_without_web_listen_nothing_listens(gateway: Gateway) -> None:
    configuration = CONFIGURATION.format(port=gateway.port)
    gateway.edgeq.configure(re.sub(r"web: .*|public_url: \S+ ", "", configuration))
    gateway.edgeq.spawn()
    gateway.edgeq.until(lambda: gateway.edgeq.status().get("running", True), "its start")
    gateway.happens()
    assert not gateway.listens()
    assert not gateway.edgeq.sql("SELECT * FROM notifications WHERE detail LIKE '%ack_url%'")


def test_links_need_somebody_who_listens(gateway: Gateway) -> None:
    gateway.edgeq.configure(re.sub("web: .*", "", CONFIGURATION.format(port=gateway.port)))
    done = gateway.edgeq.cli("check")
    assert done.returncode == 78
    assert "edgeq.yaml:6: notifications.public_url: needs web.listen as well" in done.stderr


def test_in_a_browser(gateway: Gateway) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium isn't installed: apt-get install chromium")
    gateway.start()
    gateway.happens()
    with browser(chromium, gateway.edgeq.folder / "browser", f"http://127.0.0.1:{gateway.port}{gateway.link()}") as tab:
        gateway.edgeq.until(lambda: tab("document.querySelector('h1')?.textContent") == SAID, "the page")
        assert tab("getComputedStyle(document.querySelector('button')).boxSizing") == "border-box", (
            "the style is refused"
        )
        assert not gateway.acknowledged()
        tab("document.querySelector('#by').value = 'ann'; document.querySelector('button').click()")
        gateway.edgeq.until(lambda: tab("document.title") == "Acknowledged", "the answer")
    assert gateway.acknowledged() == ["ann"]


@contextlib.contextmanager
def browser(program: str, folder: Path, url: str) -> Iterator[Callable[[str], Any]]:
    """A tab with that page; a call returns what JavaScript comes to in it, None while there is no page."""
    words = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0")
    process = subprocess.Popen([program, *words, f"--user-data-dir={folder}", url], stderr=subprocess.DEVNULL)
    try:
        port = until(lambda: (folder / "DevToolsActivePort").read_text().split()[0])
        page = until(lambda: page_at(port))
        with connect(page["webSocketDebuggerUrl"]) as line:
            numbers = itertools.count(1)

            def tab(expression: str) -> Any:
                number = next(numbers)
                message = {"id": number, "method": "Runtime.evaluate", "params": {"expression": expression}}
                line.send(json.dumps(message))
                while (answer := json.loads(line.recv(timeout=60))).get("id") != number:
                    pass
                return answer.get("result", {}).get("result", {}).get("value")

            until(lambda: (tab("document.readyState") == "complete" and tab("location.href") == url) or None)
            yield tab
    finally:
        process.kill()
        process.wait(60)


def page_at(port: str) -> dict[str, Any] | None:
    """The browser listens before its first tab is there."""
    with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=60) as answer:
        return next((each for each in json.load(answer) if each["type"] == "page"), None)


def until(look: Callable[[], Any]) -> Any:
    """What `look` returns as soon as it is something."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, IndexError):
            if (found := look()) is not None:
                return found
        time.sleep(0.01)
    raise AssertionError(f"waited {DEADLINE_SECONDS:g}s")
