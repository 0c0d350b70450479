"""This process, by a name that tells others of the same machine for certain whether it is over."""

import contextlib
import hashlib
import os
from pathlib import Path

_STARTED = 19
"""Place of the start time among the fields of /proc/<pid>/stat that follow the program's name, the first being the state; see proc(5)."""


def here() -> str:
    """`<place>-<pid>-<start>`, '' where /proc cannot tell. A place is where a pid means one process: a namespace, of a machine since its boot."""
    pid = os.getpid()
    try:
        # A /proc that was mounted for other namespaces speaks of other processes.
        fields = _fields(pid) if os.readlink("/proc/self") == str(pid) else None
        place = [Path("/proc/sys/kernel/random/boot_id").read_text(), os.uname().nodename, os.readlink("/proc/self/ns/pid")]
        with contextlib.suppress(FileNotFoundError):
            # Within which start times are told; Linux has had it since 5.6.
            place.append(os.readlink("/proc/self/ns/time"))
    except OSError:
        return ""
    return f"{hashlib.sha256(repr(place).encode()).hexdigest()[:16]}-{pid}-{fields[_STARTED]}" if fields else ""


def over(name: str, me: str) -> bool:
    """Whether the process of a `name` by `here()`, whatever follows after another `-`, is over for certain; `me` is our own."""
    if not me or name.count("-") < 2:
        return False
    place, pid, started, *_ = name.split("-")
    if place != me.split("-")[0]:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        # It is somebody else's, and lives.
        pass
    fields = None
    # Others' may be hidden from us.
    with contextlib.suppress(OSError):
        fields = _fields(int(pid))
    # What was killed stays as a zombie until its parent has asked; a pid is given again.
    return fields is not None and (fields[0] in ("Z", "X") or fields[_STARTED] != started)


def _fields(pid: int) -> list[str]:
    # The program's name may have spaces and parentheses, and need not be text: of a long one the kernel keeps 15 bytes.
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
