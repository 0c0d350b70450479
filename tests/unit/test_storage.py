"""The storage: names that cannot leave it, uploads that appear whole or not at all."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs

from pipeline import storage
from pipeline.errors import ConfigError, InvalidInput, NotFound, TooLarge, Unavailable
from pipeline.paths import checked_filename, checked_id, document_path, findings_path, resolve
from pipeline.storage import Storage
from tests.support.objectstore import BUCKET, ObjectStore


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


# --- names ---


@pytest.mark.parametrize("name", ["a", "demo-doc-123", "A.b_c-d", "...", "x" * 128])
def test_ids(name: str) -> None:
    assert checked_id(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "é", "x" * 129, "a\n"])
def test_wrong_ids(name: str) -> None:
    with pytest.raises(InvalidInput, match="documentId"):
        checked_id(name)


@pytest.mark.parametrize("name", ["a.pdf", "Ünïcode – report (1).pdf", ".env", "a..b", "x" * 255, "é" * 127])
def test_filenames(name: str) -> None:
    assert checked_filename(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hookline", "a/b", "/etc/passwd", "..\\a", "a\x00", "a\nb", "a\x7f", "a\x85", "x" * 256, "é" * 128, "\udcff"]
)
def test_wrong_filenames(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_filename(name)
    assert caught.value.faults[0].path == "filename"
    assert caught.value.hint


@pytest.mark.parametrize("path", ["/documents/d/a.pdf", "documents/d/a.pdf", "//documents/./d//a.pdf", "documents/d/a.pdf/"])
def test_paths_are_relative_to_the_root(path: str) -> None:
    assert resolve(path) == "documents/d/a.pdf"


@pytest.mark.parametrize("path", ["", "/", ".", "..", "../a", "documents/../../a", "a/..", "a\\..\\b", "a\x00b", "a\nb"])
def test_paths_that_leave_the_root_or_name_nothing(path: str) -> None:
    with pytest.raises(InvalidInput, match="documentPath"):
        resolve(path)


def test_a_job_id_cannot_lead_findings_elsewhere() -> None:
    assert findings_path("d", "../../x/y:1") == "documents/d/.hookline/findings-..-..-x-y-1.json"


# --- files ---


@pytest.fixture(scope="module")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with ObjectStore(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "s3":
        for name, value in request.getfixturevalue("object_store").environment.items():
            monkeypatch.setenv(name, value)
        fs = fsspec.filesystem("s3")
        if not fs.exists(BUCKET):
            fs.mkdir(BUCKET)
        return Storage(f"s3://{BUCKET}/{tmp_path.name}")
    return Storage(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}")


async def test_what_is_written_is_read(store: Storage) -> None:
    data = os.urandom(3_000_000)
    path = document_path("d", "a b.pdf")
    written = await store.write(path, chunks(*(data[n : n + 65_536] for n in range(0, len(data), 65_536))), len(data))
    assert written == (len(data), hashlib.sha256(data).hexdigest())
    assert store.read(path) == data
    with store.open(path) as file:
        assert file.read(10) == data[:10]
    assert await store.exists(path)
    assert await store.exists("documents/d")
    assert not await store.exists("documents/e")


async def test_a_second_write_replaces_the_first(store: Storage) -> None:
    await store.write("documents/d/a", chunks(b"first, and longer"), 100)
    await store.write("documents/d/a", chunks(b"second"), 100)
    assert store.read("documents/d/a") == b"second"
    store.write_text("documents/d/a", "third é")
    assert store.read_text("/documents/d/a") == "third é"


async def test_delete_takes_a_folder_with_all_in_it(store: Storage) -> None:
    await store.write("documents/d/a", chunks(b"x"), 10)
    store.write_text("documents/d/.hookline/t.txt", "text")
    store.write_text("documents/e/a", "stays")
    await store.delete("documents/d")
    await store.delete("documents/never-there")
    assert not await store.exists("documents/d")
    assert store.read_text("documents/e/a") == "stays"


async def test_what_is_taken_from_a_document_that_is_erased_meanwhile_goes_with_it(store: Storage) -> None:
    await store.write("documents/d/a", chunks(b"x"), 10)
    store.write_derived("documents/d/.hookline/t.txt", "text", document="documents/d/a")
    assert store.read_text("documents/d/.hookline/t.txt") == "text"
    await store.delete("documents/d")
    with pytest.raises(NotFound, match="documents/d/a is not in the storage any more"):
        store.write_derived("documents/d/.hookline/t.txt", "text", document="documents/d/a")
    assert not await store.exists("documents/d")


def test_a_folder_that_others_write_into_meanwhile_is_removed_all_the_same(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_text("documents/d/a", "x")
    remove, written = store._fs.rm, []

    def rm(*args: Any, **more: Any) -> Any:
        removed = remove(*args, **more)
        if not written:
            written.append(True)  # before the write: moving a file is removing one, too
            store.write_text("documents/d/.hookline/t.txt", "text")
        return removed

    monkeypatch.setattr(store._fs, "rm", rm)
    store._delete("documents/d")
    assert written
    assert not store.has("documents/d")


async def test_what_is_not_there(store: Storage) -> None:
    with pytest.raises(NotFound, match=r"documents/d/a\.pdf is not in the storage"):
        store.read("documents/d/a.pdf")


async def test_a_cut_off_upload_leaves_nothing_on_any_storage(store: Storage) -> None:
    async def cut_off() -> AsyncIterator[bytes]:
        yield b"x" * (12 << 20)  # more than an object store takes in one part
        raise ConnectionResetError("the client is gone")

    with pytest.raises(ConnectionResetError):
        await store.write("documents/d/a", cut_off(), 1 << 30)
    assert not await store.exists("documents/d")
    assert await store.sweep(before=1 << 52) == 0


async def test_what_another_process_wrote_is_erased_too(store: Storage) -> None:
    store.write_text("documents/d/a", "x")
    assert await store.exists("documents/d")
    script = "import sys; from pipeline.storage import Storage; Storage(sys.argv[1]).write_text('documents/d/.hookline/t.txt', 'text')"
    if store.url.startswith("memory"):
        return  # it is one process's
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, store.url], check=True, timeout=30)
    await store.delete("documents/d")
    assert not await store.exists("documents/d/.hookline/t.txt")
    assert not await store.exists("documents/d")


async def test_an_object_store_that_is_gone_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests-secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    # Clients are kept by their arguments, and the address is none.
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(Unavailable, match=r"the storage failed at documents/d/a: \w+$"):
            Storage(f"s3://gone/{tmp_path.name}").read("documents/d/a")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


async def test_one_too_large_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="more than 10 bytes"):
        await Storage(str(tmp_path)).write("documents/d/a", chunks(b"12345", b"678901"), 10)
    assert files(tmp_path) == set()
    assert not (tmp_path / "documents").exists()


async def test_a_cut_off_upload_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_BATCH", 1)

    async def cut_off() -> AsyncIterator[bytes]:
        yield b"half of it"
        assert len(files(tmp_path)) == 1
        raise ConnectionResetError("the client is gone")

    with pytest.raises(ConnectionResetError):
        await Storage(str(tmp_path)).write("documents/d/a", cut_off(), 100)
    assert files(tmp_path) == set()


async def test_a_cancelled_upload_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_BATCH", 1)
    under_way = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"begins"
        under_way.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Storage(str(tmp_path)).write("documents/d/a", endless(), 100))
    await under_way.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(tmp_path) == set()


async def test_an_upload_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    store.write_text("documents/d/a", "old")

    async def looking() -> AsyncIterator[bytes]:
        yield b"new"
        assert store.read_text("documents/d/a") == "old"

    await store.write("documents/d/a", looking(), 100)
    assert store.read_text("documents/d/a") == "new"


_WRITER = """
import asyncio, sys
from pipeline import storage

