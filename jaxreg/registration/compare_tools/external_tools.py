"""Other registration tools on a prepared pair, one a process: `python -m … NAME FOLDER`.

The folder holds `fixed.nii.gz` and `moving.nii.gz` on one grid, affinely aligned; an engine leaves
`displacement.npy` there, in voxels of that grid, and `used.json` with its seconds and peak memory.
The seconds begin when the tool is imported, and contain the reading of the two files.
Each tool is imported in its own process only: two builds of ITK do not share one, and greedy is
under the GPL.
"""

import importlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxreg.io.displacement_fields import LPS, read_field
from jaxreg.io.images import read_image
from jaxreg.runtime import peak_gigabytes

DISTRIBUTIONS = {
    "ants": "antspyx",
    "greedy": "picsl-greedy",
    "elastix": "itk-elastix",
    "convexadam": "convexAdam",
    "fireants": "fireants",
    "syntx": "syntx",
}
WITHOUT_EXTRA = {
    "fireants": "pip install --no-deps fireants",
    "syntx": "pip install --no-deps syntx",
}
"""How to install what the extra `compare` cannot have: FireANTs asks for an older SimpleITK than
jaxreg does, and works with the newer one; syntx asks for torchvision, which it does not need here.
"""

Displacement = Float[np.ndarray, "x y z 3"]


def missing(name: str) -> str | None:
    """The distribution that an engine lacks here and where it is, None where it is installed."""
    try:
        importlib.metadata.version(DISTRIBUTIONS[name])
    except importlib.metadata.PackageNotFoundError:
        return f"{DISTRIBUTIONS[name]}; {WITHOUT_EXTRA.get(name, 'extra `compare`')}"
    return None


def ants(folder: Path) -> Displacement:
    """SyN with Mattes mutual information."""
    import ants as tool  # pyright: ignore[reportMissingImports]

    fixed, moving = (tool.image_read(str(folder / f"{n}.nii.gz")) for n in ("fixed", "moving"))
    found = tool.registration(
        fixed,
        moving,
        type_of_transform="SyNOnly",
        initial_transform="Identity",
        syn_metric="mattes",
        syn_sampling=32,
        reg_iterations=(100, 70, 20),
        outprefix=str(folder / "ants_"),
        random_seed=1,
    )
    return _in_voxels(next(t for t in found["fwdtransforms"] if t.endswith(".nii.gz")))


def greedy(folder: Path) -> Displacement:
    """Greedy with normalised mutual information and a stationary velocity, on all cores."""
    from picsl_greedy import Greedy3D  # pyright: ignore[reportMissingImports]

    images = f"{folder}/fixed.nii.gz {folder}/moving.nii.gz"
    Greedy3D().execute(
        f"-i {images} -m NMI -o {folder}/greedy.nii.gz -sv -s 2vox 1vox -n 100x50x20 "
        f"-threads {os.cpu_count()}"
    )
    return _in_voxels(folder / "greedy.nii.gz")


def convexadam(folder: Path) -> Displacement:
    """ConvexAdam on MIND-SSC."""
    import torch  # pyright: ignore[reportMissingImports]
    from convexAdam.convex_adam_MIND import (  # pyright: ignore[reportMissingImports]
        convex_adam_pt,
    )

    fixed, moving = (read_image(folder / f"{n}.nii.gz").array for n in ("fixed", "moving"))
    device = torch.device("cpu")
    return np.asarray(convex_adam_pt(fixed, moving, device=device, dtype=torch.float32))


def fireants(folder: Path) -> Displacement:
    """FireANTs' greedy registration by mutual information.

    Rate and smoothing are the best of eight settings on one validation pair of T1w and T2w; with
    its defaults (0.5, 1, 0.5) the pair ended below where it began.
    """
    from fireants.io.image import BatchedImages, Image  # pyright: ignore[reportMissingImports]
    from fireants.registration.greedy import (  # pyright: ignore[reportMissingImports]
        GreedyRegistration,
    )

    fixed, moving = (
        BatchedImages([Image.load_file(str(folder / f"{n}.nii.gz"), device="cpu")])
        for n in ("fixed", "moving")
    )
    registration = GreedyRegistration(
        scales=[4, 2, 1],
        iterations=[100, 70, 20],
        fixed_images=fixed,
        moving_images=moving,
        loss_type="mi",
        optimizer_lr=0.1,
        smooth_grad_sigma=3.0,
        smooth_warp_sigma=1.0,
    )
    registration.optimize()
    registration.save_as_ants_transforms(str(folder / "fireants.nii.gz"))
    return _in_voxels(folder / "fireants.nii.gz")


