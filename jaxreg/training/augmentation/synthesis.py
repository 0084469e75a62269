"""Training images of any contrast, made from label maps on the device, and their labels.

After SynthSeg (Billot et al., MedIA 2023) and SynthStrip (Hoopes et al., NeuroImage 2022): a random
pose and deformation, random intensities and textures per class, a bias field, random slices with
their profile and noise, brain extraction of every tightness, missing parts. Some images are real
ones, under the same deformation and acquisition. All are functions of one key: pure, per sample,
float32, to be jitted and vmapped.

Points are in millimetres about the centre of the network's grid. `Atlas.frames` takes them to the
voxels of a subject, so that subjects keep their own grids.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from jaxreg.data.label_codes import (
    CLASSES,
    CODES,
    FIRST_CLUSTER,
    FIRST_HEAD,
    MIRRORED,
    NUMBERS,
    REST,
)
from jaxreg.data.prepare.freesurfer_labels import HINDBRAIN
from jaxreg.segmentation.normalization import normalize

Fields = tuple[Array, Array, Array]
"""The three components of a vector at each voxel, each `[x, y, z]`."""


class Atlas(NamedTuple):
    """The subjects' volumes, one after another, in arrays that stay on the device."""

    codes: UInt8[Array, " v"]
    """Label codes of all subjects."""
    images: UInt8[Array, " w"]
    """Real images of the subjects who have any, each on the grid of the subject's codes."""
    start: Int[Array, " s"]
    """Where a subject's codes begin."""
    image_start: Int[Array, "s 2"]
    """Where a subject's two images begin; of one image twice its place, -1 where there is none."""
    shape: Int[Array, "s 3"]
    """Voxels of a subject along each axis."""
    frames: Float[Array, "s 4 4"]
    """Millimetres about the centre of the network's grid to the subject's voxels, no pose added."""
    has_head: Array
    """Whether there is anything around the brain."""


class View(NamedTuple):
    """A network's grid and what it must expect to see there."""

    shape: tuple[int, int, int]
    spacing_mm: float
    any_pose: bool
    """Whether the head may lie in any orientation; otherwise it was laid onto the template."""
    extracted: float
    """Share of the images whose brain was extracted."""


FINE = View((80, 96, 80), 2.0, False, 0.4)
COARSE = View((64, 64, 64), 4.0, True, 0.25)

UPRIGHT = 0.4
"""Share of the images of any pose that are upright up to TURN_UPRIGHT."""
TURN_DEGREES, TURN_UPRIGHT = 20.0, 30.0
SHIFT_MM, SHIFT_ANY_MM = 12.0, 50.0
LOG_SCALE, SHEAR = 0.15, 0.05
ELASTIC_MM = 4.0
"""Largest standard deviation of the elastic deformation."""
HINDBRAIN_GONE, LESION, SIDE_CUT = 0.06, 0.1, 0.05
"""Shares of images without cerebellum and brain stem, with a lesion, with a side out of view."""
BLUR_MM = 4.0
"""Standard deviation of the Gaussian that measures how near the brain is."""
INVERTED = 0.15
"""Share of the real images whose contrast is turned round."""

_LEFT_OF = np.minimum(np.arange(CODES), MIRRORED)
_WHITENESS = {
    **dict.fromkeys((3, 42), (0.0, 0.0)),
    **dict.fromkeys((8, 47, 17, 53, 18, 54), (-0.1, 0.2)),
    **dict.fromkeys((2, 41), (1.0, 1.0)),
    **dict.fromkeys((7, 46), (0.8, 1.1)),
    16: (0.6, 1.0),
    **dict.fromkeys((28, 60), (0.5, 0.95)),
    **dict.fromkeys((10, 49), (0.15, 0.8)),
    **dict.fromkeys((11, 50, 26, 58), (-0.1, 0.4)),
    **dict.fromkeys((12, 51), (0.0, 0.5)),
    **dict.fromkeys((13, 52), (0.4, 1.1)),
}
"""How far a structure's intensity lies from grey (0) to white matter (1): lowest and highest."""
_FLUID = (4, 5, 14, 15, 24, 43, 44)
_IS_FLUID = np.isin(np.arange(CODES), [NUMBERS.index(n) for n in _FLUID])
_RANGE = np.array([_WHITENESS.get(NUMBERS[c] if c < CLASSES else 0, (0, 1)) for c in range(CODES)])
_IS_HINDBRAIN = np.isin(np.arange(CODES), [NUMBERS.index(n) for n in HINDBRAIN])
_BONE = (FIRST_HEAD + 11, FIRST_CLUSTER)
"""Codes of bone: the class 511, and the darkest cluster."""


