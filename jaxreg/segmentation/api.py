"""The Python entry point of the segmentation: `jaxreg.segment`."""

from pathlib import Path

from jaxreg.errors import speaks_of_arguments
from jaxreg.io.images import ImageLike, source_of
from jaxreg.segmentation.files import SegmentedImage, segment_scan


@speaks_of_arguments
def segment(image: ImageLike, *, segmentation: Path | str | None = None) -> SegmentedImage:
    """Find the brain and its structures in an image of any contrast, resolution and orientation.

    Args:
        image: path of a NIfTI or MGZ file, an image of nibabel, or (array [x, y, z], affine 4×4 in
            RAS millimetres): a whole head, or a brain that was cut out.
        segmentation: folder of segmentation networks of one's own; by default the bundled ones.

    Returns:
        Labels (FreeSurfer's numbers) and brain mask on the image's own grid, the volume of each
        structure in millilitres; `save(folder)` writes what `jaxreg segment` writes.

    Raises:
        InputError: the image cannot be read or used, or it shows no brain.

    Examples:
        >>> import jaxreg
        >>> found = jaxreg.segment("head.nii.gz")
        >>> sorted(int(n) for n in set(found.labels[found.mask]))[:3]
        [2, 3, 4]
        >>> found.save("segmentation", brain=True).name
        'segmentation'
    """
    folder = None if segmentation is None else Path(segmentation)
    return segment_scan(source_of(image, "image"), networks=folder)
