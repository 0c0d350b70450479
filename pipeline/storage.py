"""The files of documents and of what is derived from them: one tree at any fsspec URL. What is where in it: paths.py."""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import posixpath
import secrets
from collections.abc import AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, ParamSpec, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import ConfigError, HooklineError, NotFound, TooLarge, Unavailable
from pipeline.paths import INCOMING, resolve

_BATCH = 1 << 20
"""Bytes handed to a thread at a time: fewer hops than one for each chunk of the network."""
_REMOVALS = 10
"""How often a folder is tried to be removed that others write into."""

P = ParamSpec("P")
R = TypeVar("R")


class Written(NamedTuple):
    size: int
    sha256: str


class Storage:
    """The files. Coroutines are for the service's loop; plain methods block and are for threads and child processes.

    Paths are relative to the root, as `document_path` and `resolve` give them. Every method raises Unavailable when the
    storage itself fails (no space, no permission, no connection).
    """

    def __init__(self, url: str, *, base: Path | None = None) -> None:
        """`url` is anything that fsspec knows; a relative local path starts at `base`. Raises ConfigError."""
        if "://" not in url:
            url = str((base or Path()) / Path(url).expanduser())
        try:
            # What is there is written by other processes too: a listing that is kept goes stale.
            fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"storage.url: {url!r} cannot be used: {error}") from error
        self.url = url
        self._fs: Any = fs
        self._root: str = str(root).rstrip("/")
        self._local = isinstance(fs, LocalFileSystem)

    # --- for the loop ---

    async def write(self, path: str, chunks: AsyncIterable[bytes], limit: int) -> Written:
        """Write a file of at most `limit` bytes as it arrives; it appears whole or not at all.

        Raises TooLarge, and whatever `chunks` raises; then nothing is left behind.
        """
        digest, size = hashlib.sha256(), 0
        temporary = self._temporary()
        file = await _in_thread(self._create, temporary)
        try:
            batch = bytearray()
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"the file has more than {limit} bytes", hint="send a smaller one")
                batch += chunk
                if len(batch) >= _BATCH:
                    await _in_thread(self._append, file, digest, bytes(batch))
                    batch.clear()
            await _in_thread(self._append, file, digest, bytes(batch))
            await _in_thread(self._publish, file, temporary, path)
        except BaseException:
            await _in_thread(self._abandon, file, temporary)
            raise
        return Written(size=size, sha256=digest.hexdigest())

    async def exists(self, path: str) -> bool:
        return await _in_thread(self.has, path)

    async def delete(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens if it is not there."""
        await _in_thread(self._delete, path)

    async def sweep(self, *, before: int) -> int:
        """Remove what writers that were killed left; returns how many.

        In a local folder that is each file that nobody holds a lock on; elsewhere, each that was written last before `before` (ms).
        """
        return await _in_thread(self._sweep, before)

    # --- for threads and child processes ---

    def open(self, path: str) -> IO[bytes]:
        """Raises NotFound."""
        with self._failing(path):
            file: IO[bytes] = self._fs.open(self._at(path), "rb")
            if getattr(file, "details", {}).get("type") == "directory":
                # Object stores have no folders, and open what begins like one as an empty file.
                file.close()
                raise IsADirectoryError(path)
            return file

    def read(self, path: str) -> bytes:
        """Raises NotFound."""
        with self.open(path) as file, self._failing(path):
            return file.read()

    def read_text(self, path: str) -> str:
        """Raises NotFound."""
        return self.read(path).decode()

    def write_text(self, path: str, text: str) -> None:
        """Write a whole file; it appears whole or not at all."""
        temporary = self._temporary()
        file = self._create(temporary)
        try:
            with self._failing(path):
                file.write(text.encode())
            self._publish(file, temporary, path)
        except BaseException:
            self._abandon(file, temporary)
            raise

    def write_derived(self, path: str, text: str, *, document: str) -> None:
        """The same for what was taken from a document. Raises NotFound, and leaves nothing, if that was erased meanwhile."""
        self.write_text(path, text)
        # After the write: an erasure that did not see the new file has removed the document by now.
        if not self.has(document):
            self._delete(path)
            self._prune(path)
            raise NotFound(f"{document} is not in the storage any more")

    def has(self, path: str) -> bool:
        with self._failing(path):
            return bool(self._fs.exists(self._at(path)))

    # --- the file system ---

    def _at(self, path: str) -> str:
        return f"{self._root}/{resolve(path)}"

    def _temporary(self) -> str:
        return f"{self._root}/{INCOMING}/{secrets.token_hex(16)}"

    def _create(self, temporary: str) -> IO[bytes]:
        with self._failing(INCOMING):
            self._fs.makedirs(posixpath.dirname(temporary), exist_ok=True)
            while True:
                file: IO[bytes] = self._fs.open(temporary, "wb")
                if not self._local or _locked(file):
                    return file
                file.close()

    def _append(self, file: IO[bytes], digest: Any, data: bytes) -> None:
        digest.update(data)
        with self._failing(INCOMING):
            file.write(data)

    def _publish(self, file: IO[bytes], temporary: str, path: str) -> None:
        with self._failing(path):
            if self._local:
                file.flush()  # closed later: that would give up the lock
            else:
                file.close()
            self._fs.makedirs(posixpath.dirname(self._at(path)), exist_ok=True)
            self._fs.mv(temporary, self._at(path))
            file.close()

    def _abandon(self, file: IO[bytes], temporary: str) -> None:
        with self._failing(INCOMING):
            if not self._local:
                file.close()
            if self._fs.exists(temporary):
                self._fs.rm_file(temporary)
            file.close()

    def _delete(self, path: str) -> None:
        with self._failing(path):
            for _ in range(_REMOVALS):
                if not self._fs.exists(self._at(path)):
                    return
                try:
                    self._fs.rm(self._at(path), recursive=True)
                except OSError as error:
                    # Somebody else wrote into a folder, or removed of it, after it was listed.
                    if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                        raise
            raise OSError(errno.ENOTEMPTY, "others keep writing there")

    def _prune(self, path: str) -> None:
        """Remove a removed file's folders, where there are such and nothing else is in them."""
        if isinstance(self._fs, LocalFileSystem | MemoryFileSystem):
            with contextlib.suppress(OSError):
                for _ in range(2):
                    path = posixpath.dirname(path)
                    self._fs.rmdir(self._at(path))

    def _sweep(self, before: int) -> int:
        folder = f"{self._root}/{INCOMING}"
        with self._failing(INCOMING):
            files = self._fs.ls(folder, detail=False) if self._fs.exists(folder) else []
            return sum(self._removed(file, before) for file in files)

    def _removed(self, file: str, before: int) -> bool:
        """Remove a file if its writer is gone."""
        try:
            if self._local:
                with open(file, "rb") as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(file)
                    return True
            if self._began(file) >= before:
                return False
            self._fs.rm_file(file)
        except (BlockingIOError, FileNotFoundError):
            # It is being written, or has just been put into its place.
            return False
        return True

    def _began(self, file: str) -> int:
        return int(self._fs.modified(file).timestamp() * 1000)

    @contextlib.contextmanager
    def _failing(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not in the storage") from error
        except IsADirectoryError as error:
            raise NotFound(f"{path} is a folder, not a file") from error
        except OSError as error:
            # Its text may hold a URL's credentials on a remote store; strerror does not.
            raise Unavailable(f"the storage failed at {path}: {error.strerror or type(error).__name__}") from error
        except (HooklineError, MemoryError):
            raise
        except Exception as error:
            # Each remote store's library has a tree of errors of its own.
            raise Unavailable(f"the storage failed at {path}: {type(error).__name__}") from error


def _locked(file: IO[bytes]) -> bool:
    """Show that a file is being written, for as long as this process lives; False if the sweep removed it just before."""
    fcntl.flock(file.fileno(), fcntl.LOCK_EX)
    return os.fstat(file.fileno()).st_nlink > 0


async def _in_thread(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Like asyncio.to_thread, but a cancelled caller waits for the thread: two must not use one file at a time."""
    thread = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait({thread})
        raise
