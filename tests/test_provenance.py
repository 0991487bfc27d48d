"""The commit that cards and submissions name."""

import importlib.util
import re
import shutil
import subprocess

import pytest

from reinforcegen_envs import provenance


def git(folder, *words):
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def tree(tmp_path):
    """A source tree of two files, and its function."""
    package = tmp_path / "reinforcegen_envs"
    package.mkdir()
    shutil.copy(provenance.__file__, package)
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "bc.py").write_text("")
    spec = importlib.util.spec_from_file_location("copied_provenance", package / "provenance.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tmp_path, module.commit


def test_outside_a_source_tree_there_is_none(tree):
    folder, commit = tree
    assert commit() is None
    git(folder, "init", "-q")
    assert commit() is None  # installed inside somebody else's tree


def test_only_changes_of_the_code_make_it_dirty(tree):
    folder, commit = tree
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    head = git(folder, "rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", head) and commit() == head
    (folder / "result.json").write_text('{"one": "result"}')  # what a run of this very commit may have written
    assert commit() == head
    (folder / "agents" / "bc.py").write_text("pass")
    assert commit() == f"{head}-dirty"
