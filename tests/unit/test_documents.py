"""Document processing: what comes out of real files, and what is refused with which reason."""

import asyncio
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.config import Config
from pipeline.errors import AttemptFailed, NotFound, PermanentFailure
from pipeline.jobs.isolation import IsolatedPool
from pipeline.jobs.model import Job
from pipeline.jobs.registry import resolve
from pipeline.processors import extraction, mediatypes
from pipeline.processors.extraction import METADATA_LIMIT, PAGE_END, bounded
from tests.support.processing import EXAMPLES, Told, maker, put, run
from tests.unit.test_isolation import Recorder

PATH = "pipeline.processors.documents:DocumentProcessingProcessor"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
CONTROL = "; it holds control characters: save it as plain text"
make = maker()
DOCUMENTS = make.documents()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate({"storage": {"url": str(tmp_path)}})


def process(config: Config, filename: str, content: bytes, mime_type: str = "", **more: Any) -> Any:
    put(config, "d", filename, content)
    return run(PATH, config, {"documentId": "d", "userId": "u", "filename": filename, "mimeType": mime_type, **more})


def refused(config: Config, filename: str, content: bytes, mime_type: str = "", **more: Any) -> str:
    with pytest.raises(PermanentFailure) as caught:
        process(config, filename, content, mime_type, **more)
    return caught.value.message


def text_of(config: Config, result: Any) -> str:
    return (Path(config.storage.url) / result.text_path).read_text()


# --- what comes out ---


def test_a_pdf(config: Config) -> None:
    content = DOCUMENTS["quarterly-report.pdf"]
    result = process(config, "quarterly-report.pdf", content, "application/pdf", fileSize=len(content))
    assert (result.path, result.pages, result.mime_type, result.size) == ("documents/d/quarterly-report.pdf", 2, "application/pdf", len(content))
    assert result.sha256 == hashlib.sha256(content).hexdigest()
    assert result.text_path == f"documents/d/.hookline/{result.sha256}.txt"
    assert result.language == "eng"
    assert result.metadata["title"] == "Report on the third quarter"
    assert result.warnings == []
    pages = text_of(config, result).split(PAGE_END)
    assert len(pages) == 3
    assert pages[0].startswith("Northwind Paper: report on the third quarter\n")
    assert pages[1].startswith("Outlook\n")
    assert pages[2] == ""


@pytest.mark.parametrize(
    ("filename", "mime_type", "declared", "says"),
    [
        ("customer-export.docx", DOCX, DOCX, "margaret.holloway@example.com"),
        ("customer-export.docx", DOCX, "application/octet-stream", "Amélie Laurent"),
        ("patient-intake.html", "text/html", "text/html; charset=utf-8", "Metformin, 500 mg"),
        ("patient-intake.html", "text/html", "", "Metformin, 500 mg"),
        ("meeting-notes.txt", "text/plain", "Text/Plain", "Notes of the planning meeting"),
        ("meeting-notes.txt", "text/markdown", "text/markdown", "Notes of the planning meeting"),
    ],
)
def test_other_formats(config: Config, filename: str, mime_type: str, declared: str, says: str) -> None:
    result = process(config, filename, DOCUMENTS[filename], declared)
    assert result.mime_type == mime_type
    assert result.pages is None
    text = text_of(config, result)
    assert says in text
    assert PAGE_END not in text


def test_the_original_call(config: Config) -> None:
    result = process(config, "sample.pdf", make.sample(), "application/pdf", fileSize=1024000)
    assert (result.pages, result.size) == (12, 1024000)


def test_undeclared_text_is_told_by_its_name(config: Config) -> None:
    assert process(config, "a.csv", b"name,city\nA,B\n").mime_type == "text/csv"
    assert process(config, "a.unknown", b"just text").mime_type == "text/plain"


@pytest.mark.parametrize(
    ("content", "declared", "warned"),
    [
        ("naïve café".encode("utf-16"), "text/plain", False),
        ("naïve café".encode("utf-8-sig"), "text/plain", False),
        ("naïve café".encode("latin-1"), "text/plain; charset=iso-8859-1", False),
        ("naïve café".encode("cp1252"), "text/plain", True),
        ('<html><head><meta charset="iso-8859-15"></head><body>naïve café</body></html>'.encode("iso-8859-15"), "text/html", False),
    ],
)
def test_encodings(config: Config, content: bytes, declared: str, warned: bool) -> None:
    result = process(config, "a.txt", content, declared)
    assert text_of(config, result).strip() == "naïve café"
    assert any(warning.startswith("encoding") for warning in result.warnings) == warned


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (b"\xff<meta charset=undefined>", "text/plain"),
        (b"\xff\\ud800", "text/plain; charset=unicode_escape"),
        (b"\xff", "text/plain; charset=idna"),
        (b"\xff", "text/plain; charset=zlib"),
    ],
)
def test_an_encoding_that_is_none(config: Config, content: bytes, declared: str) -> None:
    result = process(config, "a.txt", content, declared)
    assert text_of(config, result) == content.decode("cp1252")
    assert any(warning.startswith("encoding") for warning in result.warnings)


