"""The optional language model: asked for statements that rules cannot read, and believed only where it quotes the text."""

import asyncio
import bisect
import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.config.processors import LanguageModel
from pipeline.processors import questions
from pipeline.processors.extraction import PAGE_END
from pipeline.processors.pseudonyms import PLACEHOLDER, Pseudonymised, pseudonymised
from pipeline.processors.questions import Question
from pipeline.processors.rules import Finding, Span, excerpt

MAX_ANSWER = 256 * 1024
"""Bytes of an answer; the longest that can be right is far shorter."""
MAX_STATEMENTS = 50
SHORTEST_QUOTE = 15
"""Letters and digits outside placeholders that a quote needs: a shorter one is found anywhere, and proves nothing."""
LONGEST_QUOTE = 2_000
ATTEMPTS = 4
_WORD = re.compile(r"\S+")

UNREACHABLE = "llm-unreachable"
TIMED_OUT = "llm-timeout"
REFUSED = "llm-refused"
BUSY = "llm-busy"
INVALID = "llm-invalid-answer"
UNLOCATED = "llm-unlocated"
TEXT_CUT = "llm-text-cut"
"""Warnings: what became of asking the model; docs/llm.md explains each."""


class _Statement(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    rule: str = Field(max_length=64)
    quote: str


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    statements: list[_Statement]


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """What came of asking: findings, each with a place in the text, and warnings (`llm-…`)."""

    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()


class _Failed(Exception):
    """Asking led to nothing."""

    def __init__(self, warning: str, reason: str) -> None:
        super().__init__(reason)
        self.warning = warning
        self.reason = reason
        """For the log: never a word of the answer, the text or the key."""


class _Later(_Failed):
    """The same request may be answered in a moment."""

    def __init__(self, warning: str, reason: str, *, after: float = 0) -> None:
        super().__init__(warning, reason)
        self.after = after
        """Seconds that the server asks to wait."""


def read(text: str, spans: Sequence[Span], frameworks: Sequence[str], settings: LanguageModel, log: Any) -> Read:
    """Ask the model about a document's text, without what was recognised in it (`spans`, as `merged` gives them).

    Never raises for anything that the model or its server does; takes at most the settings' timeout. Blocks; not for use on an event loop.
    """
    asked = questions.concerning(frameworks)
    if not asked:
        return Read()
    sent = pseudonymised(text, spans, limit=settings.max_chars)
    warnings = [TEXT_CUT] if sent.cut else []
    began = time.monotonic()
    try:
        answer = asyncio.run(_ask(questions.request(sent.text, asked, settings.model), settings))
        statements = _statements(answer, asked)
    except _Failed as failed:
        log.warning("language model gave no answer", warning=failed.warning, reason=failed.reason, seconds=round(time.monotonic() - began, 1))
        return Read(warnings=(*warnings, failed.warning))
    found, dropped = _located(statements, asked, text, spans, sent)
    if dropped:
        warnings.append(UNLOCATED)
    log.info("language model asked", characters=len(sent.text), findings=len(found), dropped=dropped, seconds=round(time.monotonic() - began, 1))
    return Read(findings=tuple(found), warnings=tuple(warnings))


async def _ask(body: bytes, settings: LanguageModel) -> bytes:
    """The answer's body. Raises _Failed."""
    # Imported late: only who has a language model needs it in a child.
    import aiohttp
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, stop_before_delay, wait_random_exponential

    backoff = wait_random_exponential(multiplier=0.2, max=5)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(backoff(state), error.after if isinstance(error, _Later) else 0)

    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "hookline"}
    if settings.key is not None:
        headers["Authorization"] = f"Bearer {settings.key.get_secret_value()}"
    seconds = settings.timeout / 1000
    try:
        # One limit around everything: DNS, TLS, an answer that comes a byte at a time, and all attempts.
        async with asyncio.timeout(seconds), aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)) as session:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(ATTEMPTS) | stop_before_delay(seconds), wait=wait, retry=retry_if_exception_type(_Later), reraise=True
            ):
                with attempt:
                    return await _once(session, settings.url, body, headers)
    except TimeoutError as error:
        raise _Failed(TIMED_OUT, f"no whole answer within {seconds:g} s") from error
    raise AssertionError("tenacity returns or raises")


