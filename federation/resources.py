"""The location of the product's own YAML: inside the installed package, or beside it in a source tree."""

from __future__ import annotations

from pathlib import Path


def configs() -> Path:
    """The directory `configs`. Raises: FileNotFoundError when the installation is damaged."""
    here = Path(__file__).parent
    for directory in (here / "configs", here.parent / "configs"):
        if directory.is_dir():
            return directory
    raise FileNotFoundError("configs/ is missing from this installation: install the package again")
