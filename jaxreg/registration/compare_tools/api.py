"""`jaxreg.compare`: a pair registered by other tools, from Python."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxreg.configuration.registration import RegisterConfig
from jaxreg.errors import speaks_of_arguments
from jaxreg.registration.compare_tools.compare import Row, compare_files
from jaxreg.registration.compare_tools.external_tools import ENGINES, WITHOUT_EXTRA

TOOLS = tuple(name for name in ENGINES if name not in WITHOUT_EXTRA)


@speaks_of_arguments
def compare(
    fixed: Path | str,
    moving: Path | str,
    *,
    tools: Sequence[str] = TOOLS,
    settings: RegisterConfig | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Row]:
    """Register a pair by jaxreg and by other tools, from the same affine on the same grid.

    Args:
        fixed: the file of the fixed image.
        moving: the file of the moving image.
        tools: some of "ants", "greedy", "elastix", "convexadam" (extra `compare`), "fireants" and
            "syntx"; those that are not installed are skipped.
        settings: those of jaxreg, with label maps for Dice; by default the bundled network's.
        say: a function that gets the lines which the command prints, such as `print`.

    Returns:
        Dice, local correlation, folds, seconds and memory of the affine alone and of each tool.

    Raises:
        jaxreg.errors.InputError: an image, a setting or a tool that cannot be used.

    Examples:
        >>> import jaxreg
        >>> from jaxreg.configuration.registration import RegisterConfig
        >>> settings = RegisterConfig(optimize_only=True, spacing=8.0, steps=3)
        >>> rows = jaxreg.compare(
        ...     "fixed_T1w.nii.gz", "moving_T2w.nii.gz", tools=["elastix"], settings=settings
        ... )
        >>> [row.name for row in rows][:2]
        ['affine alone', 'jaxreg']
    """
    return compare_files(
        Path(fixed),
        Path(moving),
        tuple(tools),
        settings or RegisterConfig(),
        say=say or (lambda line: None),
    )
