"""Compliance analysis: what the shipped packs find in real documents, how it is judged and redacted, and that nothing is dialled."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.config import Config
from pipeline.errors import NotFound, PermanentFailure
from pipeline.jobs.isolation import IsolatedPool
from pipeline.jobs.model import Job
from pipeline.jobs.registry import resolve
from pipeline.jobs.results import check_result
from pipeline.processors import packs
from pipeline.processors.detection import CHUNK, Detector, chunks
from tests.support.processing import EXAMPLES, Told, maker, put, run
from tests.unit.test_isolation import Recorder

PATH = "pipeline.processors.compliance:ComplianceAnalysisProcessor"
DOCUMENTS = "pipeline.processors.documents:DocumentProcessingProcessor"
EXPECTED = json.loads((EXAMPLES / "expected.json").read_text())


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(packs.load())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate({"storage": {"url": str(tmp_path)}})


@pytest.fixture
def analyse(config: Config, detector: Detector, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Analyse a text of one's own; the detector, which takes a second to make, is the module's."""
    monkeypatch.setattr("pipeline.processors.compliance.Detector", lambda _: detector)

    def analysed(text: str | bytes, *frameworks: str, filename: str = "a.txt", context: Any = None, **more: Any) -> Any:
        path = put(config, "d", filename, text if isinstance(text, bytes) else text.encode())
        data = {"documentId": "d", "documentPath": f"/{path}", "complianceFrameworks": list(frameworks), **more}
        return run(PATH, config, data, context=context)

    return analysed


def kinds(detector: Detector, text: str) -> dict[str, str]:
    return {text[span.start : span.end]: span.kind for span in detector.spans(text)}


# --- the example documents ---


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if expected["run"] == "completed"])
def test_the_examples_are_judged_as_expected(analyse: Any, name: str) -> None:
    expected = EXPECTED[name]
    result = analyse((EXAMPLES / name).read_bytes(), "GDPR", "SOX", filename=name, mimeType=expected["mimeType"])
    low, high = expected["score"]
    assert low <= result.score <= high
    assert len(result.findings) >= expected["findings"]


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if expected["run"] == "failed"])
def test_the_examples_that_cannot_be_processed_say_why(config: Config, name: str) -> None:
    put(config, "d", name, (EXAMPLES / name).read_bytes())
    with pytest.raises(PermanentFailure) as caught:
        run(DOCUMENTS, config, {"documentId": "d", "filename": name, "mimeType": EXPECTED[name]["mimeType"]})
    assert EXPECTED[name]["reason"] in caught.value.message


def test_personal_and_card_data_under_all_frameworks(analyse: Any) -> None:
    result = analyse((EXAMPLES / "customer-export.docx").read_bytes(), filename="customer-export.docx")
    assert list(result.frameworks) == ["GDPR", "SOX", "HIPAA", "PCI-DSS"]
    assert result.score == min(framework.score for framework in result.frameworks.values()) == result.frameworks["PCI-DSS"].score
    found = {finding.rule for finding in result.findings}
    assert found >= {
        "gdpr-national-identifiers", "gdpr-payment-data", "gdpr-identity-profile", "gdpr-contact-data", "gdpr-online-identifiers",
        "pci-sensitive-authentication-data", "pci-unprotected-pan", "pci-cardholder-data", "sox-manipulated-timing", "sox-control-override",
    }  # fmt: skip
    assert result.frameworks["HIPAA"].findings == 0
    assert sum(1 for finding in result.findings if finding.rule == "pci-unprotected-pan") == 3


def test_nothing_personal_is_in_a_result_or_the_findings_file(analyse: Any, config: Config) -> None:
    """Every name, number and address of the two telling documents, looked for in all that is written."""
    for name in ("customer-export.docx", "patient-intake.html"):
        result = analyse((EXAMPLES / name).read_bytes(), filename=name)
        written = check_result(result) + (Path(config.storage.url) / result.findings_path).read_text()
        for personal in (
            "Margaret", "Holloway", "Piotr", "Kowalczyk", "Laurent", "example.com", "1971", "736-5000", "536-90", "4399",
            "4111", "5555", "8224", "123", "DE89", "NWBK", "203.0.113", "Samuel", "Okafor", "1962", "00482913", "2671", "E11", "XJ48", "diabetes",
        ):  # fmt: skip
            assert personal not in written, f"{personal} of {name}"


