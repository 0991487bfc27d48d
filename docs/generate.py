"""Write a page a task from its class: prose from the docstring, tables from the declarations.

    python docs/generate.py            # writes docs/tasks/
    python docs/generate.py --check    # fails if a page is not what would be written

A task's docstring holds sections, as ``Args:`` is one. Those named in `ITEMS` hold ``name: text`` for every stage and predicate
there is, or are inherited from a base class; a text for ``grasp`` serves ``grasp_square_nut``, one for ``at_rest`` serves
``round_nut_at_rest``. The pages do not depend on which weights are shipped.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
import tyro

from reinforcegen_envs.engine.judge import STAGE_STEPS, STILL
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.ids import MODES, STAGE_MODES, VERSION, env_id, stage_word
from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.observations import Layout, ObservationLayout, ProprioLayout, base_action_term
from reinforcegen_envs.registration import ARGUMENTS
from reinforcegen_envs.sim.cameras import MAX_DEPTH, OBJECTS
from reinforcegen_envs.sim.kernel import POSITION_SCALE, ROTATION_SCALE
from reinforcegen_envs.sim.simulation import INITIAL_JOINT_NOISE, PHYSICS_STEPS, Simulation
from reinforcegen_envs.tasks import PACKAGE_TASKS, Task
from reinforcegen_envs.wrappers import Hybrid, Residual, Skill

PAGES = Path(__file__).with_name("tasks")
IMAGES = Path(__file__).with_name("images")
ITEMS = ("Args", "Stages", "Success", "Version history")
WRITE = "python docs/generate.py"

# Whose signature and docstring an argument's default and text come from, and its name there if that differs.
ARGUMENT_CLASSES = (ManipulationEnv, Hybrid, Skill, Residual)
ARGUMENT_NAMES = {"residual_scale": "scale"}
MODE_TEXTS: dict[str | None, str] = {
    None: "every control step",
    "Hybrid": "the control steps of skill segments; connects run inside `reset` and `step`",
    "Skill": "one stage's skill segment (`stage=` names it); earlier stages and the connect are already done",
    "Residual": "as `Hybrid`, or as `Skill` with `stage=`, added to the base policy's action",
}
STAGE_ID_TEXT = 'as `{}` with that `stage=` and `pool="auto"`: starts that are made once, on first use'


class DocumentationError(ValueError):
    """A docstring does not say what its page needs, or a page is not fresh."""


@dataclass
class Args:
    """Write docs/tasks/ from the task classes."""

    check: bool = False
    """write nothing; fail if a page is missing, old or left over"""


# --- docstrings ---


def sections(cls: type) -> dict[str, str]:
    """Sections of a class's own docstring by heading, dedented; what comes before the first is under ""."""
    found: dict[str, list[str]] = {"": []}
    heading = ""
    for line in inspect.cleandoc(cls.__doc__ or "").splitlines():
        if match := re.fullmatch(r"([A-Z][a-z ]*):", line):
            heading = match[1]
            found[heading] = []
        else:
            found[heading].append(line)
    return {heading: inspect.cleandoc("\n" + "\n".join(lines)) for heading, lines in found.items()}


def items(text: str) -> dict[str, str]:
    """``name: text`` entries of a section; further lines of an entry are indented, "a, b: text" counts for both."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", text) if text else ():
        names, _, body = entry.partition(":")
        for name in names.split(","):
            found[name.strip()] = " ".join(body.split())
    return found


def documentation(task: type[Task]) -> dict[str, str]:
    """Sections of a task's docstring and, where it has none of that heading, of its base classes'."""
    bases = task.__mro__[1 : task.__mro__.index(Task)]
    found = sections(task)
    for base in bases:
        inherited = sections(base)
        for heading, text in inherited.items():
            if heading in ITEMS and heading in found:
                found[heading] = f"{text}\n{found[heading]}"
            elif heading:
                found.setdefault(heading, text)
    return found


def described(task: type[Task], heading: str, text: str, names: Sequence[str]) -> list[str]:
    """The text of every name in a section of items.

    Raises:
        DocumentationError: a name has no text, or a text no name.
    """
    entries = items(text)
    texts, unused = [], set(entries)
    for name in names:
        serving = [key for key in entries if name == key or name.startswith(f"{key}_") or name.endswith(f"_{key}")]
        if not serving:
            raise DocumentationError(f"{task.__name__}'s docstring does not describe {name!r} under {heading!r}")
        unused -= set(serving)
        texts.append(entries[max(serving, key=len)])
    if unused:
        raise DocumentationError(
            f"{task.__name__}'s docstring describes {sorted(unused)} under {heading!r}: no such thing"
        )
    return texts


# --- Markdown ---


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)


def paragraphs(text: str) -> str:
    """Prose with one line a paragraph, as Markdown shows it anyway: where a docstring is wrapped does not matter."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def number(value: float, digits: int = 4) -> str:
    return f"{round(value, digits) + 0.0:g}"


