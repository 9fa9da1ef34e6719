"""A certificate authority of a test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """Makes certificates with the openssl command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.ca = str(folder / "ca.pem")
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=edgeq test authority",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",  # Python 3.13 wants it
        )  # fmt: skip

    def certificate(self, name: str, alternatives: str, days: int = 2) -> tuple[str, str]:
        """A certificate, valid for so many days, and its key."""
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
        )  # fmt: skip
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={alternatives}\nauthorityKeyIdentifier=keyid\n")
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", str(days), "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    def encrypted(self, key: str) -> str:
        """A copy of `key` that asks for a pass phrase."""
        self._openssl("ec", "-in", key, "-aes256", "-passout", "pass:secret", "-out", "encrypted.key")
        return str(self.folder / "encrypted.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)
