"""Why a provider did not take a notification, from the lines that Apprise logs: the only place where it says so."""

import base64
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

REASON_LIMIT = 500
SHORTEST_SECRET = 3
"""Parts of a URL that are shorter than this are left in a reason: replacing every `a` would leave nothing to read."""
_CAUSE = re.compile(r"[A-Za-z ]*(Exception|Error): ")
_HTTP = re.compile(r"\berror=(\d{3})\b")
_SMTP = re.compile(r"""\((\d{3}), b['"]|was refused: (\d{3})\b""")
_NOBODY = re.compile(r"There (are|were) no .*(recipients|targets|notify)", re.IGNORECASE)
_WAIT_AND_SEE = (408, 425, 429)
_said: ContextVar[list[str] | None] = ContextVar("said", default=None)
"""A context's, not a thread's: Apprise takes the context with it into its own threads."""


def is_permanent(lines: Sequence[str]) -> bool:
    """Whether another attempt would be refused as well.

    So it is if every status that the lines name says so: an SMTP reply of 5xx, an HTTP status of 4xx other than 408, 425 and 429; or if
    nobody was left to send to. Lines without a status (no connection, TLS, a service that reports errors under 200) tell nothing.
    """
    smtp = [int(match[1] or match[2]) for line in lines for match in _SMTP.finditer(line)]
    http = [int(match[1]) for line in lines for match in _HTTP.finditer(line)]
    verdicts = [status >= 500 for status in smtp] + [400 <= status < 500 and status not in _WAIT_AND_SEE for status in http]
    return all(verdicts) if verdicts else any(_NOBODY.search(line) for line in lines)


class _Collector(logging.Handler):
    """Takes what Apprise logs to whoever is sending in the same context."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = _said.get()
        # The cause itself is logged as a detail, among others that hold the message and more.
        if lines is not None and (record.levelno >= logging.WARNING or _CAUSE.match(record.getMessage())):
            lines.append(record.getMessage())


_collector = _Collector()


@contextmanager
def collected() -> Iterator[list[str]]:
    """What Apprise says meanwhile, and nobody else hears: its lines may hold parts of the URL."""
    logger = logging.getLogger("apprise")
    logger.propagate = False
    # It warns of an answer's headers that it cannot read, with the whole URL.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(_collector)
    lines: list[str] = []
    token = _said.set(lines)
    try:
        yield lines
    finally:
        _said.reset(token)


def without_secrets(text: str, url: str) -> str:
    """What the provider said, in one line, without any part of the URL: with some services its host is a token, too."""
    forms = {form for piece in _pieces(url) for form in _written(piece) if len(form) >= SHORTEST_SECRET}
    if forms:
        # The longest first: what contains another is replaced as a whole. Hosts come back in lower case.
        text = re.sub("|".join(map(re.escape, sorted(forms, key=len, reverse=True))), "…", text, flags=re.IGNORECASE)
    return " ".join(text.split())[:REASON_LIMIT]


def _pieces(url: str) -> set[str]:
    try:
        parts = urlsplit(url)
        user, password, query = parts.username or "", parts.password or "", parts.query
    except ValueError:
        user = password = query = ""
    rest = url.partition("://")[2] or url
    # Names of options (`from`, `mode`) are ordinary words; their values, and options without one, are not.
    named = {name for name, value in parse_qsl(query, keep_blank_values=True) if value}
    values = {value for _, value in parse_qsl(query, keep_blank_values=True)}
    split = {piece for piece in re.split(r"[/@:?&=#,;\s]", rest) if unquote(piece).lstrip("+-:") not in {name.lstrip("+-: ") for name in named}}
    login = {base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()} if user else set()
    return {user, password, *values, *split, *login} - {""}


def _written(piece: str) -> set[str]:
    plain = unquote(piece)
    return {piece, plain, quote(plain), quote(plain, safe=""), quote_plus(plain), plain.encode("unicode_escape").decode()}
