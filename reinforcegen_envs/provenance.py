"""Where a file's numbers come from: the commit of the source tree."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str | None:
    """Commit of the source tree that this file belongs to, "-dirty" with local changes; None outside one."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
