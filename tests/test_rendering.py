"""Rendering from any thread, after forks, at exit; cameras checked early; Gymnasium's other render modes.

Every drawing test runs in a process of its own: the back-end is chosen before Python starts.
"""

import os
import subprocess
import sys

import gymnasium as gym
import pytest
from helpers import errors_of

import reinforcegen_envs  # noqa: F401
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.registration import make_env
from reinforcegen_envs.sim.rendering import MAX_PIXELS

START = """
import gc, os, sys, threading
import gymnasium as gym, numpy as np
import reinforcegen_envs
from reinforcegen_envs.sim.rendering import RenderingError

def make(seed=0, **kwargs):
    kwargs = {"render_mode": "rgb_array", "width": 64, "height": 48, **kwargs}
    env = gym.make("ReinforceGen/D0-Threading-v0", disable_env_checker=True, **kwargs)
    env.reset(seed=seed)
    return env
"""


PROBE = """
import mujoco
context = mujoco.GLContext(8, 8)
context.make_current()
context.free()
"""


@pytest.fixture(scope="module")
def run():
    """Runs code after `START`, and returns its standard output; its standard error must be empty."""
    for backend in ("egl", "osmesa"):
        environment = {**os.environ, "MUJOCO_GL": backend}
        if subprocess.run([sys.executable, "-c", PROBE], capture_output=True, env=environment).returncode == 0:
            break
    else:
        pytest.skip("neither libegl1 nor libosmesa6 is installed")

    def run(code):
        command = [sys.executable, "-c", START + code]
        process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert (process.returncode, errors_of(process)) == (0, ""), process.stderr
        return process.stdout

    return run


def test_frames_of_several_threads_are_those_of_one(run):
    run("""
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv
from gymnasium.vector import SyncVectorEnv

class Pixels(gym.ObservationWrapper):
    observation_space = gym.spaces.Box(0, 255, (48, 64, 3), np.uint8)
    def observation(self, observation):
        return self.render()

played = []
for make_vector in (SyncVectorEnv, lambda fns: ThreadVectorEnv(fns, num_threads=4)):
    vector = make_vector([lambda: Pixels(make())] * 4)
    frames = [vector.reset(seed=3)[0].copy()]
    rng = np.random.default_rng(0)
    for _ in range(10):
        frames.append(vector.step(rng.uniform(-1, 1, (4, 7)))[0].copy())
    vector.close()
    played.append(np.array(frames))
assert played[0].std() > 10
np.testing.assert_array_equal(*played)
""")


def test_opened_closed_and_collected_in_different_threads(run):
    run("""
from concurrent.futures import ThreadPoolExecutor
kept = make(seed=9)
expected = kept.render()

def work(i):
    for size in (32, 64):
        env = make(seed=i, width=size)
        assert env.render().shape == (48, size, 3)
        if i % 2:
            threading.Thread(target=env.close).start()
        else:
            env.cycle = env  # left to the garbage collector
        del env
        gc.collect()
        # Closing one renderer deletes nothing of another's.
        assert (kept.render() == expected).all()

with ThreadPoolExecutor(4) as pool:
    list(pool.map(work, range(6)))
kept.close()
kept.close()
assert (kept.render() == expected).all(), "a closed environment opens a renderer anew"
""")


def test_a_closed_renderer_says_so(run):
    run("""
from reinforcegen_envs.sim.rendering import SceneRenderer
env = make()
renderer = SceneRenderer(env.unwrapped.task.scene, "agentview", 32, 32)
renderer.frame(env.unwrapped.data)
renderer.close()
try:
    renderer.frame(env.unwrapped.data)
except RenderingError as error:
    assert "closed" in str(error)
else:
    raise AssertionError("drawn")
""")


@pytest.mark.parametrize("end", ["", "del env", "raise SystemExit(0)", "env.close()", "env.cycle = env; del env"])
def test_a_script_that_does_not_close_ends_quietly(end, run):
    run(f"env, other = make(), make()\nprint(env.render().shape, other.render().shape)\n{end}")


