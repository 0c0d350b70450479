"""The reader of answers: the same whatever pieces they come in, nothing beyond its bounds, and no doubt about where one ends."""

import gzip
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.answer import MAX_ANSWER, MAX_HEAD, MAX_HEADERS, Answer, BrokenOff, Closed, NotHttp
from webhooks.chunks import MAX_FRAMING

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
EXAMPLES = [
    OK + b"content-length: 6\r\n\r\nthanks",
    OK + b"content-length: 0\r\nretry-after: 7\r\nwebhook-delivery: disable\r\n\r\n",
    CHUNKED + b'3\r\ntha\r\n03;name="v"\r\nnks\r\n0\r\n\r\n',
    CHUNKED + b"6\r\nthanks\r\n0\r\ntrailer: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK + b"content-length: 6\r\n\r\nthanks",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 503\r\ncontent-length: 2\r\n\r\nno",
    OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(gzip.compress(b"thanks", mtime=0)), gzip.compress(b"thanks", mtime=0)),
    b"HTTP/1.1 200 OK\ncontent-length: 6\n\nthanks",
    OK + b"\r\nthanks",
    OK + b"connection: close\r\ncontent-length: 6\r\n\r\nthanks",
    b"HTTP/1.0 200 OK\r\ncontent-length: 6\r\n\r\nthanks",
    OK + b"content-length: 6\r\n\r\nthanksHTTP/1.1 200 OK\r\n\r\n",
    b"\x16\x03\x01\x00nonsense\r\n\r\n",
    CHUNKED + b"zz\r\n",
]


def read(*pieces: bytes) -> tuple[object, ...]:
    answer = Answer()
    error = None
    try:
        for piece in pieces:
            if answer.feed(piece):
                break
        else:
            answer.end()
    except (NotHttp, BrokenOff, Closed) as caught:
        error = str(caught)
    return answer.status, bytes(answer.body), answer.retry_after, answer.webhook_delivery, error


@given(st.sampled_from(EXAMPLES), st.lists(st.integers(1, 120), max_size=8))
def test_it_does_not_matter_in_what_pieces_an_answer_comes(whole: bytes, cuts: list[int]) -> None:
    borders = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    assert read(*(whole[a:b] for a, b in itertools.pairwise(borders))) == read(whole)


@given(st.binary(max_size=400), st.sampled_from([b"", OK, CHUNKED, OK + b"content-length: 20\r\n\r\n"]))
def test_whatever_comes_is_an_answer_or_one_of_three_errors(noise: bytes, before: bytes) -> None:
    read(before + noise)


@pytest.mark.parametrize("whole", EXAMPLES[:4])
def test_whole_answers_leave_the_connection_to_the_next(whole: bytes) -> None:
    answer = Answer()
    assert answer.feed(whole)
    assert answer.reusable
    assert answer.status == 200


@pytest.mark.parametrize("whole", EXAMPLES[-6:-2], ids=["until it closes", "close", "1.0", "says more than was asked"])
def test_others_do_not(whole: bytes) -> None:
    answer = Answer()
    answer.feed(whole)
    assert not answer.reusable
    assert (answer.status, bytes(answer.body)) == (200, b"thanks")


@pytest.mark.parametrize("announced", [b"content-length: 2", b"transfer-encoding: chunked"])
@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_nor_does_one_that_announces_a_body_it_must_not_have(status: bytes, announced: bytes) -> None:
    answer = Answer()
    assert answer.feed(b"HTTP/1.1 %b\r\n%b\r\n\r\n" % (status, announced))
    assert not answer.reusable


