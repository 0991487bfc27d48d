"""Workers on a Ray cluster of two local nodes: what they give is what one process gives, whatever dies meanwhile."""

import dataclasses
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from reinforcegen_envs import cli, evaluate, ray_workers
from reinforcegen_envs.agents import pipeline
from reinforcegen_envs.agents.steps import Cluster, StepError
from reinforcegen_envs.demos import generate as generation
from reinforcegen_envs.demos.generate import generate
from reinforcegen_envs.errors import InvalidArgument, MissingPackage
from reinforcegen_envs.ray_workers import RayWorkers, open_workers
from reinforcegen_envs.workers import WorkerError, Workers, in_every_worker


def start(*state):
    return [os.getpid(), *state]


def work(state, job):
    time.sleep(0.02 * max(0, 6 - job))  # the longer the earlier the job
    return job, state[1:], os.environ["OMP_NUM_THREADS"]


def fail(state, job):
    if job == 3:
        raise InvalidArgument(f"job {job} cannot be done")
    return job


def die_once(state, folder_and_job):
    """Kills its process when job 2 is done for the first time."""
    folder, job = folder_and_job
    if job == 2 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def die(state, job):
    os.kill(os.getpid(), signal.SIGKILL)


def where(state, job):
    return Path.cwd()


# --- without a cluster ---


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'reinforcegen-envs\[ray\]'"), RayWorkers("auto", 0, start):
        pass


def test_without_an_address_processes_of_this_machine_work():
    assert isinstance(open_workers(None, 2, start, jobs=5), Workers)


@pytest.mark.parametrize(
    "address", ["auto", "127.0.0.1:9", "ray://127.0.0.1:9", "nowhere", "nowhere:x", ":1", "127.0.0.1:70000"]
)
def test_an_address_without_a_cluster_is_refused_at_once(address, monkeypatch):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address == "auto":  # also where a cluster happens to run
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    before, began = signal.getsignal(signal.SIGTERM), time.monotonic()
    with pytest.raises(InvalidArgument, match="no Ray cluster answers at"):
        with RayWorkers(address, 0, start):
            pass
    assert time.monotonic() - began < 15 and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--ray"], ["--ray", "auto"]),
        (["--ray", "--quiet"], ["--ray", "auto", "--quiet"]),
        (["--ray", "head:6379", "--quiet"], ["--ray", "head:6379", "--quiet"]),
        (["--quiet"], ["--quiet"]),
        ([], []),
    ],
)
def test_the_option_may_stand_without_an_address(words, expected):
    assert cli.with_defaults(words) == expected


# --- on a cluster ---


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a CPU each, the second of which tests may kill."""
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else they starve on a busy machine
        paths = [str(Path(__file__).parents[1]), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        node = {"num_cpus": 1, "object_store_memory": 100_000_000}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.add_node(wait=True, **node)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def connected(cluster):
    """The address, with this process connected to it: its workers' processes serve all tests."""
    import ray  # pyright: ignore[reportMissingImports]

    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster.address
    assert ray.is_initialized()  # whoever has connected keeps the connection
    ray.shutdown()


def test_it_connects_and_leaves(cluster):
    """The process keeps no connection that it did not have."""
    import ray  # pyright: ignore[reportMissingImports]

    before = signal.getsignal(signal.SIGTERM)
    with open_workers(cluster.address, 0, start) as pool:
        assert list(pool.map(work, range(2))) == [(0, [], "1"), (1, [], "1")]
    assert not ray.is_initialized() and signal.getsignal(signal.SIGTERM) is before


def test_results_come_in_the_order_of_the_jobs(connected):
    with open_workers(connected, 0, start, ("state",)) as pool:
        assert list(pool.map(work, iter(range(12)))) == [(i, ["state"], "1") for i in range(12)]
    with open_workers(connected, 3, start, jobs=0) as pool:
        assert list(pool.map(work, [])) == []


def test_errors_keep_their_class(connected, monkeypatch):
    with pytest.raises(InvalidArgument, match="job 3 cannot be done") as info:
        with RayWorkers(connected, 0, start) as pool:
            list(pool.map(fail, range(9)))
    assert "in fail" in str(info.value.__cause__)  # where it was raised
    monkeypatch.setattr("reinforcegen_envs.workers._first_calls", [])
    in_every_worker(os.stat, "/nowhere")
    with pytest.raises(FileNotFoundError), RayWorkers(connected, 0, start) as pool:
        list(pool.map(fail, range(2)))


