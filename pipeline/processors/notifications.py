"""The notification processor: one message to one channel, through Apprise."""

import re
import time
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic.alias_generators import to_camel

from pipeline.config import Config
from pipeline.config.processors import CHANNELS, Template
from pipeline.errors import AttemptFailed, ConfigError, PermanentFailure
from pipeline.jobs.model import Job
from pipeline.jobs.registry import processor
from pipeline.processors import recipients, refusals, templates
from pipeline.processors.extras import needed
from pipeline.processors.templates import Kind, Value
from pipeline.units import iso

Channel = Literal["email", "slack", "sms", "push"]
TIMEOUT = 60
"""Seconds for all that a channel's URL names: Apprise limits each wait for bytes, which a server that drips them never exceeds."""


class SendNotification(BaseModel):
    """The data of a `send-notification` job."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    user_id: str
    type: Channel
    subject: str
    message: str
    to: str | None = Field(None, max_length=320)
    """Fills `{to}` in the channel's URL: one address, number or channel."""
    data: dict[str, str | int | float | bool | None] = Field({}, max_length=50)
    """Fills `{data.<name>}` in the channel's template."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    subject: str
    text: str
    html: str | None
    """For services that take HTML; the others get `text`."""


@processor("send-notification", input=SendNotification)
class NotificationProcessor:
    """Sends by e-mail, Slack, SMS or push, whichever Apprise URL is configured for the job's type."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError for a template that cannot be used."""
        self._channels = {name: cast(SecretStr | None, getattr(config.notifications, name)) for name in CHANNELS}
        self._templates = {name: checked(name, getattr(config.notifications.templates, name)) for name in CHANNELS}
        self._dev = config.dev

    def process(self, job: Job, context: Any) -> NotificationSent:
        """Runs in a thread. Raises PermanentFailure for a channel or recipient that is missing or wrong, for a template that the job's data
        does not fill, and for what the provider will never take; AttemptFailed if it may take it later."""
        wanted: SendNotification = job.data
        if wanted.to and (reason := recipients.fault(wanted.type, wanted.to)):
            raise PermanentFailure(f"to: {reason}")
        message = composed(self._templates[wanted.type], wanted)
        configured = self._channels[wanted.type]
        if configured is None:
            if not self._dev:
                raise PermanentFailure(f"no channel for {wanted.type} notifications is configured; set notifications.{wanted.type} to an Apprise URL")
            context.log.info("notification", channel=wanted.type, to=wanted.to, userId=wanted.user_id, subject=message.subject, message=message.text)
            return NotificationSent(channel="log", sent_at=iso(int(time.time() * 1000)))
        send(wanted, message, configured.get_secret_value())
        context.log.info("notification sent", channel=wanted.type)
        return NotificationSent(channel=wanted.type, sent_at=iso(int(time.time() * 1000)))


def checked(channel: str, template: Template | None) -> Template:
    """The template itself; an empty one for None. Raises ConfigError if it cannot be used (a loaded configuration's was checked with its line)."""
    for kind, text in (template or Template()).parts():
        for mistake in templates.mistakes(text, kind):
            raise ConfigError(f"notifications.templates.{channel}.{kind}: {mistake.message}")
    return template or Template()


def composed(template: Template, wanted: SendNotification) -> Message:
    """What is sent: the template's parts filled in, the job's own subject and message where it has none.

    Raises PermanentFailure if the job's data does not fill the template.
    """
    values: dict[str, Value] = {"subject": wanted.subject, "message": wanted.message, "userId": wanted.user_id, "to": wanted.to, "type": wanted.type}
    values |= {f"data.{name}": value for name, value in wanted.data.items()}
    filled: dict[Kind, str] = {}
    for kind, text in template.parts():
        try:
            filled[kind] = templates.filled(text, values, kind)
        except ValueError as error:
            raise PermanentFailure(f"notifications.templates.{wanted.type}.{kind}: {error}") from error
    return Message(subject=one_line(filled.get("subject", wanted.subject)), text=filled.get("text", wanted.message), html=filled.get("html"))


def send(wanted: SendNotification, message: Message, template: str) -> None:
    """Deliver, or raise as `process` does; no message says more of the URL than its key."""
    # Heavy, and needed by none of the processes that send nothing.
    with needed("notifications"):
        from apprise import Apprise, NotifyFormat

    url = filled(template, wanted)
    if not message.subject and not message.text.strip() and message.html is None:
        raise PermanentFailure("there is nothing to send: both subject and message are empty")
    apprise = Apprise()
    with refusals.collected() as said:
        if not apprise.add(url):
            raise PermanentFailure(f"notifications.{wanted.type} is not a URL that Apprise can use; see its documentation for {wanted.type} services")
        as_html = message.html is not None and all(service.resolve_format(NotifyFormat.HTML) == NotifyFormat.HTML for service in apprise)
        body, form = (message.html, NotifyFormat.HTML) if as_html else (message.text, NotifyFormat.TEXT)
        sent = apprise.notify(title=message.subject, body=body, body_format=form, timeout=TIMEOUT)
    if not sent:
        reason = refusals.without_secrets("; ".join(said), url) or f"the provider gave no reason within {TIMEOUT} s"
        kind = PermanentFailure if refusals.is_permanent(said) else AttemptFailed
        raise kind(f"the {wanted.type} notification was not delivered: {reason}")


def filled(template: str, wanted: SendNotification) -> str:
    """The channel's URL for this job. Raises PermanentFailure if it needs a recipient that the job does not name."""
    if "{to}" in template and not wanted.to:
        raise PermanentFailure(f"notifications.{wanted.type} needs a recipient ({{to}} is in its URL), but the job names none: send it as `to`")
    return template.replace("{to}", quote(wanted.to or "", safe="")).replace("{userId}", quote(wanted.user_id, safe=""))


def one_line(subject: str) -> str:
    """A subject that cannot end its header and begin another."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", subject).strip()