def test_what_they_say() -> None:
    assert read(EXAMPLES[1]) == (200, b"", "7", "disable", None)
    assert [read(example)[:2] for example in EXAMPLES[2:8]] == [(200, b"thanks")] * 3 + [(204, b""), (503, b"no"), (200, b"thanks")]
    assert read() == (None, b"", None, None, "the receiver closed the connection without an answer")
    assert read(OK[:9])[4] == "the receiver closed the connection without an answer"
    assert read(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n")[0] == 101
    assert len(str(read(OK + b"retry-after: " + b"9" * 5_000 + b"\r\n\r\n")[2])) == 200


@pytest.mark.parametrize(
    "whole",
    [
        OK + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n",
        OK + b"content-length: 6\r\ncontent-length: 6\r\n\r\n",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"content-length: 1e3\r\n\r\n",
        OK + b"content-length: " + b"9" * 30 + b"\r\n\r\n",
        OK + b"content-length: \xb2\r\n\r\n",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
        OK + b"transfer-encoding: chunked, chunked\r\n\r\n",
        OK + b"transfer-encoding: identity\r\n\r\n",
        OK + b"transfer-encoding: \x0bchunked\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        OK + b"transfer-encoding:\r\ncontent-length: 6\r\n\r\n",
        OK + b"no header\r\n\r\n",
        OK + b"x: y\rcontent-length: 6\r\n\r\n",
        OK + b"content-length: 6\r\r\n\r\n",
        b"HTTP/1.1 204 x\rcontent-length: 6\r\n\r\n",
        OK + b" folded: x\r\n\r\n",
        OK + b"name : x\r\n\r\n",
        OK + b": x\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000,
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * (MAX_HEADERS + 1),
        OK + b"x: y\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        OK + b"x: " + b"y" * 9_000,
        OK + b"x: " + b"y" * 9_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"y" * 9_000 + b"\r\n\r\n",
        OK + (b"x: " + b"y" * 4_000 + b"\r\n") * (MAX_HEAD // 4_000 + 1),
        CHUNKED + b"\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"0x1\r\n",
        CHUNKED + b"1_0\r\n",
        CHUNKED + b"f" * 16 + b"\r\n",
        CHUNKED + b"1\r\nxx\r\n",
        CHUNKED + b"1;" + b"x" * MAX_FRAMING,
        CHUNKED + b"1\r\nx\r\n" * (MAX_FRAMING // 5 + 1),
        CHUNKED + b"0\r\n" + b"x: y\r\n" * (MAX_FRAMING // 6 + 1),
    ],
)
def test_what_is_refused(whole: bytes) -> None:
    assert "the answer is not HTTP, or its headers exceed the limits" in str(read(whole)[4])


def _head(size: int) -> bytes:
    """An answer whose head has so many bytes."""
    lines = b"content-length: 0\r\n\r\n"
    while size - len(OK) - len(lines) > 8_192:
        lines = b"x: " + b"y" * 8_000 + b"\r\n" + lines
    return OK + b"x: " + b"y" * (size - len(OK) - len(lines) - 5) + b"\r\n" + lines


@pytest.mark.parametrize(
    ("fits", "too_much"),
    [
        (OK + b"x: y\r\n" * 99 + b"content-length: 0\r\n\r\n", OK + b"x: y\r\n" * 100 + b"content-length: 0\r\n\r\n"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 99 + OK + b"content-length: 0\r\n\r\n",
         b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100 + OK + b"content-length: 0\r\n\r\n"),
        (_head(64 * 1024), _head(64 * 1024 + 1)),
        (OK + b"x: " + b"y" * 8_187 + b"\r\ncontent-length: 0\r\n\r\n", OK + b"x: " + b"y" * 8_188 + b"\r\ncontent-length: 0\r\n\r\n"),
        (CHUNKED + b"1;" + b"x" * 65_000 + b"\r\nx\r\n0\r\n\r\n", CHUNKED + b"1;" + b"x" * 65_600 + b"\r\nx\r\n0\r\n\r\n"),
    ],
    ids=["headers", "headers of interim answers", "head", "line", "around chunks"],
)  # fmt: skip
def test_the_bounds_are_those_that_are_documented(fits: bytes, too_much: bytes) -> None:
    assert read(fits)[4] is None
    assert "the answer is not HTTP, or its headers exceed the limits" in str(read(too_much)[4])


def test_what_unpacks_to_nothing_is_cut_off_as_well() -> None:
    answer = Answer()
    answer.feed(OK + b"content-encoding: deflate\r\n\r\n\x78\x01")
    fed = 0
    # Deflate's empty blocks, of which there may be any number.
    while not answer.feed(b"\x00\x00\x00\xff\xff" * 1_000):
        fed += 5_000
        assert fed <= 64 * 1024
    assert answer.body == b""
    assert not answer.reusable


def test_a_header_that_comes_byte_by_byte_is_searched_once() -> None:
    answer = Answer()
    for at in range(60_000):
        answer.feed(OK[at : at + 1] or (b"\n" if at % 1_000 == 0 else b"x"))
    assert answer.status is None
    assert answer._searched == 60_000


@pytest.mark.parametrize(
    "head", [OK + b"\r\n", OK + b"content-length: 10000000000\r\n\r\n", CHUNKED + b"fffffffff\r\n"], ids=["endless", "10 GB", "one chunk"]
)
def test_of_a_long_body_64_kib_are_read(head: bytes) -> None:
    answer = Answer()
    answer.feed(head)
    fed = 0
    while not answer.feed(b"x" * 10_000):
        fed += 10_000
    assert fed <= MAX_ANSWER
    assert bytes(answer.body) == b"x" * MAX_ANSWER
    assert not answer.reusable


def test_a_body_of_less_is_read_whole_whatever_its_chunks() -> None:
    answer = Answer()
    assert answer.feed(CHUNKED + (b"64\r\n" + b"x" * 100 + b"\r\n") * 655 + b"0\r\n\r\n")
    assert len(answer.body) == 65_500
    assert answer.reusable


@pytest.mark.parametrize("whole", [OK + b"content-length: 9\r\n\r\nshort", CHUNKED + b"9\r\nshort", CHUNKED + b"5\r\nshort\r\n0\r\n"])
def test_a_body_that_breaks_off_is_none(whole: bytes) -> None:
    assert read(whole)[4] == "the answer's body broke off"
