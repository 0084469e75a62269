"""`jaxreg normalize` beside ANTs: whole heads to MNI152, the template's labels back.

    python experiments/normalize_ants.py --data HEADS --ants-python PYTHON [--subjects 3]

HEADS is a folder of whole heads with label maps in FreeSurfer's numbers (`sub-*/sub-*_T1w.nii.gz`,
`_dseg.nii.gz`, participants.tsv with a column split). PYTHON has antspyx installed. ANTs gets the
T1w template and the subject, both cut to the brain (the template's mask, and the subject's as
jaxreg finds it), with voxels of 2 mm as the heads have, and registers by `antsRegistrationSyN[s]`.
The score is the Dice of CerebrA's labels, brought to the subject, with the subject's own labels,
where both name the same structure; the regions of the cortex count as one structure a side.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

import jaxreg
from jaxreg import runtime
from jaxreg.data.mni152 import label_names, require_mni152
from jaxreg.data.prepare.freesurfer_labels import STRUCTURES
from jaxreg.geometry.grid import Volume
from jaxreg.geometry.resampling import resample
from jaxreg.io.images import read, read_labels, write
from jaxreg.io.tables import read_table

SAME = {
    "Thalamus": "Thalamus",
    "Caudate": "Caudate",
    "Putamen": "Putamen",
    "Pallidum": "Pallidum",
    "Hippocampus": "Hippocampus",
    "Amygdala": "Amygdala",
    "Accumbens-Area": "Accumbens-area",
    "Ventral-Diencephalon": "VentralDC",
    "Lateral-Ventricle": "Lateral-Ventricle",
    "Inferior-Lateral-Ventricle": "Inf-Lat-Vent",
    "Cerebellum-Gray-Matter": "Cerebellum-Cortex",
    "Cerebellum-White-Matter": "Cerebellum-White-Matter",
}
"""CerebrA's name → FreeSurfer's, both after the side."""
WHOLE = {"Brainstem": 16, "Third-Ventricle": 14, "Fourth-Ventricle": 15}
NEITHER = ("Optic-Chiasm", "Basal-Forebrain")
CORTEX = (3, 42)
BY_ANTS = """
import sys, ants
fixed, moving, labels, out, kind = sys.argv[1:]
fixed, moving = ants.image_read(fixed), ants.image_read(moving)
found = ants.registration(fixed, moving, kind)
labels = ants.image_read(labels)
chain = found["invtransforms"]
invert = [name.endswith(".mat") for name in chain]
moved = ants.apply_transforms(
    moving, labels, chain, whichtoinvert=invert, interpolator="nearestNeighbor"
)
ants.image_write(moved, out)
"""


def freesurfer_number(name: str) -> int:
    """FreeSurfer's number of a structure of CerebrA, 0 where it has none."""
    side, structure = name.split("-", 1)
    if structure in NEITHER:
        return 0
    if structure in WHOLE:
        return WHOLE[structure]
    if structure.startswith("Vermal"):
        structure = "Cerebellum-Gray-Matter"
    own = f"{side}-{SAME.get(structure, 'Cerebral-Cortex')}"
    return next(number for number, other in STRUCTURES.items() if other == own)


def written_template(folder: Path, spacing_mm: float) -> tuple[Path, Path]:
    """(T1w brain of the template at a spacing, its labels in FreeSurfer's numbers at 1 mm)."""
    files = require_mni152()
    head, mask, labels = read(files.images["T1w"]), read(files.mask), read_labels(files.labels)
    brain = np.where(mask.array > 0.5, head.array, 0).astype(np.float32)
    table = np.zeros(256, np.uint8)
    for code, name in label_names(files.names).items():
        table[code] = freesurfer_number(name)
    paths = folder / "template_T1w.nii.gz", folder / "template_labels.nii.gz"
    write(paths[0], resample(Volume(brain, head.affine), spacing_mm))
    write(paths[1], Volume(table[labels.array], labels.affine))
    return paths


def by_jaxreg(head: Path, folder: Path, labels: Path) -> tuple[np.ndarray, float]:
    """(the template's labels on the grid of a head, seconds); leaves the cut brain in `folder`."""
    start = time.perf_counter()
    subject = jaxreg.normalize(head)
    seconds = time.perf_counter() - start
    moved = subject.transform.inverse.apply(labels, labels=True, reference=head)
    subject.save(folder / "jaxreg", overwrite=True)
    image: Any = nib.load(head)
    mask: Any = nib.load(folder / "jaxreg" / "moving_mask.nii.gz")
    cut = np.where(np.asarray(mask.dataobj) > 0, image.get_fdata(), 0).astype(np.float32)
    nib.save(nib.Nifti1Image(cut, image.affine), folder / "brain.nii.gz")
    return np.asarray(moved.dataobj), seconds


def by_ants(python: str, template: Path, folder: Path, labels: Path, kind: str):
    """(the template's labels on the grid of the brain in `folder`, seconds)."""
    out, start = folder / "ants.nii.gz", time.perf_counter()
    command = [python, "-c", BY_ANTS, template, folder / "brain.nii.gz", labels, out, kind]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    moved: Any = nib.load(out)
    return np.rint(np.asarray(moved.dataobj)).astype(int), time.perf_counter() - start


def dice(one: np.ndarray, other: np.ndarray, numbers: list[int]) -> dict[int, float]:
    """Dice of each structure that `other` has."""
    found = {}
    for number in numbers:
        both = (one == number).sum() + (other == number).sum()
        if (other == number).any():
            found[number] = float(2 * ((one == number) & (other == number)).sum() / both)
    return found


def main():
    """Print a line a subject and tool."""
    parser = argparse.ArgumentParser(description="jaxreg normalize beside ANTs.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ants-python", required=True)
    parser.add_argument("--subjects", type=int, default=3)
    parser.add_argument("--split", default="val")
    parser.add_argument("--kind", default="antsRegistrationSyN[s]")
    options = parser.parse_args()
    runtime.prepare()
    rows = read_table(options.data / "participants.tsv", ("participant_id", "split"))
    names = [row["participant_id"] for row in rows if row["split"] == options.split]
    print("subject\ttool\tDice\tcortex\tother structures\tseconds")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        template, labels = written_template(folder, 2.0)
        numbers = [int(n) for n in np.unique(read_labels(labels).array) if n]
        for name in names[: options.subjects]:
            head = options.data / name / f"{name}_T1w.nii.gz"
            own: Any = nib.load(options.data / name / f"{name}_dseg.nii.gz")
            results = {"jaxreg": by_jaxreg(head, folder, labels)}
            results["ANTs"] = by_ants(options.ants_python, template, folder, labels, options.kind)
            for tool, (moved, seconds) in results.items():
                scores = dice(moved, np.asarray(own.dataobj), numbers)
                cortex = np.mean([scores[n] for n in CORTEX if n in scores])
                other = np.mean([score for n, score in scores.items() if n not in CORTEX])
                mean = np.mean(list(scores.values()))
                print(f"{name}\t{tool}\t{mean:.3f}\t{cortex:.3f}\t{other:.3f}\t{seconds:.0f}")


if __name__ == "__main__":
    main()