def test_leaving_while_other_threads_draw_is_quiet(run):
    run("""
drawn = threading.Semaphore(0)
def draw(env):
    try:
        while True:
            env.render()
            drawn.release()
    except RenderingError as error:
        assert "ending" in str(error)

for env in [make() for _ in range(3)]:
    threading.Thread(target=draw, args=(env,), daemon=True).start()
for _ in range(30):
    drawn.acquire()
""")


FORK = """
import signal
def in_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a child that waits for ever fails
        work()
        sys.exit(0)  # with the interpreter's whole clean-up
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_forked_child_of_a_process_that_drew_is_refused_clearly_and_ends(run):
    run(f"""{FORK}
env = make()
expected = env.render()

def work():
    for again in (lambda: env, make):
        try:
            again().render()
        except RenderingError as error:
            assert "forked" in str(error) and "spawn" in str(error)
        else:
            raise AssertionError("drawn")
    env.close()
    globals().pop("env")
    gc.collect()

in_child(work)
in_child(lambda: None)
assert (env.render() == expected).all()
""")


def test_a_forked_child_draws_when_the_parent_has_not(run):
    run(f"""{FORK}
env = make()
in_child(lambda: env.render().std() > 10 or os.abort())
assert env.render().std() > 10
""")


# --- arguments ---


@pytest.mark.parametrize("mode", [None, "Residual"])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"camera": "selfie"}, r"unknown camera 'selfie'; choose one of \[.*'agentview'"),
        ({"width": 0}, f"width 0 must be an integer from 1 to {MAX_PIXELS}"),
        ({"height": -3}, "height -3 must"),
        ({"width": 64.0}, "width 64.0 must"),
        ({"width": True}, "width True must"),
        ({"height": "tall"}, "height 'tall' must"),
        ({"height": MAX_PIXELS + 1}, f"height {MAX_PIXELS + 1} must"),
    ],
)
def test_camera_and_size_are_checked_when_the_environment_is_made(mode, kwargs, message):
    with pytest.raises(InvalidArgument, match=message):
        make_env("Threading", "D0", mode, **kwargs)


@pytest.mark.parametrize("suffix", ["", "-Hybrid", "-Skill", "-Residual"])
def test_gymnasiums_fallbacks_apply_to_every_mode(suffix):
    with pytest.warns(UserWarning, match="HumanRendering wrapper is being applied"):
        env = gym.make(f"ReinforceGen/D0-Threading{suffix}-v0", render_mode="human")
    assert isinstance(env, gym.wrappers.HumanRendering) and env.unwrapped.render_mode == "rgb_array"
    env = gym.make(f"ReinforceGen/D0-Threading{suffix}-v0", render_mode="rgb_array_list")
    assert isinstance(env, gym.wrappers.RenderCollection) and env.unwrapped.render_mode == "rgb_array"
    assert gym.make(env.spec or "").render_mode == "rgb_array_list"


def test_an_unknown_render_mode_is_refused():
    with pytest.warns(UserWarning, match="not in the possible"), pytest.raises(ValueError, match="'ascii'.*rgb_array"):
        gym.make("ReinforceGen/D0-Threading-v0", render_mode="ascii")


def test_a_list_of_frames(run):
    run("""
env = make(render_mode="rgb_array_list")
for _ in range(3):
    env.step(np.zeros(7, np.float32))
frames = env.render()
assert len(frames) == 4 and frames[0].shape == (48, 64, 3) and env.render() == []
""")


def test_human_shows_frames_and_names_pygame_where_it_is_missing(run):
    run("""
import types, warnings
warnings.simplefilter("ignore")
sys.modules["pygame"] = None
try:
    make(render_mode="human")
except gym.error.DependencyNotInstalled as error:
    assert "pygame is not installed" in str(error)
else:
    raise AssertionError("shown")

class Anything:
    def __getattr__(self, name):
        return lambda *args, **kwargs: calls.append((name, args)) or self
calls = []
anything = Anything()
sys.modules["pygame"] = types.SimpleNamespace(
    display=anything, event=anything, time=anything, surfarray=anything, quit=lambda: None
)
env = make(render_mode="human")
env.step(np.zeros(7, np.float32))
shown = [args[0] for name, args in calls if name == "make_surface"]
assert len(shown) == 2 and shown[0].shape == (64, 48, 3) and shown[0].std() > 10
env.close()
""")