def test_a_form_feed_in_a_text_is_no_page(config: Config) -> None:
    assert text_of(config, process(config, "a.txt", b"one\ftwo\r\nthree")) == "one\ntwo\nthree"


@pytest.mark.parametrize(("filename", "content"), [("blank.pdf", make.pdf([""], title="blank")), ("scan.png", make.png()), ("blank.txt", b" \n")])
def test_no_text_is_a_warning(config: Config, filename: str, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    assert process(config, filename, content).warnings == ["no-text"]
    assert "esseract" not in capfd.readouterr().err


def test_a_path_of_its_own(config: Config) -> None:
    put(config, "elsewhere", "x.txt", b"text")
    result = run(PATH, config, {"documentId": "d", "filename": "x.txt", "path": "/documents/elsewhere/x.txt"})
    assert result.path == "documents/elsewhere/x.txt"
    assert result.text_path.startswith("documents/d/.hookline/")


def test_progress_is_reported(config: Config) -> None:
    put(config, "d", "a.txt", b"text")
    context = Told()
    run(PATH, config, {"documentId": "d", "filename": "a.txt"}, context=context)
    assert context.reported == [10, 20, 80, 100]


# --- what is refused ---


def test_a_document_that_is_not_there_may_come(config: Config) -> None:
    with pytest.raises(NotFound) as caught:
        run(PATH, config, {"documentId": "d", "filename": "later.pdf"})
    assert caught.value.message == "documents/d/later.pdf is not in the storage"


@pytest.mark.parametrize(
    ("content", "declared", "reason"),
    [
        (make.png(), "application/pdf", "f is declared as application/pdf, but its bytes are image/png"),
        (b"<!doctype html><html><body>x</body></html>", "application/pdf", "f is declared as application/pdf, but its bytes are text/html"),
        (DOCUMENTS["quarterly-report.pdf"], "text/plain", "f is declared as text/plain, but its bytes are application/pdf"),
        (DOCUMENTS["quarterly-report.pdf"], DOCX, f"f is declared as {DOCX}, but its bytes are application/pdf"),
        (
            bytes(range(256)),
            "text/plain",
            "f is declared as text/plain, but its bytes are of no type that can be told; it holds control characters: save it as plain text",
        ),
        (b"{\\rtf1 hello}", "text/plain", "f is declared as text/plain, but its bytes are application/rtf"),
    ],
)
def test_another_type_than_declared(config: Config, content: bytes, declared: str, reason: str) -> None:
    assert refused(config, "f", content, declared) == reason


def test_another_size_than_declared(config: Config) -> None:
    assert refused(config, "f.txt", b"12345", fileSize=4) == "f.txt is declared to have 4 bytes, but has 5"
    assert process(config, "f.txt", b"12345", fileSize=0).size == 5


@pytest.mark.parametrize(
    ("filename", "content", "declared", "reason"),
    [
        ("contract.docx", DOCUMENTS["contract.docx"], DOCX, "it is damaged or incomplete (Could not find EOCD); upload it again"),
        ("half.pdf", DOCUMENTS["quarterly-report.pdf"][:900], "application/pdf", "it is damaged or incomplete (FormatError); upload it again"),
        ("a.zip", b"PK\x05\x06" + b"\0" * 18, "application/zip", "a.zip is an archive (application/zip), which is not opened"),
        ("a.bin", b"\x00\x01\x02" * 100, "", "a.bin is of no known type"),
        ("a.mp4", b"\x00\x01\x02" * 100, "video/mp4", "a.mp4 is declared as video/mp4, but its bytes are of no type that can be told"),
        ("empty.pdf", b"", "application/pdf", "empty.pdf is empty"),
    ],
)
def test_damaged_or_unreadable(config: Config, filename: str, content: bytes, declared: str, reason: str) -> None:
    assert reason in refused(config, filename, content, declared)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"filename": "a"}, "documentId: Field required"),
        ({"documentId": "d", "filename": "a", "fileSize": -1}, "fileSize: Input should be greater than or equal to 0"),
        ({"documentId": "../d", "filename": "a"}, "documentId: '../d' is not a document id"),
        ({"documentId": "d", "filename": "../a"}, "filename: '../a' is a path"),
        ({"documentId": "d", "filename": "a", "path": "../../etc/passwd"}, "documentPath: '../../etc/passwd' is not a path below the storage root"),
    ],
)
def test_wrong_data(config: Config, data: dict[str, Any], says: str) -> None:
    with pytest.raises(PermanentFailure) as caught:
        run(PATH, config, data)
    assert says in caught.value.message


# --- pure parts ---


def test_metadata_is_bounded() -> None:
    kept, cut = bounded({"title": "T", "empty": None, "pages": {"n": 1}, "core": {"company": "C"}, **{f"k{n:03}": "x" * 700 for n in range(40)}})
    assert cut
    assert len(orjson.dumps(kept)) <= METADATA_LIMIT
    assert list(kept)[:2] == ["title", "company"]
    assert len(kept["k000"]) == 500
    assert "pages" not in kept


