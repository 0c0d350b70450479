"""Hostile documents end with a reason to act on, within the processor's time and memory; nothing is fetched and nothing is lost silently."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.errors import PermanentFailure
from pipeline.jobs.child import HEADROOM
from pipeline.jobs.registry import resolve
from pipeline.processors import hypertext
from pipeline.processors.extraction import TEXT_LIMIT, extract
from tests.support import hostile
from tests.support.attempts import PATH, attempts
from tests.support.catalogue import DOCUMENTS

PAGE = Path(__file__).parents[2] / "docs" / "documents.md"
SLIPPED = Path("/tmp/slipped")
LIMITS = resolve(PATH, Config())


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
async def test_each_ends_as_it_should_within_time_and_memory(tmp_path: Path) -> None:
    wrong = []
    async for attempt in attempts(tmp_path):
        document = attempt.document
        as_expected = document.reason in attempt.reason if document.reason and attempt.reason else document.reason is attempt.reason
        if not as_expected or attempt.seconds * 1000 > LIMITS.timeout or attempt.mib << 20 > LIMITS.memory + HEADROOM:
            wrong.append(attempt)
    assert wrong == []
    assert not await asyncio.to_thread(SLIPPED.exists)


def test_the_page_has_each_with_what_becomes_of_it() -> None:
    rows = dict(re.findall(r"^\| (?:`(.+?)`) \| .*? \| (completed|failed)\b", PAGE.read_text(), re.MULTILINE))
    assert rows == {document.name: "failed" if document.reason else "completed" for document in DOCUMENTS}


async def test_nothing_is_fetched() -> None:
    dialled = asyncio.Event()

    def noticed(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.set()
        writer.close()

    server = await asyncio.start_server(noticed, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for filename, mime_type, data in hostile.external(port).values():
            extracted = await asyncio.to_thread(extract, data, mime_type, filename)
            assert "root:" not in extracted.text
            assert "text" in extracted.text or "before" in extracted.text or mime_type in (hostile.DOCX, "application/pdf")
        assert not dialled.is_set()
        # The listener would have noticed.
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.wait_for(dialled.wait(), 5)
        writer.close()
        await writer.wait_closed()


# --- what a page says ---


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>one</p>two<img src=a alt='three'>four", "one\ntwo three four"),
        ("<div>" * 5000 + "deep" + "</div>" * 5000 + "after", "deep\nafter"),
        ("<form><label>Card</label> <input value='4111'> <nav>n</nav></form>", "Card 4111\nn"),
        ("<table><tr><td>a<td>b</tr><tr><th>c</th></tr></table>", "a | b\nc"),
        ("<p style='display:none'>hidden</p><noscript>n</noscript><template>t</template>", "hidden\nn\nt"),
        ("<script>var a = '<p>no</p>'</script>yes<style>b {}</style>", "yes"),
        ("<script src=x />after", "after"),
        ("<a href='mailto:a@example.com'>write</a> &amp; caf&eacute; &#128512;", "a@example.com write & café 😀"),
        ("un<b>bro</b>ken &lt;tag&gt; <!-- comment -->", "unbroken <tag>"),
    ],
)
def test_no_text_of_a_page_is_lost(page: str, text: str) -> None:
    assert hypertext.text_of(page) == text


@pytest.mark.parametrize(
    ("data", "mime_type", "text"),
    [
        (b"<c xmlns='u:x' mail='a@example.com'>x<b>y&#64;</b><![CDATA[z<]]></c>", "application/xml", "a@example.com x\ny@\nz<"),
        (b"<svg><text>in a picture</text></svg>", "image/svg+xml", "in a picture"),
        (b"# t\n\n<form>a@example.com</form> ![alt](x)\n", "text/markdown", "# t\n\n<form>a@example.com</form> ![alt](x)"),
    ],
)
def test_no_text_of_other_markup_is_lost(data: bytes, mime_type: str, text: str) -> None:
    assert extract(data, mime_type, "f").text.strip() == text


# --- containers ---


def test_what_is_embedded_is_named() -> None:
    extracted = extract(hostile.docx(more={"word/embeddings/a.docx": hostile.docx()}), hostile.DOCX, "a.docx")
    assert extracted.warnings[0] == "embedded: 1 files in the document were not read (word/embeddings/a.docx); upload them one by one"


def test_a_container_of_an_unknown_kind_is_left_to_the_library() -> None:
    with pytest.raises(PermanentFailure, match="damaged or incomplete"):
        extract(b"PK\x03\x04" + bytes(100), hostile.DOCX, "a.docx")


def test_text_just_within_the_limit() -> None:
    data = b"word\n" * (TEXT_LIMIT // 5)
    assert extract(data, "text/plain", "a.txt").text.encode() == data.strip()
