"""An OIDC issuer, which identifies people: its device grant (RFC 8628), and its ID tokens.

Only superlinks talk to it. They trust only ID tokens that are signed with its keys.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from flower_nats.logs import get_logger
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.settings import OidcSettings

log = get_logger(__name__)

_ANSWER_SECONDS = 10.0
"""Seconds that the issuer has for an answer, because commands wait for it."""

_CONFIGURATION_SECONDS = 3600.0
"""Seconds after which the issuer's configuration is read again."""

_KEYS_PAUSE = 10.0
"""Seconds between two fetches of the keys, because anybody can send a token with an unknown key."""

_LEEWAY = 60
"""Seconds by which the clocks of the issuer and of superlinks may differ."""

# Only signatures by key pairs. With a shared secret, every verifier could also sign.
_ALGORITHMS = [
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
]

_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"

_DEFAULT_INTERVAL = 5
"""Seconds between two questions about a login, if the issuer sets no interval (RFC 8628, 3.2)."""

_WAITING = {"authorization_pending", "slow_down"}


@dataclass(frozen=True)
class DeviceGrant:
    """A login that the issuer has begun."""

    device_code: str
    page: str
    """The page where people sign in."""
    code: str
    """The code that people type there."""
    complete_page: str
    """The page with the code in its address; empty if the issuer has none."""
    seconds: float
    interval: int


@dataclass(frozen=True)
class Grant:
    """The issuer's answer about a person who has signed in."""

    claims: Mapping[str, Any]
    """The claims of the ID token; empty if a refresh gave none."""
    refresh_token: str
    """The refresh token; empty if the issuer gives none."""


class GrantRefused(Exception):
    """The issuer says no, for good."""


class GrantPending(Exception):
    """The person has not signed in yet."""

    def __init__(self, *, slow_down: bool) -> None:
        super().__init__("the person has not signed in yet")
        self.slow_down = slow_down


