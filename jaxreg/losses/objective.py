"""The training objective of stage 2; every weight of a loss is applied here and nowhere else.

    loss = (1 − λ) · (scale · L_sim(fixed, moved) + label weight · (1 − Dice)) + λ · R(v)

with the Dice of the training subjects' labels only where `--label-weight` asks for it, and with
`--teacher-weight` in its place where a segmentation network made the labels of either subject.

The velocity lives at half resolution, in its own voxels; moved(x) = moving(x + u(x)) with u the
displacement of exp(v) at full resolution.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxreg.configuration.objective import ObjectiveConfig
from jaxreg.losses.regularizers import REGULARIZERS
from jaxreg.losses.sampling import Start
from jaxreg.losses.similarity import Masks, Similarity
from jaxreg.losses.soft_dice import soft_dice
from jaxreg.pair import Pair
from jaxreg.spatial import dilate, displacement_of, warp


def objective(
    key: PRNGKeyArray,
    pair: Pair,
    velocity: Float[Array, "u v w 3"],
    lam: Float[Array, ""],
    similarity: Similarity,
    config: ObjectiveConfig,
    *,
    start: Start | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss of one pair and its terms, λ weighing smoothness against similarity.

    LNCC with a stride of 2 and the overlap of labels look at every second voxel from `start` on;
    without it, and with a larger stride, `key` draws where they begin.
    """
    if config.spec.aligned:
        pair = pair.within_fixed_contrast()
    key, backward_key, label_key = jax.random.split(key, 3)
    displacement = displacement_of(velocity, pair.fixed.shape[:3], squarings=config.squarings)
    moved, counted = moved_by(pair, displacement, config)
    value, terms = similarity(key, pair.fixed, moved, counted, start=start)
    if config.symmetric:
        moved, masks = moved_and_masks(pair.exchanged(), -velocity, config)
        back, back_terms = similarity(backward_key, moved, pair.moving, masks, start=start)
        value = 0.5 * (value + back)
        terms = {name: 0.5 * (terms[name] + back_terms[name]) for name in terms}
    roughness = REGULARIZERS[config.regularizer](velocity)
    unlike = config.spec.scale * value
    terms = {**terms, "similarity": value, "roughness": roughness}
    fixed_labels, moving_labels = pair.fixed_labels, pair.moving_labels
    asked = config.label_weight > 0 or pair.taught is not None
    if asked and fixed_labels is not None and moving_labels is not None:
        if start is None:
            x, y, z = jax.random.randint(label_key, (3,), 0, 2)
            start = x, y, z
        ignoring = pair.fixed_ignore is not None or pair.moving_ignore is not None
        overlap = soft_dice(
            fixed_labels,
            moving_labels,
            displacement,
            counts=counted.brain if ignoring else None,
            start=start,
        )
        known = jnp.any(fixed_labels > 0) & jnp.any(moving_labels > 0)  # else it has no say
        weight = config.label_weight
        if pair.taught is not None:
            weight = jnp.where(pair.taught, config.teacher_weight, weight)
        unlike = unlike + jnp.where(known, weight * (1 - overlap), 0.0)
        terms["label_dice"] = overlap
    return (1 - lam) * unlike + lam * roughness, terms


def moved_and_masks(
    pair: Pair, velocity: Float[Array, "u v w 3"], config: ObjectiveConfig
) -> tuple[Float[Array, "x y z 1"], Masks]:
    """The moving image warped by exp(v), and where the similarity is taken."""
    displacement = displacement_of(velocity, pair.fixed.shape[:3], squarings=config.squarings)
    return moved_by(pair, displacement, config)


def moved_by(
    pair: Pair, displacement: Float[Array, "x y z 3"], config: ObjectiveConfig
) -> tuple[Float[Array, "x y z 1"], Masks]:
    """The moving image warped by a displacement (voxels), and where the similarity is taken.

    That is either brain, for MI with a margin and for LNCC with the weight of both, less what is
    ignored on either side and whatever sees it: the window of the loss, and a voxel for the
    interpolation of the moving image.
    """

    def warped(volume):
        return warp(volume[..., None], displacement, order=0)[..., 0]

    brain = pair.fixed_mask | warped(pair.moving_mask)
    around = dilate(brain, config.mi_margin)
    if pair.fixed_ignore is not None:
        counts = ~dilate(pair.fixed_ignore, config.reach)
        brain, around = brain & counts, around & counts
    if pair.moving_ignore is not None:
        counts = ~dilate(warped(dilate(pair.moving_ignore, 1)), config.reach)
        brain, around = brain & counts, around & counts
    both = jnp.concatenate([pair.moving, pair.moving_mask[..., None]], axis=-1, dtype=jnp.float32)
    moved, moved_brain = jnp.split(warp(both, displacement), 2, axis=-1)
    return moved, Masks(brain, around, pair.fixed_mask * moved_brain[..., 0])


def draw_lam(key: PRNGKeyArray, endpoint_fraction: float) -> Float[Array, ""]:
    """λ of a training step: U[0, 1], or an end of it in `endpoint_fraction` of the cases."""
    if endpoint_fraction == 0:
        return jax.random.uniform(key)
    uniform_key, choice_key, end_key = jax.random.split(key, 3)
    end = jax.random.bernoulli(end_key).astype(jnp.float32)
    at_end = jax.random.bernoulli(choice_key, endpoint_fraction)
    return jnp.where(at_end, end, jax.random.uniform(uniform_key))
