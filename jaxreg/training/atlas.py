"""The training subjects of the segmentation as arrays that stay on the device."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxreg.data.heads import Head
from jaxreg.data.label_codes import CLASSES
from jaxreg.errors import InputError
from jaxreg.segmentation.template import GRID, centroids_mm, from_template
from jaxreg.training.augmentation.synthesis.atlas import Atlas, View


def atlas_of(heads: Sequence[Head], view: View) -> Atlas:
    """The volumes of subjects, one after another, and how the network's grid lies in them.

    Raises:
        InputError: more voxels in all than 32 bits can count, or a subject that cannot be laid.
    """
    kinds = [list(head.images.values()) for head in heads]
    image_start, offset = [], 0
    for images in kinds:
        starts = [offset + k * images[0].size for k in range(len(images))]
        image_start.append([starts[0], starts[-1]] if starts else [-1, -1])
        offset += sum(image.size for image in images)
    sizes = np.array([head.codes.size for head in heads])
    for what, voxels in (("label maps", int(sizes.sum())), ("images", offset)):
        if voxels > np.iinfo(np.int32).max:
            raise InputError(
                f"{heads[0].name} and others: expected at most 2,147,483,647 voxels in all {what}, "
                f"got {voxels:,}; give them larger voxels, or name fewer subjects."
            )
    frames = [np.linalg.inv(head.affine) @ grid_in_world(head, view) for head in heads]
    every = [image.ravel() for images in kinds for image in images]
    return Atlas(
        codes=np.concatenate([head.codes.ravel() for head in heads]),  # pyright: ignore
        images=np.concatenate(every) if every else np.zeros(1, np.uint8),  # pyright: ignore
        start=(np.cumsum(sizes) - sizes).astype(np.int32),  # pyright: ignore
        image_start=np.array(image_start, np.int32),  # pyright: ignore
        shape=np.array([head.codes.shape for head in heads], np.int32),  # pyright: ignore
        frames=np.array(frames, np.float32),  # pyright: ignore
        has_head=np.array([head.codes.max() >= CLASSES for head in heads]),  # pyright: ignore
    )


def grid_in_world(head: Head, view: View) -> Float[np.ndarray, "4 4"]:
    """Millimetres about the centre of the network's grid to a subject's world, without a pose.

    The fine grid is laid onto the template by the centroids of the structures, the grid of any pose
    on the middle of what there is of the head.

    Raises:
        InputError: the subject has too few structures to be laid.
    """
    if not view.any_pose:
        try:
            laid = from_template(*centroids_mm(head.codes, head.affine))
        except ValueError as error:
            raise InputError(f"{head.name}: cannot be laid onto the template; {error}") from error
        return laid @ _shift(_template_centre())
    there = head.codes > 0
    ends = []
    for axis in range(3):
        along = np.flatnonzero(there.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((along[0] + along[-1]) / 2)
    return _shift(head.affine[:3, :3] @ np.array(ends) + head.affine[:3, 3])


def fingerprint(atlas: Atlas) -> str:
    """SHA-256 over all that a network can learn from."""
    digest = hashlib.sha256()
    for array in atlas:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _template_centre():
    return GRID.affine[:3, :3] @ ((np.array(GRID.shape) - 1) / 2) + GRID.affine[:3, 3]


def _shift(offset):
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix
