"""Logging in and out: the token in exchange for a cookie."""

from __future__ import annotations

from typing import TypedDict

import msgspec
from microdot import Response

from ..access import COOKIE, SESSION_SECONDS, Access
from ..operation import Call, Operation, Text
from ..replies import json_reply


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent to log in."""

    token: Text


class Allowed(TypedDict):
    """What the caller may do from now on."""

    may_change: bool


class Sessions:
    """Opens and ends sessions."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def operations(self) -> list[Operation]:
        """See api."""
        return [
            Operation(
                "POST", "/api/login", "Exchange the token for a session of 12 hours, a cookie.", self._login, Allowed,
                body=Login, need="nothing", refusals=(401, 403, 429),
            ),
            Operation(
                "POST", "/api/logout", "End the session.", self._logout, Allowed, need="nothing", refusals=(403,)
            ),
        ]  # fmt: skip

    async def _login(self, call: Call) -> Response:
        return _with_cookie(self._access.login(call.about, call.body.token), SESSION_SECONDS, call)

    async def _logout(self, call: Call) -> Response:
        self._access.logout(call.about)
        return _with_cookie("", 0, call)


def _with_cookie(session: str, seconds: int, call: Call) -> Response:
    secure = "; Secure" if call.about.headers.get("x-forwarded-proto") == "https" else ""
    cookie = f"{COOKIE}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    return json_reply({"may_change": bool(session)}, headers={"Set-Cookie": cookie})
