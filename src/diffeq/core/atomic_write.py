"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["write_whole"]


def write_whole(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file under another name, and gives it its name when it is on the disk: whoever is
    killed in between leaves the file as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "numbers"
    ...     write_whole(file, lambda f: f.write(b"1 2"))
    ...     file.read_bytes(), len(list(Path(folder).iterdir()))
    (b'1 2', 1)
    """
    draft = file.with_name(f"{file.name}.part")
    with draft.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, file)
