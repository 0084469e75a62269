"""FSL warps as files."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxreg.io.displacement_fields import write_vectors


def write_fsl_vectors(
    path: Path | str, vectors: Float[np.ndarray, "x y z 3"], affine: Float[np.ndarray, "4 4"]
) -> None:
    """Write vectors (FSL millimetres) as FSL reads a relative warp: 4-D NIfTI, intent 2006."""
    write_vectors(path, vectors, affine, "fnirt disp field")