def test_relative_paths_mean_the_same(connected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RayWorkers(connected, 0, start) as pool:
        assert list(pool.map(where, range(2))) == [tmp_path] * 2


def test_other_versions_are_refused(connected, monkeypatch):
    monkeypatch.setattr(ray_workers, "versions", lambda: {"mujoco": "0.1"})
    with pytest.raises(WorkerError, match="has .*'mujoco': '0.1'.*same versions everywhere"):
        with RayWorkers(connected, 0, start) as pool:
            list(pool.map(fail, range(2)))


def test_a_killed_process_loses_nothing(connected, tmp_path):
    with RayWorkers(connected, 0, start) as pool:
        assert list(pool.map(die_once, [(tmp_path, i) for i in range(6)])) == list(range(6))
    assert (tmp_path / "died").exists()


def test_a_job_that_always_kills_its_process_is_an_error(connected, monkeypatch):
    monkeypatch.setattr(ray_workers, "RETRIES", 0)
    with pytest.raises(WorkerError, match="the Ray cluster could not do a job"):
        with RayWorkers(connected, 0, start) as pool:
            list(pool.map(die, range(1)))


def test_evaluation_is_that_of_one_process(connected, weights):
    args = evaluate.Args(policy="base", episodes=3, seeds=1, workers=1, quiet=True, weights=weights)
    alone = evaluate.evaluate(args)
    assert evaluate.evaluate(dataclasses.replace(args, ray=connected, workers=0)) == alone


def test_steps_run_as_a_graph(connected, tmp_path):
    """A step waits for what it needs; what needs a failed one is not run, the rest is; the next run does what is missing."""
    copy = "import pathlib, sys; text = pathlib.Path(sys.argv[1]).read_text(); pathlib.Path(sys.argv[2]).write_text(text + '!')"
    first, second = tmp_path / "first", tmp_path / "second"

    def plan(cluster):
        for out in (first, second):
            out.mkdir(exist_ok=True)
            steps = cluster.steps(out)
            steps.run("begin", ["-c", f"import time; time.sleep(1); open('{out}/a', 'w').write('a')"])
            steps.run("copy", ["-c", copy, f"{out}/a", f"{out}/b"], after=["begin"])
            steps.run("gated", ["-c", copy, str(tmp_path / f"gate-{out.name}"), f"{out}/gated"], after=["begin"])
            steps.run("end", ["-c", copy, f"{out}/gated", f"{out}/end"], after=["copy", "gated"])

    (tmp_path / "gate-second").write_text("open")
    with pytest.raises(StepError) as info, Cluster(connected) as cluster:
        plan(cluster)
        cluster.wait()
    assert len(str(info.value).splitlines()[0].split("step ")) == 2 and f"step gated in {first} failed" in str(
        info.value
    )
    assert "gate-first" in str(info.value) and "step end" not in str(info.value)
    assert (first / "b").read_text() == "a!" and not (first / "end").exists()
    assert (second / "end").read_text() == "open!!"
    (tmp_path / "gate-first").write_text("later")
    for out in (first, second):
        (out / "b").unlink()  # is not made again
    with Cluster(connected) as cluster:
        plan(cluster)
        cluster.wait()
    assert (first / "end").read_text() == "later!!" and not (first / "b").exists() and not (second / "b").exists()


def test_a_step_s_work_is_jobs_of_the_cluster(connected, tmp_path, weights):
    """An evaluation as a step of a graph is that of one process."""
    args = pipeline.Args(out=tmp_path, episodes=3, seeds=1)
    with Cluster(connected) as cluster:
        command = pipeline.evaluation(args, weights, "base", (0, 0), "base")
        cluster.steps(tmp_path).run("evaluate-base", command)
        cluster.wait()
    alone = evaluate.evaluate(evaluate.Args(policy="base", episodes=3, seeds=1, workers=1, quiet=True, weights=weights))
    line = json.loads((tmp_path / "evaluate-base.log").read_text().splitlines()[-1])
    same = ("success", "episodes", "stages", "failures", "interval")
    assert [line[key] for key in same] == json.loads(json.dumps([alone[key] for key in same]))


def test_generation_survives_the_death_of_a_node(connected, cluster, tmp_path, monkeypatch):
    """Keep it last: it takes a node away."""
    import ray  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(generation, "CHUNK", 3)
    args = generation.Args(variant="D0", count=12, out=tmp_path / "alone.hdf5", workers=1, quiet=True)
    alone = generate(args)
    save, saved = generation._save_chunk, []
    victim = cluster.list_all_nodes()[1]

    def save_and_kill(path, results):
        save(path, results)
        saved.append(path.name)
        if len(saved) == 1:
            end = time.monotonic() + 60
            while ray.available_resources().get("CPU"):  # both nodes are at work
                assert time.monotonic() < end
                time.sleep(0.05)
            cluster.remove_node(victim, allow_graceful=False)

    monkeypatch.setattr(generation, "_save_chunk", save_and_kill)
    args = dataclasses.replace(args, out=tmp_path / "cluster.hdf5", ray=cluster.address, workers=0)
    assert generate(args) == alone
    assert len(cluster.list_all_nodes()) == 1 and saved == sorted(saved) and len(saved) > 2
    assert args.out.read_bytes() == (tmp_path / "alone.hdf5").read_bytes()
