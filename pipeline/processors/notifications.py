"""The notification processor: one message to one channel, through Apprise."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from pipeline.config import Config
from pipeline.errors import AttemptFailed, PermanentFailure
from pipeline.jobs.model import Job
from pipeline.jobs.registry import processor
from pipeline.processors.extras import needed
from pipeline.units import iso

Channel = Literal["email", "slack", "sms", "push"]
_REASON_LIMIT = 500
_CAUSE = re.compile(r"[A-Za-z ]*(Exception|Error): ")
_said: ContextVar[list[str] | None] = ContextVar("said", default=None)
"""A context's, not a thread's: Apprise takes the context with it into its own threads."""
_SHORTEST_SECRET = 3
"""Parts of a URL that are shorter than this are left in a reason: replacing every `a` would leave nothing to read."""


class SendNotification(BaseModel):
    """The data of a `send-notification` job."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    user_id: str
    type: Channel
    subject: str
    message: str
    to: str | None = Field(None, max_length=320)
    """Fills `{to}` in the channel's URL: one address, number or channel."""

    @field_validator("to")
    @classmethod
    def _one_recipient(cls, value: str | None) -> str | None:
        # Apprise takes a list there; a job that could name several would send to whom its author did not mean.
        if value and re.search(r"[\s,;\x00-\x1f\x7f]", value):
            raise ValueError("should be one recipient, without spaces, commas and semicolons")
        return value or None


class NotificationSent(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    channel: str
    """The job's type; `log` for one that was written to the log instead (`--dev`)."""
    sent_at: str


@processor("send-notification", input=SendNotification)
class NotificationProcessor:
    """Sends by e-mail, Slack, SMS or push, whichever Apprise URL is configured for the job's type."""

    def __init__(self, config: Config) -> None:
        self._channels = dict(config.notifications)
        self._dev = config.dev

    def process(self, job: Job, context: Any) -> NotificationSent:
        """Runs in a thread. Raises PermanentFailure for a channel or recipient that is missing, AttemptFailed if the provider refuses."""
        wanted: SendNotification = job.data
        configured = self._channels.get(wanted.type)
        if configured is None:
            if not self._dev:
                raise PermanentFailure(f"no channel for {wanted.type} notifications is configured; set notifications.{wanted.type} to an Apprise URL")
            context.log.info("notification", channel=wanted.type, to=wanted.to, userId=wanted.user_id, subject=wanted.subject, message=wanted.message)
            return NotificationSent(channel="log", sent_at=iso(int(time.time() * 1000)))
        send(wanted, configured.get_secret_value())
        context.log.info("notification sent", channel=wanted.type)
        return NotificationSent(channel=wanted.type, sent_at=iso(int(time.time() * 1000)))


def send(wanted: SendNotification, template: str) -> None:
    """Deliver, or raise as `process` does; no message says more of the URL than its key."""
    # Heavy, and needed by none of the processes that send nothing.
    with needed("notifications"):
        from apprise import Apprise, NotifyFormat

    url = filled(template, wanted)
    apprise = Apprise()
    with _collected() as said:
        if not apprise.add(url):
            raise PermanentFailure(f"notifications.{wanted.type} is not a URL that Apprise can use; see its documentation for {wanted.type} services")
        sent = apprise.notify(title=one_line(wanted.subject), body=wanted.message, body_format=NotifyFormat.TEXT)
    reason = without_secrets("; ".join(said), url)
    if not sent:
        raise AttemptFailed(f"the {wanted.type} notification was not delivered: {reason or 'the provider gave no reason'}")


class _Collector(logging.Handler):
    """Takes what Apprise logs, the only place where it says why it failed, to whoever is sending in the same context."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = _said.get()
        # The cause itself is logged as a detail, among others that hold the message and more.
        if lines is not None and (record.levelno >= logging.WARNING or _CAUSE.match(record.getMessage())):
            lines.append(record.getMessage())


_collector = _Collector()


@contextmanager
def _collected() -> Iterator[list[str]]:
    logger = logging.getLogger("apprise")
    # Its lines may hold parts of the URL: they go no further than here.
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(_collector)
    lines: list[str] = []
    token = _said.set(lines)
    try:
        yield lines
    finally:
        _said.reset(token)


def filled(template: str, wanted: SendNotification) -> str:
    """The channel's URL for this job. Raises PermanentFailure if it needs a recipient that the job does not name."""
    if "{to}" in template and not wanted.to:
        raise PermanentFailure(f"notifications.{wanted.type} needs a recipient ({{to}} is in its URL), but the job names none: send it as `to`")
    return template.replace("{to}", quote(wanted.to or "", safe="")).replace("{userId}", quote(wanted.user_id, safe=""))


def one_line(subject: str) -> str:
    """A subject that cannot end its header and begin another."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", subject).strip()


def without_secrets(text: str, url: str) -> str:
    """What the provider said, in one line, without any part of the URL: with some services its host is a token, too."""
    parts = urlsplit(url)
    pieces = {parts.username, parts.password, *re.split(r"[/@:?&=]", url.partition("://")[2])} - {None, ""}
    written = {form for piece in pieces for form in (str(piece), unquote(str(piece)))}
    for form in sorted(written, key=len, reverse=True):
        if len(form) >= _SHORTEST_SECRET:
            text = text.replace(form, "…")
    return " ".join(text.split())[:_REASON_LIMIT]
