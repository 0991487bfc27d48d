"""The policy contract: one environment and many, memory, and what users may give as a policy."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.evaluation.play import play
from reinforcegen_envs.observations import ObservationLayout, to_reference, to_world
from reinforcegen_envs.policies.mlp import MLP, StageMLPs, WeightsError
from reinforcegen_envs.policies.policy import MemorylessPolicy, Policy, act_one, as_policy, as_termination
from reinforcegen_envs.policies.predictors import (
    CONSECUTIVE,
    InitiationPredictor,
    TerminationPredictor,
    initiation_features,
    termination_features,
)
from reinforcegen_envs.policies.residual import ResidualPolicy, TunedPolicy, combine
from reinforcegen_envs.policies.skill import CLOSE_ABOVE, OPEN_BELOW, SkillPolicy, stage_features
from reinforcegen_envs.tasks import CoffeePreparationTask, ThreadingTask

TASK = ThreadingTask
LAYOUT = ObservationLayout.of(TASK)
EXTENDED = ObservationLayout.of(TASK, base_action=True)


def random_mlp(rng, n_in, n_out, hidden=(64, 33)):
    sizes = (n_in, *hidden, n_out)
    weights = [rng.normal(0, 1 / np.sqrt(m), (n, m)) for m, n in zip(sizes[:-1], sizes[1:], strict=True)]
    return MLP(weights, [rng.normal(0, 0.5, n) for n in sizes[1:]], rng.normal(0, 1, n_in), rng.uniform(0.1, 2, n_in))


def slow(mlp, x):
    """A network's output with its inputs added one after another: what a compiled call must give, bit for bit."""
    hidden = (np.asarray(x, np.float32) - mlp.mean) * (1.0 / mlp.std).astype(np.float32)
    hidden = np.clip(hidden, np.float32(-mlp.clip), np.float32(mlp.clip))
    for layer, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
        total = np.asarray(bias, np.float32).copy()
        for value, column in zip(hidden, np.asarray(weight, np.float32).T, strict=True):
            if value != 0:
                total += value * column
        hidden = np.maximum(total, 0) if layer < len(mlp.weights) - 1 else total
    return hidden


def observations(rng, count, layout=LAYOUT):
    """(count, size) random observations, in stages that change from row to row, hands open or closed."""
    obs = rng.normal(0, 1, (count, layout.size)).astype(np.float32)
    part = layout.slices["stage"]
    stages = part.stop - part.start
    obs[:, part] = np.eye(stages)[rng.integers(stages, size=count)]
    obs[:, layout.slices["gripper"].start + 1] = rng.choice([-1, 1], count)
    return obs


def networks(rng, features, outputs, task=TASK):
    return {
        stage.name: random_mlp(rng, len(features(i)), outputs, hidden=(32 + 8 * i, 40))
        for i, stage in enumerate(task.stages)
    }


# --- batches ---


@pytest.mark.parametrize("n_out", [1, 7, 10, 256])
def test_a_batch_is_its_rows_bit_for_bit(n_out):
    rng = np.random.default_rng(n_out)
    mlp = random_mlp(rng, 21, n_out)
    x = rng.normal(0, 2, (17, 21)).astype(np.float32)
    x[3] = 0.0
    batch = mlp.batch(x)
    assert batch.dtype == np.float32 and batch.shape == (17, n_out)
    np.testing.assert_array_equal(batch, [slow(mlp, row) for row in x])
    np.testing.assert_array_equal(batch, [mlp(row) for row in x])
    np.testing.assert_array_equal(mlp.batch(x[::2]), batch[::2])
    assert mlp.batch(x[:0]).shape == (0, n_out)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(mlp)))
    np.testing.assert_array_equal(twin.batch(x), batch)
    for bad in (x[0], x[:, :20], x[None]):
        with pytest.raises(InvalidArgument, match=r"input has shape .*; this network takes \(n, 21\)"):
            mlp.batch(bad)


