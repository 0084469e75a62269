"""The same jobs in VoxelMorph on PyTorch (extra `bench`)."""

import functools
from collections.abc import Callable

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import voxelmorph as vxm  # pyright: ignore[reportMissingImports]

Shape = tuple[int, int, int]
FEATURES = (16, 32, 32, 32)
"""Widths nearest to jaxreg's 16-32-48-64 among those that VoxelMorph users train."""


def _images(shape: Shape):
    rng = np.random.default_rng(0)
    return (torch.from_numpy(rng.random((1, 1, *shape), np.float32)) for _ in range(2))


def _field(shape: Shape):
    rng = np.random.default_rng(1)
    coarse = torch.from_numpy(rng.normal(size=(1, 3, *[-(-n // 8) for n in shape])).astype("f4"))
    return 2 * torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")


def _model():
    return vxm.nn.models.VxmPairwise(
        ndim=3, source_channels=1, target_channels=1, nb_features=FEATURES, integration_steps=7
    )


def inference(shape: Shape) -> Callable[[], None]:
    """Two images in, the displacement and the moved image out."""
    model, (moving, fixed) = _model().eval(), _images(shape)

    def run() -> None:
        with torch.no_grad():
            model(moving, fixed, return_warped_source=True)

    return run


def training_step(shape: Shape) -> Callable[[], None]:
    """MSE and the diffusion of the velocity, gradient, Adam."""
    model, (moving, fixed) = _model(), _images(shape)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        velocity, moved = model(
            moving, fixed, return_warped_source=True, return_field_type="velocity"
        )
        smoothness = sum((torch.diff(velocity, dim=d) ** 2).mean() for d in (2, 3, 4))
        loss = ((moved - fixed) ** 2).mean() + 0.01 * smoothness
        loss.backward()
        optimizer.step()

    return run


def equal_network(shape: Shape, *, gradient: bool) -> Callable[[], None]:
    """A velocity at half resolution from folded images, by jaxreg's first widths; or its gradient.

    jaxreg's fourth level, 64 wide, asks VoxelMorph for another multiple of voxels.
    """
    half = tuple(n // 2 for n in shape)
    model = vxm.nn.models.VxmPairwise(
        ndim=3, source_channels=8, target_channels=8, nb_features=(16, 32, 48)
    )
    rng = np.random.default_rng(0)
    moving, fixed = (torch.from_numpy(rng.random((1, 8, *half), np.float32)) for _ in range(2))

    def run() -> None:
        if not gradient:
            with torch.no_grad():
                model(moving, fixed, return_field_type="velocity")
            return
        model.zero_grad()
        (model(moving, fixed, return_field_type="velocity") ** 2).sum().backward()

    return run


def warp(shape: Shape, *, gradient: bool) -> Callable[[], None]:
    """The image warped by a smooth displacement of a few voxels."""
    transformer = vxm.nn.modules.SpatialTransformer()
    moving, _ = _images(shape)
    field = _field(shape)

    def run() -> None:
        if not gradient:
            with torch.no_grad():
                transformer(moving, field)
            return
        image, displacement = moving.clone().requires_grad_(), field.clone().requires_grad_()
        (transformer(image, displacement) ** 2).sum().backward()

    return run


def integrate(shape: Shape) -> Callable[[], None]:
    """Scaling and squaring at full resolution, as VxmPairwise does it, 7 squarings."""
    integrator, field = vxm.nn.modules.IntegrateVelocityField(steps=7), _field(shape)

    def run() -> None:
        with torch.no_grad():
            integrator(field)

    return run


JOBS: dict[str, Callable[[Shape], Callable[[], None]]] = {
    "inference": inference,
    "training_step": training_step,
    "warp": functools.partial(warp, gradient=False),
    "warp_gradient": functools.partial(warp, gradient=True),
    "integration": integrate,
    "equal_network": functools.partial(equal_network, gradient=False),
    "equal_network_gradient": functools.partial(equal_network, gradient=True),
}
