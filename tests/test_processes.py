import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcss.processes import LEAST_ADDRESSES, starting_workers

SCRIPT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from mcss.processes import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600)
    time.sleep(600)
"""


def test_the_processes_of_a_killed_program_end_with_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SCRIPT)
    with subprocess.Popen([sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert int(program.stdout.readline()) != program.pid
        program.send_signal(signal.SIGKILL)
        # The pipe closes when the last process that holds it has ended.
        rest, _ = program.communicate(timeout=60)
    assert rest == b""


def _show_mask() -> None:
    print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []), os.environ["OMP_NUM_THREADS"], flush=True)


def test_workers_that_are_being_started_leave_ctrl_c_to_their_parent(capfd: pytest.CaptureFixture[str]) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_show_mask)
    with starting_workers():
        process.start()
    process.join()
    assert capfd.readouterr().out == "True 1\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


LIMITED = """
import resource
import mcss.processes as processes

resource.setrlimit(resource.RLIMIT_NOFILE, (20, 100))
processes.check_limits()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
resource.setrlimit(resource.RLIMIT_AS, (2 * processes.LEAST_ADDRESSES, resource.RLIM_INFINITY))
print(processes.free_addresses(), processes.available_memory())
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
try:
    processes.check_limits()
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say how many addresses are taken")
def test_limits_of_the_system_count_and_the_number_of_files_is_raised_as_far_as_it_may() -> None:
    command = [sys.executable, "-c", LIMITED]
    files, memory, said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert files == "100 100"
    addresses, available = map(int, memory.split())
    assert LEAST_ADDRESSES < addresses < 2 * LEAST_ADDRESSES
    assert available <= addresses
    assert "this process may have 20 files open, expected 64 at least" in said
