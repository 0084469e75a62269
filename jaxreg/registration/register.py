"""One pair registered: the linear start, then the deformable transform on the network grid."""

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxreg.configuration.registration import AUTO, RegisterConfig
from jaxreg.errors import InputError
from jaxreg.geometry.grid import Grid
from jaxreg.io.remarks import WARNING
from jaxreg.io.stored_images import MemoryImage
from jaxreg.models.release import name_of
from jaxreg.pair import Pair
from jaxreg.registration.clock import Clock
from jaxreg.registration.contrast_check import depth_contrast, domain_warnings
from jaxreg.registration.contrasts import contrasts_of
from jaxreg.registration.deformable.deformation import Deformation, deformations, no_deformation
from jaxreg.registration.deformable.grid import in_millimetres, network_grid, pairs_on_grid
from jaxreg.registration.deformable.lambda_selection import LAMS, choose
from jaxreg.registration.deformable.loading import loading, programs_of
from jaxreg.registration.deformable.method import Method, load_method, routed, unguided
from jaxreg.registration.extraction import turn_of, with_brains, with_labels
from jaxreg.registration.inputs import Subject, read_side
from jaxreg.registration.linear.starts import linear_starts
from jaxreg.runtime import in_threads

POOR_SIMILARITY = 0.09
"""Mean squared local correlation after the linear part: validation pairs have 0.11 to 0.17, the
same pairs with one head turned the wrong way 0.03 to 0.06."""


class Registration(NamedTuple):
    """A registered pair; `affine` takes fixed to moving RAS mm, after the deformation.

    `before` is the pair after the affine alone, `chosen` the answer, `curve` all λ of a sweep
    (else empty); their arrays lie on `grid`, the network grid in the fixed space, found as
    `grid_is` says.
    """

    config: RegisterConfig
    fixed: Subject
    moving: Subject
    method: Method
    affine: Float[np.ndarray, "4 4"]
    grid: Grid
    grid_is: str
    pair: Pair
    before: Deformation
    chosen: Deformation
    curve: tuple[Deformation, ...]
    warnings: tuple[str, ...]

    @property
    def chain(self) -> list:
        """The whole map from fixed to moving, for `geometry.transforms.map_points`."""
        return self.chain_of(self.chosen)

    @property
    def inverse_chain(self) -> list:
        """The whole map from moving to fixed: the inverse affine, then exp(−v)."""
        inverse = np.linalg.inv(self.affine)
        if self.config.transform != "deformable":
            return [inverse]
        return [inverse, in_millimetres(self.chosen.inverse, self.grid)]

    def chain_of(self, deformation: Deformation) -> list:
        """As `chain`, with another deformation of the curve."""
        if self.config.transform != "deformable":
            return [self.affine]
        return [in_millimetres(deformation.displacement, self.grid), self.affine]


def register_pair(
    fixed: Path | MemoryImage | Subject,
    moving: Path | MemoryImage | Subject,
    config: RegisterConfig,
    clock: Clock,
    *,
    in_memory: Mapping[str, MemoryImage] | None = None,
    start: Float[np.ndarray, "4 4"] | None = None,
    say: Callable[[str], None] = print,
    method: Method | None = None,
) -> Registration:
    """A pair registered as `config` says; `say` gets lines for the user as they come up.

    Where a side is a `Subject`, its files have been read. `in_memory` has masks and label maps that
    no file holds, by the name of their setting. `start` is a linear start that no file holds.
    `method` is what `load_method` gives for `config`, None to load it here.

    Raises:
        InputError: a file that is not what it must be, fields of view that do not overlap, a model
            that does not fit.
    """
    told = _Told(say)
    with clock("load model"):
        method = method or load_method(config)
    with clock("read"):
        fixed = read_side("fixed", fixed, config, in_memory=in_memory)
        moving = read_side("moving", moving, config, in_memory=in_memory)
    told.warn(_same_image(fixed, moving))
    with loading(programs_of(method, config, fixed, moving)):
        fixed, moving = _with_brains(fixed, moving, config, clock, told)
        method = _method_for(fixed, moving, config, method, told)
        find = functools.partial(_linear_part, method, config, clock, start)
        linear = _better_linear_part(find, fixed, moving, config, told)
    if method.domains is not None and fixed.brain_known and moving.brain_known:
        told.warn(_domain_warnings(linear.pair, method, linear.grid.spacing_mm))
    with clock("deformable"):
        if config.transform == "deformable" and method.objective.label_weight > 0:
            own = with_labels(linear.pair, fixed, moving, linear.affine, linear.grid)
            linear = linear._replace(pair=own)
        fixed, moving = _lighter(fixed), _lighter(moving)
        pair, chosen, curve = _deformable_part(method, config, linear, clock)
    if not np.isfinite(chosen.displacement).all():
        raise InputError("the velocity is not finite: the optimisation diverged; raise --lam.")
    return Registration(
        config,
        fixed,
        moving,
        method,
        linear.affine,
        linear.grid,
        linear.grid_is,
        pair,
        linear.before,
        chosen,
        curve,
        tuple(told.warnings),
    )


