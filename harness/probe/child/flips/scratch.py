"""The files of the working directory, as they were before a copy of the process went on."""

from __future__ import annotations

from pathlib import Path

# Larger files are left as they are.
FILE_LIMIT_BYTES = 64 << 20


class Scratch:
    """Remembers the files below a folder and puts them back.

    Args:
        folder: the working directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = {path: path.read_bytes() for path in _files(folder) if path.stat().st_size <= FILE_LIMIT_BYTES}
        self._names = set(_files(folder))

    def restore(self) -> None:
        """Put back what was changed or removed, and remove what is new."""
        for path in _files(self._folder):
            if path not in self._names:
                path.unlink()
        for path, content in self._kept.items():
            if not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                # The same file, which somebody may have open.
                with path.open("r+b" if path.is_file() else "wb") as file:
                    file.write(content)
                    file.truncate()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
