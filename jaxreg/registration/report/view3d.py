"""`view3d.html`: the result of a registration in three dimensions, drawn by NiiVue in the browser.

The page opens from the file system and loads nothing: NiiVue and the volumes travel in it, and its
policy forbids every request. The volumes are the brain, in voxels of 2 mm, on the fixed image's
own axes. Equal results give equal bytes.
"""

import base64
import gzip
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from jaxreg.data.label_codes import REST_NUMBER, decode
from jaxreg.data.prepare.freesurfer_labels import structure_name
from jaxreg.evaluation.figures.colours import structure_colours
from jaxreg.geometry import transforms
from jaxreg.geometry.grid import Volume, grid_of
from jaxreg.geometry.resampling import resample
from jaxreg.io.compression import packed
from jaxreg.io.images import image_of, reordered
from jaxreg.registration.inputs import Subject
from jaxreg.registration.report import encoding
from jaxreg.registration.report.html import page_file, script_json, write_page

NIIVUE = Path(__file__).parent / "niivue" / "niivue.umd.js.gz"
"""NiiVue's build for a script tag; its origin and licence lie beside it."""
SPACING_MM = 2.0
_STEPS = 32
"""Steps in which a factor of two of det J is stored: 2 % apart, which packs well."""
_MARGIN_MM = 4.0
"""How far the volumes reach beyond the brain."""


class View(NamedTuple):
    """What the page shows, on one grid of RAS axes in the fixed image's space.

    Attributes:
        title: the heading.
        fixed: grey levels of the fixed image, 0 outside the brain.
        moved: grey levels of the moved image, 0 outside the brain.
        jacobian: log₂ det J, cut off at −2 and 2, 0 outside the brain.
        folds: 1 in voxels where det J ≤ 0 somewhere, else 0.
        structures: FreeSurfer's numbers of the fixed image's structures; None without segmentation.
    """

    title: str
    fixed: Volume
    moved: Volume
    jacobian: Volume
    folds: Volume
    structures: Volume | None


def view_of(
    fixed: Subject,
    moved: Float[np.ndarray, "x y z"],
    jacobian: Float[np.ndarray, "x y z"],
    *,
    title: str,
) -> View:
    """What view3d.html shows of a pair; `moved` and `jacobian` lie on the fixed file's grid."""
    grid = grid_of(fixed.image)
    box = _box(fixed.mask, fixed.image.spacing_mm)
    inside = fixed.mask[box]

    def coarse(array: Shaped[np.ndarray, "x y z"]) -> Volume:
        part = np.where(inside, array[box], 0).astype(np.float32)
        return resample(Volume(part, _affine_of(box, grid.affine)), _spacing_mm(fixed.image))

    moved, jacobian = (
        reordered(Volume(array, fixed.header.grid.affine), grid) for array in (moved, jacobian)
    )
    images = [coarse(image) for image in (fixed.image.array, moved)]
    grey = [
        Volume(encoding.grey(v.array, encoding.intensity_window(v.array)), v.affine) for v in images
    ]
    folds = ~(jacobian > 0)
    change = coarse(np.log2(np.clip(jacobian, 0.25, 4)))
    change = Volume(np.rint(_STEPS * change.array) / np.float32(_STEPS), change.affine)
    folded = Volume((coarse(folds).array > 0).astype(np.uint8), change.affine)
    structures = None
    if fixed.brain is not None:
        codes = Volume(fixed.brain.codes, fixed.brain.affine)
        here = transforms.resample(codes, lambda mm: mm, grid_of(change), smooth_labels=True)
        numbers = decode(here)
        structures = Volume(np.where(numbers == REST_NUMBER, 0, numbers), change.affine)
    return View(title, grey[0], grey[1], change, folded, structures)


def write_view(path: Path | str, view: View) -> None:
    """Write the page, of about 4 MB.

    Raises:
        InputError: the folder does not exist, or the page cannot be written.
    """
    library = gzip.decompress(NIIVUE.read_bytes()).decode("utf-8")
    write_page(
        path,
        "view3d.html",
        script=f"{library}\n{page_file('view3d.js')}",
        title=view.title,
        structures=view.structures is not None,
        spacing_mm=f"{view.fixed.spacing_mm[0]:g}",
        data=script_json(_payload(view)),
    )


def _payload(view: View) -> dict[str, Any]:
    """What the script draws from."""
    volumes = {"fixed": view.fixed, "moved": view.moved, "jacobian": view.jacobian}
    if view.folds.array.any():
        volumes["folds"] = view.folds
    named = None
    if view.structures is not None:
        volumes["structures"] = view.structures
        named = _named(view.structures.array)
    return {
        "volumes": {name: _nifti(volume) for name, volume in volumes.items()},
        "structures": named,
    }


def _nifti(volume: Volume) -> str:
    """A volume as a compressed NIfTI file in base64."""
    return base64.b64encode(packed(image_of(volume).to_bytes())).decode("ascii")


def _named(labels: UInt8[np.ndarray, "x y z"]) -> dict[str, Any]:
    """Names of the labels by number, and their colours (0 … 255) as NiiVue reads them."""
    numbers = [int(n) for n in np.unique(labels) if n]
    names = {number: structure_name(number) for number in numbers}
    colours = np.rint(255 * structure_colours()[[0, *numbers]]).astype(int)
    table = {channel: colours[:, k].tolist() for k, channel in enumerate("RGB")}
    table |= {
        "I": [0, *numbers],
        "A": [0, *(255 for _ in numbers)],
        "labels": ["", *names.values()],
    }
    return {"names": names, "table": table}


def _spacing_mm(image: Volume) -> float:
    """The voxel size of the view: never finer than the image's own."""
    return max(SPACING_MM, min(image.spacing_mm))


def _box(
    mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> tuple[slice, slice, slice]:
    """The part of a grid that holds a mask, with a margin."""
    slices = []
    for axis, spacing in enumerate(spacing_mm):
        others = tuple(a for a in range(3) if a != axis)
        there = np.flatnonzero(mask.any(axis=others))
        margin = int(np.ceil(_MARGIN_MM / spacing))
        slices.append(slice(max(int(there[0]) - margin, 0), int(there[-1]) + margin + 1))
    x, y, z = slices
    return x, y, z


def _affine_of(box: tuple[slice, slice, slice], affine: np.ndarray) -> np.ndarray:
    """The affine of a part of a grid."""
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return shifted
