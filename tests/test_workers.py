"""Worker processes: order, errors, death of a worker or of the parent, and how many cores there are."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from reinforcegen_envs import workers
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.workers import WorkerError, Workers, usable_cores

ROOT = Path(__file__).parents[1]


def start(*state):
    return list(state)


def refuse():
    raise InvalidArgument("the state is wrong")


def work(state, job):
    """Pauses the longer the earlier the job."""
    time.sleep(0.02 * max(0, 6 - job))
    state.append(job)
    return state[0], job, os.getpid(), os.environ["OMP_NUM_THREADS"]


def fail(state, job):
    if job == 3:
        raise InvalidArgument(f"job {job} cannot be done")
    return job


class TwoWordError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def fail_oddly(state, job):
    raise TwoWordError("not", "picklable")


def die(state, job):
    if job == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def leave(state, job):
    os._exit(3)


def send_much(state, job):
    return bytes(3_000_000)


def report(note, job):
    note(job)
    return job


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_the_order_of_the_jobs(count):
    with Workers(count, start, ("state",)) as pool:
        results = list(pool.map(work, iter(range(8))))
    assert [(state, job) for state, job, _, _ in results] == [("state", i) for i in range(8)]
    pids = {pid for _, _, pid, _ in results}
    assert pids == {os.getpid()} if count == 1 else len(pids) == 3 and os.getpid() not in pids
    assert count == 1 or {threads for *_, threads in results} == {"1"}


def test_there_are_no_more_workers_than_jobs():
    assert Workers(8, start, jobs=3).count == 3
    assert Workers(0, start).count == usable_cores()
    assert Workers(8, start, jobs=0).count == 1


def test_jobs_and_results_may_be_larger_than_a_pipe():
    with Workers(2, start) as pool:
        assert [len(x) for x in pool.map(send_much, [bytes(3_000_000)] * 5)] == [3_000_000] * 5


@pytest.mark.parametrize("count", [1, 2])
def test_reports_arrive(count):
    notes = []
    with Workers(count, start_reporting, note=notes.append) as pool:
        assert list(pool.map(report, range(5))) == list(range(5))
    assert sorted(notes) == list(range(5))


def start_reporting(note):
    return note


@pytest.mark.parametrize("count", [1, 2])
def test_errors_keep_their_class(count):
    with pytest.raises(InvalidArgument, match="the state is wrong"), Workers(count, refuse) as pool:
        list(pool.map(fail, range(5)))
    with pytest.raises(InvalidArgument, match="job 3 cannot be done") as info, Workers(count, start) as pool:
        list(pool.map(fail, range(9)))
    assert count == 1 or "in fail" in str(info.value.__cause__)  # where it was raised


def test_an_error_that_cannot_be_pickled_still_says_what_it_said():
    with pytest.raises(RuntimeError, match="TwoWordError: not picklable"), Workers(2, start) as pool:
        list(pool.map(fail_oddly, range(2)))


def test_a_killed_worker_is_named_at_once():
    began = time.monotonic()
    with pytest.raises(WorkerError, match=r"worker process \d+ was ended by SIGKILL .*memory"):
        with Workers(2, start) as pool:
            list(pool.map(die, range(20)))
    assert time.monotonic() - began < 20  # two of them import this package
    with pytest.raises(WorkerError, match=r"worker process \d+ exited with status 3"), Workers(2, start) as pool:
        list(pool.map(leave, range(2)))


def test_workers_that_are_no_longer_needed_end_at_once():
    with Workers(2, start) as pool:
        results = pool.map(work, range(1000))
        pids = {next(results)[2] for _ in range(8)}
    assert not any(alive(pid) for pid in pids)


def test_calls_that_every_worker_makes_first(monkeypatch):
    monkeypatch.setattr(workers, "_first_calls", [])
    workers.in_every_worker(os.putenv, "A", "1")
    workers.in_every_worker(refuse)
    workers.in_every_worker(refuse)
    assert len(workers._first_calls) == 2
    with pytest.raises(InvalidArgument, match="the state is wrong"), Workers(2, start) as pool:
        list(pool.map(fail, range(2)))


# --- whole processes ---

SCRIPT = """
    import os, sys, time
    from pathlib import Path
    from reinforcegen_envs import cli
    from reinforcegen_envs.files import atomic_path
    from reinforcegen_envs.workers import Workers
    from dataclasses import dataclass

    @dataclass
    class Args:
        out: Path = Path("out.txt")

    def start():
        Path(f"worker-{os.getpid()}").touch()

    def work(state, job):
        while True:  # never lets go of the processor
            pass

    def main(args):
        with atomic_path(args.out) as temporary, Workers(2, start) as pool:
            temporary.write_text("half of it")
            list(pool.map(work, range(2)))

    if __name__ == "__main__":
        cli.run(main, Args)