async def chunks():
    yield b"half of it"
    yield b""
    print("under way", flush=True)
    await asyncio.Event().wait()

storage._BATCH = 1
asyncio.run(storage.Storage(sys.argv[1]).write("documents/d/a", chunks(), 100))
"""


async def test_what_a_killed_writer_left_is_swept_at_once_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    assert await store.sweep(before=0) == 0
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", _WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE)
    assert writer.stdout
    assert await asyncio.wait_for(writer.stdout.readline(), 30) == b"under way\n"
    [left] = files(tmp_path)
    assert await store.sweep(before=1 << 52) == 0
    assert files(tmp_path) == {left}
    writer.kill()
    await writer.wait()
    assert files(tmp_path) == {left}
    assert await store.sweep(before=0) == 1
    assert files(tmp_path) == set()


async def test_elsewhere_what_was_left_is_told_by_its_age(tmp_path: Path) -> None:
    store = Storage(f"memory://{tmp_path.name}")
    with store._fs.open(f"{store._root}/.incoming/left", "wb") as file:
        file.write(b"x")
    began = store._began(f"{store._root}/.incoming/left")
    assert await store.sweep(before=began) == 0
    assert await store.sweep(before=began + 1) == 1
    assert await store.sweep(before=1 << 52) == 0


async def test_a_sweep_in_the_moment_before_the_lock_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Storage(str(tmp_path))
    locked, swept = storage._locked, []

    def swept_just_before(file: Any) -> bool:
        if not swept:
            swept.append(store._sweep(0))
        return locked(file)

    monkeypatch.setattr(storage, "_locked", swept_just_before)
    await store.write("documents/d/a", chunks(b"x"), 10)
    assert swept == [1]
    assert files(tmp_path) == {"documents/d/a"}


async def test_a_failing_storage_is_told_apart_from_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "documents").write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="the storage failed at documents/d/a"):
        await Storage(str(tmp_path)).write("documents/d/a", chunks(b"x"), 10)
    assert files(tmp_path) == {"documents"}


def test_a_relative_url_starts_at_the_base(tmp_path: Path) -> None:
    Storage("./storage", base=tmp_path).write_text("documents/d/a", "x")
    assert files(tmp_path) == {"storage/documents/d/a"}


@pytest.mark.parametrize("url", ["no-such-scheme://x"])
def test_a_url_that_nobody_knows(url: str) -> None:
    with pytest.raises(ConfigError, match=r"storage\.url"):
        Storage(url)


def test_a_folder_is_no_file(store: Any) -> None:
    store.write_text("documents/d/a", "x")
    with pytest.raises(NotFound):
        store.read("documents/d")
