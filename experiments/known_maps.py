"""How far rigid and affine maps are from known ones, within one subject.

The T1w of a subject is fixed. The T2w of the same subject is moved by a known rigid map (turns up
to 12° about each axis, shifts up to 8 mm) and resampled, so that the true map is known. The error
is the mean distance in the brain between where the estimated and the true map take a voxel.

    python experiments/known_maps.py --cohort COHORT --subjects 6
    python experiments/known_maps.py --label-maps FOLDER --subjects 3
    python experiments/known_maps.py --heads FOLDER --subjects 3

The second form draws 1 mm images from whole-head label maps (FreeSurfer's numbers): three tissues,
texture and noise of their own in each contrast. The third one takes whole heads of which T1w and
T2w lie on each other, and registers them as `jaxreg register --same-subject` does: the known map is
put into the header of the T2w, whose neck is cut off 5 mm below the brain.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.geometry.grid import Volume
from jaxreg.geometry.transforms import affine_points
from jaxreg.io.images import read_image, read_labels, source_of
from jaxreg.registration.clock import Clock
from jaxreg.registration.linear.affine import register_affine
from jaxreg.registration.register import register_pair

WHITE, FLUID = (2, 41, 7, 46, 16, 251, 252, 253, 254, 255), (4, 43, 5, 44, 14, 15, 24)


def known_map(seed, centre):
    """A rigid map (RAS mm) that turns about `centre`."""
    random, matrix = np.random.default_rng(seed), np.eye(4)
    turn = Rotation.from_euler("xyz", random.uniform(-12, 12, 3), degrees=True)
    matrix[:3, :3] = turn.as_matrix()
    matrix[:3, 3] = random.uniform(-8, 8, 3) + centre - matrix[:3, :3] @ centre
    return matrix


def moved(volume, matrix, pad=10):
    """The volume moved by a map, on its own grid with `pad` more voxels on every side."""
    affine = volume.affine.copy()
    affine[:3, 3] = affine_points(affine, np.full((1, 3), -float(pad)))[0]
    to_source = np.linalg.inv(volume.affine) @ np.linalg.inv(matrix) @ affine
    shape = tuple(n + 2 * pad for n in volume.array.shape)
    array = affine_transform(
        volume.array, to_source[:3, :3], to_source[:3, 3], output_shape=shape, order=1
    )
    return Volume(np.rint(np.clip(array, 0, None)).astype(np.float32), affine)


def drawn(path, seed):
    """(T1w, T2w) at the label map's resolution."""
    labels, random = read_labels(path), np.random.default_rng(seed)
    brain = (labels.array > 0) & (labels.array < 500)
    inside = np.argwhere(brain)
    start = np.maximum(inside.min(axis=0) - 8, 0)
    box = tuple(slice(a, b) for a, b in zip(start, inside.max(axis=0) + 9, strict=True))
    affine = labels.affine.copy()
    affine[:3, 3] = affine_points(affine, start[None].astype(float))[0]
    array, brain = labels.array[box], brain[box]
    white, fluid = np.isin(array, WHITE), np.isin(array, FLUID)
    images = []
    for values in ((180, 120, 40), (80, 110, 200)):
        tissues = np.select([fluid, white, brain], [values[2], values[0], values[1]], 0)
        image = gaussian_filter(tissues.astype(np.float32), 0.6)
        texture = gaussian_filter(random.standard_normal(array.shape), 1.5)
        image = image + 8 * texture / texture.std() + 8 * random.standard_normal(array.shape)
        images.append(Volume(np.where(brain, np.abs(image), 0).astype(np.float32), affine))
    return images


def without_neck(volume, lowest_mm):
    """A volume in RAS order from a plane (mm, bottom to top) on."""
    first = int(np.ceil((lowest_mm - volume.affine[2, 3]) / volume.affine[2, 2]))
    first = max(first, 0)
    affine = volume.affine.copy()
    affine[:3, 3] = affine_points(affine, np.array([[0.0, 0.0, first]]))[0]
    return Volume(volume.array[:, :, first:], affine)


def whole_heads(folder, names):
    """One line a subject: mean and largest error of --same-subject in the brain, and seconds."""
    print("subject\tmean\tlargest\ts")
    for seed, name in enumerate(names):
        files = {k: folder / name / f"{name}_{k}.nii.gz" for k in ("T1w", "T2w", "dseg")}
        labels, t2w = read_labels(files["dseg"]), read_image(files["T2w"])
        brain = np.argwhere((labels.array > 0) & (labels.array < 500))[::50]
        points = affine_points(labels.affine, brain.astype(float))
        wanted = known_map(seed, points.mean(axis=0))
        cut = without_neck(t2w, points[:, 2].min() - 5)
        moving = source_of((cut.array, wanted @ cut.affine), "moving_T2w")
        start, config = time.process_time(), RegisterConfig(same_subject=True)
        found = register_pair(files["T1w"], moving, config, Clock(), say=lambda line: None).affine
        apart = affine_points(found, points) - affine_points(wanted, points)
        apart_mm = np.linalg.norm(apart, axis=1)
        seconds = time.process_time() - start
        print(f"{name}\t{apart_mm.mean():.3f}\t{apart_mm.max():.3f}\t{seconds:.0f}", flush=True)


def main():
    """One line a subject: error and seconds without and with the last level, and of the affine."""
    parser = argparse.ArgumentParser(description="Errors of rigid and affine maps.")
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--label-maps", type=Path)
    parser.add_argument("--heads", type=Path)
    parser.add_argument("--subjects", type=int, default=6)
    options = parser.parse_args()
    if options.heads:
        both = [p.parent.name for p in sorted(options.heads.glob("sub-*/sub-*_T2w.nii.gz"))]
        whole_heads(options.heads, both[: options.subjects])
        return
    folder = options.cohort or options.label_maps
    print("subject\trigid to 4 mm\ts\trigid\ts\taffine\ts")
    names = [p.name for p in sorted(folder.glob("sub-*")) if p.is_dir()]
    for seed, i in enumerate(np.linspace(0, len(names) - 1, options.subjects).astype(int)):
        name = names[i]
        if options.cohort:
            files = [folder / name / f"{name}_{kind}.nii.gz" for kind in ("T1w", "T2w")]
            fixed, source = map(read_image, files)
        else:
            fixed, source = drawn(folder / name / f"{name}_dseg.nii.gz", seed)
        points = affine_points(fixed.affine, np.argwhere(fixed.array > 0).astype(float))
        wanted = known_map(seed, points.mean(axis=0))
        moving = moved(source, wanted)
        row = [name]
        for mode, fine in (("rigid", False), ("rigid", True), ("affine", True)):
            start = time.process_time()
            masks = {"fixed_mask": fixed.array > 0, "moving_mask": moving.array > 0}
            got = register_affine(fixed, moving, mode=mode, fine=fine, **masks)
            seconds = time.process_time() - start
            apart = affine_points(got, points) - affine_points(wanted, points)
            row += [f"{np.linalg.norm(apart, axis=1).mean():.3f}", f"{seconds:.1f}"]
        print("\t".join(row), flush=True)


if __name__ == "__main__":
    main()
