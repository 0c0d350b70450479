"""What each recogniser takes for what: numbers in their writings, words beside them, borders of pieces, and hostile texts."""

import logging
import time
from pathlib import Path

import pytest

from pipeline.errors import PermanentFailure
from pipeline.processors import packs, recognisers
from pipeline.processors.context import BEFORE
from pipeline.processors.detection import CHUNK, WORDS, Detector
from pipeline.processors.vocabulary import CONTRARY, SUPPORTING


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(packs.load())


def found(detector: Detector, text: str, kind: str) -> list[str]:
    """What a rule with the default confidence would see."""
    return [text[span.start : span.end] for span in detector.spans(text) if span.kind == kind and span.confidence >= 0.5]


@pytest.mark.parametrize(
    ("text", "cards"),
    [
        ("4111 1111 1111 1111, 4111-1111-1111-1111, 4111111111111111", ["4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111"]),
        ("Amex 3782 822463 10005 and Diners 3056 930902 5904", ["3782 822463 10005", "3056 930902 5904"]),
        ("charged 4111 1111 1111 1111 123 on 12/26", ["4111 1111 1111 1111"]),
        ("4111 1111-1111 1111", []),  # separators of two kinds
        ("4111 1111 1111 1112", []),  # the check digit is wrong
        ("9111 1111 1111 1119", []),  # nobody issues these
        ("x4111111111111111 4111111111111111y 4111111111111111-01", []),
        ("IMEI 378282246310005", []),
        ("the order was paid with 378282246310005", ["378282246310005"]),
        ("EAN 4012888888881", []),
        ("4222222222222", []),
        ("Visa 4222222222222", ["4222222222222"]),
    ],
)
def test_cards(detector: Detector, text: str, cards: list[str]) -> None:
    assert found(detector, text, "CREDIT_CARD") == cards


@pytest.mark.parametrize(
    ("text", "ibans"),
    [
        ("DE89 3704 0044 0532 0130 00 WIRD AB MAI GENUTZT", ["DE89 3704 0044 0532 0130 00"]),
        ("PT50 0002 0123 1234 5678 9015 4", ["PT50 0002 0123 1234 5678 9015 4"]),
        ("from DE89370400440532013000 to GB29NWBK60161331926819", ["DE89370400440532013000", "GB29NWBK60161331926819"]),
        ("de89-3704-0044-0532-0130-00", ["de89-3704-0044-0532-0130-00"]),
        ("DE89370400440532013000X", []),
        ("XDE89370400440532013000", []),
        ("DE89 3704 0044 0532 0130 0", []),
        ("DE89 3704 0044 0532 0130 01", []),
        ("RF18 5390 0754 7034 and ZZ89370400440532013000", []),
        ("NO93 8601 1117 94DE89370400440532013000", []),
    ],
)
def test_ibans(detector: Detector, text: str, ibans: list[str]) -> None:
    assert found(detector, text, "IBAN_CODE") == ibans


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("536-90-4399", ["536-90-4399"]),
        ("536 90 4399 or 536904399", []),
        ("SSN 536 90 4399, social security number: 536904398", ["536 90 4399", "536904398"]),
        ("666-90-4399, 000-90-4399, 536-00-4399, 536-90-0000, 936-90-4399", []),
        ("536-90-4399-01 and A-536-90-4399", []),
        ("part no. 536-90-4399", []),
        ("the part of 3 May, 536-90-4399", ["536-90-4399"]),
    ],
)
def test_social_security_numbers(detector: Detector, text: str, numbers: list[str]) -> None:
    assert found(detector, text, "US_SSN") == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("ask Ann, (212) 736-5000, or +44 20 7946 0018", ["(212) 736-5000", "+44 20 7946 0018"]),
        ("(0341 12345678) and 020 7946 0018 ext. 41", ["0341 12345678", "020 7946 0018 ext. 41"]),
        ("circuit 415-220-7719", []),  # the circuit's
        ("call 415-220-7719", ["415-220-7719"]),
        ("612079522", []),
        ("teléfono 612079522", ["612079522"]),
        ("order 020 7946 0018", []),
        ("order by phone 020 7946 0018", ["020 7946 0018"]),
        ("on 2024-05-14, 14.05.2024, 0800-1700", []),
        ("+44 20 7946 00", []),
        ("(H) 918-555-0147", ["918-555-0147"]),
    ],
)
def test_telephone_numbers(detector: Detector, text: str, numbers: list[str]) -> None:
    assert found(detector, text, "PHONE_NUMBER") == numbers


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("a.b+c@mail.example.co.uk, O'Neil@example.com.", ["a.b+c@mail.example.co.uk", "O'Neil@example.com"]),
        ("email=jane@example.com&x=1 <mailto:jo@example.com>", ["jane@example.com", "jo@example.com"]),
        ("личный@пример.рф メールはtanaka@example.co.jpです", ["личный@пример.рф", "tanaka@example.co.jp"]),
        ("git@github.com:a/b.git https://u:p@example.com/x <a=b@example.com>", []),
        ("Message-ID: <2024.77@mail.example.com>", []),
        ("lodash@4.17.21 icon@2x.png a@b", []),
    ],
)
def test_email_addresses(detector: Detector, text: str, addresses: list[str]) -> None:
    assert found(detector, text, "EMAIL_ADDRESS") == addresses


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("192.0.2.7, [2001:db8::42]:443 and 10.0.0.0/8.", ["192.0.2.7", "2001:db8::42", "10.0.0.0/8"]),
        ("1.3.6.1.4.1.311 v1.2.3.4 255.255.255.0 Add::Bed 12:34:56", []),
        ("version 10.0.19.2", []),
        ("the version on server 10.0.19.2", ["10.0.19.2"]),
    ],
)
def test_ip_addresses(detector: Detector, text: str, addresses: list[str]) -> None:
    assert found(detector, text, "IP_ADDRESS") == addresses


