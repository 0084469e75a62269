"""The pictures of docs/notebooks.md: each notebook is run, and its pictures are kept.

    python experiments/notebook_pictures.py --out docs/notebooks

The notebooks themselves are committed without outputs. Needs the extra `test` (nbclient) and the
template of `packages/jaxreg-mni152`, and takes some minutes.
"""

import base64
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
import tyro
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
WIDTH, COLOURS = 1000, 128
"""Pixels across at most, and colours of a picture, which keep the files small."""


@dataclass(frozen=True)
class Config:
    """Where the pictures go."""

    out: Path = Path("docs/notebooks")
    """Folder of the pictures, NAME-1.png and so on."""


def main(config: Config) -> None:
    """Run each notebook in a folder of its own and write its pictures."""
    config.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as place:
            client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": place}})
            client.execute()
        cells = (cell for cell in notebook.cells if cell.cell_type == "code")
        found = [
            o.data["image/png"]
            for c in cells
            for o in c.outputs
            if "image/png" in o.get("data", {})
        ]
        for number, picture in enumerate(found, start=1):
            write_picture(base64.b64decode(picture), config.out / f"{path.stem}-{number}.png")
        print(f"{path.name}: {len(found)} pictures")


def write_picture(png: bytes, path: Path) -> None:
    """Write a picture with fewer pixels and colours."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((WIDTH, 2 * WIDTH))
    picture.quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