def span(bounds: tuple[float, float], factor: float = 1.0, digits: int = 4) -> str:
    low, high = (number(factor * bound, digits) for bound in bounds)
    return low if low == high else f"{low} .. {high}"


# --- the parts of a page ---


def objects_table(task: type[Task], model: mujoco.MjModel) -> str:
    """Mass, freedom and placement of every object."""
    rows = []
    for name in task.objects:
        body = model.body(name).id
        fixed = model.body_mocapid[body] >= 0
        joints = [
            model.joint(joint) for joint in task.joints if model.body_rootid[model.joint(joint).bodyid[0]] == body
        ]
        freedom = ["fixed" if fixed else "free"]
        for joint in joints:
            slide = joint.type[0] == mujoco.mjtJoint.mjJNT_SLIDE
            unit = "m" if slide else "rad"
            freedom.append(
                f"`{joint.name}` {span(tuple(joint.range), digits=3)} {unit}, at reset {number(task.joints[joint.name], 3)}"
            )
        mass = "-" if fixed else number(model.body_subtreemass[body], 5)
        shape = task.shapes[name]
        rows.append((f"`{name}`", mass, "; ".join(freedom), number(shape.height), number(shape.radius)))
    return table(("object", "mass (kg)", "motion", "height of its origin at reset (m)", "radius kept free (m)"), rows)


def stages_table(task: type[Task], text: str) -> str:
    texts = described(task, "Stages", text, [stage.name for stage in task.stages])
    rows = [
        (i, f"`{stage.name}`", f"`{stage.reference}`", f"`{stage.held}`" if stage.held else "-", words, stage.horizon)
        for i, (stage, words) in enumerate(zip(task.stages, texts, strict=True))
    ]
    return table(("", "stage", "reference object", "held", "skill", "horizon"), rows)


def predicates_table(task: type[Task], model: mujoco.MjModel, text: str) -> str:
    sim = Simulation(model)
    sim.refresh()
    names = list(task(model).predicates(sim))
    texts = described(task, "Success", text, names)
    return table(
        ('name in `info["predicates"]`', "holds when"), [(f"`{n}`", t) for n, t in zip(names, texts, strict=True)]
    )


def resets_table(task: type[Task]) -> str:
    degrees = float(np.rad2deg(1.0))
    rows = []
    for variant in task.variants:
        first = variant
        for name, place in task.variants[variant].items():
            rows.append((first, f"`{name}`", span(place.x), span(place.y), span(place.yaw, degrees, 1)))
            first = ""
    return table(("variant", "object", "x (m)", "y (m)", "yaw (degrees)"), rows)


def observation_table(task: type[Task]) -> str:
    return terms_table(task, ObservationLayout.of(task, base_action=True))


def pixels_text(task: type[Task]) -> str:
    frame = base_action_term("world").frame
    labels = ", ".join(f"{OBJECTS + i} `{name}`" for i, name in enumerate(task.objects))
    return (
        '`obs_mode="rgb"` gives a dictionary instead: `front` and `wrist`, pictures of the true state, uint8 (size, size, 3), '
        "`image_size` pixels a side; `proprio`, what the robot knows of itself, float32, below; of `Residual` also "
        f'`base_action`, here in the {frame} frame, as the residual is. `"rgbd"` adds `front_depth` and `wrist_depth`, '
        f"float32 (size, size, 1), metres along the camera's axis, at most {number(MAX_DEPTH)}. "
        '`"segmentation"` adds to the pictures `front_segmentation` and `wrist_segmentation`, uint8 (size, size, 1): '
        f"0 table and background, 1 robot, {labels}."
    )


