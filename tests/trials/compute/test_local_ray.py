"""How a local Ray is started: where its files are, whom it accepts, what its failures say."""

import os
from types import SimpleNamespace

import pytest
import ray

from detector.base.errors import UserError
from trials.compute import local_ray as module
from trials.compute.local_ray import (
    MAX_SOCKET_PATH,
    SOCKET,
    RayDied,
    check_alive,
    local_ray,
    start_failure,
    temporary_folder,
    token_settings,
)


@pytest.fixture
def temporary(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)

    def folder(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        path = temporary_folder()
        path.rmdir()
        return path

    return folder


def test_a_short_temporary_folder_is_used_and_is_private(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(module, "MAX_SOCKET_PATH", 500)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = temporary_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["x" * 60, "ü" * 40])
def test_a_long_temporary_folder_gives_way_to_a_short_one(temporary, tmp_path, name):
    long = tmp_path / name
    long.mkdir()
    folder = temporary(TMPDIR=long)
    assert long not in folder.parents
    assert len(os.fsencode(folder / SOCKET)) <= MAX_SOCKET_PATH


def test_a_temporary_folder_that_does_not_exist_gives_way_to_another(temporary):
    assert temporary(TMPDIR="/proc/none").is_absolute()


def test_a_folder_that_was_asked_for_must_be_usable(temporary):
    with pytest.raises(UserError, match=r"/etc/passwd: Not a directory.*RAY_TMPDIR=FOLDER"):
        temporary(RAY_TMPDIR="/etc/passwd")


def test_ray_gets_a_token_unless_the_user_has_one():
    ((name, token),) = token_settings({}).items()
    assert name == "RAY_AUTH_TOKEN" and len(token) == 64
    assert token_settings({}) == {name: token}  # Ray remembers the first
    assert token_settings({"RAY_AUTH_TOKEN": "mine"}) == {}
    assert token_settings({"RAY_AUTH_TOKEN_PATH": "/file"}) == {}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("The current node timed out during startup.\nMore"), "did not start in time"),
        (ray.exceptions.GetTimeoutError("x"), "cannot start|did not start"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "ulimit -u"),
        (AssertionError(), "AssertionError"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
    ],
)
def test_a_failure_to_start_is_one_line(error, message):
    text = start_failure(error)
    assert "\n" not in text
    with pytest.raises(UserError, match=message):
        raise UserError(text)


@pytest.fixture
def fake_init(monkeypatch):
    """Replaces `ray.init` by one that raises these errors in turn, then succeeds."""
    calls = []

    def install(*errors):
        remaining = list(errors)

        def init(**settings):
            calls.append(settings)
            assert os.environ["RAY_AUTH_TOKEN"]
            if remaining:
                raise remaining.pop(0)

        monkeypatch.setattr(module.ray, "init", init)
        monkeypatch.setattr(module.ray, "shutdown", lambda: None)
        return calls

    return install


def test_a_start_that_times_out_is_tried_twice(fake_init):
    calls = fake_init(RuntimeError("timed out"))
    with local_ray(2):
        pass
    assert len(calls) == 2
    assert not os.path.exists(calls[0]["_temp_dir"])
    assert {call["_node_ip_address"] for call in calls} == {"127.0.0.1"}


def test_other_failures_are_not_repeated_and_leave_nothing(fake_init):
    calls = fake_init(OSError("no"), OSError("no"))
    with pytest.raises(UserError, match="Ray cannot start"), local_ray(2):
        pass
    assert len(calls) == 1
    assert not os.path.exists(os.path.dirname(calls[0]["_temp_dir"]))
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_machine_without_loopback_is_told_at_once(monkeypatch, fake_init):
    calls = fake_init()

    def refuse(*args, **settings):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(module.socket, "create_server", refuse)
    with pytest.raises(UserError, match="ip link set lo up"), local_ray(1):
        pass
    assert not calls


@pytest.mark.parametrize("free", [0, 64 * 2**20, None])
def test_shared_memory_that_is_small_or_absent_is_not_used(monkeypatch, tmp_path, free, fake_init):
    calls = fake_init()
    if free is None:
        monkeypatch.setattr(module, "SHARED_MEMORY", tmp_path / "absent")
    else:
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with local_ray(1):
        pass
    assert calls[0]["_temp_dir"].startswith(calls[0]["_plasma_directory"])


def listening(pid: int) -> set[str]:
    """Addresses, in hexadecimal, at which a process listens, by /proc."""
    sockets = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            sockets.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}") as lines:
            for line in list(lines)[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                    found.add(fields[1].split(":")[0])
    return found


def children() -> set:
    """All that this process has started and that still runs."""
    import psutil

    return set(psutil.Process().children(recursive=True))


@pytest.mark.slow
def test_ray_listens_on_loopback_alone_and_ends(monkeypatch, tmp_path):
    """Without a home folder, and with a temporary folder that is too long for sockets."""
    import psutil

    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    before = children()  # of other tests, such as multiprocessing's resource tracker
    with local_ray(1):
        assert ray.get(ray.remote(lambda: 1).remote()) == 1
        processes = children() - before
        addresses = set().union(*(listening(p.pid) for p in (psutil.Process(), *processes)))
    assert processes and addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


@pytest.mark.slow
def test_what_a_killed_raylet_leaves_ends_with_ray():
    import psutil

    before = children()
    with local_ray(1):
        assert ray.get(ray.remote(lambda: 1).remote()) == 1
        processes = children() - before
        raylet = next(p for p in processes if p.name() == "raylet")
        assert raylet.children(recursive=True)
        raylet.kill()
        raylet.wait(timeout=10)
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


def test_only_processes_that_nothing_replaces_must_be_alive(monkeypatch):
    def node(*dead):
        processes = [(kind, SimpleNamespace(returncode=-9)) for kind in dead]
        node = SimpleNamespace(dead_processes=lambda: processes)
        monkeypatch.setattr(ray._private.worker, "_global_node", node)

    monkeypatch.setattr(ray._private.worker, "_global_node", None)
    check_alive()
    node("log_monitor")
    check_alive()
    node("log_monitor", "raylet")
    with pytest.raises(RayDied, match=r"raylet has died \(exit code -9"):
        check_alive()
