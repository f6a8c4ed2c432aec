"""A real OIDC issuer for tests (`oidc-provider` on Node), and a person who signs in there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path

import httpx
from joserfc.jwk import KeySet, RSAKey

from harness.certificates import ServerCertificates
from harness.children import PATIENCE
from harness.environment import SCRIPTS, free_port

FOLDER = Path(__file__).parent / "oidc"
SECRET = "a secret: of+ours"


_FORM = re.compile(r"<form[^>]*>.*?</form>", re.DOTALL)
_ACTION = re.compile(r'action="([^"]*)"')
_INPUT = re.compile(r"<input[^>]*>")
_NAME = re.compile(r'name="([^"]*)"')
_VALUE = re.compile(r'value="([^"]*)"')


def why_not() -> str:
    """Return why the issuer cannot run here; empty if it can. In CI, it must run."""
    if os.environ.get("CI") == "true" or (FOLDER / "node_modules").exists():
        return ""
    return "The issuer is not installed: `make .venv/.installed-issuer` does that."


@dataclass
class OidcIssuer:
    """An issuer, which can be ended and started again with other keys."""

    folder: Path
    certificates: ServerCertificates | None = None
    """Certificates for TLS; None: plain HTTP."""
    form_only: bool = False
    """Whether it takes a client's id from the form alone at a login's begin, as Dex does."""
    host: str = "127.0.0.1"
    """The host in its URL. The issuer runs on this machine in any case."""
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.certificates else 'http'}://{self.host}:{self.port}"

    def turn_keys(self) -> None:
        """Have the issuer sign with another key from its next start on."""
        key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
        self.folder.mkdir(exist_ok=True)
        found = json.dumps(KeySet([key]).as_dict(private=True))
        (self.folder / "keys.json").write_text(found)

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        if not (self.folder / "keys.json").exists():
            self.turn_keys()
        node = shutil.which("node", path=f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}")
        assert node is not None, "there is no node, which the locked environment has"
        told: dict[str, str | bool] = {"port": str(self.port), "formOnly": self.form_only}
        told["host"], told["keys"] = self.host, str(self.folder / "keys.json")
        if self.certificates is not None:
            told["certificate"] = str(self.certificates.certificate)
            told["key"] = str(self.certificates.key)
        self.process = await asyncio.create_subprocess_exec(
            *(node, str(FOLDER / "issuer.mjs"), json.dumps(told)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # `node` may be a script that starts Node.
            start_new_session=True,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while line := await self.process.stdout.readline():
                if line.strip() == b"ready":
                    return
        raise AssertionError("the issuer has ended at its start")

    async def stop(self) -> None:
        """End the issuer, which forgets all logins."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
            self.process = None


async def sign_in(url: str, name: str, certificates: ServerCertificates | None = None) -> str:
    """Do what a person does on the issuer's pages; return the last page."""
    ca = str(certificates.ca_certificate) if certificates else None
    context = ssl.create_default_context(cafile=ca)
    async with httpx.AsyncClient(follow_redirects=True, verify=context) as browser:
        page = await browser.get(url)
        for _ in range(6):
            form = _FORM.search(page.text)
            if form is None:
                break
            action = _ACTION.search(form[0])
            target = page.url.join(unescape(action[1])) if action else page.url
            page = await browser.post(target, data=_filled_in(form[0], name))
        return page.text


def _filled_in(form: str, name: str) -> Mapping[str, str]:
    fields = {}
    for found in _INPUT.findall(form):
        if named := _NAME.search(found):
            value = _VALUE.search(found)
            fields[named[1]] = unescape(value[1]) if value else ""
    return {**fields, **{one: name for one in ("login", "password") if one in fields}}