def terms_table(task: type[Task], layout: Layout) -> str:
    rows = []
    for term in layout.terms:
        part = layout.slices[term.name]
        index = str(part.start) if term.size == 1 else f"{part.start} .. {part.stop - 1}"
        text = f"{term.text}: {', '.join(f'`{name}`' for name in task.joints)}" if term.name == "joints" else term.text
        rows.append((index, f"`{term.name}`", term.size, term.unit or "-", term.frame or "-", text))
    return table(("index", "name", "size", "unit", "frame", "meaning"), rows)


def action_table() -> str:
    frame = "world; of `Residual` without pictures the reference object's"
    rows = [(i, f"move the grip site along {axis}", f"{POSITION_SCALE} m", frame) for i, axis in enumerate("xyz")]
    rows += [
        (3 + i, f"turn the grip site: rotation vector, {axis}", f"{ROTATION_SCALE} rad", frame)
        for i, axis in enumerate("xyz")
    ]
    rows.append((6, "gripper", "closes (above 0), opens (below 0)", "-"))
    return table(("index", "meaning", "at 1", "frame"), rows)


def ids_table(task: type[Task]) -> str:
    variants = "{" + ",".join(task.variants) + "}"
    size = ObservationLayout.of(task).size
    extended = ObservationLayout.of(task, base_action=True).size
    rows = []
    for mode in MODES:
        name = f"`{env_id(task.name, variants, mode)}`"
        rows.append((name, MODE_TEXTS[mode], extended if mode == "Residual" else size))
    stages = "{" + ",".join(stage_word(stage.name) for stage in task.stages) + "}"
    for mode in STAGE_MODES:
        name = f"`{env_id(task.name, variants, mode, 'STAGE').replace('STAGE', stages)}`"
        rows.append((name, STAGE_ID_TEXT.format(mode), extended if mode == "Residual" else size))
    return table(("id", "the agent controls", "observation"), rows)


def arguments_table() -> str:
    rows = []
    texts = {cls: items(sections(cls)["Args"]) for cls in ARGUMENT_CLASSES}
    for name in ARGUMENTS["Residual"]:  # it has all
        there = ARGUMENT_NAMES[name] if name in ARGUMENT_NAMES else name
        cls = next(cls for cls in ARGUMENT_CLASSES if there in inspect.signature(cls).parameters)
        default = inspect.signature(cls).parameters[there].default
        if there not in texts[cls]:
            raise DocumentationError(f"{cls.__name__}'s docstring does not describe {there!r} under 'Args'")
        modes = [mode for mode in MODES if name in ARGUMENTS[mode]]
        rows.append(
            (
                f"`{name}`",
                f"`{default!r}`",
                "all" if len(modes) == len(MODES) else ", ".join(map(str, modes)),
                texts[cls][there],
            )
        )
    return table(("argument", "default", "modes", "meaning"), rows)