def test_stages_networks_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    three, four = random_mlp(rng, 3, 2), random_mlp(rng, 4, 2)
    where = slice(8, 10)
    StageMLPs([three, four], [np.arange(3), np.arange(4)], 10, where)
    StageMLPs([three, None], [np.arange(3), np.arange(7)], 10, where)
    for given, features in (
        ([three, four], [np.arange(3), np.arange(3)]),
        ([three, four], [np.arange(3), np.arange(7, 11)]),
        ([three, four], [np.arange(3), np.arange(-1, 3)]),
        ([three, random_mlp(rng, 4, 3)], [np.arange(3), np.arange(4)]),
    ):
        with pytest.raises(WeightsError, match="do not fit"):
            StageMLPs(given, features, 10, where)


@pytest.mark.parametrize("task", [ThreadingTask, CoffeePreparationTask])
def test_the_base_policy_acts_for_many_as_for_one(task):
    """Rows of different stages in one call; the gripper closes on little evidence and opens on much."""
    rng = np.random.default_rng(1)
    layout = ObservationLayout.of(task)
    given = networks(rng, lambda i: stage_features(layout, task, i), 7, task)
    for mlp in given.values():
        mlp.biases[-1][6] = -2.0  # between the two thresholds, often
    given = {name: MLP(m.weights, m.biases, m.mean, m.std) for name, m in given.items()}
    policy = SkillPolicy(task, given)
    obs = observations(rng, 60, layout)
    actions = policy.act(obs)
    assert actions.shape == (60, 7) and actions.dtype == np.float64 and policy.frame == "reference"
    assert {-1.0, 1.0} == set(actions[:, 6])
    for row, action in zip(obs, actions, strict=True):
        np.testing.assert_array_equal(policy.act(row[None])[0], action)
        np.testing.assert_array_equal(act_one(policy, row, 3), action)
        stage = int(np.argmax(row[layout.slices["stage"]]))
        output = slow(given[task.stages[stage].name], row[stage_features(layout, task, stage)]).astype(np.float64)
        closing = 1.0 / (1.0 + np.exp(-output[6]))
        closed = row[layout.slices["gripper"]][1] > 0
        np.testing.assert_array_equal(action[:6], output[:6])
        assert action[6] == (1.0 if closing > (0.05 if closed else 0.3) else -1.0)
    for bad in (obs[0], obs[:, :-1]):
        with pytest.raises(InvalidArgument, match=r"observations have shape .*; needed is \(n, "):
            policy.act(bad)


def test_gripper_thresholds_are_the_probabilities():
    """A logit beside the threshold decides as its probability would."""
    for logit, probability in ((CLOSE_ABOVE, 0.3), (OPEN_BELOW, 0.05)):
        value = np.float32(logit)
        for near in (value, np.nextafter(value, np.float32(9)), np.nextafter(value, np.float32(-9))):
            assert (float(near) > logit) == (1.0 / (1.0 + np.exp(-float(near))) > probability)


def test_residual_and_tuned_policies_act_for_many_as_for_one():
    rng = np.random.default_rng(2)
    given = networks(rng, lambda i: np.arange(EXTENDED.size), 7)
    obs = observations(rng, 20, EXTENDED)
    residual = ResidualPolicy(TASK, {"insert": given["insert"]})
    actions = residual.act(obs)
    inserting = obs[:, EXTENDED.slices["stage"]][:, 1] > 0
    assert residual.frame == "reference" and not actions[~inserting].any() and inserting.any()
    np.testing.assert_array_equal(actions[inserting], [slow(given["insert"], row) for row in obs[inserting]])
    everywhere = ResidualPolicy(TASK, {"all": given["grasp"]})
    np.testing.assert_array_equal(everywhere.act(obs), [slow(given["grasp"], row) for row in obs])
    np.testing.assert_array_equal(ResidualPolicy(TASK, {}).act(obs), np.zeros((20, 7)))

    base = SkillPolicy(TASK, networks(rng, lambda i: stage_features(LAYOUT, TASK, i), 7))
    tuned = TunedPolicy(TASK, base, everywhere, 0.1)
    seen = observations(rng, 20)
    together = tuned.act(seen)
    assert tuned.frame == "world" and together.shape == (20, 7) and np.abs(together).max() <= 1.0
    for row, action in zip(seen, together, strict=True):
        frame = row[LAYOUT.slices["ref_rot6d_world"]].astype(np.float64)
        world = np.clip(to_world(base.act(row[None])[0], frame), -1.0, 1.0)
        extended = np.concatenate([row, to_reference(world, frame).astype(np.float32)])
        np.testing.assert_array_equal(action, combine(world, everywhere.act(extended[None])[0], 0.1, frame))
        np.testing.assert_array_equal(act_one(tuned, row), action)
    assert tuned.act(seen[:0]).shape == (0, 7)