"""


def alive(pid):
    """Whether a process runs: neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


@pytest.fixture
def busy(tmp_path):
    """A command whose two workers are at work: process, their ids, its folder."""
    script = tmp_path / "command.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    until(lambda: len(list(tmp_path.glob("worker-*"))) == 2, 60)
    pids = [int(path.name.partition("-")[2]) for path in tmp_path.glob("worker-*")]
    yield process, pids, tmp_path
    for pid in (process.pid, *pids):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".") or path.name == "out.txt"]


@pytest.mark.parametrize(
    ("number", "group", "status", "line"),
    [
        (signal.SIGINT, True, 130, "interrupted\n"),  # Ctrl-C reaches the whole foreground group
        (signal.SIGTERM, False, 143, "terminated\n"),
        (signal.SIGTERM, True, 143, "terminated\n"),
    ],
)
def test_a_command_stops_within_two_seconds_with_one_line(busy, number, group, status, line):
    process, pids, folder = busy
    began = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, number)
    _, error = process.communicate(timeout=10)
    assert time.monotonic() - began < 2.0
    assert process.returncode == status and error == line
    assert not any(map(alive, pids)) and leftovers(folder) == []


def test_a_killed_worker_ends_the_command_with_one_line(busy):
    process, pids, folder = busy
    os.kill(pids[0], signal.SIGKILL)
    _, error = process.communicate(timeout=10)
    assert process.returncode == 2
    assert error.startswith(f"error: worker process {pids[0]} was ended by SIGKILL") and error.count("\n") == 1
    assert not any(map(alive, pids)) and leftovers(folder) == []


def test_no_worker_outlives_a_killed_parent(busy):
    process, pids, _ = busy
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: not any(map(alive, pids)), 3)
    assert process.communicate(timeout=10)[1] == ""


def test_a_script_without_a_guard_gets_one_clear_error(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from reinforcegen_envs.workers import Workers\n"
        "print('imported')\n"
        "with Workers(2, list) as pool:\n    list(pool.map(max, [1, 2]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=60)
    assert run.returncode == 1 and run.stdout.count("imported") <= 3
    assert run.stderr.count("Traceback") == 1 and "WorkerError" in run.stderr
    assert "under `if __name__ == '__main__':`" in run.stderr.splitlines()[-1]


# --- cores ---


def quotas(tmp_path, lines, files):
    """Quotas as read from a made-up /proc/self/cgroup and /sys/fs/cgroup."""
    groups, mount = tmp_path / "cgroup", tmp_path / "mount"
    groups.write_text("".join(line + "\n" for line in lines))
    for name, content in files.items():
        path = mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return sorted(workers._quotas(groups, mount))


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ([], {}, []),
        (["0::/"], {"cpu.max": "max 100000\n"}, []),
        (["0::/"], {"cpu.max": "200000 100000\n"}, [2.0]),
        (["0::/a/b"], {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, [1.5]),
        (["0::/a/b"], {"cpu.max": "400000 100000\n"}, [4.0]),  # a container that sees its group as the root
        (["3:cpu,cpuacct:/job"], {
            "cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        }, [0.5]),
        (["1:cpu:/x"], {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),
        (["1:memory:/x"], {"memory/x/cpu.max": "100000 100000\n"}, []),
    ],
)  # fmt: skip
def test_quotas_of_control_groups_of_both_versions(lines, files, expected, tmp_path):
    assert quotas(tmp_path, lines, files) == expected


def test_cores_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5, 6, 7})
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    for found, cores in (([], 8), ([2.0], 2), ([1.5, 4.0], 2), ([0.2], 1), ([64.0], 8)):
        monkeypatch.setattr(workers, "_quotas", lambda found=found: iter(found))
        assert usable_cores() == cores
