"""Where the command line puts its pictures."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

from . import Image
from .options import BadInput


@dataclasses.dataclass(frozen=True)
class Target:
    """Where pictures go: a folder, and a name for them or None for the server's own. No file is ever overwritten."""

    folder: Path
    name: str | None

    @classmethod
    def of(cls, output: str, pictures: bool = True) -> Target:
        """From --output; the folder is made and tried before any work starts. pictures: all that comes is PNG."""
        path = Path(output)
        folder, name = (path, None) if path.is_dir() or not path.suffix else (path.parent, path.name)
        if pictures and name and path.suffix.lower() != ".png":
            raise BadInput(f"--output {output}: pictures are PNG files; give a name that ends in .png, or a folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".nagpag-write-test").touch()
            (folder / ".nagpag-write-test").unlink()
        except OSError as error:
            raise BadInput(f"--output {output}: {error.strerror}: {error.filename}") from None
        return cls(folder, name)

    def take(self, images: list[Image]) -> list[Path]:
        """Write all files of a finished job; an interrupt says where they are."""
        try:
            return [self.write(image.data(), image.filename) for image in images]
        except KeyboardInterrupt:
            there = ", ".join(image.filename for image in images)
            raise KeyboardInterrupt(f"stopped; the job is done, and ComfyUI's output folder has {there}") from None

    def write(self, data: bytes, filename: str) -> Path:
        """Write a file under its name with the ending of `filename`, or the next free one."""

        def create(path: Path) -> Path:
            with path.open("xb") as file:
                file.write(data)
            return path

        name, ending = Path(self.name or Path(filename).name), Path(filename).suffix
        same = name.suffix.lower() == ending.lower()
        return self.write_with(create, name.name if same else f"{name.stem}{ending}")

    def write_with(self, create: Callable[[Path], Path], filename: str) -> Path:
        """Let `create` make the file under this name, or name_1, name_2, …: the first that is free."""
        name, number = Path(filename), 0
        while True:
            with contextlib.suppress(FileExistsError):
                return create(self.folder / (f"{name.stem}_{number}{name.suffix}" if number else name.name))
            number += 1