def test_initiation_ranks_sources_best_first():
    rng = np.random.default_rng(3)
    given = networks(rng, lambda i: initiation_features(LAYOUT), 10)
    predictor = InitiationPredictor(TASK, given)
    obs = observations(rng, 12)
    ranks = predictor.act(obs)
    assert ranks.shape == (12, 10) and predictor.sources == 10
    for row, rank in zip(obs, ranks, strict=True):
        assert sorted(rank) == list(range(10))
        stage = TASK.stages[int(np.argmax(row[LAYOUT.slices["stage"]]))].name
        assert (np.diff(slow(given[stage], row[initiation_features(LAYOUT)])[rank]) <= 0).all()


# --- memory ---


def termination(threshold=0.5):
    """A predictor that says in the first stage whether the first feature is positive, and never in the second."""
    given = {}
    for i, stage in enumerate(TASK.stages):
        weight = np.zeros((1, len(termination_features(LAYOUT, TASK, i))))
        weight[0, 0] = 1.0 if i == 0 else 0.0
        given[stage.name] = MLP([weight], [np.full(1, 0.0 if i == 0 else -1.0)])
    return TerminationPredictor(TASK, given, threshold)


def test_termination_counts_every_environment_apart():
    predictor = termination()
    obs = np.zeros((2, LAYOUT.size), np.float32)
    obs[:, LAYOUT.slices["stage"].start] = 1.0
    first = termination_features(LAYOUT, TASK, 0)[0]
    obs[:, first] = [1.0, -1.0]
    np.testing.assert_array_equal(predictor.positive(obs), [True, False])
    for _ in range(CONSECUTIVE - 1):
        np.testing.assert_array_equal(predictor.act(obs), [False, False])
    np.testing.assert_array_equal(predictor.act(obs), [True, False])
    assert predictor.act(obs).dtype == bool
    # Rows may be some environments only, in any order.
    obs[:, first] = 1.0
    np.testing.assert_array_equal(predictor.act(obs, [5, 0]), [False, True])
    assert [predictor.get_memory(i) for i in (0, 1, 5)] == [{"count": 7}, {"count": 0}, {"count": 1}]
    predictor.reset([0])
    assert predictor.get_memory(0) == {"count": 0} and predictor.get_memory(5) == {"count": 1}
    predictor.set_memory({"count": CONSECUTIVE - 1}, 1)
    np.testing.assert_array_equal(predictor.act(obs), [False, True])
    predictor.reset()
    assert all(predictor.get_memory(i) == {"count": 0} for i in (0, 1, 5))
    with pytest.raises(InvalidArgument, match="2 observations for 1 env_indices"):
        predictor.act(obs, [0])
    with pytest.raises(InvalidArgument, match="'count'.*'chunk'"):
        predictor.set_memory({"chunk": 1})


class Chunk:
    """Plans four actions at a time."""

    def __init__(self):
        self.queue = []
        self.resets = 0

    def reset(self):
        self.queue = []
        self.resets += 1

    def __call__(self, obs):
        if not self.queue:
            self.queue = [np.full(7, 0.1 * obs[0] + 0.01 * i) for i in range(4)]
        return self.queue.pop(0)


class Recurrent:
    """A running sum of what it saw, behind get_memory and set_memory of its own, and a big network."""

    network = np.zeros(10**6)

    def __init__(self):
        self.hidden = np.zeros(7)

    def reset(self):
        self.hidden = np.zeros(7)

    def __call__(self, obs):
        self.hidden += 0.01 * obs[:7]
        return self.hidden

    def get_memory(self):
        return {"hidden": self.hidden}

    def set_memory(self, memory):
        self.hidden = memory["hidden"]


