"""The pages in docs/tasks are what their task classes say, and their pictures are there."""

import importlib.util
import re
import struct
import sys
from pathlib import Path

import pytest

from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.registration import ARGUMENTS
from reinforcegen_envs.tasks import TASKS, SquareTask, ThreadingTask
from reinforcegen_envs.tasks.coffee_preparation import CoffeePreparationTask

DOCS = Path(__file__).parents[1] / "docs"
MAX_PICTURE = 150_000  # bytes


def load(name):
    """A script of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load("generate")


def test_pages_are_fresh():
    assert generate.stale(generate.pages()) == [], f"run {generate.WRITE}"


def test_stale_pages_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "PAGES", tmp_path)
    monkeypatch.setattr(generate, "pages", lambda: {"a.md": "a", "b.md": "b"})
    (tmp_path / "a.md").write_text("old")
    (tmp_path / "gone.md").write_text("of a task that is no more")
    with pytest.raises(generate.DocumentationError, match=r"a\.md, b\.md, gone\.md; run python docs/generate\.py"):
        generate.main(generate.Args(check=True))
    generate.main(generate.Args())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.md": "a", "b.md": "b"}
    generate.main(generate.Args(check=True))


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_filmstrips_are_there(task):
    picture = (DOCS / "images" / f"{task.scene.name}.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and len(picture) < MAX_PICTURE
    assert struct.unpack(">II", picture[16:24]) == load("filmstrips").size(task)


def test_tables_hold_what_is_declared():
    page = generate.page(ThreadingTask)
    assert page.startswith("<!-- Written by `python docs/generate.py` from reinforcegen_envs/tasks/threading.py")
    assert "| D2 | `needle` | -0.2 .. 0.05 | -0.25 .. -0.15 | -210 .. 30 |" in page
    assert "| 1 | `insert` | `tripod` | `needle` |" in page
    assert "| `needle` | 0.0076 | free |" in page
    assert "| 20 .. 22 | `tripod_pos_in_ref` | 3 | m | reference object |" in page
    assert "| `residual_scale` | `0.1` | Residual |" in page
    for argument in set().union(*ARGUMENTS.values()):
        assert f"\n| `{argument}` | " in page


def test_a_task_needs_only_to_be_in_the_table(monkeypatch):
    """Coffee Preparation's page is made from what is there, joints and fixed bodies included."""
    monkeypatch.setattr(generate, "PACKAGE_TASKS", (CoffeePreparationTask,))
    pages = generate.pages()
    assert list(pages) == ["README.md", "coffee_preparation.md"]
    assert "# Coffee Preparation\n" in pages["coffee_preparation.md"]
    assert re.search(r"\| `drawer` \| - \| fixed; `\w+` -1 \.\. 0 m, at reset 0 \|", pages["coffee_preparation.md"])


def test_what_is_not_described_is_named():
    class Undescribed(SquareTask):
        def predicates(self, sim):
            return {**super().predicates(sim), "polished": True}

    class Overdescribed(SquareTask):
        """Put it there.

        Stages:
            polish: rub
        """

    with pytest.raises(generate.DocumentationError, match="Undescribed's docstring does not describe 'polished'"):
        generate.page(Undescribed)
    with pytest.raises(generate.DocumentationError, match=r"Overdescribed's docstring describes \['polish'\]"):
        generate.page(Overdescribed)


def test_pages_do_not_depend_on_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("reinforcegen_envs.policies.bundle.SHIPPED", tmp_path)
    assert generate.page(ThreadingTask) == (DOCS / "tasks" / "threading.md").read_text()


def test_links_lead_somewhere():
    for page in DOCS.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page}: {link}"


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_frames_of_observation_terms_are_those_their_names_tell(task):
    layout = ObservationLayout.of(task, base_action=True)
    assert sum(term.size for term in layout.terms) == layout.size == len(layout.names)
    for term in layout.terms:
        in_ref, in_world = term.name.endswith("in_ref"), term.name.endswith("world")
        assert (term.frame == "world") == in_world
        assert (term.frame == "reference object") == (in_ref or term.name == "base_action")
        assert term.unit == "m" if "_pos_" in term.name else term.unit != "m"


@pytest.mark.parametrize("page", ["architecture.md", "libraries.md"])
def test_snippets_that_stand_alone_run_to_success(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)
    (alone,) = [block for block in blocks if 'print(info["success"])' in block]
    exec(alone, {})
    assert capsys.readouterr().out.strip() == "True"
