"""Who may do what at the interface: the token, sessions, names of the machine, and how often one may try."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.config.load import load
from edgeq.errors import ConfigError
from edgeq.testing import FakeClock
from edgeq.web.access import SESSION_SECONDS, TRIES, Access, Asked, Need
from edgeq.web.replies import Refusal

TOKEN = "a-token-of-some-length"
LOCAL, OPEN = "127.0.0.1:8321", ":8321"


def made(listen: str = LOCAL, token: str | None = TOKEN, clock: FakeClock | None = None) -> Access:
    return Access(listen, token, "https://gw.example.net/edgeq", clock or FakeClock())


def asked(session: str = "", client: str = "127.0.0.1", **headers: str) -> Asked:
    given = {name.replace("_", "-"): value for name, value in {"host": "127.0.0.1:8321", **headers}.items()}
    return Asked(given, {"edgeq_session": session} if session else {}, client)


def refused(access: Access, about: Asked, need: Need) -> int:
    """The status with which it is refused; 0 when it isn't."""
    try:
        access.caller(about, need)
    except Refusal as refusal:
        return refusal.status
    return 0


BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("host", ["127.0.0.1:8321", "localhost", "LOCALHOST:8321", "[::1]:8321", "127.1.2.3"])
def test_reading_is_free_on_this_machine(host: str) -> None:
    assert refused(made(), asked(host=host), "read") == 0
    assert refused(made(token=None), asked(host=host), "read") == 0
    assert refused(made(), asked(host=host), "change") == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8321", "", "127.0.0.1@evil"])
def test_a_page_whose_name_was_made_to_lead_here_reads_nothing(host: str) -> None:
    assert refused(made(), asked(host=host), "read") == 421
    assert refused(made(), asked(host=host, **BEARER), "read") == 0, "who has the token is no such page"


@pytest.mark.parametrize(
    "way",
    [{"host": "gw.example.net"}, {"x_forwarded_for": "192.0.2.1"}, {"forwarded": "for=192.0.2.1"}, {"via": "1.1 x"}],
)
def test_what_comes_through_a_proxy_needs_the_token(way: dict[str, str]) -> None:
    assert refused(made(), asked(**way), "read") == 401
    assert refused(made(token=None), asked(**way), "read") == 403
    assert refused(made(), asked(**way, **BEARER), "read") == 0


def test_at_an_open_listener_everything_needs_the_token_but_health() -> None:
    access = made(OPEN)
    for need, expected in (("nothing", 0), ("read", 401), ("change", 401)):
        assert refused(access, asked(host="gw.lan"), need) == expected  # type: ignore[arg-type]
    assert refused(access, asked(host="gw.lan", **BEARER), "change") == 0
    assert access.needs_token(asked())
    assert not made().needs_token(asked())


def test_without_a_token_nobody_changes_anything() -> None:
    access = made(token=None)
    assert refused(access, asked(), "change") == 403
    assert refused(access, asked(authorization="Bearer "), "change") == 403
    with pytest.raises(Refusal, match=r"web\.token_file"):
        access.login(asked(), "")


@pytest.mark.parametrize("sent", ["Bearer wrong", f"Basic {TOKEN}", "Bearer", TOKEN, f"Bearer {TOKEN}x", "Bearer é"])
def test_a_wrong_token_is_no_token(sent: str) -> None:
    assert refused(made(), asked(authorization=sent), "change") == 401
    assert refused(made(), asked(authorization=sent), "read") == 401


def test_a_session_reads_everywhere_and_changes_with_the_header() -> None:
    access = made(OPEN)
    session = access.login(asked(host="gw.lan"), TOKEN)
    about = {"host": "gw.lan", "session": session}
    assert refused(access, asked(**about), "read") == 0
    assert refused(access, asked(**about), "change") == 403
    assert refused(access, asked(**about, x_edgeq="1"), "change") == 0
    assert refused(access, asked(**about, x_edgeq="1", origin="http://gw.lan"), "change") == 0
    for origin in ("http://evil.example", "null", "http://gw.lan.evil.example", "http://gw.lan:81"):
        assert refused(access, asked(**about, x_edgeq="1", origin=origin), "change") == 403, origin
    forged = session[:-1] + ("A" if session[-1] != "A" else "B")
    assert refused(access, asked(host="gw.lan", session=forged), "read") == 401
    assert refused(made(OPEN, TOKEN + "2"), asked(**about), "read") == 401, "the token is another one"
    assert refused(made(OPEN, TOKEN), asked(**about), "read") == 0, "edgeq was started anew"


def test_a_session_ends() -> None:
    clock = FakeClock()
    access = made(OPEN, clock=clock)
    first, second = (access.login(asked(), TOKEN) for _ in range(2))
    access.logout(asked(session=first))
    assert [refused(access, asked(session=each), "read") for each in (first, second)] == [401, 0]
    clock.step(-1)
    assert refused(access, asked(session=second), "read") == 401, "one of the future is none"
    clock.step(SESSION_SECONDS)
    assert refused(access, asked(session=second), "read") == 0
    clock.step(1)
    assert refused(access, asked(session=second), "read") == 401


def test_pages_of_others_log_nobody_in_or_out() -> None:
    access = made()
    session = access.login(asked(), TOKEN)
    evil = asked(session=session, origin="http://evil.example")
    with pytest.raises(Refusal, match="none of our pages"):
        access.login(evil, TOKEN)
    with pytest.raises(Refusal, match="none of our pages"):
        access.logout(evil)
    assert refused(access, asked(session=session), "read") == 0


def test_wrong_tokens_are_slowed_down_by_address() -> None:
    clock = FakeClock()
    access = made(OPEN, clock=clock)
    wrong = asked(client="192.0.2.1", authorization="Bearer wrong-token-of-somebody")
    right = asked(client="192.0.2.1", **BEARER)
    session = access.login(right, TOKEN)
    assert [refused(access, wrong, "read") for _ in range(TRIES + 2)] == [401] * TRIES + [429] * 2
    assert refused(access, right, "read") == 429, "it would tell which one was right"
    with pytest.raises(Refusal) as too_many:
        access.login(right, TOKEN)
    assert too_many.value.status == 429
    assert refused(access, asked(client="192.0.2.1", session=session), "read") == 0, "who is known stays so"
    assert refused(access, asked(client="192.0.2.2", **BEARER), "read") == 0, "others have tries of their own"
    clock.advance(float(too_many.value.headers["Retry-After"]))
    assert refused(access, right, "read") == 0
    assert [refused(access, right, "read") for _ in range(3 * TRIES)] == [0] * 3 * TRIES, "a right one costs nothing"


@pytest.mark.parametrize("listen", [":8321", "0.0.0.0:8321", "[::]:8321", "192.0.2.1:8321", "gw.lan:8321"])
def test_a_listener_that_others_reach_needs_a_token(tmp_path: Path, listen: str) -> None:
    path = tmp_path / "edgeq.yaml"
    path.write_text(f'web: {{listen: "{listen}"}}\n')
    with pytest.raises(ConfigError, match=r"edgeq.yaml:1: web.listen: needs token_file as well"):
        load(str(path))
    path.write_text(f'web: {{listen: "{listen}", token: "{TOKEN}"}}\n')
    assert load(str(path)).config.web.listen == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:8321", "[::1]:8321", "localhost:8321"])
def test_a_listener_of_this_machine_needs_none(tmp_path: Path, listen: str) -> None:
    path = tmp_path / "edgeq.yaml"
    path.write_text(f'web: {{listen: "{listen}"}}\n')
    assert load(str(path)).config.web.token is None
