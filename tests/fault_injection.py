"""A machine of its own for searches that are disturbed: their disk, network, clock, processes."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
CLOCK = """
import os, time
shift = float(os.environ["CLOCK_SHIFT"])
now, now_ns, local = time.time, time.time_ns, time.localtime
time.time = lambda: now() - shift
time.time_ns = lambda: now_ns() - int(shift) * 10**9
time.localtime = lambda seconds=None: local(time.time() if seconds is None else seconds)
"""
LOOPBACK = ("0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")


def started(pid: int) -> str | None:
    """When a process was started, which tells it from a later one of the same number; None if it
    has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class Machine:
    """Where the search runs: without a network and with a small disk for `runs`, if the system
    allows it. What is started here is ended by `close`."""

    def __init__(self, folder: Path):
        self.folder, self.prefix, self.runs = folder, [], folder / "runs"
        for part in ("runs", "tmp", "clock"):
            (folder / part).mkdir()
        (folder / "clock" / "sitecustomize.py").write_text(CLOCK)
        self.shift, self.seen, self.commands = 0, dict[int, str](), list[subprocess.Popen]()
        script = (
            "ip link set lo up && mount -t tmpfs -o size=200m tmpfs runs && mount --bind tmp /mnt"
            " && echo ready && exec cat"
        )
        self.isolated = bool(shutil.which("unshare") and shutil.which("nsenter"))
        if self.isolated:
            self.holder = subprocess.Popen(
                ["unshare", "-rmn", "sh", "-c", script],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.isolated = self.holder.stdout.readline() == b"ready\n"
        if self.isolated:
            self.prefix = ["nsenter", "-t", str(self.holder.pid), "-U", "-m", "-n"]
            self.prefix += ["--preserve-credentials", "sh", "-c", 'cd "$0" && exec "$@"']
            self.prefix += [str(folder)]
            self.runs = Path(f"/proc/{self.holder.pid}/root{folder}/runs")
        self.ray_folder = "/mnt" if self.isolated else tempfile.mkdtemp(prefix="r")

    def start(self, *args: str) -> subprocess.Popen:
        """`python -m` a command; its output goes to the files out and err."""
        folder = self.folder
        path = [folder / "clock", PROJECT, *filter(None, [os.environ.get("PYTHONPATH")])]
        with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
            process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", *args],
                cwd=folder,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                env=os.environ
                | {
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": os.pathsep.join(map(str, path)),
                    "RAY_TMPDIR": self.ray_folder,
                    "TMPDIR": str(folder / "tmp"),
                    "CLOCK_SHIFT": str(self.shift),
                },
            )
        self.commands.append(process)
        return process

    def observe(self) -> list[int]:
        """Ids of the processes of the last command, which are remembered."""
        parents: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = int(path.read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(path.parent.name))
        found = [self.commands[-1].pid]
        for pid in found:
            found += parents.get(pid, [])
        self.seen |= {pid: start for pid in found if (start := started(pid))}
        return found

    def alive(self) -> list[int]:
        """Ids of all processes of all commands that have not ended."""
        return [pid for pid, start in self.seen.items() if started(pid) == start]

    def listening_elsewhere(self) -> list[str]:
        """Addresses that a process of the search listens on besides loopback."""
        if not self.isolated:
            return []
        rows = [
            row.split()
            for kind in ("tcp", "tcp6")
            for row in Path(f"/proc/{self.holder.pid}/net/{kind}").read_text().splitlines()[1:]
        ]
        return [row[1] for row in rows if row[3] == "0A" and row[1].split(":")[0] not in LOOPBACK]

    def close(self) -> None:
        for process in self.commands:
            if process.poll() is None:
                self.observe()
                process.kill()
            process.wait()
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if hasattr(self, "holder"):
            self.holder.communicate()
        if not self.isolated:
            shutil.rmtree(self.ray_folder, ignore_errors=True)
