import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ftkit.errors import EnvironmentFault, ExitCode
from ftkit.lock import HOLDER_FILE, LOCK_FILE, exclusive, holder_mark

HOLD = """
import sys, time
from pathlib import Path
from ftkit.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

FORK = """
import os, sys, time
from pathlib import Path
from ftkit.lock import exclusive
with exclusive(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_holds_the_folder(tmp_path: Path, holder: subprocess.Popen) -> None:
    began = time.monotonic()
    message = f"process {holder.pid} on {socket.gethostname()} is running in this folder"
    with pytest.raises(EnvironmentFault, match=message) as caught, exclusive(tmp_path):
        pass
    assert time.monotonic() - began < 1
    assert caught.value.exit_code == ExitCode.ENVIRONMENT == 3
    assert holder_mark(tmp_path) is not None
    assert json.loads((tmp_path / HOLDER_FILE).read_text())["pid"] == holder.pid  # the first is unharmed


def test_the_lock_of_a_killed_process_is_taken_over_with_a_notice(tmp_path: Path, holder: subprocess.Popen) -> None:
    holder.kill()
    holder.wait()
    assert holder_mark(tmp_path) is None
    with exclusive(tmp_path) as notice:
        assert notice is not None
        assert f"process {holder.pid} on {socket.gethostname()}" in notice
        assert holder_mark(tmp_path) is not None


@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux tells in a file")
def test_a_killed_process_that_nobody_waited_for_is_not_at_work(tmp_path: Path, holder: subprocess.Popen) -> None:
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert holder_mark(tmp_path) is None


def test_an_orderly_end_even_by_an_exception_leaves_no_notice(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), exclusive(tmp_path):
        raise KeyboardInterrupt
    assert holder_mark(tmp_path) is None
    with exclusive(tmp_path) as notice:
        assert notice is None


def test_each_holder_has_a_mark_of_its_own(tmp_path: Path) -> None:
    marks = []
    for _ in range(2):
        with exclusive(tmp_path):
            marks.append(holder_mark(tmp_path))
            now = datetime.fromisoformat(json.loads((tmp_path / HOLDER_FILE).read_text())["since"])
            assert abs(datetime.now(UTC) - now) < timedelta(minutes=1)
    assert None not in marks
    assert len(set(marks)) == 2
    assert holder_mark(tmp_path / "elsewhere") is None


def test_the_name_of_another_host_is_believed(tmp_path: Path) -> None:
    (tmp_path / HOLDER_FILE).write_text('{"pid": 7, "host": "elsewhere"}')
    message = r"process 7 on elsewhere .* if it is gone, delete"
    with pytest.raises(EnvironmentFault, match=message), exclusive(tmp_path):
        pass
    assert holder_mark(tmp_path) is not None


def test_a_forked_worker_that_outlives_its_killed_parent_does_not_hold_the_folder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FORK, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        try:
            with exclusive(tmp_path) as notice:
                assert notice is not None
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_folder_that_cannot_be_made_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file/out", Path("/proc/out")):
        with pytest.raises(EnvironmentFault, match="cannot be written"), exclusive(folder):
            pass


def test_the_target_of_a_link_in_place_of_the_lock_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / LOCK_FILE).symlink_to("precious")
    with pytest.raises(EnvironmentFault, match="cannot be written"), exclusive(tmp_path):
        pass
    (tmp_path / LOCK_FILE).unlink()
    (tmp_path / HOLDER_FILE).symlink_to("precious")
    with exclusive(tmp_path):
        assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_full_disk_is_told_and_the_lock_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EnvironmentFault, match="the disk is full"), exclusive(tmp_path):
            pass
    with exclusive(tmp_path) as notice:
        assert notice is None


def test_the_same_process_does_not_take_it_twice(tmp_path: Path) -> None:
    message = f"process {os.getpid()} on"
    with exclusive(tmp_path), pytest.raises(EnvironmentFault, match=message), exclusive(tmp_path):
        pass
