"""TLS towards a channel's target: certificates are always checked."""

from __future__ import annotations

import os
import ssl
from typing import Annotated


def _authority(path: str) -> None:
    if not os.path.isabs(path):
        raise ValueError("must be an absolute path, such as /etc/edgeq/ca.pem")
    try:
        context(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"must be a readable file with certificates in PEM form ({reason})") from None


CaFile = Annotated[str, _authority]


def context(ca: str | None) -> ssl.SSLContext:
    """Trusts the certificates in the file `ca`, else those that the system trusts. Made anew for each connection: what
    it holds of the system's is more than edgeq should hold while nothing is sent."""
    return ssl.create_default_context(cafile=ca)