async def _once(session: Any, url: str, body: bytes, headers: dict[str, str]) -> bytes:
    import aiohttp

    try:
        # A redirect would take the key and the text to somebody else.
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            if response.status in (408, 409, 425, 429) or response.status >= 500:
                after = response.headers.get("Retry-After", "")
                raise _Later(BUSY, f"status {response.status}", after=float(after) if re.fullmatch(r"\d{1,6}", after) else 0)
            if response.status != 200:
                raise _Failed(REFUSED, f"status {response.status}")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise _Failed(INVALID, "a compressed answer")
            received = bytearray()
            async for chunk in response.content.iter_chunked(16 * 1024):
                received += chunk
                if len(received) > MAX_ANSWER:
                    raise _Failed(INVALID, f"an answer of more than {MAX_ANSWER:,} bytes")
            return bytes(received)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Their texts may hold the URL, whose query may hold a key.
        raise _Later(UNREACHABLE, type(error).__name__) from error


def _statements(body: bytes, asked: Sequence[Question]) -> list[_Statement]:
    """Raises _Failed for whatever is not the answer that was asked for."""
    try:
        choice = orjson.loads(body)["choices"][0]
        content = choice["message"]["content"]
        if choice.get("finish_reason") not in (None, "stop") or not isinstance(content, str):
            raise _Failed(INVALID, "no complete answer")
        statements = _Answer.model_validate(orjson.loads(content)).statements
    except (ValidationError, ValueError) as error:
        raise _Failed(INVALID, "not the JSON that was asked for") from error
    except (LookupError, TypeError, AttributeError) as error:
        raise _Failed(INVALID, "not a chat completion") from error
    if unknown := {statement.rule for statement in statements} - {question.id for question in asked}:
        raise _Failed(INVALID, f"{len(unknown)} rules that were not asked for")
    return statements


def _located(
    statements: Sequence[_Statement], asked: Sequence[Question], text: str, spans: Sequence[Span], sent: Pseudonymised
) -> tuple[list[Finding], int]:
    """The findings in the order of the text, and how many statements were dropped because the text does not hold their quote.

    Of statements of one kind whose quotes overlap, the first stands for all.
    """
    known = {question.id: question for question in asked}
    words = _Words(sent.text)
    pages = [match.start() for match in re.finditer(PAGE_END, text)]
    found: list[tuple[int, int, Finding]] = []
    dropped = max(0, len(statements) - MAX_STATEMENTS)
    for statement in statements[:MAX_STATEMENTS]:
        place = _place(statement.quote, words)
        if place is None:
            dropped += 1
            continue
        start, end = sent.original(*place)
        question = known[statement.rule]
        if any(other.rule == question.id and start < ends and end > begins for begins, ends, other in found):
            continue
        finding = Finding(
            rule=question.id,
            framework=question.framework,
            article=question.article,
            severity=question.severity,
            title=question.title,
            advice=question.advice,
            excerpt=excerpt(text, spans, start, end, verbatim=False),
            page=sum(page < start for page in pages) + 1 if pages else None,
            offset=start,
        )
        found.append((start, end, finding))
    return [finding for *_, finding in sorted(found, key=lambda place: (place[0], place[2].rule))], dropped


class _Words:
    """A text with one space between its words, in which a quote is found in linear time, however it and the text repeat themselves."""

    def __init__(self, text: str) -> None:
        words = list(_WORD.finditer(text))
        self.text = " ".join(word[0] for word in words)
        self._original = [word.start() for word in words]
        self._starts = [0, *itertools.accumulate(len(word[0]) + 1 for word in words)][: len(words)]

    def original(self, at: int) -> int:
        """The place in the text itself of a character that is no space."""
        word = bisect.bisect_right(self._starts, at) - 1
        return self._original[word] + at - self._starts[word]


def _place(quote: str, sent: _Words) -> tuple[int, int] | None:
    """Where the quote stands in what was sent, word by word; only the white space between words may differ. None if it does not."""
    telling = sum(character.isalnum() for character in PLACEHOLDER.sub("", quote))
    if telling < SHORTEST_QUOTE or len(quote) > LONGEST_QUOTE:
        return None
    quoted = " ".join(_WORD.findall(quote))
    at = sent.text.find(quoted)
    return (sent.original(at), sent.original(at + len(quoted) - 1) + 1) if at >= 0 else None