def test_the_file_holds_all_findings_and_the_result_the_gravest(analyse: Any, config: Config) -> None:
    text = "".join(f"write to person{n}@example.com\n" for n in range(300)) + "card 4111 1111 1111 1111\n"
    result = analyse(text)
    assert len(result.findings) == 50
    assert result.findings[0].rule == "pci-unprotected-pan"
    everything = orjson.loads((Path(config.storage.url) / result.findings_path).read_bytes())
    assert result.findings_path == "documents/d/.hookline/findings-1.json"
    assert len(everything["findings"]) == sum(framework.findings for framework in result.frameworks.values()) == 303
    assert everything["findings"][0].keys() == {"rule", "framework", "article", "severity", "title", "advice", "excerpt", "page", "offset"}
    assert len(check_result(result)) < 32 * 1024


def test_a_score_is_explained(analyse: Any, config: Config) -> None:
    result = analyse((EXAMPLES / "customer-export.docx").read_bytes(), filename="customer-export.docx")
    everything = orjson.loads((Path(config.storage.url) / result.findings_path).read_bytes())
    for name, framework in result.frameworks.items():
        assert framework.score == max(0, 100 - math.ceil(round(sum(loss.lost for loss in framework.scoring), 2)))
        assert framework.findings == sum(loss.findings for loss in framework.scoring)
        assert [loss.lost for loss in framework.scoring] == sorted((loss.lost for loss in framework.scoring), reverse=True)
        assert everything["scoring"][name] == [loss.model_dump() for loss in framework.scoring]


def test_two_runs_give_the_same(analyse: Any) -> None:
    content = (EXAMPLES / "customer-export.docx").read_bytes()
    assert analyse(content, filename="a.docx") == analyse(content, filename="a.docx")


# --- texts, pages, places ---


def test_no_findings_is_100(analyse: Any) -> None:
    result = analyse("The machine runs again.")
    assert (result.score, result.findings, result.warnings) == (100, [], [])


def test_no_text_is_never_100(analyse: Any) -> None:
    result = analyse(maker().pdf([""], title="blank"), "GDPR", filename="blank.pdf")
    assert result.score is None
    assert result.warnings == ["no-text"]
    assert result.frameworks["GDPR"].score is None


def test_page_and_offset_lead_to_the_place(analyse: Any, config: Config) -> None:
    content = maker().pdf(["Nothing here.", "Nothing here either.", "Write to jane@example.com today."], title="three pages")
    put(config, "d", "p.pdf", content)
    processed = run(DOCUMENTS, config, {"documentId": "d", "filename": "p.pdf"})
    [finding] = analyse(content, "GDPR", filename="p.pdf", documentPath=processed.path).findings
    assert finding.page == 3
    text = (Path(config.storage.url) / processed.text_path).read_text()
    assert text[finding.offset :].startswith("jane@example.com")


def test_the_stored_text_is_taken_if_it_is_of_these_bytes(analyse: Any, config: Config) -> None:
    put(config, "d", "a.txt", b"first")
    processed = run(DOCUMENTS, config, {"documentId": "d", "filename": "a.txt"})
    (Path(config.storage.url) / processed.text_path).write_text("jane@example.com")
    assert analyse("first").frameworks["GDPR"].findings == 1
    assert analyse("replaced since").frameworks["GDPR"].findings == 0


def test_a_document_that_is_not_there_may_come(config: Config) -> None:
    with pytest.raises(NotFound, match=r"documents/d/x\.pdf is not in the storage"):
        run(PATH, config, {"documentId": "d", "documentPath": "/documents/d/x.pdf"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"complianceFrameworks": ["GDPR", "CCPA"]}, "complianceFrameworks: unknown 'CCPA'; known are GDPR, SOX, HIPAA, PCI-DSS"),
        ({"documentPath": "../x"}, "documentPath: '../x' is not a path below the storage root"),
        ({"documentId": "a/b"}, "documentId: 'a/b' is not a document id"),
        ({"documentPath": None}, "documentPath: Input should be a valid string"),
    ],
)
def test_wrong_data(config: Config, change: dict[str, Any], says: str) -> None:
    with pytest.raises(PermanentFailure) as caught:
        run(PATH, config, {"documentId": "d", "documentPath": "documents/d/a.txt"} | change)
    assert says in caught.value.message


def test_frameworks_are_known_in_any_writing(analyse: Any) -> None:
    assert list(analyse("x", "pci dss", "gdpr", "GDPR").frameworks) == ["GDPR", "PCI-DSS"]


def test_progress_is_reported_while_it_works(analyse: Any) -> None:
    context = Told()
    analyse("The words of a long text. " * 1000, context=context)
    assert context.reported[0] == 10
    assert context.reported[-1] == 100
    assert len(set(context.reported)) > 5
    assert context.reported == sorted(context.reported)


# --- what is recognised ---


