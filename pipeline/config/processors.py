"""`push`, `compliance` and `notifications`: what the shipped processors are told."""

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from pipeline.config.section import Section, written
from pipeline.units import Duration


class Push(Section):
    """Jobs that another service does (a queue's processor is a URL)."""

    secret: SecretStr | None = None
    """`whsec_…`: signs the requests, as Standard Webhooks."""
    timeout: Duration = written("15s")
    """For one request, its answer included."""
    callback_timeout: Duration = written("1h")
    """How long a job that was answered with 202 waits for its callback."""


class LanguageModel(Section):
    """An OpenAI-compatible model that reads what rules cannot; documents' texts are sent to it, pseudonymised."""

    url: str
    """Of its chat completions, in full."""
    model: str = Field(min_length=1, max_length=200)
    key: SecretStr | None = None
    timeout: Duration = written("30s")
    """For one document, all attempts included."""
    max_chars: int = Field(20_000, ge=500, le=400_000)
    """Of a document's text; what follows is not sent."""

    @field_validator("url")
    @classmethod
    def _completions(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname or url.username is not None or "/chat/completions" not in url.path:
            raise ValueError("should be the whole URL of chat completions, without a user name, such as https://api.example.com/v1/chat/completions")
        return value

    @field_validator("key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        # A line break at its end, from a file, would only show when a document is analysed; no message repeats it.
        if value and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("should be printable ASCII without spaces and line breaks")
        return value

    @field_validator("timeout")
    @classmethod
    def _within_the_analysis(cls, value: int) -> int:
        if not 100 <= value <= 120_000:
            raise ValueError("should be from 100ms to 2m: the whole analysis has 5 minutes")
        return value


class Compliance(Section):
    packs: tuple[str, ...] = ()
    """Paths of further rule packs in YAML, relative to config.yaml."""
    llm: LanguageModel | None = None


CHANNELS = ("email", "slack", "sms", "push")


class Template(Section):
    """How a channel's notifications read; a part that is left out is the job's own. `pipeline.processors.templates` checks them."""

    subject: str | None = None
    text: str | None = None
    html: str | None = None

    def parts(self) -> tuple[tuple[Literal["subject", "text", "html"], str], ...]:
        """Those that are given."""
        given: tuple[tuple[Literal["subject", "text", "html"], str | None], ...] = (
            ("subject", self.subject),
            ("text", self.text),
            ("html", self.html),
        )
        return tuple((kind, text) for kind, text in given if text is not None)


class Templates(Section):
    email: Template | None = None
    slack: Template | None = None
    sms: Template | None = None
    push: Template | None = None


class Notifications(Section):
    """Channel → Apprise URL; `{to}` and `{userId}` are filled in, percent-encoded."""

    email: SecretStr | None = None
    slack: SecretStr | None = None
    sms: SecretStr | None = None
    push: SecretStr | None = None
    templates: Templates = Templates()