class Duck:
    """Follows the contract without saying so; for one environment."""

    frame = "reference"

    def __init__(self):
        self.seen = 0

    def reset(self, env_indices=None):
        self.seen = 0

    def act(self, observations, env_indices=None):
        self.seen += 1
        return np.full((len(observations), 7), 0.01 * self.seen)


class Batched(Policy):
    """A running sum for many environments at once."""

    def __init__(self):
        self.hidden = np.zeros((8, 7))

    def reset(self, env_indices=None):
        self.hidden[slice(None) if env_indices is None else list(env_indices)] = 0.0

    def act(self, observations, env_indices=None):
        rows = np.arange(len(observations)) if env_indices is None else np.asarray(env_indices)
        self.hidden[rows] += 0.01 * observations[:, :7]
        return self.hidden[rows]

    def get_memory(self, env_index=0):
        return {"hidden": self.hidden[env_index].copy()}

    def set_memory(self, memory, env_index=0):
        self.hidden[env_index] = memory["hidden"]


@pytest.mark.parametrize("make", [Chunk, Recurrent, Duck, Batched])
def test_memory_belongs_to_an_environment(make):
    """Two environments in one policy are two policies; one's reset or snapshot leaves the other alone."""
    rng = np.random.default_rng(4)
    given = make()
    both, apart = as_policy(given, "base_policy"), [as_policy(given, "base_policy") for _ in range(2)]
    steps = rng.normal(0, 1, (20, 2, LAYOUT.size)).astype(np.float32)
    both.reset()

    def check(obs):
        actions = both.act(obs)
        np.testing.assert_array_equal(actions, [act_one(p, row) for p, row in zip(apart, obs, strict=True)])
        assert actions.shape == (2, 7)
        return actions

    for obs in steps[:6]:
        check(obs)
    both.reset([1])
    apart[1].reset()
    for obs in steps[6:9]:
        check(obs)
    memory = pickle.loads(pickle.dumps(both.get_memory(0)))  # as a snapshot in a file
    expected = [check(obs)[0] for obs in steps[9:]]
    both.set_memory(memory, 0)
    both.reset([1])
    np.testing.assert_array_equal([both.act(obs)[0] for obs in steps[9:]], expected)
    other = as_policy(given, "base_policy")
    for _ in range(2):  # a memory can be taken up more than once, by another environment too
        other.set_memory(memory, 3)
        np.testing.assert_array_equal([act_one(other, obs[0], 3) for obs in steps[9:]], expected)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(both)))
    np.testing.assert_array_equal(twin.act(steps[0]), both.act(steps[0]))


def test_the_users_object_stays_as_it_is():
    given = Chunk()
    policy = as_policy(given, "base_policy")
    policy.act(np.ones((3, LAYOUT.size), np.float32))
    assert given.queue == [] and given.resets == 0
    given.queue = [np.ones(7)]  # nor does it matter what becomes of it
    assert policy.act(np.zeros((4, LAYOUT.size), np.float32))[3, 0] == 0.0
    assert as_policy(Duck(), "base_policy").frame == "reference" and policy.frame == "world"
    assert set(as_policy(Recurrent(), "base_policy").get_memory()) == {"hidden"}


def test_memoryless_policies_are_shared():
    policy = ResidualPolicy(TASK, {})
    assert as_policy(policy, "base_policy") is policy and isinstance(policy, MemorylessPolicy)
    calls = []
    function = as_policy(lambda obs: calls.append(obs) or obs[:7], "base_policy")
    obs = np.arange(2 * LAYOUT.size, dtype=np.float32).reshape(2, -1)
    np.testing.assert_array_equal(function.act(obs), obs[:, :7])
    assert len(calls) == 2 and function.frame == "world" and function.get_memory() == {}
    function.reset()
    function.set_memory({})
    with pytest.raises(InvalidArgument, match=r"has no memory, but the state holds \['queue'\]"):
        function.set_memory({"queue": []})


# --- what is refused ---


class NeedsSeed(Chunk):
    def reset(self, seed):
        super().reset()


class Locked(Chunk):
    def __init__(self):
        super().__init__()
        self.generator = (i for i in range(3))  # cannot be copied