@pytest.mark.parametrize(
    ("declared", "found", "data"),
    [
        ("application/msword", mediatypes.OLE, b""),
        (DOCX, "application/zip", b""),
        ("application/json", "text/plain", b""),
        ("message/rfc822", "text/plain", b""),
        ("text/plain", "application/pdf", b"The mark %PDF-1.4 begins such a file."),
    ],
)
def test_types_that_agree(declared: str, found: str, data: bytes) -> None:
    assert mediatypes.verified(declared, found, data, "f") == declared


# --- in a child ---


async def test_in_a_real_child(config: Config) -> None:
    put(config, "d", "quarterly-report.pdf", DOCUMENTS["quarterly-report.pdf"])
    pool = IsolatedPool(resolve(PATH, config), config, 1)
    job = Job(id="1", queue="q", name="n", data={"documentId": "d", "filename": "quarterly-report.pdf"}, attempt=1, attempts=3, timestamp=1)
    try:
        context = Recorder()
        result = await pool.run(job, context)
        missing = Job(id="2", queue="q", name="n", data={"documentId": "d", "filename": "later.pdf"}, attempt=1, attempts=3, timestamp=1)
        with pytest.raises(AttemptFailed, match=r"documents/d/later\.pdf is not in the storage"):
            await pool.run(missing, Recorder())
    finally:
        await pool.close()
    assert set(result) == {"path", "textPath", "pages", "mimeType", "size", "sha256", "language", "metadata", "warnings"}
    assert result["pages"] == 2
    assert context.reported[-1] == 100


async def test_the_loop_runs_on_while_a_child_works(config: Config) -> None:
    put(config, "d", "a.txt", b"The words of this text are many. " * 100_000)
    pool = IsolatedPool(resolve(PATH, config), config, 1)
    job = Job(id="1", queue="q", name="n", data={"documentId": "d", "filename": "a.txt"}, attempt=1, attempts=3, timestamp=1)
    try:
        await pool.warm()
        task = asyncio.create_task(pool.run(job, Recorder()))
        turns = 0
        while not task.done():
            await asyncio.wait({task}, timeout=0.002)
            turns += 1
        assert (await task)["size"] == 3_300_000
        assert turns > 5
    finally:
        await pool.close()


def test_a_worker_imports_none_of_the_heavy_libraries() -> None:
    script = (
        "import sys, pipeline.jobs.runner\nfrom pipeline.config import Config, BUILTIN_QUEUES\nfrom pipeline.jobs.registry import resolve\n"
        "[resolve(path, Config()) for queue in BUILTIN_QUEUES.values() for path in queue['processors'].values()]\n"
        "print([m for m in ('kreuzberg', 'presidio_analyzer', 'spacy', 'apprise', 'numpy', 'tldextract') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=EXAMPLES.parents[1], check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- the examples ---


def test_the_committed_examples_are_what_make_makes() -> None:
    for name, content in DOCUMENTS.items():
        assert (EXAMPLES / name).read_bytes() == content, f"{name}: run examples/documents/make.py"


@pytest.mark.parametrize("size", [30_000, 99_999, 100_000, 100_001, 1_024_000])
def test_the_sample_has_exactly_the_size(size: int) -> None:
    assert len(make.sample(size)) == size


def test_a_sample_cannot_be_too_small() -> None:
    with pytest.raises(ValueError, match="at least"):
        make.sample(1000)


# --- erased meanwhile ---


@pytest.mark.parametrize("path", [PATH, "pipeline.processors.compliance:ComplianceAnalysisProcessor"])
def test_a_document_that_is_erased_while_it_is_read_leaves_nothing(config: Config, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    extract = extraction.extract

    def slow(*args: Any, **more: Any) -> Any:
        shutil.rmtree(Path(config.storage.url) / "documents" / "d")
        return extract(*args, **more)

    monkeypatch.setattr(extraction, "extract", slow)
    put(config, "d", "a.txt", b"a text")
    data = {"documentId": "d", "userId": "u", "filename": "a.txt", "mimeType": "", "documentPath": "documents/d/a.txt"}
    with pytest.raises(NotFound, match="not in the storage any more"):
        run(path, config, data)
    assert list((Path(config.storage.url) / "documents").iterdir()) == []


def test_findings_of_a_document_that_is_erased_meanwhile_are_not_kept(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_text = extraction.stored_text

    def slow(*args: Any, **more: Any) -> Any:
        read = stored_text(*args, **more)
        shutil.rmtree(Path(config.storage.url) / "documents" / "d")
        return read

    monkeypatch.setattr(extraction, "stored_text", slow)
    put(config, "d", "a.txt", b"write to a@example.com")
    data = {"documentId": "d", "documentPath": "documents/d/a.txt"}
    with pytest.raises(NotFound, match="not in the storage any more"):
        run("pipeline.processors.compliance:ComplianceAnalysisProcessor", config, data)
    assert list((Path(config.storage.url) / "documents").iterdir()) == []
