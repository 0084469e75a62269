"""The cohort of the demo and the notebooks: from the ICBM template, or phantoms without it."""

from collections.abc import Mapping
from pathlib import Path

from jaxreg.data.mni152 import find_mni152
from jaxreg.data.synthetic import simulate
from jaxreg.data.synthetic.icbm import write_template_cohort
from jaxreg.data.synthetic.phantom import write_phantom_cohort

_EXTENT_MM = 192.0
"""Side of the phantoms' field of view."""


def write_demonstration_cohort(
    folder: Path | str,
    *,
    spacing_mm: float = 4.0,
    subjects: Mapping[str, int] = simulate.SUBJECTS,
) -> Path:
    """Write a cohort of simulated subjects with T1w, T2w and labels, and return its folder.

    It says on standard output what the subjects are made from. Nothing is downloaded.

    Raises:
        InputError: the folder exists and is not empty, or an argument is not usable.
    """
    if find_mni152() is not None:
        print("The subjects are simulated from the ICBM152 template.")
        return write_template_cohort(folder, spacing_mm=spacing_mm, subjects=subjects)
    print("The template mni152 is not installed, so the subjects are phantoms.")
    side = 8 * round(_EXTENT_MM / spacing_mm / 8)
    shape = (side, side, side)
    return write_phantom_cohort(folder, shape=shape, spacing_mm=spacing_mm, subjects=subjects)
