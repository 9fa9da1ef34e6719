"""Where the broker is: `mqtt.url`, taken apart. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of a broker; `tls` for mqtts://."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address in `mqtt://host[:port]` or `mqtts://host[:port]`. Raises ValueError with the reason."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"{url!r} is not a URL: {error}") from None
        if parts.scheme not in ("mqtt", "mqtts"):
            raise ValueError(f"{url!r} must begin with mqtt:// or mqtts://")
        if parts.username is not None:
            raise ValueError("has a user name in it: use mqtt.username and mqtt.password_file")
        if not host:
            raise ValueError(f"{url!r} names no host")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"{url!r} has something after the host and port")
        if port == 0:
            raise ValueError(f"{url!r} has the port 0")
        tls = parts.scheme == "mqtts"
        return cls(host, port or (8883 if tls else 1883), tls)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