def own(folder: Path, pattern: str) -> Detector:
    """A detector with one pattern of a pack of one's own."""
    (folder / "own.yaml").write_text(f"framework: HOUSE\npatterns: [{{{pattern}}}]\n")
    return Detector(packs.load(("own.yaml",), folder=folder))


def test_a_packs_pattern_reads_lines_as_python_does(tmp_path: Path) -> None:
    """With Presidio's flags, `.+` would take the rest of the text, and what reaches a piece's border is left to the next."""
    detector = own(tmp_path, "kind: STAFF, regex: '^staff: .+$'")
    lines = CHUNK // 4
    assert found(detector, "staff: ada byron\nno staff: here\n" * lines, "STAFF") == ["staff: ada byron"] * lines


def test_a_packs_kind_may_be_a_part_of_ours(tmp_path: Path) -> None:
    detector = own(tmp_path, "kind: STAFF_ADDRESS, regex: '\\w+@example\\.com', confidence: 1")
    text = "ada@example.com and ada@example.org"
    assert found(detector, text, "STAFF_ADDRESS") == ["ada@example.com"]
    assert found(detector, text, "EMAIL_ADDRESS") == ["ada@example.org"]


def test_a_packs_words_count_beside_ours(tmp_path: Path) -> None:
    detector = own(tmp_path, "kind: PHONE_NUMBER, regex: '7-\\d{4}', confidence: 0.3, context: [kiosk]")
    assert found(detector, "the kiosk 7-1234, x" + "-" * BEFORE + " tel. 7-1235" + "-" * BEFORE + " 7-1236", "PHONE_NUMBER") == ["7-1234", "7-1235"]


def test_a_packs_pattern_that_takes_too_long_fails_instead_of_missing_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognisers, "PATIENCE", 0.1)
    detector = own(tmp_path, "kind: STAFF, regex: '(?:staff|[a-z ])*[!?]'")
    with pytest.raises(PermanentFailure, match="the regular expression of STAFF in a rule pack takes more than"):
        detector.spans("staff " * 333 + "it")


def test_words_are_those_that_the_recognisers_know() -> None:
    assert set(SUPPORTING) | set(CONTRARY) <= set(packs.RECOGNISERS)
    assert WORDS == BEFORE
    for words in (*SUPPORTING.values(), *CONTRARY.values()):
        assert all(word == word.lower().strip() and word.strip("*") for word in words)


@pytest.mark.parametrize("shift", range(0, 80, 9))
def test_words_count_across_the_border_of_pieces(detector: Detector, shift: int) -> None:
    """Wherever the border falls, the word before a number is seen."""
    text = "x" * shift + " " + "order no. 536-90-4399 then SSN 536 90 4398 as it was " * (3 * CHUNK // 50)
    assert set(found(detector, text, "US_SSN")) == {"536 90 4398"}
    assert len(found(detector, text, "US_SSN")) == 3 * CHUNK // 50


def test_nothing_that_was_read_is_logged(detector: Detector, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        detector.spans("IBAN DE٨٩٣٧٠٤٠٠٤٤٠٥٣٢٠١٣٠٠٠, GB29NWBK60161331926819, jane@example.com, card 4111 1111 1111 1111, ipv6 2001:db8::٤")
    assert caplog.records == []


@pytest.mark.parametrize(
    "unit",
    [
        "a.",
        "a@",
        "?a=b@c.d&",
        "1 ",
        "(1",
        "::",
        "ab:",
        "4111-",
        "DE89 3704 ",
        "order ",
        "1234567890",
        "-",
        "tel. 020 7946 0958 ",
        "ext. 192.168 ",
        "tlf. 67 22 41 35 ",
    ],
)
def test_no_text_takes_long(detector: Detector, unit: str) -> None:
    """64 KiB that a pattern might read again and again; a quadratic one would take minutes."""
    begun = time.process_time()
    detector.spans((unit * 65_536)[:65_536])
    assert time.process_time() - begun < 5