class Slots:
    __slots__ = ("seen",)

    def reset(self):
        self.seen = 0

    def __call__(self, obs):
        return np.zeros(7)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, r"base_policy 3 must be None, a path to base weights, a Policy, or a callable: observation -> 7 numbers"),
        (Chunk, r"base_policy is the class Chunk; give an object: Chunk\(\)"),
        (SkillPolicy, r"class SkillPolicy; give an object"),
        (NeedsSeed(), "its reset must work without arguments.*seed"),
        (Locked(), "cannot be copied.*generator.*MemorylessPolicy"),
        (Slots(), "no __dict__.*get_memory"),
    ],
)
def test_what_is_no_policy(given, message):
    with pytest.raises(InvalidArgument, match=message) as error:
        as_policy(given, "base_policy", load=lambda path: SkillPolicy.load(path, TASK))
    assert isinstance(error.value, ReinforceGenError)


def test_paths_are_policies_only_where_they_can_be_loaded(tmp_path):
    with pytest.raises(InvalidArgument, match="earlier_policy 'x' must be None, a Policy, or a callable"):
        as_policy("x", "earlier_policy")
    loaded = as_policy(tmp_path, "base_policy", load=lambda path: ResidualPolicy(TASK, {}))
    assert isinstance(loaded, ResidualPolicy)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (None, "the base policy's action is None; it must be"),
        (np.zeros(6), r"the base policy's action has shape \(6,\); it must be \(7,\)"),
        (np.zeros((1, 7)), r"has shape \(1, 7\)"),
        ("up", "the base policy's action 'up' must be 7 numbers"),
        ({"action": np.zeros(7)}, "must be 7 numbers"),
    ],
)
def test_what_is_no_action(action, message):
    policy = as_policy(lambda obs: action, "base_policy")
    with pytest.raises(InvalidArgument, match=message):
        policy.act(np.zeros((1, LAYOUT.size), np.float32))


def test_tensors_are_actions():
    torch = pytest.importorskip("torch")
    obs = np.ones((2, LAYOUT.size), np.float32)
    policy = as_policy(lambda obs: torch.from_numpy(obs[:7]), "base_policy")
    np.testing.assert_array_equal(policy.act(obs), np.ones((2, 7)))
    learning = as_policy(lambda obs: torch.ones(7, requires_grad=True), "base_policy")
    with pytest.raises(InvalidArgument, match="must be 7 numbers.*detach"):
        learning.act(obs)


class Patience:
    """Over after two steps."""

    def __init__(self):
        self.steps = 0

    def reset(self):
        self.steps = 0

    def __call__(self, obs):
        self.steps += 1
        return self.steps >= 2


def test_terminations_of_the_users_own():
    policy = as_termination(Patience())
    obs = np.zeros((2, LAYOUT.size), np.float32)
    np.testing.assert_array_equal(policy.act(obs), [False, False])
    policy.reset([1])
    np.testing.assert_array_equal(policy.act(obs), [True, False])
    assert policy.get_memory(1) == {"steps": 1}
    np.testing.assert_array_equal(as_termination(lambda obs: np.bool_(True)).act(obs), [True, True])
    predictor = termination()
    assert isinstance(as_termination(predictor), TerminationPredictor) and as_termination(predictor) is not predictor
    with pytest.raises(InvalidArgument, match="termination is the class Patience"):
        as_termination(Patience)
    with pytest.raises(InvalidArgument, match="termination 3 must be one of the names, a Policy"):
        as_termination(3)
    with pytest.raises(InvalidArgument, match="the termination's decision None must be True or False"):
        as_termination(lambda obs: None).act(obs)


def test_imitation_stands_starts_that_are_far_off():
    """3 cm and 9 degrees per axis: with its inputs extrapolated it had 0.55, the hand ran away or rested in the air."""
    env = gym.make(
        "ReinforceGen/D2-Threading-Residual-v0", stage="grasp", pose_noise=(0.03, 0.157), disable_env_checker=True
    )
    assert sum(play(env, lambda _: np.zeros(7, np.float32), seed).success for seed in range(16)) >= 13
