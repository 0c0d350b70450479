"""Notifications, sent to a real SMTP server; what is refused, and what is never said."""

import asyncio
import email
import email.policy
import json
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest
import structlog
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from pipeline.config import Config
from pipeline.errors import AttemptFailed, ConfigError, PermanentFailure
from pipeline.jobs.registry import resolve
from pipeline.processors import notifications, recipients
from pipeline.processors.notifications import SendNotification, filled, one_line
from pipeline.processors.refusals import is_permanent, without_secrets
from tests.support.processing import run
from tests.support.receiver import Answer, receiving

PATH = "pipeline.processors.notifications:NotificationProcessor"
# Apprise imports it where Python still has it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
JOB = {"userId": "user-1", "type": "email", "subject": "Document Processed", "message": "Your document has been processed: score 87"}


class Inbox:
    def __init__(self) -> None:
        self.received: list[tuple[list[str], EmailMessage]] = []
        self.answers: dict[str, str] = {}
        """By command, where it is not 250."""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if "RCPT" not in self.answers:
            envelope.rcpt_tos.append(address)
        return self.answers.get("RCPT", "250 OK")

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.received.append((envelope.rcpt_tos, message))
        return self.answers.get("DATA", "250 OK")


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


@pytest.mark.parametrize(
    ("stage", "answer", "raised"),
    [
        ("DATA", "451 4.3.0 try later, s3cretpass", AttemptFailed),
        ("DATA", "452 4.2.2 mailbox full (554, b'not this one')", AttemptFailed),
        ("DATA", "554 5.7.1 no thanks, s3cretpass", PermanentFailure),
        ("RCPT", "450 4.2.1 greylisted, s3cretpass", AttemptFailed),
        ("RCPT", "550 5.1.1 no such user, s3cretpass", PermanentFailure),
    ],
)
def test_a_temporary_refusal_is_retried_and_a_permanent_one_not(inbox: tuple[Inbox, str], stage: str, answer: str, raised: type[Exception]) -> None:
    handler, url = inbox
    handler.answers[stage] = answer
    with pytest.raises(raised, match="the email notification was not delivered") as caught:
        run(PATH, config(url + "&to=c@example.com&name=s3cretpass"), JOB)
    assert answer[:3] in str(caught.value)
    assert "s3cretpass" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "raised"),
    [*((status, PermanentFailure) for status in (401, 403, 404, 413)), *((status, AttemptFailed) for status in (408, 425, 429, 500, 503))],
)
async def test_an_http_providers_status_decides(status: int, raised: type[Exception]) -> None:
    async with receiving(Answer(status=status, body=b"hunter2 says no")) as provider:
        url = f"json://user:hunter2@127.0.0.1:{provider.port}/t0kenT0ken?+X-Key=hunter2"
        with pytest.raises(raised, match=f"error={status}") as caught:
            await asyncio.to_thread(run, PATH, config(url), JOB)
    assert provider.received[0].path == "/t0kenT0ken"
    assert not [secret for secret in ("hunter2", "t0kenT0ken", "dXNlcjpodW50ZXIy") if secret in str(caught.value)]


async def test_a_provider_that_never_finishes_is_left_and_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "TIMEOUT", 0.2)
    async with receiving() as provider:
        provider.default = provider.hang
        with pytest.raises(AttemptFailed, match="was not delivered"):
            await asyncio.to_thread(run, PATH, config(f"json://127.0.0.1:{provider.port}/x"), JOB)


def test_a_server_that_is_not_there_is_retried(inbox: tuple[Inbox, str]) -> None:
    with pytest.raises(AttemptFailed, match="was not delivered") as caught:
        run(PATH, config("mailto://user:s3cretpass@127.0.0.1:1/?from=a@example.com&to=b@example.com&mode=insecure"), JOB)
    assert "s3cretpass" not in caught.value.message
    assert "refused" in caught.value.message


@pytest.mark.parametrize("words", ["", " \n"])
def test_an_empty_message_fails_for_good(inbox: tuple[Inbox, str], words: str) -> None:
    handler, url = inbox
    with pytest.raises(PermanentFailure, match="there is nothing to send: both subject and message are empty"):
        run(PATH, config(url), {**JOB, "to": "jane@example.com", "subject": words, "message": words})
    assert not handler.received


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


TEMPLATES = {
    "email": {
        "subject": "[{type}] {subject}",
        "text": "{message}\nScore: {data.score}",
        "html": '<p>{message}</p><p>Score {data.score}, <a title="{subject}" href="https://h.example/runs/{data.run}">details</a></p>',
    }
}


def test_a_template_gives_subject_and_html_and_escapes_what_it_is_given(inbox: tuple[Inbox, str]) -> None:
    handler, url = inbox
    job = JOB | {
        "message": "1 < 2 & more\n<script>alert(1)</script>",
        "subject": 'a "quoted"\r\nBcc: x@example.com',
        "data": {"score": 87, "run": '"><b>'},
    }
    run(PATH, Config.model_validate({"notifications": {"email": url + "&to=c@example.com", "templates": TEMPLATES}}), job)
    [(recipients, message)] = handler.received
    assert (recipients, message["Bcc"]) == (["c@example.com"], None)
    assert message["Subject"] == '[email] a "quoted" Bcc: x@example.com'
    html = body(message, "html")
    assert html.startswith("<p>1 &lt; 2 &amp; more<br>\n&lt;script&gt;alert(1)&lt;/script&gt;</p><p>Score 87, ")
    assert 'href="https://h.example/runs/&quot;&gt;&lt;b&gt;">details</a>' in html
    assert "1 < 2 & more" in body(message, "plain")


