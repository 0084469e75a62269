"""Training images of any contrast, made from label maps on the device, and their labels.

After SynthSeg (Billot et al., MedIA 2023) and SynthStrip (Hoopes et al., NeuroImage 2022): a random
pose and deformation, random intensities and textures per class, a bias field, random slices with
their profile and noise, brain extraction of every tightness, missing parts. Some images are real
ones, under the same deformation and acquisition. All are functions of one key: pure, per sample,
float32, to be jitted and vmapped.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from jaxreg.data.label_codes import CLASSES, MIRRORED
from jaxreg.segmentation.normalization import normalize
from jaxreg.training.augmentation.synthesis.acquisition import acquired
from jaxreg.training.augmentation.synthesis.atlas import (
    Atlas,
    View,
    chosen_image,
    points_in_subject,
    sampled,
)
from jaxreg.training.augmentation.synthesis.deformation import product, random_elastic, random_pose
from jaxreg.training.augmentation.synthesis.intensities import (
    random_bias,
    random_intensities,
    with_lesion,
)
from jaxreg.training.augmentation.synthesis.missing_parts import (
    around_hindbrain,
    in_view,
    random_extraction,
)

HINDBRAIN_GONE = 0.06
"""Share of the images without cerebellum and brain stem."""
INVERTED = 0.15
"""Share of the real images whose contrast is turned round."""


def training_example(
    key: PRNGKeyArray, atlas: Atlas, subject: Int[Array, ""], view: View, real_share: float
) -> tuple[Float[Array, "x y z"], UInt8[Array, "x y z"]]:
    """(image in [0, 1] as the network sees it, codes of its voxels) of a subject."""
    keys = iter(jax.random.split(key, 16))
    spacing, fine = view.spacing_mm, tuple(2 * n for n in view.shape)
    matrix = random_pose(next(keys), view)
    mirrored = jax.random.bernoulli(next(keys))
    elastic = random_elastic(next(keys), view)
    mirror = jnp.array([jnp.where(mirrored, -1.0, 1.0), 1.0, 1.0, 1.0])
    frame = product(atlas.frames[subject] * mirror[None], matrix)
    real, start = chosen_image(next(keys), atlas, subject, real_share)

    def codes_at(shape, spacing_mm, image_start):
        points = points_in_subject(frame, elastic(shape, spacing_mm), spacing_mm)
        codes, values = sampled(atlas, subject, points, image_start)
        return jnp.where(mirrored, jnp.asarray(MIRRORED)[codes], codes), values

    codes, values = codes_at(fine, spacing / 2, start)
    target, _ = codes_at(view.shape, spacing, None)
    gone = jax.random.bernoulli(next(keys), HINDBRAIN_GONE)
    target = jnp.where(gone & around_hindbrain(target, spacing), jnp.uint8(0), target)
    made = random_intensities(next(keys), codes, spacing / 2)
    inverted = jax.random.bernoulli(next(keys), INVERTED)
    values = jnp.where(inverted, jnp.where(codes > 0, 1 - values, 0), values)
    image = with_lesion(next(keys), jnp.where(real, values, made), codes, spacing / 2)
    image = image * random_bias(next(keys), fine, spacing / 2)
    image = acquired(next(keys), image, view)
    image = jnp.maximum(image, 0) / jnp.maximum(jnp.max(image), 1e-6)
    image = image ** jnp.exp(0.4 * jax.random.normal(next(keys)))
    brain = (target > 0) & (target < CLASSES)
    kept = random_extraction(next(keys), brain, spacing)
    extracted = jax.random.bernoulli(next(keys), view.extracted) | gone | ~atlas.has_head[subject]
    seen = in_view(next(keys), view.shape)
    image = jnp.where(seen & (kept | ~extracted), image, 0)
    target = jnp.where(seen & (target < CLASSES), target, jnp.uint8(0))
    return normalize(image), target