def training_example(
    key: PRNGKeyArray, atlas: Atlas, subject: Int[Array, ""], view: View, real_share: float
) -> tuple[Float[Array, "x y z"], UInt8[Array, "x y z"]]:
    """(image in [0, 1] as the network sees it, codes of its voxels) of a subject."""
    keys = iter(jax.random.split(key, 16))
    spacing, fine = view.spacing_mm, tuple(2 * n for n in view.shape)
    matrix = _pose(next(keys), view)
    mirrored = jax.random.bernoulli(next(keys))
    elastic = _elastic(next(keys), view)
    mirror = jnp.array([jnp.where(mirrored, -1.0, 1.0), 1.0, 1.0, 1.0])
    frame = _product(atlas.frames[subject] * mirror[None], matrix)
    real, start = _choice(next(keys), atlas, subject, real_share)

    def codes_at(shape, spacing_mm, image_start):
        points = _points(frame, elastic(shape, spacing_mm), spacing_mm)
        codes, values = _sample(atlas, subject, points, image_start)
        return jnp.where(mirrored, jnp.asarray(MIRRORED)[codes], codes), values

    codes, values = codes_at(fine, spacing / 2, start)
    target, _ = codes_at(view.shape, spacing, None)
    gone = jax.random.bernoulli(next(keys), HINDBRAIN_GONE)
    target = jnp.where(gone & _around_hindbrain(target, spacing), jnp.uint8(0), target)
    made = _intensities(next(keys), codes, spacing / 2)
    inverted = jax.random.bernoulli(next(keys), INVERTED)
    values = jnp.where(inverted, jnp.where(codes > 0, 1 - values, 0), values)
    image = _with_lesion(next(keys), jnp.where(real, values, made), codes, spacing / 2)
    image = image * _bias(next(keys), fine, spacing / 2)
    image = _acquired(next(keys), image, view)
    image = jnp.maximum(image, 0) / jnp.maximum(jnp.max(image), 1e-6)
    image = image ** jnp.exp(0.4 * jax.random.normal(next(keys)))
    brain = (target > 0) & (target < CLASSES)
    kept = _extraction(next(keys), brain, spacing)
    extracted = jax.random.bernoulli(next(keys), view.extracted) | gone | ~atlas.has_head[subject]
    seen = _in_view(next(keys), view.shape)
    image = jnp.where(seen & (kept | ~extracted), image, 0)
    target = jnp.where(seen & (target < CLASSES), target, jnp.uint8(0))
    return normalize(image), target


def smooth_noise(
    noise: Float[Array, "*c i j k"],
    shape: tuple[int, ...],
    *,
    spacing_mm: float,
    node_mm: float,
    sigma_mm: Float[Array, ""] | float,
) -> Float[Array, "*c x y z"]:
    """White noise at nodes, smoothed by a Gaussian and read at the voxels of a centred grid.

    Of standard deviation 1 everywhere for white noise of 1, whatever the Gaussian's width.
    """
    letters = (("i", "x"), ("j", "y"), ("k", "z"))
    for axis, (node, voxel) in enumerate(letters):
        nodes = _centred(noise.shape[axis - 3], node_mm)
        at = _centred(shape[axis], spacing_mm)[:, None] - nodes[None]
        weights = jnp.exp(-0.5 * jnp.square(at / jnp.maximum(sigma_mm, 0.7 * node_mm)))
        weights = weights * jax.lax.rsqrt(jnp.sum(weights**2, axis=1, keepdims=True) + 1e-12)
        before = "".join(v for _, v in letters[:axis])
        after = "".join(n for n, _ in letters[axis + 1 :])
        noise = jnp.einsum(
            f"{voxel}{node},...{before}{node}{after}->...{before}{voxel}{after}", weights, noise
        )
    return noise


