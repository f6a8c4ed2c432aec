"""The page where a person signs in and confirms a `flwr login`.

It has no session and no cookie: one form has the person's proof and the confirmation. So a page of
another site has nothing to abuse.
"""

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.wire import control_pb2 as control
from flower_nats_gateway.api import login_html as html
from flower_nats_gateway.api.page import Page, PageRequest
from flower_nats_gateway.api.service import Endpoint
from flower_nats_gateway.calls.answers import Answer
from flower_nats_gateway.calls.call import Call

PATH = "/v1/control/login"
"""Below the path of the Control API, so that the page is served wherever Control is."""

_CODE_LETTERS = 8

_BAD = "The account or the password is wrong."


class LoginPage:
    """Serves the page; superlinks check logins and passwords."""

    def __init__(self, rpc: RpcClient, base_url: str) -> None:
        """`base_url` is the gateway's URL for browsers; empty if it must not get passwords."""
        self._rpc = rpc
        self._base_url = base_url

    def with_address(self, forward: Endpoint) -> Endpoint:
        """Wrap GetLoginDetails, so that its answer has the whole address of the page."""

        async def serve(call: Call, caller: Caller) -> Answer:
            answer = await forward(call, caller)
            assert isinstance(answer, bytes)
            details = control.GetLoginDetailsResponse.FromString(answer)
            if not details.verification_uri_complete.startswith("?"):
                return answer
            if not self._base_url:
                raise ApiError(ErrorCode.FORBIDDEN_ACTION, "there is no page", _NO_PAGE)
            details.verification_uri_complete = (
                f"{self._base_url}{PATH}{details.verification_uri_complete}"
            )
            return details.SerializeToString()

        return serve

    async def __call__(self, request: PageRequest) -> Page:
        """Answer a browser."""
        if not self._base_url:
            return Page(403, html.message("No login here", _NO_PAGE))
        if request.is_post and request.from_elsewhere:
            text = "This form came from another web site. Nothing was changed."
            return Page(403, html.message("Refused", text))
        try:
            return await (self._post(request) if request.is_post else self._get(request))
        except Unavailable:
            text = "The runtime cannot answer at the moment. Load this page again soon."
            return Page(503, html.message("Not just now", text))

    async def _get(self, request: PageRequest, name: str = "", complaint: str = "") -> Page:
        code = _normal(request.query.get("code", "") or request.form.get("code", ""))
        if not code:
            return Page(200, html.ask_for_code())
        login = await self._rpc.look_up("LoginUnderWay", user_code=code)
        match login["state"]:
            case "open":
                shown = html.sign_in(
                    code, login["asked_from"], login["seconds_ago"], name, complaint
                )
                return Page(403 if complaint else 200, shown)
            case "elsewhere":
                return Page(200, html.elsewhere(login["page"], login["code"]))
            case "confirmed":
                text = "The flwr command goes on by itself. You can close this page."
                return Page(200, html.message("You are logged in", text))
            case "refused":
                text = "The login was refused. The flwr command has no access."
                return Page(200, html.message("Refused", text))
        return Page(
            404, html.ask_for_code("This code is unknown, or it has expired (after ten minutes).")
        )

    async def _post(self, request: PageRequest) -> Page:
        code, form = _normal(request.form.get("code", "")), request.form
        if form.get("answer") == "refuse":
            await self._rpc.ask("RefuseLogin", user_code=code, address=request.address)
            return _to(code)
        name = form.get("name", "").strip()
        answer = await self._rpc.ask(
            "ConfirmLogin",
            user_code=code,
            name=name,
            password=form.get("password", ""),
            address=request.address,
        )
        match answer["outcome"]:
            case "wrong":
                return await self._get(request, name, _BAD)
            case "locked":
                minutes = max(1, round(answer["seconds"] / 60))
                text = f"Too many wrong passwords. Try again in {minutes} min."
                return await self._get(request, name, text)
        return _to(code)


def _to(code: str) -> Page:
    """Return a redirect to the page with the login's state: reloading it sends no password."""
    return Page(303, "", f"?code={code}")


def _normal(code: str) -> str:
    """Return a typed code in its normal form; empty for an invalid code."""
    letters = "".join(filter(str.isalpha, code.upper()))
    if len(letters) != _CODE_LETTERS or not letters.isascii():
        return letters[:_CODE_LETTERS] if letters.isascii() else ""
    return f"{letters[:4]}-{letters[4:]}"


_NO_PAGE = (
    "This gateway has no login page, because passwords need TLS. Remedy: start the gateway with "
    "certificates; or, behind a balancer that terminates TLS, with --login-url."
)
