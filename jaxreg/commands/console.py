"""What a command prints, and where: lines on standard output, progress on standard error."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxreg.errors import InputError
from jaxreg.io.remarks import WARNING
from jaxreg.progress import SILENT, ShownProgress, write_line


@dataclass(frozen=True, kw_only=True)
class Printing:
    """What is printed."""

    quiet: bool = False
    """Print nothing but warnings and errors."""
    json: bool = False
    """Print one JSON object; all other lines go to standard error."""


@dataclass(frozen=True, kw_only=True)
class DetailedPrinting(Printing):
    """What is printed by a command that can say more than it does."""

    verbose: bool = False
    """Print the settings, the seconds and the memory as well."""

    def __post_init__(self):
        """Refuse what contradicts itself."""
        if self.quiet and self.verbose:
            raise InputError("expected either --quiet or --verbose, got both.")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Where a run is written."""

    out: Path
    """Folder of the results; it appears when they are complete."""
    overwrite: bool = False
    """Replace the run that is in --out."""


@dataclass(frozen=True, kw_only=True)
class FolderOutput(Printing, Folder):
    """Where the results go, and what is printed."""


@dataclass(frozen=True, kw_only=True)
class DetailedFolderOutput(DetailedPrinting, Folder):
    """As `FolderOutput`, of a command that can say more than it does."""


class Console:
    """Prints what the flags ask for."""

    def __init__(self, printing: Printing):
        """Nothing is printed yet; `progress` is where long work shows that it goes on."""
        self._printing = printing
        self.progress = (
            SILENT if printing.quiet or sys.stderr is None else ShownProgress(sys.stderr)
        )

    def say(self, line: str) -> None:
        """Print a line, unless --quiet asks for warnings alone; those go to standard error."""
        warning = line.startswith(WARNING)
        if warning or not self._printing.quiet:
            write_line(line, stream=sys.stderr if warning else self._lines())

    def detail(self, line: str) -> None:
        """Print a line that only --verbose asks for."""
        if isinstance(self._printing, DetailedPrinting) and self._printing.verbose:
            write_line(line, stream=self._lines())

    def result(self, values: dict[str, Any]) -> None:
        """Print the object of --json; paths and other values become text."""
        if self._printing.json:
            print(json.dumps(values, ensure_ascii=False, default=str), flush=True)

    def _lines(self) -> Any:
        return sys.stderr if self._printing.json else sys.stdout
