"""Notification templates: what may stand in one, where a mistake is shown, and that no value can become markup."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.configfile import load
from pipeline.errors import ConfigError
from pipeline.processors.templates import MAX_FILLED, UnfilledPlace, filled, mistakes


@pytest.mark.parametrize(
    ("kind", "text", "offset", "says"),
    [
        ("text", "Hi {usrId}", 3, "there is nothing called 'usrId' to fill in; did you mean 'userId'?"),
        ("text", "{data}", 0, "nothing called 'data'"),
        ("text", "{data.a.b}", 0, "nothing called 'data.a.b'"),
        ("text", "Hi {{ subject }}", 3, "single braces: {subject}"),
        ("text", "  ", 0, "is empty"),
        ("text", "x" * 65_537, 0, "65,537 characters"),
        ("subject", "a\nb", 0, "a subject is one line"),
        ("html", "<script>var a = '{message}'</script>", 17, "nothing can be filled into <script> safely"),
        ("html", "<style>{message}</style>", 7, "<style>"),
        ("html", "<p onclick='f({message})'>", 14, "onclick"),
        ("html", "<p style='color: {data.c}'>", 17, "style"),
        ("html", "<a href='{data.url}'>x</a>", 9, "where href leads is to be written out"),
        ("html", "<a href='javascript:{data.url}'>x</a>", 20, "where href leads"),
        ("html", "<a href='https://{data.host}/'>x</a>", 17, "where href leads"),
        ("html", "<img alt={subject}>", 9, "needs quotes"),
        ("html", "<!-- {subject} -->", 5, "a comment is sent"),
        ("html", "<{subject}>", 0, ""),
        ("html", "<p {subject}>", 0, "neither text nor an attribute's value"),
    ],
)
def test_mistakes(kind: str, text: str, offset: int, says: str) -> None:
    found = mistakes(text, kind)  # type: ignore[arg-type]
    if text == "<{subject}>":
        # No tag begins so: it is text, in which the value is escaped.
        assert not found
        return
    assert says in found[0].message
    assert found[0].offset == offset


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("html", "<p title='{subject}'>{message}</p><a href=\"https://h.example/{data.id}?u={userId}\">x</a><a href='mailto:{to}'>y</a>"),
        ("html", "<style>p {color: red} a{b:c}</style><p>{message}</p>"),
        ("text", 'JSON {"a": {message}} and { this } and {}'),
        ("subject", "{subject} ({data.score})"),
    ],
)
def test_what_may_stand_in_a_template(kind: str, text: str) -> None:
    assert not mistakes(text, kind)  # type: ignore[arg-type]


def test_filling_in() -> None:
    values = {"message": "a\r\nb & <c>", "data.n": 3, "data.t": True, "data.f": 0.5, "data.none": None, "data.curly": "{message}"}
    assert filled("{message} {data.n} {data.t} {data.f} {x y} {data.curly}", values, "text") == "a\r\nb & <c> 3 true 0.5 {x y} {message}"
    assert filled('<p title="{message}">{message}</p>', values, "html") == '<p title="a\r\nb &amp; &lt;c&gt;">a<br>\nb &amp; &lt;c&gt;</p>'
    for missing in ("{to}", "{data.none}"):
        with pytest.raises(UnfilledPlace, match="has no value: the job names no"):
            filled(missing, values, "text")


def test_a_message_that_is_named_often_stays_small() -> None:
    with pytest.raises(ValueError, match="more than 1,048,576 characters"):
        filled("{message}" * 1000, {"message": "x" * (MAX_FILLED // 100)}, "text")


class Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "br":
            self.tags.append((tag, tuple(name for name, _ in attrs)))


@given(st.text() | st.sampled_from(["</p><script>alert(1)</script>", '" onclick="x', "' onclick='x", "--><img src=x>", "&lt;b&gt;"]))
def test_no_value_becomes_markup(value: str) -> None:
    template = '<p title=\'{message}\'>{message}</p><a title="{message}" href="https://h/{message}">{message}</a>'
    assert Seen(filled(template, {"message": value}, "html")).tags == [("p", ("title",)), ("a", ("title", "href"))]


def test_a_mistake_is_shown_at_its_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "notifications:\n  email: mailto://h?to=a@b.c\n  templates:\n    email:\n      subject: 'New: {subjet}'\n"
        "      html: |\n        <p onclick='{message}'>x</p>\n    sms: {txt: x}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert [(fault.path, fault.line, fault.column) for fault in caught.value.faults] == [
        ("notifications.templates.sms.txt", 8, 11),
        ("notifications.templates.email.subject", 5, 22),
        ("notifications.templates.email.html", 6, 13),
    ]
    assert "did you mean 'subject'" in caught.value.faults[1].message
