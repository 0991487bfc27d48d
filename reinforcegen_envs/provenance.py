"""Where a file's numbers come from: the commit of the source tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCES = ("reinforcegen_envs", "agents", "wrappers")  # at the root of the source tree; all that can change a number


def commit() -> str | None:
    """Commit of the source tree that this file belongs to, "-dirty" with local changes of its code; None outside one."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        sources = [f":/{name}" for name in SOURCES]
        changes = [*git, "status", "--porcelain", "--untracked-files=no", "--", *sources]
        dirty = subprocess.run(changes, check=True, capture_output=True, text=True).stdout.strip()
        return f"{head}-dirty" if dirty else head
    except (OSError, subprocess.CalledProcessError):
        return None
