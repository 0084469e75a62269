"""An image, a label map or a 4-D series of them moved onto another grid, in one resampling.

The input is read by the checks of `register`. Where each voxel of the grid reads it is computed
once, whatever the number of volumes, and the volumes are read, moved and handed on one by one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from jaxreg.data.scan import check_intensities, check_plausible, looks_like_labels
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid, Volume
from jaxreg.geometry.transforms import Points, inside, places, values_at
from jaxreg.io.headers import Header, read_header
from jaxreg.io.images import (
    as_intensities,
    as_labels,
    read_image,
    read_labels,
    save,
    smallest_labels,
)
from jaxreg.io.remarks import WARNING
from jaxreg.io.series import (
    Series,
    Timing,
    check_length,
    read_series,
    timed,
    write_series,
)
from jaxreg.io.stored_images import Source, open_image


@dataclass(frozen=True)
class Notes:
    """What a user should know of the files, a sentence each."""

    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def of(self, header: Header) -> Header:
        """A header whose own warnings and remarks are noted."""
        self.warnings.extend(header.warnings)
        self.remarks.extend(header.remarks)
        return header

    def remark(self, line: str) -> None:
        """Note a remark, once."""
        if line not in self.remarks:
            self.remarks.append(line)

    def lines(self) -> list[str]:
        """All of it as a command prints it, the warnings first."""
        return [*(f"{WARNING}{line}" for line in self.warnings), *self.remarks]


class Moved(NamedTuple):
    """The moved volumes, computed when they are asked for, and that only once.

    `count` is that of a series, None for a single volume. `image_of` makes an image of an array.
    """

    volumes: Iterator[Shaped[np.ndarray, "x y z"]]
    count: int | None
    shape: tuple[int, int, int]
    dtype: np.dtype
    timing: Timing | None
    image_of: Callable[[np.ndarray], Any]

    def image(self) -> Any:
        """All of it as one image."""
        if self.timing is None:
            return self.image_of(next(self.volumes))
        array = np.empty((*self.shape, self.count or 0), self.dtype, order="F")
        for number, volume in enumerate(self.volumes):
            array[..., number] = volume
        return timed(self.image_of(array), self.timing)

    def write(self, path: Path) -> None:
        """Write it; of a series a volume at a time."""
        if self.timing is None:
            save(path, self.image())
            return
        like = timed(self.image_of(np.zeros((1, 1, 1, 1), self.dtype)), self.timing)
        write_series(path, self.volumes, (*self.shape, self.count or 0), like)


def moved(
    path: Source,
    pull_back: Callable[[Points], Points],
    grid: Grid,
    image_of: Callable[[np.ndarray], Any],
    *,
    labels: bool,
    notes: Notes,
    onto: object,
    **how: Any,
) -> Moved:
    """An image or label map at pull_back(x) for each voxel x of `grid`; `how` as for `values_at`.

    `onto` names the grid in messages. Intensities become float32, labels the smallest type.

    Raises:
        InputError: what `read_scan` refuses, vectors and colours, labels that are none, or an image
            that the transform never meets.
    """
    stored = open_image(path)
    series = read_series(stored)
    check_plausible(path, notes.of(read_header(stored, series=True)))
    if series is not None:
        check_length(series)
        return _moved_series(series, pull_back, grid, image_of, labels, notes, onto, how)
    volume = read_labels(stored, remark=notes.remark) if labels else read_image(stored)
    if not labels:
        _note_labels(path, volume.array, notes, _advice(how))
        check_intensities(path, volume.array)
    found = _places(path, volume.affine, volume.array.shape, pull_back, grid, onto)
    array = values_at(volume.array, found, grid.shape, **how)
    array = smallest_labels(array) if labels else array
    return Moved(iter([array]), None, grid.shape, array.dtype, None, image_of)


def check_image(path: Source, notes: Notes, *, advice: str) -> None:
    """Read an image or a series to its end as `moved` will, and note what is odd in it.

    `advice` names what moves a label map.

    Raises:
        InputError: what `moved` refuses, whatever the map.
    """
    stored = open_image(path)
    series = read_series(stored)
    check_plausible(path, notes.of(read_header(stored, series=True)))
    if series is None:
        array = read_image(stored).array
        _note_labels(path, array, notes, advice)
        check_intensities(path, array)
        return
    check_length(series)
    for _ in _arrays(series, False, notes, advice):
        pass


def check_overlap(
    path: Source, pull_back: Callable[[Points], Points], grid: Grid, *, onto: object
) -> None:
    """Refuse an image that none of a grid's voxels lies in.

    Raises:
        InputError: the transform never meets it.
    """
    source = read_header(path, series=True).grid
    for _, index in places(source.affine, pull_back, grid):
        if inside(index, source.shape).any():
            return
    raise InputError(_never_met(path, onto))


def _moved_series(
    series: Series,
    pull_back: Callable[[Points], Points],
    grid: Grid,
    image_of: Callable[[np.ndarray], Any],
    labels: bool,
    notes: Notes,
    onto: object,
    how: dict[str, Any],
) -> Moved:
    """As `moved`, of a series."""
    path, dtype = series.stored, np.dtype(np.float32)
    if labels:  # their range decides the type of the whole file, so they are read twice
        ends = [(a.min(), a.max()) for a in _arrays(series, labels, notes, _advice(how))]
        dtype = smallest_labels(np.array([*ends, (0, how.get("fill", 0))]).astype(np.int32)).dtype
    found = list(_places(path, series.affine, series.shape, pull_back, grid, onto))

    def volumes() -> Iterator[np.ndarray]:
        constant = []
        for number, array in enumerate(_arrays(series, labels, notes, _advice(how))):
            if array.min() == array.max():
                constant.append(number)
            yield values_at(array, found, grid.shape, **how).astype(dtype, copy=False)
        if len(constant) == series.count and not labels:
            raise InputError(f"{path}: expected images, got nothing but constant volumes.")
        if constant and not labels:
            some = ", ".join([*(str(n) for n in constant[:5]), *(["…"] if constant[5:] else [])])
            notes.remark(f"{path}: constant volumes, counted from 0: {some}")

    return Moved(volumes(), series.count, grid.shape, dtype, series.timing, image_of)


def _arrays(
    series: Series, labels: bool, notes: Notes, advice: str | None
) -> Iterator[Shaped[np.ndarray, "x y z"]]:
    """The checked volumes of a series, float32 or labels."""
    path, said = series.stored, []

    def remark(line: str) -> None:  # of many volumes once
        if not said:
            notes.remark(line)
        said.append(line)

    for number, array in enumerate(series.volumes()):
        if labels:
            array = as_labels(path, Volume(array, series.affine), series.slope, remark).array
        else:
            array = as_intensities(path, array)
            check_intensities(path, array)
        if number == 0 and not labels:
            _note_labels(path, array, notes, advice)
        yield array


def _places(
    path: Source,
    affine: Float[np.ndarray, "4 4"],
    shape: tuple[int, ...],
    pull_back: Callable[[Points], Points],
    grid: Grid,
    onto: object,
) -> Iterator[tuple[slice, Points]]:
    """The places of a grid in a volume, which at their end refuse a volume that none lies in."""
    met = False
    for planes, index in places(affine, pull_back, grid):
        met = met or bool(inside(index, shape).any())
        yield planes, index
    if not met:
        raise InputError(_never_met(path, onto))


def _never_met(path: Source, onto: object) -> str:
    """What is said of an image that no voxel of a grid lies in."""
    return (
        f"{path}: the transform leads no voxel of {onto} into its field of view; "
        "is it the image that was registered?"
    )


def _advice(how: dict[str, Any]) -> str | None:
    """The flag of `apply` that moves a label map; None where no value is mixed with others."""
    return "--labels" if how["order"] > 0 else None


def _note_labels(path: Source, array: np.ndarray, notes: Notes, advice: str | None) -> None:
    """Warn of a label map that is interpolated as an image; `advice` is None where it is not."""
    if advice is not None and looks_like_labels(array):
        line = (
            f"{path}: looks like a label map, and is interpolated as an image, which mixes its "
            f"labels; {advice} moves it without that."
        )
        if line not in notes.warnings:
            notes.warnings.append(line)