def syntx(folder: Path) -> Displacement:
    """SyN of syntx, in PyTorch, by Mattes mutual information.

    The settings are the best of ten on validation pairs of T1w and T2w, and not good on all of
    them; its default metric, squared correlation, ended below where it began.
    """
    import ants as tool  # pyright: ignore[reportMissingImports]
    import syntx  # pyright: ignore[reportMissingImports]

    fixed, moving = (tool.image_read(str(folder / f"{n}.nii.gz")) for n in ("fixed", "moving"))
    start = str(folder / "identity.mat")  # without it, syntx brings the centres of mass together
    identity = tool.new_ants_transform("float", 3, "AffineTransform")
    tool.write_transform(identity, start)
    found = syntx.registration(
        fixed,
        moving,
        syn_metric="mattes_mi",
        reg_iterations=[100, 70, 20],
        affine_iterations=[0, 0, 0],
        initial_transform=start,
    )
    for path in (t for t in found["fwdtransforms"] if t.endswith(".mat")):
        if not np.allclose(tool.read_transform(path).parameters, identity.parameters, atol=1e-3):
            raise RuntimeError("syntx moved the images by an affine that was not asked for")
    return _in_voxels(next(t for t in found["fwdtransforms"] if t.endswith(".nii.gz")))


def elastix(folder: Path) -> Displacement:
    """B-splines of 14 mm with Mattes mutual information and bending energy."""
    itk: Any = importlib.import_module("itk")
    os.chdir(folder)  # transformix leaves its field in the working directory
    fixed, moving = (itk.imread(f"{n}.nii.gz", itk.F) for n in ("fixed", "moving"))
    settings = itk.ParameterObject.New()
    values = settings.GetDefaultParameterMap("bspline", 3, 14.0)
    values["Metric"] = ["AdvancedMattesMutualInformation", "TransformBendingEnergyPenalty"]
    values["Metric0Weight"], values["Metric1Weight"] = ["1"], ["20"]
    values["MaximumNumberOfIterations"] = ["300"]
    values["NumberOfSpatialSamples"] = ["5000"]
    settings.AddParameterMap(values)
    _, found = itk.elastix_registration_method(
        fixed, moving, parameter_object=settings, log_to_console=False
    )
    field = itk.transformix_deformation_field(moving, found)
    vectors = itk.array_from_image(field).transpose(2, 1, 0, 3) * LPS
    axes = np.asarray(itk.array_from_matrix(fixed.GetDirection())) * np.asarray(fixed.GetSpacing())
    return vectors @ np.linalg.inv(LPS[:, None] * axes).T


ENGINES = {
    "ants": ants,
    "greedy": greedy,
    "elastix": elastix,
    "convexadam": convexadam,
    "fireants": fireants,
    "syntx": syntx,
}


MODULES = {
    "ants": ("ants",),
    "greedy": ("picsl_greedy",),
    "elastix": ("itk",),
    "convexadam": ("torch", "convexAdam.convex_adam_MIND"),
    "fireants": ("fireants.io.image", "fireants.registration.greedy"),
    "syntx": ("ants", "syntx"),
}
"""What each engine imports."""


def load(name: str) -> None:
    """Import what an engine needs, which takes seconds and registers nothing."""
    if name == "syntx":  # it imports this for surfaces, and PyPI does not have it
        sys.modules.setdefault("antstorch", ModuleType("antstorch"))
    for module in MODULES[name]:
        importlib.import_module(module)


def _in_voxels(path: Path | str) -> Displacement:
    """An ITK field in voxels of its own grid."""
    field = read_field(path)
    return field.vectors @ np.linalg.inv(field.affine[:3, :3]).T


def main(name: str, folder: Path) -> None:
    """Run an engine and leave what it found, and what it took."""
    load(name)
    start = time.perf_counter()
    displacement = ENGINES[name](folder)
    seconds = time.perf_counter() - start
    np.save(folder / "displacement.npy", np.asarray(displacement, np.float32))
    used = {"seconds": seconds, "gigabytes": peak_gigabytes()}
    (folder / "used.json").write_text(json.dumps(used), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