def page(task: type[Task]) -> str:
    """The page of a task, Markdown.

    Raises:
        DocumentationError: the docstring lacks something, or describes what is not there.
    """
    model = load_scene(task.scene)
    text = documentation(task)
    known = ("", *ITEMS, "Reference", "Failure", "Resets", "Ours")
    if missing := [name for name in known if name not in text and name not in ("Args", "Resets", "Ours")]:
        raise DocumentationError(f"{task.__name__}'s docstring has no section {missing}")
    if unknown := set(text) - set(known):
        raise DocumentationError(
            f"{task.__name__}'s docstring has unknown sections {sorted(unknown)}; choose from {known}"
        )
    versions = items(text["Version history"])
    if f"v{VERSION}" not in versions:
        raise DocumentationError(f"{task.__name__}'s docstring does not describe v{VERSION} under 'Version history'")
    step = model.opt.timestep * PHYSICS_STEPS
    source = task.__module__.replace(".", "/") + ".py"
    placing = (
        "Objects are placed in this order, uniformly; one whose circle (radius kept free, below) meets an earlier one's is "
        "drawn again."
        if task.sample_layout is Task.sample_layout
        else ""
    )
    parts = [
        f"<!-- Written by `{WRITE}` from {source}: edit that file. -->",
        f"# {title(task)}",
        f"![{title(task)}: one source demonstration]({image_link(task)})",
        '*One scripted source demonstration on D0; "connect" marks the way to a skill.*',
        paragraphs(text[""]),
        "## Ids",
        ids_table(task),
        "Variants say how widely objects are reset. The last three modes use the weights that come with the package, or "
        "those that `weights=` names.",
        f"An episode ends with success or after {task.horizon} control steps of {number(step)} s, connects included. In "
        "the last three modes it also ends when a connect fails, at a skill's horizon, and when this happens: "
        f"{lower_first(paragraphs(text['Failure']))}",
        "## Stages",
        "A connect, in which the planner moves the hand, leads to each of these skills.",
        stages_table(task, text["Stages"]),
        f"A stage must look finished for {STAGE_STEPS} control steps in a row. Horizons are in control steps of the skill. "
        f"Each newly finished stage pays 1/{len(task.stages)}.",
        "## Success",
        predicates_table(task, model, text["Success"]),
        f'Strict success, `info["success"]`, is their conjunction in stage `{task.stages[-1].name}`, held for '
        f"{task.success_steps} control steps within which no object moves by more than {number(1000 * STILL)} mm.",
        '`info["reference_success"]` is MimicGen\'s check, which strict success implies. '
        + paragraphs(text["Reference"]),
        "## Resets",
        "Metres from the table's centre; a single number is fixed. The arm starts at robosuite's initial joints with "
        f"{INITIAL_JOINT_NOISE} rad of noise.",
        resets_table(task),
        placing,
        paragraphs(text.get("Resets", "")),
        objects_table(task, model),
        "## Observation",
        "Flat float32. The reference object is the current stage's; in its frame, D2 looks like D0. Only `Residual` has "
        "`base_action`.",
        observation_table(task),
        pixels_text(task),
        terms_table(task, ProprioLayout(len(task.stages))),
        "## Action",
        f"Seven numbers in [-1, 1], cut to it, at {number(1 / step)} Hz. Of a `Residual` id, `residual_scale` times them "
        "is added to the base action.",
        action_table(),
        "## Arguments",
        arguments_table(),
        "## Choices of ours" if "Ours" in text else "",
        paragraphs(text.get("Ours", "")),
        "## Version history",
        "\n".join(f"- {version}: {words}" for version, words in versions.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def lower_first(text: str) -> str:
    return text[0].lower() + text[1:]


def title(task: type[Task]) -> str:
    """A task's name in words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", task.name)


def image_link(task: type[Task]) -> str:
    """The filmstrip, relative to the pages."""
    return f"../{IMAGES.name}/{task.scene.name}.png"


def index(tasks: Iterable[type[Task]]) -> str:
    """The page that lists the pages."""
    rows = [
        (
            f"[{title(task)}]({task.scene.name}.md)",
            sections(task)[""].split("\n\n")[0].replace("\n", " "),
            ", ".join(f"`{stage.name}`" for stage in task.stages),
            task.horizon,
        )
        for task in tasks
    ]
    strips = "\n\n".join(f"[![{title(task)}]({image_link(task)})]({task.scene.name}.md)" for task in tasks)
    return "\n\n".join(
        (
            f"<!-- Written by `{WRITE}`. -->",
            "# Tasks",
            table(("task", "what to do", "stages", "horizon (control steps)"), rows),
            strips + "\n",
        )
    )


def pages() -> dict[str, str]:
    """File name in docs/tasks/ -> content."""
    return {"README.md": index(PACKAGE_TASKS)} | {f"{task.scene.name}.md": page(task) for task in PACKAGE_TASKS}


def stale(wanted: dict[str, str]) -> list[str]:
    """Names of pages that are missing, differ, or should not be there."""
    there = {path.name: path.read_text() for path in PAGES.glob("*.md")}
    return sorted(name for name in set(there) | set(wanted) if there.get(name) != wanted.get(name))


def main(args: Args) -> None:
    """Write the pages, or check them.

    Raises:
        DocumentationError: with ``check``, a page is not fresh; or a docstring lacks something.
    """
    wanted = pages()
    changed = stale(wanted)
    if args.check:
        if changed:
            raise DocumentationError(f"docs/tasks is not fresh: {', '.join(changed)}; run {WRITE}")
        return
    PAGES.mkdir(exist_ok=True)
    for name in changed:
        path = PAGES / name
        if name in wanted:
            path.write_text(wanted[name])
        else:
            path.unlink()
        print(f"{'wrote' if name in wanted else 'removed'} {path}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main(tyro.cli(Args))
    except DocumentationError as error:
        raise SystemExit(f"error: {error}") from None