def test_kinds(detector: Detector) -> None:
    text = (
        "Card 4111 1111 1111 1111 or 4111 1111 1111 1112, IBAN DE89370400440532013000 or DE89370400440532013001, "
        "mail a.b@example.co.uk or a@b.nosuchsuffix, ip 192.0.2.7, ssn 536-90-4399, Dr. Ada Lovelace, born on 10 December 1815."
    )
    assert kinds(detector, text) == {
        "4111 1111 1111 1111": "CREDIT_CARD",
        "DE89370400440532013000": "IBAN_CODE",
        "a.b@example.co.uk": "EMAIL_ADDRESS",
        "192.0.2.7": "IP_ADDRESS",
        "536-90-4399": "US_SSN",
        "Dr. Ada Lovelace": "PERSON",
        "born on 10 December 1815": "DATE_OF_BIRTH",
    }


@pytest.mark.parametrize("shift", [0, 7, 13, 100])
def test_nothing_is_lost_or_doubled_at_the_border_of_chunks(detector: Detector, shift: int) -> None:
    text = "x" * shift + " " + "".join(f"reach me at someone{n:04}@example.com or so, " for n in range(3 * CHUNK // 40))
    assert [text[span.start : span.end] for span in detector.spans(text)] == [f"someone{n:04}@example.com" for n in range(3 * CHUNK // 40)]


@pytest.mark.parametrize("text", ["", "short", "x" * (3 * CHUNK), "word " * CHUNK, ("x" * 900 + " ") * 20])
def test_chunks_cover_the_text(text: str) -> None:
    covered = 0
    pieces = list(chunks(text))
    for start, chunk, last in pieces:
        assert start <= covered
        assert text[start : start + len(chunk)] == chunk
        assert len(chunk) <= CHUNK
        covered = start + len(chunk)
        assert last == (covered == len(text))
    assert covered == len(text)


# --- in a child, and without a network ---


async def test_in_a_real_child(config: Config) -> None:
    path = put(config, "d", "a.txt", b"Write to jane@example.com.")
    pool = IsolatedPool(resolve(PATH, config), config, 1)
    job = Job(id="run_1_analyze_1", queue="q", name="n", data={"documentId": "d", "documentPath": path}, attempt=1, attempts=3, timestamp=1)
    context = Recorder()
    try:
        result = await pool.run(job, context)
    finally:
        await pool.close()
    assert set(result) == {"score", "frameworks", "findings", "findingsPath", "warnings"}
    scoring = [{"rule": "gdpr-contact-data", "findings": 1, "weight": 3, "lost": 3.0}]
    assert result["frameworks"]["GDPR"] == {"score": 97, "findings": 1, "scoring": scoring}
    assert result["findings"][0].keys() == {"rule", "framework", "article", "severity", "excerpt", "page", "offset"}
    assert result["findingsPath"] == "documents/d/.hookline/findings-run_1_analyze_1.json"
    assert context.reported[-1] == 100


GUARD = """
import ipaddress, socket, sys
dialled = []
def guard(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = args[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = args[1][0] if isinstance(args[1], tuple) else "127.0.0.1"
    else:
        return
    try:
        allowed = ipaddress.ip_address(host).is_loopback
    except ValueError:
        allowed = host == "localhost"
    if not allowed:
        dialled.append((event, host))
        raise OSError(f"refused: {event} {host}")
sys.addaudithook(guard)
probe = socket.socket()
probe.settimeout(1)
for attempt in (lambda: probe.connect(("192.0.2.1", 80)), lambda: socket.getaddrinfo("example.com", 80), lambda: socket.gethostbyname("a.example")):
    try:
        attempt()
    except OSError as error:
        assert "refused" in str(error)
assert len(dialled) == 3, dialled
probe.close()
dialled.clear()
"""


def test_nothing_is_dialled(tmp_path: Path) -> None:
    """A fresh process without any cache, with an audit hook that sees every connection Python makes before it is made."""
    script = f"""{GUARD}
from pathlib import Path
sys.path.insert(0, {str(EXAMPLES.parents[1])!r})
from pipeline.config import Config
from tests.support.processing import EXAMPLES, put, run
config = Config.model_validate({{"storage": {{"url": {str(tmp_path / "storage")!r}}}}})
scores = []
for name in ("quarterly-report.pdf", "customer-export.docx", "patient-intake.html", "meeting-notes.txt"):
    put(config, "d", name, (EXAMPLES / name).read_bytes())
    path = run({DOCUMENTS!r}, config, {{"documentId": "d", "filename": name}}).path
    scores.append(run({PATH!r}, config, {{"documentId": "d", "documentPath": path}}).score)
print(scores[0], scores[1] < 50, dialled)
"""
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "100 True []"
