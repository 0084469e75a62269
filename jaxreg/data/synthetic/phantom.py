"""A procedural brain: label maps and images from formulas, with no download.

The template is written in the millimetres of MNI space (RAS). Each structure is a smooth union of
ellipsoids, given for the right side and mirrored; the cerebral and cerebellar cortex are folded by
formulas. A subject is the template seen through a random diffeomorphism, with its own fold phases
and ventricle size. Level sets are blurred over the sampling step and averaged over finer samples,
so a voxel on a border holds a share of each structure at any resolution; a label is the largest
share. Labels are FreeSurfer's; 24 (CSF around the brain) is drawn and not scored.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from jaxreg.data.synthetic import simulate
from jaxreg.errors import InputError
from jaxreg.geometry import resampling

_CSF = 24

# Name: (left label, right label, mean intensity in T1w, T2w, FLAIR); front to back.
_STRUCTURES = {
    "3rd-Ventricle": (14, 14, 0.13, 0.82, 0.12),
    "4th-Ventricle": (15, 15, 0.13, 0.80, 0.14),
    "Lateral-Ventricle": (4, 43, 0.12, 0.83, 0.10),
    "Thalamus": (10, 49, 0.61, 0.40, 0.60),
    "Caudate": (11, 50, 0.52, 0.44, 0.68),
    "Pallidum": (13, 52, 0.68, 0.25, 0.48),
    "Putamen": (12, 51, 0.55, 0.39, 0.64),
    "Hippocampus": (17, 53, 0.48, 0.50, 0.76),
    "Amygdala": (18, 54, 0.50, 0.49, 0.74),
    "VentralDC": (28, 60, 0.66, 0.33, 0.54),
    "Brain-Stem": (16, 16, 0.69, 0.36, 0.56),
    "Cerebellum-White-Matter": (7, 46, 0.74, 0.32, 0.52),
    "Cerebellum-Cortex": (8, 47, 0.49, 0.46, 0.66),
    "Cerebral-White-Matter": (2, 41, 0.77, 0.30, 0.50),
    "Cerebral-Cortex": (3, 42, 0.50, 0.48, 0.70),
    "CSF": (_CSF, _CSF, 0.14, 0.78, 0.14),
}
_DOMAINS = {"T1w": 2, "T2w": 3, "FLAIR": 4}

LABELS: dict[int, str] = {
    label: name if row[0] == row[1] else f"{side}-{name}"
    for name, row in _STRUCTURES.items()
    for label, side in zip(row[:2], ("Left", "Right"), strict=True)
    if label != _CSF
}
"""The scored structures: FreeSurfer label and name."""

# Ellipsoids x, y, z, and radii along them (MNI mm, right side).
_ELLIPSOIDS = {
    "3rd-Ventricle": [(0, -14, 0, 3.2, 13, 10)],
    "4th-Ventricle": [(0, -45, -32, 6.5, 5.5, 11)],
    "Lateral-Ventricle": [
        (10, 26, 6, 5, 11, 8),
        (10, 6, 17, 6, 15, 6),
        (12, -18, 21, 6.5, 17, 6),
        (23, -40, 12, 8, 10, 11),
        (25, -60, 7, 5, 15, 6),
        (33, -26, -9, 4.5, 15, 4),
    ],
    "Thalamus": [(12, -19, 7, 9, 13, 9), (16, -27, 5, 8, 8, 8)],
    "Caudate": [(14, 15, 5, 6.5, 11, 10), (17, 0, 18, 5, 14, 5.5), (21, -18, 21, 4, 12, 4)],
    "Pallidum": [(19, -3, -1, 6.5, 11, 8)],
    "Putamen": [(25, 10, 0, 6.5, 12, 10), (29, -7, 1, 5, 12, 8.5)],
    "Hippocampus": [(25, -14, -19, 7, 8, 6), (28, -24, -14, 6, 11, 5.5), (24, -35, -4, 6, 8, 5.5)],
    "Amygdala": [(23, -2, -20, 9, 8.5, 8.5)],
    "VentralDC": [(9, -14, -9, 10, 11, 7)],
    "Brain-Stem": [(0, -25, -14, 15, 11, 14), (0, -27, -34, 16, 13, 15), (0, -34, -54, 9, 9, 20)],
    "Cerebellum-Cortex": [(25, -64, -38, 32, 27, 23), (0, -64, -32, 18, 24, 22)],
    "Cerebral-Cortex": [
        (19, -14, 22, 49, 74, 55),
        (20, 32, 8, 33, 38, 37),
        (45, -12, -22, 23, 44, 23),
        (22, -72, 12, 35, 32, 36),
    ],
    "core": [(0, -8, 2, 31, 33, 22)],
    "callosum": [
        (0, 29, 8, 9, 5, 9),
        (0, 16, 20, 9, 14, 5),
        (0, -8, 26, 9, 18, 4.5),
        (0, -34, 20, 9, 10, 8),
    ],
}
_BLEND = {"Cerebral-Cortex": 14.0, "Cerebellum-Cortex": 8.0, "Brain-Stem": 8.0}
_CENTRE = (0.0, -17.0, 1.0)
_EXTENT_MM = (150.0, 184.0, 156.0)
_SCALE = 0.94


class _Anatomy(NamedTuple):
    """What makes a template: the sulcal waves (rad/mm and rad, left and right) and CSF sizes."""

    waves: np.ndarray
    phases: np.ndarray
    ventricles: float
    sulcus_mm: float


def phantom_subject(
    index: int,
    *,
    shape: tuple[int, int, int] = (48, 56, 48),
    spacing_mm: float = 4.0,
    domains: tuple[str, ...] = ("T1w", "T2w"),
    seed: int = 0,
    deformation_mm: float = 3.2,
) -> simulate.Subject:
    """Images in [0, 1], float32, and int32 labels of one subject; axes are RAS.

    The brain is life-size, or shrunk to fit a smaller field of view. `deformation_mm` is the
    root-mean-square length of the subject's deviation from the template, in millimetres of the
    template; domains are T1w, T2w and FLAIR. Equal arguments give equal arrays.

    Raises:
        InputError: an unknown domain, or an unusable shape or spacing.
    """
    _check(shape, spacing_mm, domains)
    rng = np.random.default_rng([seed, index])
    fine = max(1, round(spacing_mm / 2))
    shares = _shares(rng, shape, spacing_mm, fine, deformation_mm)
    numbers = np.asarray([label for row in _STRUCTURES.values() for label in row[:2]], np.int32)
    mask = shares.sum(axis=0) > 0.5
    labels = np.where(mask, numbers[np.argmax(shares, axis=0)], 0).astype(np.int32)
    images = {
        domain: simulate.acquire(
            rng, _contrast(rng, shares, domain, spacing_mm), mask, spacing_mm=spacing_mm
        )
        for domain in domains
    }
    return simulate.Subject(images, labels)


def write_phantom_cohort(
    folder: Path | str,
    *,
    shape: tuple[int, int, int] = (48, 56, 48),
    spacing_mm: float = 4.0,
    subjects: Mapping[str, int] = simulate.SUBJECTS,
    domains: tuple[str, ...] = ("T1w", "T2w"),
    seed: int = 0,
    deformation_mm: float = 3.2,
) -> Path:
    """Write a cohort of phantoms (arguments as in `phantom_subject`) and return its folder.

    Raises:
        InputError: the folder exists and is not empty, or an argument is not usable.
    """
    _check(shape, spacing_mm, domains)
    subject = functools.partial(
        phantom_subject,
        shape=shape,
        spacing_mm=spacing_mm,
        domains=domains,
        seed=seed,
        deformation_mm=deformation_mm,
    )
    affine = simulate.centred_affine(shape, spacing_mm)
    return simulate.write_cohort(
        folder, subject, subjects=subjects, labels=LABELS, affine=affine, name="phantom"
    )


def _check(shape, spacing_mm, domains):
    unknown = [domain for domain in domains if domain not in _DOMAINS]
    if unknown or not domains:
        raise InputError(f"domains: expected some of {', '.join(_DOMAINS)}; got {domains}.")
    if len(shape) != 3 or min(shape) < 8:
        raise InputError(f"shape: expected three sizes of at least 8 voxels, got {shape}.")
    if not 0.5 <= spacing_mm <= 16:
        raise InputError(f"spacing_mm: expected 0.5 to 16, got {spacing_mm}.")


def _contrast(rng, shares, domain, spacing_mm):
    """Noise-free image: Σ share · mean, the means drawn per subject and varying in space."""
    column = _DOMAINS[domain]
    means = np.repeat([row[column] for row in _STRUCTURES.values()], 2)
    means = means * (1 + 0.06 * rng.standard_normal(means.size))
    shape = shares.shape[1:]
    tissue = np.repeat([_tissue(name) for name in _STRUCTURES], 2)
    image = np.zeros(shape, np.float32)
    for kind in np.unique(tissue):
        field = simulate.smooth_field(rng, shape, spacing_mm=spacing_mm, scale_mm=15.0)
        of_kind = tissue == kind
        image += np.tensordot(means[of_kind], shares[of_kind], 1) * (1 + 0.07 * field)
    return image


def _tissue(name):
    """0 for fluid, 1 for white matter, 2 for grey matter: each varies in space by itself."""
    if "Ventricle" in name or name == "CSF":
        return 0
    return 1 if name.endswith(("White-Matter", "Brain-Stem", "VentralDC", "Pallidum")) else 2


def _shares(rng, shape, spacing_mm, fine, deformation_mm) -> Float32[np.ndarray, "s x y z"]:
    """Share of every voxel that each structure fills, left and right, on the grid of `shape`."""
    step_mm = spacing_mm / fine
    grid = tuple(n * fine for n in shape)
    scale = _SCALE * min(1.0, *(n * spacing_mm / e for n, e in zip(shape, _EXTENT_MM, strict=True)))
    moved = simulate.random_displacement(
        rng, grid, spacing_mm=step_mm / scale, rms_mm=deformation_mm
    )
    step = step_mm / scale
    axes = [(np.arange(n) - (n - 1) / 2) * step for n in grid]
    points = np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij", copy=True)
    points = [p + step * moved[..., a] + _CENTRE[a] for a, p in enumerate(points)]
    # Petalia: the right side reaches further to the front, the left further up.
    lean = np.tanh(points[0] / 20)
    points = [points[0] + 1.0, points[1] - 2 * lean, points[2] + lean]
    right = np.clip(0.5 + points[0] / step, 0, 1)
    rest = np.ones(grid, np.float32)
    shares = []
    for level in _level_sets(points, step, _draw_anatomy(rng)).values():
        share = np.clip(0.5 - level / step, 0, 1) * rest
        rest -= share
        shares += [resampling.block_mean(share * (1 - right), fine)]
        shares += [resampling.block_mean(share * right, fine)]
    return np.stack(shares)


def _draw_anatomy(rng) -> _Anatomy:
    """The template's folds, the same for all, with this subject's phases and fluid sizes."""
    template = np.random.default_rng(20)
    directions = template.standard_normal((7, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    waves = directions * 2 * np.pi / template.uniform(17, 27, (7, 1))
    phases = template.uniform(0, 2 * np.pi, (2, 7))
    phases[1] = phases[0] + template.normal(0, 0.5, 7)
    phases = phases + rng.normal(0, 0.3, (2, 7))
    return _Anatomy(waves, phases, rng.uniform(-0.4, 1.6), rng.uniform(0.7, 1.3))


def _level_sets(points, step, anatomy) -> dict[str, np.ndarray]:
    """Approximate signed distance (mm, negative inside) of each structure, front to back."""
    x, y, z = points
    side = np.abs(x), y, z
    planes = _plane_ranges(side)
    level = {name: _union(side, planes, step, name) for name in _ELLIPSOIDS}
    for name in ("3rd-Ventricle", "4th-Ventricle", "Lateral-Ventricle"):
        level[name] = level[name] - anatomy.ventricles
    cerebellum, cerebrum = level["Cerebellum-Cortex"], level["Cerebral-Cortex"]
    hull = np.minimum(_smooth_min(cerebrum, cerebellum, 8.0), level["Brain-Stem"]) - 1.5
    cerebrum = np.maximum(cerebrum, 2.0 - cerebellum)
    pial = _pial_depth(points, cerebrum, step, anatomy)
    inner = np.minimum(level["core"], level["callosum"])
    level["Cerebral-Cortex"] = -pial
    level["Cerebral-White-Matter"] = np.minimum(3.2 - pial, inner).astype(np.float32)
    level |= _cerebellum(side, cerebellum)
    level["CSF"] = hull
    return {name: level[name] for name in _STRUCTURES}


def _union(side, planes, step, name):
    """Smooth union of a structure's ellipsoids, computed in their surroundings; 50 mm elsewhere."""
    rows, blend = np.asarray(_ELLIPSOIDS[name]), _BLEND.get(name, 3.0)
    low = np.min(rows[:, :3] - rows[:, 3:], axis=0) - blend - step
    high = np.max(rows[:, :3] + rows[:, 3:], axis=0) + blend + step
    near = []
    for (smallest, largest), start, stop in zip(planes, low, high, strict=True):
        inside = np.flatnonzero((smallest <= stop) & (largest >= start))
        near.append(slice(inside[0], inside[-1] + 1) if inside.size else slice(0, 0))
    level = np.full_like(side[0], 50)
    local = [p[tuple(near)] for p in side]
    parts = [_ellipsoid(local, row) for row in _ELLIPSOIDS[name]]
    level[tuple(near)] = functools.reduce(lambda a, b: _smooth_min(a, b, blend), parts)
    return level


