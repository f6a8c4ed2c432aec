"""The pages for logging in: HTML without scripts, images or anything from other servers."""

import base64
import hashlib
from html import escape

STYLE = """
:root { color-scheme: light dark;
  --back: #f6f7f9; --card: #fff; --text: #1b1f24; --quiet: #57606a; --line: #d0d7de;
  --accent: #0b57d0; --on-accent: #fff; --bad: #b3261e; --bad-back: #fceeee; }
@media (prefers-color-scheme: dark) { :root {
  --back: #0f1216; --card: #181c22; --text: #e8eaed; --quiet: #a3abb5; --line: #3a424c;
  --accent: #8ab4f8; --on-accent: #10151c; --bad: #f2b8b5; --bad-back: #3b1f1f; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem;
  background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { width: 100%; max-width: 26rem; padding: 1.75rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; }
h1 { margin: 0 0 .75rem; font-size: 1.35rem; line-height: 1.25; }
p { margin: 0 0 1rem; }
.quiet { color: var(--quiet); font-size: .9rem; }
.code { display: block; margin: 0 0 1rem; padding: .5rem; text-align: center; font-size: 1.5rem;
  font-family: ui-monospace, "Cascadia Mono", Menlo, monospace; letter-spacing: .12em;
  border: 1px dashed var(--line); border-radius: 8px; }
.bad { padding: .6rem .8rem; color: var(--bad); background: var(--bad-back); border-radius: 8px; }
label { display: block; margin: 0 0 .25rem; font-weight: 600; }
input { width: 100%; margin: 0 0 1rem; padding: .6rem .7rem; font: inherit; color: inherit;
  background: transparent; border: 1px solid var(--line); border-radius: 8px; }
button, .button { display: block; width: 100%; margin: 0 0 .6rem; padding: .7rem; font: inherit;
  font-weight: 600; text-align: center; text-decoration: none; cursor: pointer;
  color: var(--on-accent); background: var(--accent); border: 1px solid var(--accent);
  border-radius: 8px; }
button.other { color: var(--text); background: transparent; border-color: var(--line); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
"""

STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
"""The hash by which the page's policy allows only this style."""


def page(title: str, content: str) -> str:
    """Return a whole page; `content` is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{content}</main></body></html>"
    )


def message(title: str, *sentences: str) -> str:
    """Return a page with a message and without a form."""
    return page(title, "".join(f"<p>{escape(one)}</p>" for one in sentences))


def ask_for_code(complaint: str = "") -> str:
    """Return the page for people without a code."""
    return page(
        "Log in to flower-nats",
        f"{_complaint(complaint)}<p>Type the code at the end of the address that <b>flwr "
        "login</b> shows.</p>"
        '<form method="get"><label for="code">Code</label>'
        '<input id="code" name="code" required autofocus autocomplete="off" spellcheck="false" '
        'autocapitalize="characters" placeholder="XXXX-XXXX">'
        "<button>Go on</button></form>",
    )


def sign_in(code: str, asked_from: str, seconds_ago: float, name: str, complaint: str) -> str:
    """Return the page where a person signs in and confirms a login."""
    where = f" on {escape(asked_from)}" if asked_from else ""
    focus = ("", " autofocus") if name else (" autofocus", "")
    return page(
        "Log in to flower-nats",
        f"{_complaint(complaint)}"
        f"<p>A <b>flwr</b> command{where} asked {_ago(seconds_ago)} to be logged in as you. "
        "Its code is:</p>"
        f'<output class="code">{escape(code)}</output>'
        '<form method="post" autocomplete="on">'
        f'<input type="hidden" name="code" value="{escape(code)}">'
        '<label for="name">Account</label>'
        f'<input id="name" name="name" value="{escape(name)}" required maxlength="80"{focus[0]} '
        'autocomplete="username" autocapitalize="none" spellcheck="false">'
        '<label for="password">Password</label>'
        f'<input id="password" name="password" type="password" required maxlength="512"{focus[1]} '
        'autocomplete="current-password">'
        '<button name="answer" value="confirm">Sign in and let it in</button>'
        '<button class="other" name="answer" value="refuse" formnovalidate>'
        "It was not me: refuse</button></form>"
        '<p class="quiet">Confirm only if you have just started flwr login yourself, and the code '
        "is the one at the end of the address that it shows.</p>",
    )


def elsewhere(url: str, code: str) -> str:
    """Return the page that sends a person to another page, with a code to type there."""
    return page(
        "Log in to flower-nats",
        "<p>You sign in with your organisation. Its page asks for this code:</p>"
        f'<output class="code">{escape(code)}</output>'
        f'<a class="button" rel="noreferrer" href="{escape(url)}">Go to {escape(url)}</a>',
    )


def _complaint(text: str) -> str:
    return f'<p class="bad" role="alert">{escape(text)}</p>' if text else ""


def _ago(seconds: float) -> str:
    if seconds < 60:
        return "just now"
    minutes = round(seconds / 60)
    return f"{minutes} minute{'s' if minutes > 1 else ''} ago"
