"""Writing files so that a reader never sees half of one, and knowing beforehand that they can be written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reinforcegen_envs.errors import InvalidArgument


def as_path(given: object, what: str) -> Path:
    """A path that a user gave.

    Args:
        given: the argument.
        what: it is of, for messages: "weights", "pool" ...

    Raises:
        InvalidArgument: it is neither a str nor a Path, or no file can have that name.
    """
    if not isinstance(given, (str, os.PathLike)) or not isinstance(name := os.fspath(given), str) or "\0" in name:
        raise InvalidArgument(f"{what} {given!r} is not a path; give a str or a Path")
    path = Path(name)
    try:
        path.exists()
    except OSError as error:  # a name that is too long, a link that leads to itself
        raise InvalidArgument(f"{what} {str(path)[:200]!r} cannot be looked at: {error.strerror}") from error
    return path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    Args:
        path: the file that is to appear; its folder is made if it is missing.

    Yields:
        A path in the same folder (same file system, so that the rename is atomic) with the same suffix.

    Raises:
        OSError: the folder cannot be made or written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give the result the permissions any other new file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def claim(manifest: Path, settings: Mapping[str, object]) -> bool:
    """Note with what settings a folder's content is made, or compare them with those that are noted.

    Args:
        manifest: JSON file of the note.
        settings: whose text forms tell.

    Returns:
        Whether nothing was noted, or the same.

    Raises:
        OSError: the folder cannot be made or written.
    """
    texts = {name: str(value) for name, value in settings.items()}
    if manifest.is_file():
        return json.loads(manifest.read_text()) == texts
    with atomic_path(manifest) as temporary:
        temporary.write_text(json.dumps(texts, indent=2))
    return True


def check_output(path: str | os.PathLike[str], suffixes: Collection[str] = ()) -> None:
    """Check, before the work begins, that a file can be written at its end.

    Args:
        path: the file; it and its folder need not exist.
        suffixes: those that its name may have, e.g. ".mp4"; empty means any.

    Raises:
        InvalidArgument: it is a folder, has another suffix, or its folder cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InvalidArgument(
            f"{path} is a folder; name a file to write, e.g. {path / ('result' + next(iter(suffixes), ''))}"
        )
    if suffixes and path.suffix.lower() not in suffixes:
        raise InvalidArgument(f"{path} has suffix {path.suffix!r}; choose one of {sorted(suffixes)}")
    _check_parents(path)


def check_output_folder(path: str | os.PathLike[str]) -> None:
    """Check, before the work begins, that files can be written into a folder, which need not exist.

    Raises:
        InvalidArgument: it is a file, or cannot be written.
    """
    _check_parents(Path(path) / "file")


def _check_parents(path: Path) -> None:
    """Check the nearest folder above ``path`` that exists: what is missing would be made in it."""
    for folder in path.absolute().parents:
        if folder.is_dir():
            if not os.access(folder, os.W_OK | os.X_OK):
                raise InvalidArgument(f"{folder} cannot be written; choose another folder, or change its permissions")
            return
        if os.path.lexists(folder):
            raise InvalidArgument(f"{folder} is a file, not a folder; choose another name")