def _plane_ranges(side):
    """Per axis, the smallest and the largest coordinate along it in each plane across it."""
    others = [(1, 2), (0, 2), (0, 1)]
    return [(p.min(axis=o), p.max(axis=o)) for p, o in zip(side, others, strict=True)]


def _ellipsoid(side, row):
    """First-order distance to an ellipsoid: f(f − 1)/‖∇…‖ with f = ‖(p − c)/r‖."""
    scaled = [(p - c) / r for p, c, r in zip(side, row[:3], row[3:], strict=True)]
    f = np.sqrt(sum(q * q for q in scaled))
    slope = np.sqrt(sum((q / r) ** 2 for q, r in zip(scaled, row[3:], strict=True)))
    return f * (f - 1) / np.maximum(slope, 1e-3)


def _smooth_min(a, b, blend):
    return np.minimum(a, b) - np.maximum(blend - np.abs(a - b), 0) ** 2 / (4 * blend)


def _pial_depth(points, cerebrum, step, anatomy):
    """Depth (mm) below the folded pial surface: sulci are sheets where a sum of waves is zero."""
    x, y, z = points
    lateral = np.abs(x)
    depth = np.minimum(-cerebrum, lateral - 1.2)
    wave = _fold_wave(points, anatomy)
    slope = np.sqrt(sum(g**2 for g in np.gradient(wave, step)))
    to_sheet = np.abs(wave) / np.maximum(slope, 0.15)
    floor = 17 + 4 * np.sin(0.06 * y + 0.05 * z + 0.08 * lateral)
    opening = anatomy.sulcus_mm * (0.7 + np.clip(1 - depth / 6, 0, 1))
    sulci = np.hypot(to_sheet, np.maximum(depth - floor, 0)) - opening
    # The Sylvian fissure, from the frontal base backwards and up, as deep as the insula.
    outside = np.maximum(38 - lateral, 0) ** 2 + np.maximum(np.abs(y + 10) - 32, 0) ** 2
    sylvian = np.sqrt((0.9 * (z + 3 + 0.45 * (y - 5))) ** 2 + outside) - 1.6 * anatomy.sulcus_mm
    return np.minimum(depth, np.minimum(sulci, sylvian))


def _fold_wave(points, anatomy):
    """Σ cos(k·q + φ), q mostly along the surface so that its zeros run into the depth."""
    x, y, z = points
    offset = np.abs(x) - 14, y + 14, z - 8
    radius = np.sqrt(sum((o / r) ** 2 for o, r in zip(offset, (52, 86, 60), strict=True)))
    shrink = 0.35 + 0.65 / np.maximum(radius, 0.3)
    q = [o * shrink for o in offset]
    wave = np.zeros_like(x)
    for k, (left, right) in zip(anatomy.waves.astype(np.float32), anatomy.phases.T, strict=True):
        phase = np.where(x > 0, np.float32(right), np.float32(left))
        wave += np.cos(k[0] * q[0] + k[1] * q[1] + k[2] * q[2] + phase)
    return wave


def _cerebellum(side, hull):
    """Cortex and white matter: folia radiate from the fourth ventricle in the sagittal plane."""
    lateral, y, z = side
    folia = np.cos(15 * np.arctan2(z + 36, y + 48) + 0.06 * lateral)
    cortex = hull + 0.8 * np.maximum(-folia, 0)
    return {"Cerebellum-Cortex": cortex, "Cerebellum-White-Matter": hull + 8.5 - 3.5 * folia}
