"""How well the segmentation does on images that nobody trains on: Dice, and a picture."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from jaxreg import distributed
from jaxreg.data.cohort import Cohort
from jaxreg.data.heads import DOMAINS, Head, labelled, read_head
from jaxreg.data.label_codes import CLASSES, REST
from jaxreg.geometry.grid import Volume
from jaxreg.io import images
from jaxreg.io.images import Remark, unheard
from jaxreg.networks.segmentation_unet import SegmentationUNet
from jaxreg.segmentation.normalization import normalize
from jaxreg.segmentation.resampling import onto_grid
from jaxreg.training.atlas import grid_in_world
from jaxreg.training.augmentation.synthesis.atlas import View

_PICTURES = 4
"""Images in the picture of a validation, at most."""


class HeldOut(NamedTuple):
    """An image that nobody trains on, as the network sees it, with its labels."""

    title: str
    group: str
    image: Float[np.ndarray, "x y z"]
    codes: UInt8[np.ndarray, "x y z"]


def read_held_out(
    cohorts: Sequence[Cohort], view: View, most: int, *, remark: Remark = unheard
) -> list[HeldOut]:
    """The images of the val split, at a known pose; at most so many subjects of a cohort.

    `remark` gets a line on what is unusual in a file and is accepted.
    """
    found = []
    names = [cohort.folder.name for cohort in cohorts]
    for cohort in cohorts:
        own = cohort.folder.name
        if names.count(own) > 1:  # such as ixi and heads/ixi
            own = f"{cohort.folder.parent.name}_{own}"
        for number, name in enumerate(labelled(cohort, "val")[:most]):
            head = read_head(cohort, name, remark=remark)
            to_world = grid_in_world(head, view)
            if view.any_pose:
                rng = np.random.default_rng(number)
                to_world = to_world @ _turned(rng)
            for domain in DOMAINS:
                path = cohort.file(name, domain)
                if path.is_file():
                    image = onto_grid(images.read_image(path), to_world, *view[:2])
                    group = f"{own}_{domain}"
                    title = f"{name} {domain}"
                    codes = _codes_onto(head, to_world, view)
                    image = np.asarray(normalize(jnp.asarray(image)))
                    found.append(HeldOut(title, group, image, codes))
    return found


def _codes_onto(head: Head, to_world, view: View):
    codes = onto_grid(Volume(head.codes, head.affine), to_world, *view[:2], labels=True)
    return np.where(codes < CLASSES, codes, 0).astype(np.uint8)


def _turned(rng):
    """A random rotation, 4×4."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.linalg.det(q)
    matrix = np.eye(4)
    matrix[:3, :3] = q
    return matrix


def make_validation(
    network: SegmentationUNet, held_out: Sequence[HeldOut]
) -> Callable[[Any, Any, int], tuple[dict[str, float], np.ndarray | None]]:
    """Mean Dice of the structures and of the brain mask for each kind of image, and a picture."""

    @jax.jit
    def segment(params, image, codes):
        scores = network.apply({"params": params}, image[None, ..., None])[0]
        answer = jnp.argmax(scores, axis=-1).astype(jnp.uint8)
        return answer, dice_of_codes(answer, codes)

    def validate(params, frozen, step):
        del frozen, step
        rows = np.zeros((0, CLASSES))
        shown = {group: n for n, group in reversed(list(enumerate(h.group for h in held_out)))}
        pictures = []
        for n in distributed.share(range(len(held_out))):
            item = held_out[n]
            answer, dice = segment(params, item.image, item.codes)
            rows = np.append(rows, np.asarray(dice, np.float64)[None], axis=0)
            if n in list(shown.values())[::-1][:_PICTURES]:
                pictures.append((item.image, item.codes, np.asarray(answer)))
        rows = distributed.gather(rows)
        scalars = {}
        for group in shown:
            of_group = rows[[h.group == group for h in held_out]]
            scalars[f"dice_{group}"] = float(np.nanmean(of_group[:, 1:REST]))
            scalars[f"mask_{group}"] = float(np.nanmean(of_group[:, 0]))
        return scalars, montage(pictures) if pictures else None

    return validate


def dice_of_codes(
    answer: UInt8[Array, "x y z"], codes: UInt8[Array, "x y z"]
) -> Float[Array, " k"]:
    """Dice of the brain mask (first) and of each class from 1 on; NaN where the labels lack it."""
    rows = [(answer > 0, codes > 0)] + [(answer == c, codes == c) for c in range(1, CLASSES)]
    common = jnp.stack([jnp.sum(a & b) for a, b in rows])
    sizes = jnp.stack([jnp.sum(b) for _, b in rows])
    total = sizes + jnp.stack([jnp.sum(a) for a, _ in rows])
    return jnp.where(sizes > 0, 2 * common / jnp.maximum(total, 1), jnp.nan)


def montage(
    rows: Sequence[tuple[Shaped[np.ndarray, "x y z"], ...]], *, enlarged: int = 2
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture: a row for each image with its label maps, in the middle slice of each plane."""
    return np.concatenate([_row(*row, enlarged=enlarged) for row in rows])


def _row(image, *label_maps, enlarged):
    colours = np.random.default_rng(7).integers(60, 256, (256, 3)).astype(np.float32)
    colours[0] = 0
    grey = np.repeat(255 * np.asarray(image, np.float32)[..., None], 3, axis=-1)
    painted = [
        np.where(m[..., None] > 0, 0.35 * grey + 0.65 * colours[m], grey) for m in label_maps
    ]
    tiles = []
    side = max(image.shape)
    for axis in (2, 1, 0):
        for volume in (grey, *painted):
            tile = np.take(volume, volume.shape[axis] // 2, axis=axis)
            tile = tile.transpose(1, 0, 2)[::-1]
            after = [(0, side - n) for n in tile.shape[:2]]
            tiles.append(np.pad(tile, (*after, (0, 0))))
    picture = np.concatenate(tiles, axis=1).astype(np.uint8)
    return picture.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