class Issuer:
    """One OIDC issuer."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._audience = settings.audience or settings.client_id
        self._context = _trust(settings.ca_certificate)
        self._configuration: Mapping[str, Any] = {}
        self._configured_at = float("-inf")
        self._proves_in_header = False
        self._keys: KeySet | None = None
        self._keys_at = float("-inf")
        self._fetching = asyncio.Lock()

    @property
    def url(self) -> str:
        """The issuer's own URL."""
        return self._settings.url

    async def begin(self) -> DeviceGrant:
        """Begin a login. Raises `ApiError` if the issuer does not answer as it should."""
        where = await self._where("device_authorization_endpoint")
        answer = await self._post(where, {"scope": self._settings.scopes})
        try:
            return DeviceGrant(
                device_code=answer["device_code"],
                page=answer["verification_uri"],
                code=answer["user_code"],
                complete_page=answer.get("verification_uri_complete", ""),
                seconds=float(answer["expires_in"]),
                interval=int(answer.get("interval", _DEFAULT_INTERVAL)),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise self._away(f"it begins no login: {_refusal(answer) or repr(exc)}") from exc

    async def poll(self, device_code: str) -> Grant:
        """Return the issuer's answer about a login. Raises `GrantPending` or `GrantRefused`."""
        return await self._grant({"grant_type": _DEVICE_GRANT, "device_code": device_code})

    async def refresh(self, refresh_token: str) -> Grant:
        """Return the issuer's present answer about a person. Raises `GrantRefused`."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        grant = await self._grant(form)
        return Grant(grant.claims, grant.refresh_token or refresh_token)

    async def _grant(self, form: Mapping[str, str]) -> Grant:
        answer = await self._post(await self._where("token_endpoint"), form)
        if (error := answer.get("error")) in _WAITING:
            raise GrantPending(slow_down=error == "slow_down")
        if error in {"invalid_client", "unauthorized_client", "unsupported_grant_type"}:
            raise self._away(f"it does not know this client: {_refusal(answer)}")
        if error is not None:
            raise GrantRefused(_refusal(answer))
        id_token = answer.get("id_token")
        claims = await self._verified(id_token) if isinstance(id_token, str) else {}
        return Grant(claims, str(answer.get("refresh_token") or ""))

    async def _verified(self, id_token: str) -> Mapping[str, Any]:
        """Return the claims of an ID token. Raises `GrantRefused` for an invalid one."""
        required = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY,
            iss={"essential": True, "value": self._settings.url},
            aud={"essential": True, "value": self._audience},
            sub={"essential": True},
            exp={"essential": True},
        )
        for are_new in (False, True):
            keys = await self._signing_keys(fresh=are_new)
            try:
                token = jwt.decode(id_token, keys, algorithms=_ALGORITHMS)
            except (JoseError, ValueError) as exc:
                # The issuer may have a new key.
                if are_new:
                    raise self._unproven(exc) from exc
                continue
            try:
                required.validate(token.claims)
            except JoseError as exc:
                raise self._unproven(exc) from exc
            return token.claims
        raise AssertionError("the second try has returned or raised")

    async def _signing_keys(self, *, fresh: bool) -> KeySet:
        async with self._fetching:
            too_soon = time.monotonic() - self._keys_at < _KEYS_PAUSE
            if self._keys is None or (fresh and not too_soon):
                found = await self._get(await self._where("jwks_uri"))
                try:
                    self._keys = KeySet.import_key_set(found)  # type: ignore[arg-type]
                except (JoseError, ValueError, KeyError, TypeError) as exc:
                    raise self._away(f"its keys cannot be read: {exc!r}") from exc
                self._keys_at = time.monotonic()
            return self._keys

    async def _where(self, name: str) -> str:
        """Return an address from the issuer's configuration."""
        if time.monotonic() - self._configured_at > _CONFIGURATION_SECONDS:
            url = f"{self._settings.url.rstrip('/')}/.well-known/openid-configuration"
            found = await self._get(url)
            if found.get("issuer") != self._settings.url:
                raise self._away(
                    f"it calls itself {found.get('issuer')!r}, and --oidc-issuer must say the same"
                )
            self._configuration, self._configured_at = found, time.monotonic()
        address = self._configuration.get(name)
        if not isinstance(address, str):
            raise self._away(f"it offers no {name}")
        return address

    async def _get(self, url: str) -> Mapping[str, Any]:
        return await self._ask("GET", url)

    async def _post(self, url: str, form: Mapping[str, str]) -> Mapping[str, Any]:
        """Send a form as our client. Issuers want the client's secret in the form or in a header.

        The form is tried first: Dex reads only the form, and does not report a missing secret. The
        form always names the client, because not every issuer takes it from the header (RFC 8628,
        3.1).
        """
        client_id, file = self._settings.client_id, self._settings.client_secret_file
        named = {**form, "client_id": client_id}
        if file is None:
            return await self._ask("POST", url, named)
        secret = (await asyncio.to_thread(file.read_text, "utf-8")).strip()
        for _ in range(2):
            if self._proves_in_header:
                # The standard encodes both once more (RFC 6749, 2.3.1).
                auth = httpx.BasicAuth(quote_plus(client_id), quote_plus(secret))
                answer = await self._ask("POST", url, named, auth)
            else:
                answer = await self._ask("POST", url, {**named, "client_secret": secret})
            if answer.get("error") != "invalid_client":
                break
            self._proves_in_header = not self._proves_in_header
        return answer

    async def _ask(
        self,
        method: str,
        url: str,
        data: Mapping[str, str] | None = None,
        auth: httpx.BasicAuth | None = None,
    ) -> Mapping[str, Any]:
        """Return an answer in JSON, also a refusal (400, 401); raises `ApiError` without one."""
        try:
            async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, verify=self._context) as client:
                answer = await client.request(method, url, data=data, auth=auth)
            found = answer.json() if answer.status_code < 500 else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as exc:
            raise self._away(repr(exc)) from exc
        if not isinstance(found, dict):
            raise self._away(f"{url} answers {answer.status_code}")
        return found

    def _away(self, reason: str) -> ApiError:
        log.warning("issuer_away", issuer=self._settings.url, reason=reason)
        text = (
            f"It is {self._settings.url}. Try again in a moment. If that does not help, tell the "
            "operator of this SuperLink: its log has the reason (`issuer_away`)."
        )
        return ApiError(ErrorCode.ISSUER_AWAY, reason, text)

    def _unproven(self, exc: Exception) -> GrantRefused:
        log.warning("id_token_refused", issuer=self._settings.url, reason=repr(exc))
        return GrantRefused(f"its ID token proves nothing: {exc}")


def _refusal(answer: Mapping[str, Any]) -> str:
    """Return the reason of the issuer's refusal: the code and the description."""
    return ": ".join(str(answer[name]) for name in ("error", "error_description") if name in answer)


def _trust(ca_certificate: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca_certificate) if ca_certificate else None)