async def test_a_service_without_html_gets_the_text() -> None:
    async with receiving() as provider:
        settings = {"push": f"json://127.0.0.1:{provider.port}/?format=text", "templates": {"push": TEMPLATES["email"]}}
        job = JOB | {"type": "push", "data": {"score": 8.5, "run": "r"}}
        await asyncio.to_thread(run, PATH, Config.model_validate({"notifications": settings}), job)
        sent = json.loads((await provider.next()).body)
    assert (sent["title"], sent["message"]) == ("[push] Document Processed", f"{JOB['message']}\nScore: 8.5")


def test_data_that_does_not_fill_the_template_fails_for_good() -> None:
    settings = Config.model_validate({"notifications": {"email": "mailto://127.0.0.1:1/?to=a@b.c", "templates": TEMPLATES}})
    with pytest.raises(PermanentFailure, match=r"notifications\.templates\.email\.text: \{data\.score\} has no value: the job names no data\.score"):
        run(PATH, settings, JOB)


def test_a_template_that_cannot_be_used_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"notifications\.templates\.sms\.text: there is nothing called 'mesage'.*did you mean 'message'"):
        resolve(PATH, Config.model_validate({"notifications": {"templates": {"sms": {"text": "{mesage}"}}}}))


@pytest.mark.parametrize(
    ("channel", "to", "fits"),
    [
        ("email", "jane@example.com", True), ("email", "a+b&to=x@example.com", True), ("email", "ops@mail", True), ("email", "j@exämple.com", True),
        ("email", "jane", False), ("email", "jane@", False), ("email", "@example.com", False), ("email", "a@b@c.com", False),
        ("email", "a@-x.com", False), ("email", "a@x..com", False), ("email", '"a/b"@x.com', False), ("email", "<a@x.com>", False),
        ("email", "x" * 65 + "@x.com", False), ("email", "a@[127.0.0.1]", False), ("email", "+4915112345678", False),
        ("sms", "+4915112345678", True), ("sms", "+12025550123", True), ("sms", "015112345678", False), ("sms", "+0151123456", False),
        ("sms", "+49151123456789012", False), ("sms", "+1-202-555", False), ("sms", "jane@example.com", False),
        ("slack", "#compliance", True), ("slack", "@jane", True), ("slack", "C0123456", True), ("slack", "jane@example.com", True),
        ("slack", "#a/b", False), ("slack", "##a", False), ("push", "dev1ce:APA91_x-y", True), ("push", "a/b", False), ("push", "a?b=c", False),
    ],
)  # fmt: skip
def test_to_is_checked_per_channel(channel: str, to: str, fits: bool) -> None:
    assert (recipients.fault(channel, to) is None) is fits


def test_a_wrong_recipient_fails_for_good_without_being_repeated() -> None:
    with pytest.raises(PermanentFailure, match=r"to: should be a telephone number in E\.164") as caught:
        run(PATH, config("mailto://127.0.0.1:1/?to=a@b.c"), JOB | {"type": "sms", "to": "0151-jane"})
    assert "0151" not in caught.value.message


def test_what_is_filled_in_is_percent_encoded() -> None:
    wanted = SendNotification.model_validate(JOB | {"userId": "a/b?c", "to": "#x&y=z@é"})
    assert filled("json://h/{userId}?to={to}&x={other}", wanted) == "json://h/a%2Fb%3Fc?to=%23x%26y%3Dz%40%C3%A9&x={other}"


def test_one_line() -> None:
    assert one_line(" a\r\nb\u2028c\x00 ") == "a b c"


@pytest.mark.parametrize(
    ("lines", "permanent"),
    [
        (["Failed to send Slack notification: Unauthorized, error=401."], True),
        (["error=401.", "error=503."], False),
        (["Failed to send to Slack: error=200."], False),
        (["Socket Exception: (535, b'5.7.8 bad credentials')"], True),
        (["Socket Exception: (454, b'4.7.0 later')"], False),
        (["SMTP recipient a@b.c was refused: 550 b'no'"], True),
        (["Socket Exception: {'a@b.c': (550, b'no'), 'd@e.f': (451, b'later')}"], False),
        (["There are no Email recipients to notify"], True),
        (["Socket Exception: [Errno 111] Connection refused"], False),
        ([], False),
    ],
)
def test_what_apprise_says_of_a_refusal(lines: list[str], permanent: bool) -> None:
    assert is_permanent(lines) is permanent


def test_no_secret_survives_in_another_writing() -> None:
    url = "json://us%40er:p%2Fss+w0rd@Host.Example/TOKENtoken?+X-Key=K%C3%A9y123&verify=no&from=me@x.org"
    said = "host.example us@er p/ss+w0rd p%2Fss%2Bw0rd /tokenTOKEN Kéy123 K\\xe9y123 dXNAZXI6cC9zcyt3MHJk from verify"
    assert without_secrets(said, url) == "… … … … /… … … … from verify"


def test_no_part_of_a_url_is_repeated() -> None:
    url = "slack://T1JJ3T3L2/A1BRTD4JD/p%40ssword%21/#general?footer=no"
    said = "Failed to send to https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/p@ssword!: error=404.\n"
    assert without_secrets(said, url) == "Failed to send to https://hooks.slack.com/services/…/…/…: error=404."