def _centred(n, spacing_mm):
    """Positions of n voxels about their centre, in millimetres."""
    return jnp.asarray((np.arange(n) - (n - 1) / 2) * spacing_mm, jnp.float32)


def _nodes(shape, spacing_mm, node_mm):
    """How many nodes lie along each axis of a grid, one beyond each end."""
    return tuple(int(np.ceil(n * spacing_mm / node_mm)) + 2 for n in shape)


def _pose(key, view):
    """A random affine of millimetres about the centre of the grid, 4×4."""
    turn_key, any_key, upright_key, scale_key, shear_key, shift_key = jax.random.split(key, 6)
    largest = TURN_UPRIGHT if view.any_pose else TURN_DEGREES
    rotation = _rotation(np.deg2rad(largest) * jax.random.uniform(turn_key, (3,), minval=-1.0))
    shift_mm = SHIFT_ANY_MM if view.any_pose else SHIFT_MM
    if view.any_pose:
        upright = jax.random.bernoulli(upright_key, UPRIGHT)
        rotation = jnp.where(upright, rotation, _any_rotation(any_key))
        # Most heads lie near the middle of the field of view, some are partly out of it.
        shift_key, share_key = jax.random.split(shift_key)
        shift_mm = shift_mm * jax.random.uniform(share_key)
    scale = jnp.exp(LOG_SCALE * jax.random.uniform(scale_key, (3,), minval=-1.0))
    shear = SHEAR * jax.random.uniform(shear_key, (3,), minval=-1.0)
    zero, one = jnp.float32(0), jnp.float32(1)
    sheared = jnp.array([[one, shear[0], shear[1]], [zero, one, shear[2]], [zero, zero, one]])
    linear = _product(rotation, sheared * scale[:, None])
    shift = shift_mm * jax.random.uniform(shift_key, (3,), minval=-1.0)
    return jnp.eye(4).at[:3, :3].set(linear).at[:3, 3].set(shift)