def _same_image(fixed: Subject, moving: Subject) -> tuple[str, ...]:
    """A line where one image is given twice, which is rarely meant."""
    one, other = fixed.image, moving.image
    if np.array_equal(one.affine, other.affine) and np.array_equal(one.array, other.array):
        return (f"fixed and moving are the same image: {fixed.path} and {moving.path}.",)
    return ()


class _Linear(NamedTuple):
    """The linear part of a registration: the affine, the network grid, and the pair on it."""

    start: str
    affine: Float[np.ndarray, "4 4"]
    grid: Grid
    grid_is: str
    before: Deformation
    pair: Pair


class _Told:
    """Lines for the user as they come up; warnings are kept as well."""

    def __init__(self, say: Callable[[str], None]):
        self.say, self.warnings = say, list[str]()

    def warn(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.warnings.append(line)
            self.say(f"{WARNING}{line}")


def _with_brains(
    fixed: Subject, moving: Subject, config: RegisterConfig, clock: Clock, told: _Told
) -> tuple[Subject, Subject]:
    """Both sides with their brains."""
    with clock("find the brains"):
        fixed, moving, unfound = with_brains(fixed, moving, config)
    for role, subject in (("fixed", fixed), ("moving", moving)):
        told.say(f"{role}: {subject.path}: {subject.header}")
        for remark in subject.remarks:
            told.say(remark)
    told.warn((*fixed.warnings, *moving.warnings, *unfound))
    return fixed, moving


def _method_for(
    fixed: Subject, moving: Subject, config: RegisterConfig, method: Method, told: _Told
) -> Method:
    """The method that is asked for, where it knows the contrasts of the pair, or what stands in."""
    contrasts = None
    if method.model is not None:
        own = method.model.config.cohort.domain_pair
        contrasts = contrasts_of(config.domains, fixed, moving, own)
    method, remark = routed(method, config, contrasts)
    if remark is not None:
        told.say(remark)
    if fixed.brain is None or moving.brain is None:
        method = unguided(method, config)
    if method.model is not None:
        told.say(
            f"network: {name_of(method.model)} (sha256 {method.model.sha256[:12]}); "
            f"λ = {config.lam or method.lam}, {method.passes} passes, "
            f"{method.steps} steps of refinement"
        )
    return method


def _better_linear_part(
    find: Callable[[Subject, Subject], _Linear],
    fixed: Subject,
    moving: Subject,
    config: RegisterConfig,
    told: _Told,
) -> _Linear:
    """The linear part by segmentation, or by intensities where that is poor and they are better."""
    linear = find(fixed, moving)
    searched = config.init_mode in (AUTO, "rigid", "affine")
    segmented = fixed.brain is not None and moving.brain is not None
    if searched and segmented and linear.before.similarity < POOR_SIMILARITY:
        told.say(
            f"the linear start by segmentation is poor (similarity {linear.before.similarity:.3f})"
            ": intensities alone are tried as well"
        )
        try:
            by_intensities = find(fixed._replace(brain=None), moving._replace(brain=None))
        except InputError as error:
            told.say(f"intensities alone lead nowhere: {error}")
        else:
            linear = max(linear, by_intensities, key=lambda part: part.before.similarity)
    determinant = np.linalg.det(linear.affine[:3, :3])
    told.say(f"network grid: {linear.grid_is}")
    told.say(f"linear start: {linear.start}, determinant {determinant:.3f}")
    told.warn((*turn_of(linear.affine), *_poor_start(linear.before)))
    return linear


def _lighter(side: Subject) -> Subject:
    """A side whose segmentation has been read on the network grid, as nobody will read it again."""
    return side._replace(brain=side.brain and side.brain.without_probabilities())


def _deformable_part(
    method: Method,
    config: RegisterConfig,
    linear: _Linear,
    clock: Clock,
) -> tuple[Pair, Deformation, tuple[Deformation, ...]]:
    """(the pair as the method saw it, the answer, all λ of a sweep)."""
    pair = linear.pair
    if config.transform != "deformable":
        return pair, linear.before, ()
    if config.lam != "auto":
        return pair, deformations(method, pair, [method.lam], progress=clock.progress)[0], ()
    curve = tuple(deformations(method, pair, _sweep_lams(method), progress=clock.progress))
    return pair, choose(linear.before.similarity, curve), curve


def _linear_part(
    method: Method,
    config: RegisterConfig,
    clock: Clock,
    given: Float[np.ndarray, "4 4"] | None,
    fixed: Subject,
    moving: Subject,
) -> _Linear:
    """The best linear start on the network grid; `given` is one that no file holds.

    Raises:
        InputError: an unusable file, fields of view that do not overlap, no believable result.
    """
    with clock("affine"):
        starts, (grid, grid_is) = in_threads(
            functools.partial(linear_starts, fixed, moving, config, given=given),
            functools.partial(network_grid, method, fixed),
        )
    with clock("to the network grid"):
        start, before, pair = _best_start(method, fixed, moving, starts, grid)
    return _Linear(start, starts[start], grid, grid_is, before, pair)


def _poor_start(before: Deformation) -> tuple[str, ...]:
    """A line where the pair is less alike after the linear part than pairs of brains are."""
    if before.similarity >= POOR_SIMILARITY:
        return ()
    return (
        f"after the linear part the images are hardly alike (similarity {before.similarity:.3f}, "
        f"at least {POOR_SIMILARITY} in validation pairs): look at the report before the result "
        "is used.",
    )


def _best_start(
    method: Method, fixed: Subject, moving: Subject, starts: dict[str, np.ndarray], grid: Grid
) -> tuple[str, Deformation, Pair]:
    """The start whose local correlation is highest, with the pair as it then lies.

    Mutual information alone is misled where one brain lacks a part: an affine then stretches the
    rest over the gap, and local structure no longer fits.

    Raises:
        InputError: of no start do the brains meet.
    """
    found: list[tuple[str, Deformation, Pair]] = []
    apart: list[InputError] = []
    for name, pair in pairs_on_grid(fixed, moving, starts, grid):
        if isinstance(pair, InputError):  # from this start the brains do not meet; others remain
            apart.append(pair)
        else:
            found.append((name, no_deformation(method, pair), pair))
    if not found:
        raise apart[0]
    return max(found, key=lambda start: start[1].similarity)


def _domain_warnings(
    pair: Pair, method: Method, spacing_mm: tuple[float, float, float]
) -> tuple[str, ...]:
    """What the swapped-modality test says of two brains."""
    assert method.domains is not None
    images = ((pair.fixed, pair.fixed_mask), (pair.moving, pair.moving_mask))
    first, second = (
        depth_contrast(np.asarray(image)[..., 0], np.asarray(mask), spacing_mm)
        for image, mask in images
    )
    return domain_warnings((first, second), method.domains)


def _sweep_lams(method: Method) -> tuple[float, ...]:
    """λ of `--lam auto`; a network of one λ has no other."""
    if method.model is not None and method.model.config.network.lam is not None:
        raise InputError("--lam auto: the network knows one λ alone; use --lam with that.")
    return LAMS
