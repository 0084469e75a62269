"""`report.html` of a segmentation: slices with outlines, the volumes, and where they come from.

The page is one file and loads nothing.
"""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jaxreg.data.prepare.freesurfer_labels import structure_name
from jaxreg.evaluation.figures.segmentation import segmentation_slices
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.io.images import reordered

if TYPE_CHECKING:
    from jaxreg.segmentation.files import SegmentedImage

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


def write_report(path: Path, found: "SegmentedImage") -> None:
    """Write the page of a segmentation; equal results give equal bytes."""
    grid = Grid(found.image.array.shape, found.image.affine)
    mask = reordered(Volume(found.mask, found.header.grid.affine), grid)
    labels = reordered(Volume(found.labels, found.header.grid.affine), grid)
    figure = segmentation_slices(
        found.image.array.astype(np.float32), labels, mask, found.image.spacing_mm
    )
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110, metadata={"Software": None})
    page = _TEMPLATES.get_template("segmentation.html").render(
        image=str(found.path),
        header=str(found.header),
        picture=Markup(base64.b64encode(png.getvalue()).decode("ascii")),
        brain_ml=f"{found.brain_ml:.0f}",
        fit_mm=f"{found.fit_mm:.1f}",
        agreement=f"{found.agreement:.2f}",
        doubt=found.doubt,
        volumes=[(n, structure_name(n), f"{ml:.2f}") for n, ml in found.volumes_ml.items()],
        provenance=found.provenance(),
    )
    path.write_text(page, encoding="utf-8")
