"""Links in notifications by which people acknowledge: `<public_url>/ack/<token>`.

A token says what it is about and when it was made, and is signed (HMAC-SHA256) with a key that the store keeps: nobody
can make one up, and who can read a notification can acknowledge it. It holds for TTL_SECONDS, also over restarts; the
links of another store, and so those from before a store was lost, don't.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Literal

import msgspec

from ..clock import MICROSECONDS
from ..store import meta
from ..store.store import Store
from .acknowledge import Told

TTL_SECONDS = 30 * 86400
TOKEN_CHARACTERS_MAX = 1000

_KEY = "acknowledge_key"
_PURPOSE = b"acknowledge:"
_decode = msgspec.json.Decoder(tuple[str, int | None, int]).decode


async def signing_key(store: Store) -> bytes:
    """The key of this store, made when it is first asked for. Raises StoreError."""
    text = await meta.get(store, _KEY)
    if text is None:
        made = secrets.token_hex(32)
        text = await store.write(lambda tx: meta.keep(tx, _KEY, made))
    return text.encode()


class Links:
    """Makes links that begin with `public_url`, and reads their tokens."""

    def __init__(self, public_url: str, key: bytes) -> None:
        self._root = f"{public_url.rstrip('/')}/ack/"
        self._key = key

    def url(self, told: Told, now: int) -> str:
        """A link to acknowledge what was told, made at `now` (microseconds since 1970 UTC)."""
        about = msgspec.json.encode((told.fingerprint, told.event_id, now // MICROSECONDS))
        words = _encoded(about)
        return f"{self._root}{words}.{self._mac(words)}"

    def read(self, token: str, now: int) -> Told | Literal["expired"] | None:
        """What a token is about; None when it is none of ours."""
        words, _, mac = token.partition(".")
        if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
            return None
        if not hmac.compare_digest(mac.encode(), self._mac(words).encode()):
            return None
        fingerprint, event_id, made_at = _decode(base64.urlsafe_b64decode(words + "=" * (-len(words) % 4)))
        if now // MICROSECONDS - made_at > TTL_SECONDS:
            return "expired"
        return Told(fingerprint, event_id)

    def _mac(self, words: str) -> str:
        return _encoded(hmac.digest(self._key, _PURPOSE + words.encode(), hashlib.sha256))


def _encoded(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")
