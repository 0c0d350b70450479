"""Hostile documents end with a reason to act on, within the processor's time and memory; nothing is fetched and nothing is lost silently."""

import asyncio
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.errors import PermanentFailure
from pipeline.jobs.child import HEADROOM
from pipeline.jobs.isolation import IsolatedPool
from pipeline.jobs.model import Job
from pipeline.jobs.registry import resolve
from pipeline.processors import containers, hypertext
from pipeline.processors.extraction import TEXT_LIMIT, extract
from tests.support import hostile
from tests.support.attempts import PATH, attempts
from tests.support.catalogue import DOCUMENTS, ENTITIES, KILLED
from tests.unit.test_isolation import Recorder

PAGE = Path(__file__).parents[2] / "docs" / "documents.md"
SLIPPED = Path("/tmp/slipped")
LIMITS = resolve(PATH, Config())


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.timeout(600)  # for all of them; each has the time that its processor has
async def test_each_ends_as_it_should_within_time_and_memory(tmp_path: Path) -> None:
    wrong = []
    async for attempt in attempts(tmp_path):
        document = attempt.document
        as_expected = document.reason in attempt.reason if document.reason and attempt.reason else document.reason is attempt.reason
        # One that was killed for its memory can be over the limit when that is seen; no other may be.
        allowed = LIMITS.memory + (HEADROOM if document.reason == KILLED else 0)
        if not as_expected or attempt.seconds * 1000 > LIMITS.timeout or attempt.mib << 20 > allowed:
            wrong.append(attempt)
    assert wrong == []
    assert not await asyncio.to_thread(SLIPPED.exists)


def test_the_page_has_each_with_what_becomes_of_it() -> None:
    rows = dict(re.findall(r"^\| (?:`(.+?)`) \| .*? \| (completed|failed)\b", PAGE.read_text(), re.MULTILINE))
    assert rows == {document.name: "failed" if document.reason else "completed" for document in DOCUMENTS}


async def test_one_that_takes_too_long_is_killed_with_advice(tmp_path: Path) -> None:
    config = Config.model_validate({"storage": {"url": str(tmp_path)}})
    place = tmp_path / "documents" / "d" / "slow.html"
    place.parent.mkdir(parents=True)
    place.write_bytes(hostile.slow_html(200_000))
    pool = IsolatedPool(replace(resolve(PATH, config), timeout=500), config, 1)
    data = {"documentId": "d", "filename": "slow.html", "mimeType": "text/html"}
    began = time.monotonic()
    try:
        await pool.warm()
        with pytest.raises(PermanentFailure, match=r"exceeded its time limit of 500ms and was killed; the document is too .* split it"):
            await pool.run(Job(id="1", queue="q", name="n", data=data, attempt=1, attempts=3, timestamp=1), Recorder())
    finally:
        await pool.close()
    assert time.monotonic() - began < 30, "by itself it would take minutes"


async def test_nothing_is_fetched() -> None:
    dialled = asyncio.Event()

    def noticed(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.set()
        writer.close()

    server = await asyncio.start_server(noticed, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for kind, (filename, mime_type, data) in hostile.external(port).items():
            if kind in ("xml", "svg", "docx entities"):
                with pytest.raises(PermanentFailure, match=ENTITIES):
                    await asyncio.to_thread(extract, data, mime_type, filename)
                continue
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


@pytest.mark.parametrize(
    "prolog",
    [
        '<!DOCTYPE r [<!ENTITY c "4111 1111 1111 1111">]>',
        '<!DOCTYPE r [\n<!-- <a> --><!ELEMENT r ANY>\n<!ENTITY c "4111 1111 1111 1111">]>',
        '<!DOCTYPE r SYSTEM "r.dtd" [<!ENTITY\n% c SYSTEM "c">%c;]>',
    ],
)
@pytest.mark.parametrize("mime_type", ["application/xml", "image/svg+xml", hostile.DOCX])
def test_text_in_an_entity_is_not_lost_in_silence(prolog: str, mime_type: str) -> None:
    if mime_type == hostile.DOCX:
        data = hostile.docx("<w:p><w:r><w:t>before &c; after</w:t></w:r></w:p>", prolog=prolog)
    else:
        data = f"<?xml version='1.0'?>{prolog}<r>before &c; after</r>".encode()
    with pytest.raises(PermanentFailure, match="declares XML entities"):
        extract(data, mime_type, "f")


def test_a_document_type_without_entities_is_read() -> None:
    data = b'<!DOCTYPE r PUBLIC "-//X" "x.dtd" [<!ELEMENT r ANY>]><r>an ENTITY <!-- an ENTITY --></r>'
    assert "an ENTITY" in extract(data, "application/xml", "f").text


@pytest.mark.parametrize("piece", ["<a ", "<!-- ", '<a b="', "<![CDATA[", "</a ", "<?x "])
def test_what_nothing_closes_is_read_in_time(piece: str) -> None:
    began = time.monotonic()
    assert hypertext.text_of("before " + piece * 200_000 + "after").startswith("before <")
    assert time.monotonic() - began < 10, "anew at each of them, it takes hours"


# --- containers ---


def test_an_entity_is_found_across_the_pieces_that_a_part_is_read_in() -> None:
    text = b"<!--" + b" " * (containers._CHUNK - 8) + b'--><!DOCTYPE r [<!ENTITY c "x">]><r>&c;</r>'
    with pytest.raises(containers.Entities):
        containers.checked(hostile.docx(more={"word/header1.xml": text}))


def test_fonts_that_are_encrypted_lock_no_text() -> None:
    fonts = b'<encryption><EncryptedData><CipherData><CipherReference URI="OEBPS/a.ttf"/></CipherData></EncryptedData></encryption>'
    assert containers.checked(hostile.zipped({"META-INF/encryption.xml": fonts})) == containers.Contents()


def test_what_is_embedded_is_named() -> None:
    extracted = extract(hostile.docx(more={"word/embeddings/a.docx": hostile.docx()}), hostile.DOCX, "a.docx")
    assert extracted.warnings[0] == "embedded: 1 files in the document were not read (word/embeddings/a.docx); upload them one by one"


def test_a_container_of_an_unknown_kind_is_left_to_the_library() -> None:
    with pytest.raises(PermanentFailure, match="damaged or incomplete"):
        extract(b"PK\x03\x04" + bytes(100), hostile.DOCX, "a.docx")


def test_text_just_within_the_limit() -> None:
    data = b"word\n" * (TEXT_LIMIT // 5)
    assert extract(data, "text/plain", "a.txt").text.encode() == data.strip()
