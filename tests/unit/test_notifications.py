"""Notifications, sent to a real SMTP server; what is refused, and what is never said."""

import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest
import structlog
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from pipeline.config import Config
from pipeline.errors import AttemptFailed, PermanentFailure
from pipeline.processors.notifications import SendNotification, filled, one_line, without_secrets
from tests.support.processing import run

PATH = "pipeline.processors.notifications:NotificationProcessor"
# Apprise imports it where Python still has it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
JOB = {"userId": "user-1", "type": "email", "subject": "Document Processed", "message": "Your document has been processed: score 87"}


class Inbox:
    def __init__(self) -> None:
        self.received: list[tuple[list[str], EmailMessage]] = []
        self.answer = "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.received.append((envelope.rcpt_tos, message))
        return self.answer


class OnAnyPort(Controller):
    """aiosmtpd's own waits for the port that it was told, which is 0 here."""

    def _trigger_server(self) -> None:
        assert self.server
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, str]]:
    """A real SMTP server, and the beginning of a channel's URL for it."""
    handler = Inbox()
    controller = OnAnyPort(handler, hostname="127.0.0.1", port=0)
    controller.factory = lambda: SMTP(handler, enable_SMTPUTF8=True)  # type: ignore[method-assign]
    controller.start()
    yield handler, f"mailto://127.0.0.1:{controller.port}/?from=hookline@example.com&mode=insecure"
    controller.stop()


def config(url: str | None = None, **more: Any) -> Config:
    return Config.model_validate({"notifications": {"email": url} if url else {}, **more})


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert isinstance(part, EmailMessage)
    return str(part.get_content()).replace("\r\n", "\n").strip()


def test_an_email_arrives(inbox: tuple[Inbox, str]) -> None:
    handler, url = inbox
    result = run(PATH, config(url + "&to=compliance@example.com"), JOB)
    assert result.channel == "email"
    assert result.sent_at.endswith("Z")
    [(recipients, message)] = handler.received
    assert recipients == ["compliance@example.com"]
    assert message["Subject"] == "Document Processed"
    assert "hookline@example.com" in message["From"]
    assert body(message, "plain") == JOB["message"]


def test_the_recipient_is_the_jobs(inbox: tuple[Inbox, str]) -> None:
    handler, url = inbox
    run(PATH, config(url + "&to={to}"), JOB | {"to": "a+b&to=x@example.com"})
    run(PATH, config(url + "&to={userId}@example.com"), JOB)
    assert [recipients for recipients, _ in handler.received] == [["a+b&to=x@example.com"], ["user-1@example.com"]]


def test_a_subject_and_a_message_cannot_become_headers_or_markup(inbox: tuple[Inbox, str]) -> None:
    handler, url = inbox
    job = JOB | {"subject": "Résumé\r\nBcc: victim@example.com", "message": "1 < 2\n<script>alert(1)</script>"}
    run(PATH, config(url + "&to=c@example.com&format=html"), job)
    [(recipients, message)] = handler.received
    assert recipients == ["c@example.com"]
    assert message["Bcc"] is None
    assert message["Subject"] == "Résumé Bcc: victim@example.com"
    assert "&lt;script&gt;alert(1)" in body(message, "html")
    assert "<script>" not in body(message, "html")


def test_a_refusal_is_retried_and_says_why_without_the_secret(inbox: tuple[Inbox, str]) -> None:
    handler, url = inbox
    handler.answer = "554 5.7.1 no thanks, s3cretpass"
    with pytest.raises(AttemptFailed) as caught:
        run(PATH, config(url + "&to=c@example.com&name=s3cretpass"), JOB)
    assert "the email notification was not delivered" in caught.value.message
    assert "s3cretpass" not in caught.value.message


def test_a_server_that_is_not_there_is_retried(inbox: tuple[Inbox, str]) -> None:
    with pytest.raises(AttemptFailed, match="was not delivered") as caught:
        run(PATH, config("mailto://user:s3cretpass@127.0.0.1:1/?from=a@example.com&to=b@example.com&mode=insecure"), JOB)
    assert "s3cretpass" not in caught.value.message
    assert "refused" in caught.value.message


def test_a_missing_channel_fails_for_good_and_names_the_key() -> None:
    with pytest.raises(PermanentFailure, match=r"set notifications\.slack to an Apprise URL"):
        run(PATH, config(), JOB | {"type": "slack"})


def test_in_dev_it_goes_to_the_log() -> None:
    with structlog.testing.capture_logs() as logged:
        assert run(PATH, config(dev=True), JOB | {"to": "x@example.com"}).channel == "log"
    [line] = logged
    assert (line["event"], line["subject"], line["to"]) == ("notification", "Document Processed", "x@example.com")


def test_a_missing_recipient_fails_for_good_and_names_the_key() -> None:
    with pytest.raises(PermanentFailure, match=r"notifications\.email needs a recipient .* send it as `to`"):
        run(PATH, config("mailto://127.0.0.1:1/?to={to}"), JOB)
    with pytest.raises(PermanentFailure, match=r"notifications\.email needs a recipient"):
        run(PATH, config("mailto://127.0.0.1:1/?to={to}"), JOB | {"to": ""})


@pytest.mark.parametrize("url", ["no-such-service://s3cretpass", "s3cretpass"])
def test_a_url_that_apprise_does_not_know(url: str) -> None:
    with pytest.raises(PermanentFailure, match=r"notifications\.email is not a URL that Apprise can use") as caught:
        run(PATH, config(url), JOB)
    assert "s3cretpass" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"type": "fax"}, "type: Input should be 'email', 'slack', 'sms' or 'push'"),
        ({"to": "a@b.c,d@e.f"}, "to: Value error, should be one recipient"),
        ({"to": "a@b.c\nBcc: x"}, "to: Value error, should be one recipient"),
        ({"message": None}, "message: Input should be a valid string"),
    ],
)
def test_wrong_data(change: dict[str, Any], says: str) -> None:
    with pytest.raises(PermanentFailure) as caught:
        run(PATH, config(), JOB | change)
    assert says in caught.value.message


def test_what_is_filled_in_is_percent_encoded() -> None:
    wanted = SendNotification.model_validate(JOB | {"userId": "a/b?c", "to": "#x&y=z@é"})
    assert filled("json://h/{userId}?to={to}&x={other}", wanted) == "json://h/a%2Fb%3Fc?to=%23x%26y%3Dz%40%C3%A9&x={other}"


def test_one_line() -> None:
    assert one_line(" a\r\nb\u2028c\x00 ") == "a b c"


def test_no_part_of_a_url_is_repeated() -> None:
    url = "slack://T1JJ3T3L2/A1BRTD4JD/p%40ssword%21/#general?footer=no"
    said = "Failed to send to https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/p@ssword!: error=404.\n"
    assert without_secrets(said, url) == "Failed to send to https://hooks.slack.com/services/…/…/…: error=404."
