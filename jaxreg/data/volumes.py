"""The checked volumes of a cohort in memory."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxreg import distributed
from jaxreg.data.cohort import Cohort
from jaxreg.data.foreground import foreground, zero_intensity
from jaxreg.data.intensities import normalize, normalized_on_grid
from jaxreg.errors import InputError
from jaxreg.geometry import resampling
from jaxreg.geometry.grid import Grid, Volume, coarser_grid
from jaxreg.io import images
from jaxreg.io.headers import read_header
from jaxreg.io.images import Remark, unheard
from jaxreg.io.stored_images import StoredImage, open_image


class Scan(NamedTuple):
    """One image, intensities in [0, 1], background 0, the mask of its brain, what to ignore."""

    image: Float[np.ndarray, "x y z 1"]
    mask: Bool[np.ndarray, "x y z"]
    ignore: Bool[np.ndarray, "x y z"] | None = None


class Volumes:
    """The checked volumes of some participants, on the cohort's grid or at another spacing.

    Every file is read once when this is made; what fits into half of the free memory stays there,
    the rest is read again when it is asked for. Of several processes each reads and checks its
    share at first, where they are told to share the work, and others' when it is asked for them.
    """

    def __init__(
        self,
        cohort: Cohort,
        needed: Iterable[tuple[str, str]],
        *,
        spacing_mm: float | None = None,
        memory_bytes: int | None = None,
        shared: bool = False,
        remark: Remark = unheard,
    ):
        """Read and check `needed`: (participant, domain) or (participant, "dseg").

        `remark` gets a line on what is unusual in a file and is accepted, when it is read first.

        Raises:
            InputError: a volume cannot be read, is constant, lies on another grid, or a mask is
                empty.
        """
        self.cohort = cohort
        self.target_mm = spacing_mm
        self._grid: tuple[Path, tuple[int, ...], np.ndarray] | None = None
        self._kept: dict[tuple[str, str], Scan | np.ndarray] = {}
        self._remark, self._seen, self._lock = remark, set[Path](), Lock()
        self._budget = memory_bytes if memory_bytes is not None else _free_memory() // 2
        keys = list(dict.fromkeys(needed))
        for key in dict.fromkeys([*keys[:1], *distributed.share(keys)]) if shared else keys:
            self._keep(key, self._read(*key))
        shape, affine = self._first_grid()
        grid = Volume(np.empty(shape, np.uint8), affine)
        self.native_shape = _triple(shape)
        self.native_affine = affine
        self.native_spacing_mm = grid.spacing_mm
        if spacing_mm is None:
            self.grid, self.spacing_mm = Grid(self.native_shape, affine), grid.spacing_mm
        else:
            coarser, affine = coarser_grid(grid, spacing_mm)
            self.grid = Grid(_triple(coarser), affine)
            self.spacing_mm = (spacing_mm, spacing_mm, spacing_mm)
        self.shape = self.grid.shape

    def scan(self, participant: str, domain: str) -> Scan:
        """A participant's image of a domain and its mask."""
        value = self._get(participant, domain)
        assert isinstance(value, Scan)
        return value

    def labels(self, participant: str) -> Int[np.ndarray, "x y z"]:
        """A participant's label map."""
        value = self._get(participant, "dseg")
        assert isinstance(value, np.ndarray)
        return value

    def _first_grid(self) -> tuple[tuple[int, ...], np.ndarray]:
        if self._grid is None:
            raise InputError(f"{self.cohort.folder}: expected volumes to read, got none.")
        return self._grid[1:]

    def _get(self, participant, kind):
        kept = self._kept.get((participant, kind))
        return (
            kept
            if kept is not None
            else self._keep((participant, kind), self._read(participant, kind))
        )

    def _keep(self, key, value: "Scan | np.ndarray") -> "Scan | np.ndarray":
        parts = value if isinstance(value, tuple) else (value,)
        size = sum(array.nbytes for array in parts if array is not None)
        with self._lock:  # several threads prepare batches
            if key not in self._kept and size < self._budget:
                self._budget -= size
                self._kept[key] = value
            return self._kept.get(key, value)

    def _read(self, participant: str, kind: str) -> "Scan | np.ndarray":
        path = self.cohort.file(participant, kind)
        stored = open_image(path)
        remark = self._remark_on(path, stored)
        if kind == "dseg":
            labels = images.read_labels(stored, remark=remark)
            self._check_grid(path, labels)
            if self.target_mm is None:
                return labels.array
            return resampling.resample(labels, self.target_mm, labels=True).array
        image = images.read_image(stored)
        self._check_grid(path, image)
        mask = self._read_mask(participant, "mask")
        if mask is None:
            mask = Volume(foreground(image).mask, image.affine)
        elif not mask.array.any():
            mask_path = self.cohort.file(participant, "mask")
            raise InputError(f"{mask_path}: expected a mask of the brain, got only zeros.")
        ignore = self._read_mask(participant, "ignore")
        zero, brain = zero_intensity(image.array), mask.array != 0
        ignored = None if ignore is None else ignore.array != 0
        if self.target_mm is None:
            values = normalize(image.array - np.float32(zero), brain)
            return Scan(values[..., None], brain, ignored)
        shape, affine = coarser_grid(image, self.target_mm)
        grid, same = Grid(_triple(shape), affine), np.eye(4)
        values, inside = normalized_on_grid(image, brain, same, grid, zero=zero)
        if ignored is not None:
            ignored = resampling.resample_any(ignored, image.affine, same, grid)
        return Scan(values[..., None], inside, ignored)

    def _read_mask(self, participant: str, kind: str) -> Volume | None:
        """A participant's mask of a kind on the cohort's own grid, None without such a file."""
        path = self.cohort.file(participant, kind)
        if not path.is_file():
            return None
        stored = open_image(path)
        mask = images.read_mask(stored, remark=self._remark_on(path, stored))
        self._check_grid(path, mask)
        return mask

    def _remark_on(self, path: Path, stored: StoredImage) -> Remark:
        """Remark on a file's header, and return what gets the remarks on its voxels."""
        with self._lock:
            if path in self._seen:
                return unheard
            self._seen.add(path)
        for line in read_header(stored).lines:
            self._remark(line)
        return self._remark

    def _check_grid(self, path, value):
        shape, affine = value.array.shape, value.affine
        if self._grid is None:
            self._grid = (path, shape, affine)
        first, wanted_shape, wanted_affine = self._grid
        if shape != wanted_shape or not np.allclose(affine, wanted_affine, atol=1e-3):
            raise InputError(
                f"{path}: expected the cohort's grid, {wanted_shape} with origin "
                f"{np.round(wanted_affine[:3, 3], 2).tolist()} (as {first.name}), got {shape} with "
                f"origin {np.round(affine[:3, 3], 2).tolist()}, or other axes."
            )


def _free_memory() -> int:
    free = "SC_AVPHYS_PAGES" in os.sysconf_names  # Linux; elsewhere all of it stands for it
    return os.sysconf("SC_AVPHYS_PAGES" if free else "SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _triple(shape: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = shape
    return int(x), int(y), int(z)