def _product(a, b):
    """The matrix product in full float32, which is not the default on every device."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _rotation(angles):
    """Turns about the three axes, one after another."""
    matrix = jnp.eye(3)
    for axis in range(3):
        a, b = [n for n in range(3) if n != axis]
        c, s = jnp.cos(angles[axis]), jnp.sin(angles[axis])
        turn = jnp.eye(3).at[a, a].set(c).at[b, b].set(c).at[a, b].set(-s).at[b, a].set(s)
        matrix = _product(matrix, turn)
    return matrix


def _any_rotation(key):
    """A rotation drawn evenly from all, by a unit quaternion."""
    q = jax.random.normal(key, (4,))
    w, x, y, z = q / jnp.linalg.norm(q)
    return jnp.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _elastic(key, view):
    """A function of a grid: a smooth random displacement there, in millimetres."""
    noise_key, sigma_key, size_key = jax.random.split(key, 3)
    node_mm = 12.0
    noise = jax.random.normal(noise_key, (3, *_nodes(view.shape, view.spacing_mm, node_mm)))
    sigma_mm = jax.random.uniform(sigma_key, minval=10.0, maxval=25.0)
    # The wider, the larger: the gradient stays small enough for a map that does not fold.
    size = jax.random.uniform(size_key) * jnp.minimum(ELASTIC_MM, 0.2 * sigma_mm)

    def displacement(shape, spacing_mm) -> Fields:
        x, y, z = size * smooth_noise(
            noise, shape, spacing_mm=spacing_mm, node_mm=node_mm, sigma_mm=sigma_mm
        )
        return x, y, z

    return displacement


def _points(frame, displacement: Fields, spacing_mm) -> Fields:
    """Voxels of a subject at each displaced voxel of a centred grid."""
    shape = displacement[0].shape
    at = []
    for axis in range(3):
        along = [-1 if a == axis else 1 for a in range(3)]
        at.append(_centred(shape[axis], spacing_mm).reshape(along) + displacement[axis])
    x, y, z = at

    def row(a):
        return frame[a, 0] * x + frame[a, 1] * y + frame[a, 2] * z + frame[a, 3]

    return row(0), row(1), row(2)


def _choice(key, atlas, subject, real_share):
    """(whether the image is a real one, where it begins in `atlas.images`)."""
    real_key, which_key = jax.random.split(key)
    starts = atlas.image_start[subject]
    start = starts[jax.random.randint(which_key, (), 0, 2)]
    return jax.random.bernoulli(real_key, real_share) & (start >= 0), jnp.maximum(start, 0)


def _sample(atlas, subject, points: Fields, image_start):
    """(codes, intensities) of a subject at points in voxels; 0 from beyond the subject's grid.

    The code is that with the largest weight among the eight voxels around a point, so that labels
    of 2 mm have smooth borders at 1 mm. Without `image_start` there are no intensities.
    """
    shape = atlas.shape[subject]
    low, fraction = [], []
    inside = True
    for axis, at in enumerate(points):
        n = shape[axis]
        inside = inside & (at >= -0.5) & (at <= n - 0.5)
        at = jnp.clip(at, 0, n - 1)
        below = jnp.minimum(jnp.floor(at).astype(jnp.int32), n - 2)
        low.append(below)
        fraction.append(at - below)
    base = (low[0] * shape[1] + low[1]) * shape[2] + low[2]
    codes, weights, values = [], [], jnp.zeros(points[0].shape)
    for corner in np.ndindex(2, 2, 2):
        index = base + (corner[0] * shape[1] + corner[1]) * shape[2] + corner[2]
        parts = [f if c else 1 - f for c, f in zip(corner, fraction, strict=True)]
        weights.append(parts[0] * parts[1] * parts[2])
        codes.append(atlas.codes.at[atlas.start[subject] + index].get(mode="promise_in_bounds"))
        if image_start is not None:
            seen = atlas.images.at[image_start + index].get(mode="clip")
            values = values + weights[-1] * seen.astype(jnp.float32) / 255
    best, most = codes[0], jnp.zeros(points[0].shape)
    for code in codes:
        votes = sum(jnp.where(c == code, w, 0) for c, w in zip(codes, weights, strict=True))
        best, most = jnp.where(votes > most, code, best), jnp.maximum(votes, most)
    return jnp.where(inside, best, jnp.uint8(0)), jnp.where(inside, values, 0)


def _intensities(key, codes, spacing_mm):
    """An image in which every class has a random intensity and texture, both sides alike."""
    table_key, texture_key, sigma_key = jax.random.split(key, 3)
    means, deviations = _class_intensities(table_key)
    node_mm = 1.5 * spacing_mm * 2
    noise = jax.random.normal(texture_key, _nodes(codes.shape, spacing_mm, node_mm))
    sigma_mm = node_mm * jnp.exp(jax.random.uniform(sigma_key, maxval=1.5))
    texture = smooth_noise(
        noise, codes.shape, spacing_mm=spacing_mm, node_mm=node_mm, sigma_mm=sigma_mm
    )
    return jnp.maximum(means[codes] + deviations[codes] * texture, 0)


def _class_intensities(key):
    """(mean, standard deviation) of every code, each `[CODES]`."""
    keys = jax.random.split(key, 10)
    free = jax.random.uniform(keys[0], (CODES,))
    levels = jnp.sort(jax.random.uniform(keys[1], (3,)))
    # Fluid, grey, white as in T1w, T2w and FLAIR images, or in any other order.
    orders = jnp.array(
        [[0, 1, 2], [0, 1, 2], [2, 1, 0], [2, 1, 0], [0, 2, 1], [1, 0, 2], [1, 2, 0]]
    )
    fluid, grey, white = levels[orders[jax.random.randint(keys[2], (), 0, len(orders))]]
    low, high = jnp.asarray(_RANGE.T, jnp.float32)
    whiteness = low + (high - low) * jax.random.uniform(keys[3], (CODES,))
    tissue = jnp.where(jnp.asarray(_IS_FLUID), fluid, grey + (white - grey) * whiteness)
    tissue = tissue + 0.03 * jax.random.normal(keys[4], (CODES,))
    structured = jax.random.bernoulli(keys[5], 0.6)
    in_brain = np.arange(CODES) < CLASSES
    means = jnp.where(structured & in_brain, tissue, free)
    bone = np.isin(np.arange(CODES), _BONE)
    means = jnp.where(bone & jax.random.bernoulli(keys[6], 0.6), 0.3 * means, means)
    most = jnp.where(structured & in_brain, 0.06, 0.12)
    deviations = most * jax.random.uniform(keys[7], (CODES,))
    air = jnp.where(jax.random.bernoulli(keys[8], 0.85), 0.02, 0.8) * free[0]
    deviations = deviations.at[0].set(0.1 * air)
    means = jnp.maximum(means.at[0].set(air), 0)
    return means[_LEFT_OF], deviations[_LEFT_OF]


def _with_lesion(key, image, codes, spacing_mm):
    """The image, in a share of the cases with blobs of another intensity in the brain."""
    choice_key, noise_key, level_key, size_key = jax.random.split(key, 4)
    node_mm = 8.0
    noise = jax.random.normal(noise_key, _nodes(codes.shape, spacing_mm, node_mm))
    blobs = smooth_noise(noise, codes.shape, spacing_mm=spacing_mm, node_mm=node_mm, sigma_mm=8.0)
    threshold = jax.random.uniform(size_key, minval=1.5, maxval=3.0)
    there = (blobs > threshold) & (codes > 0) & (codes < CLASSES)
    there = there & jax.random.bernoulli(choice_key, LESION)
    return jnp.where(there, jax.random.uniform(level_key), image)


def _bias(key, shape, spacing_mm):
    """A smooth factor about 1 at each voxel."""
    noise_key, sigma_key, size_key = jax.random.split(key, 3)
    node_mm = 24.0
    noise = jax.random.normal(noise_key, _nodes(shape, spacing_mm, node_mm))
    sigma_mm = jax.random.uniform(sigma_key, minval=25.0, maxval=80.0)
    size = 0.4 * jax.random.uniform(size_key)
    return jnp.exp(
        size * smooth_noise(noise, shape, spacing_mm=spacing_mm, node_mm=node_mm, sigma_mm=sigma_mm)
    )


def _acquired(key, image, view):
    """The image in random slices with Rician noise, read back linearly on the network's grid.

    Slices thinner than the grid's voxels are averaged over their own thickness and as far apart as
    the voxels.
    """
    keys = jax.random.split(key, 9)
    in_plane = jax.random.uniform(keys[0], (3,), minval=0.8, maxval=2.5)
    through = jax.random.uniform(keys[1], minval=1.0, maxval=7.0)
    thick = jnp.arange(3) == jax.random.randint(keys[2], (), 0, 3)
    apart_mm = jnp.where(thick & jax.random.bernoulli(keys[3], 0.6), through, in_plane)
    width_mm = apart_mm * jax.random.uniform(keys[4], (3,), minval=0.7, maxval=1.2)
    apart_mm = jnp.maximum(apart_mm, view.spacing_mm)
    phase = jax.random.uniform(keys[5], (3,), minval=-0.5, maxval=0.5)
    box = jax.random.bernoulli(keys[6])
    forth, back = [], []
    for axis, n in enumerate(view.shape):
        slices = (_centred(n, 1.0) + phase[axis]) * apart_mm[axis]
        voxels = _centred(2 * n, view.spacing_mm / 2)
        forth.append(_profile(slices, voxels, width_mm[axis], box, view.spacing_mm / 2))
        weights = jnp.abs(_centred(n, view.spacing_mm)[:, None] - slices[None]) / apart_mm[axis]
        weights = jnp.maximum(1 - weights, 0)
        back.append(weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-6))
    level = jnp.exp(jax.random.uniform(keys[7], minval=np.log(0.003), maxval=np.log(0.08)))
    a, b = level * jax.random.normal(keys[8], (2, *view.shape))
    signal = _along_axes(forth, image)
    return _along_axes(back, jnp.sqrt(jnp.square(signal + a) + jnp.square(b)))


def _profile(slices, voxels, width_mm, box, voxel_mm):
    """Weights [slices, voxels] of slices with a full width at half maximum, box or Gaussian."""
    off = jnp.abs(slices[:, None] - voxels[None])
    flat = jax.nn.sigmoid((width_mm / 2 - off) / (0.25 * voxel_mm))
    sigma = jnp.maximum(width_mm / 2.355, 0.4 * voxel_mm)
    weights = jnp.where(box, flat, jnp.exp(-0.5 * jnp.square(off / sigma)))
    return weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-6)


def _along_axes(matrices, image):
    """A matrix for each axis applied to an image."""
    for equation, matrix in zip(
        ("ix,xyz->iyz", "jy,xyz->xjz", "kz,xyz->xyk"), matrices, strict=True
    ):
        image = jnp.einsum(equation, matrix, image)
    return image


def _extraction(key, brain, spacing_mm):
    """The brain as a tool might extract it: from 2 mm too tight to 8 mm too wide.

    The blurred brain is Φ(−d / BLUR_MM) at the distance d outside a flat border.
    """
    margin_key, noise_key = jax.random.split(key)
    node_mm = 12.0
    margin = jax.random.uniform(margin_key, minval=-2.0, maxval=8.0)
    noise = jax.random.normal(noise_key, _nodes(brain.shape, spacing_mm, node_mm))
    margin = margin + smooth_noise(
        noise, brain.shape, spacing_mm=spacing_mm, node_mm=node_mm, sigma_mm=12.0
    )
    blurred = _blurred(brain.astype(jnp.float32), spacing_mm)
    return blurred > jax.scipy.stats.norm.cdf(-margin / BLUR_MM)


def _around_hindbrain(codes, spacing_mm):
    """Cerebellum, fourth ventricle and brain stem, and the rest of the brain that is nearest."""
    hindbrain = jnp.asarray(_IS_HINDBRAIN)[codes]
    other = (codes > 0) & (codes < REST) & ~hindbrain
    near, far = (_blurred(part.astype(jnp.float32), spacing_mm) for part in (hindbrain, other))
    return hindbrain | ((codes == REST) & (near > far))


def _blurred(image, spacing_mm):
    """The image smoothed by a Gaussian of BLUR_MM, as if it went on unchanged beyond the grid."""
    blur = []
    for n in image.shape:
        at = _centred(n, spacing_mm)
        weights = jnp.exp(-0.5 * jnp.square((at[:, None] - at[None]) / BLUR_MM))
        blur.append(weights / jnp.sum(weights, axis=1, keepdims=True))
    return _along_axes(blur, image)


def _in_view(key, shape):
    """Which voxels lie in the field of view: sometimes a side of the grid does not."""
    choice_key, depth_key = jax.random.split(key)
    cut = jax.random.bernoulli(choice_key, SIDE_CUT, (3, 2))
    depth = jnp.where(cut, 0.35 * jax.random.uniform(depth_key, (3, 2)), 0)
    seen = []
    for axis, n in enumerate(shape):
        at = jnp.asarray((np.arange(n) + 0.5) / n, jnp.float32)
        inside = (at > depth[axis, 0]) & (at < 1 - depth[axis, 1])
        seen.append(inside.reshape([-1 if a == axis else 1 for a in range(3)]))
    return functools.reduce(jnp.logical_and, seen)
