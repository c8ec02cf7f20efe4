"""The real Fourier basis of images: unit images that each hold one frequency and its conjugate."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from passband.core.errors import PassbandError


def half_plane(size: tuple[int, int], central: int | None = None) -> Int[Tensor, "basis 2"]:
    """Return the frequencies of a half plane: of each and its conjugate one, and those that are their own.

    A frequency is ``(ky, kx)`` in bins, ``-(N // 2)`` to ``(N - 1) // 2``, as a shifted spectrum has them; its
    conjugate is ``(-ky, -kx)`` modulo the size. Of the two it is the later one, row by row from the top left of the
    shifted plane.

    Args:
        size: Height and width of the images, even or odd.
        central: Only the central square of so many bins a side, an odd number; None takes the whole plane.

    Returns:
        int64, from low to high: by distance from zero frequency, which is the first, then by ``ky`` and ``kx``.
        At 32×32 there are 514.

    Raises:
        PassbandError: when a side is below 1, or ``central`` is even, below 1 or larger than the images.

    >>> half_plane((2, 3)).tolist()
    [[0, 0], [-1, 0], [0, 1], [-1, 1]]
    """
    height, width = size
    if height < 1 or width < 1:
        raise PassbandError(f"images have 1 pixel or more a side; got {height}×{width}")
    if central is not None and (central % 2 == 0 or not 0 < central <= min(size)):
        raise PassbandError(
            f"the central square has an odd number of bins a side, 1 to {min(size)} here, so that zero frequency is in "
            f"its middle; got {central}"
        )
    rows, columns = (torch.arange(side) - side // 2 for side in size)
    plane = torch.cartesian_prod(rows, columns)
    kept = _place(plane, size) >= _place(-plane, size)
    if central is not None:
        kept &= plane.abs().amax(1) <= central // 2
    frequencies = plane[kept]
    # Stable: those of one radius stay in the order of the rows.
    return frequencies[frequencies.square().sum(1).argsort(stable=True)]


def basis(
    frequencies: Int[Tensor, "basis 2"], size: tuple[int, int], device: torch.device | str | None = None
) -> Float[Tensor, "basis height width"]:
    """Return the image of each frequency: ``(cos θ + sin θ) / √(HW)``, where ``θ = 2π (ky · y / H + kx · x / W)``.

    It is real, its Euclidean norm is 1, and its spectrum is zero but at the frequency and its conjugate. The images of
    a half plane are orthonormal; with those of the conjugates, which are other images, they are all of them.

    Args:
        frequencies: ``(ky, kx)`` in bins; any integers, taken modulo the size.
        size: Height and width of the images.
        device: Where the images live.

    Returns:
        float32.

    **Source**: Yin et al., *A Fourier perspective on model robustness in computer vision* (2019), section 2. The
    paper leaves the phase open, which is that of the authors' code (google-research/frequency_analysis).
    """
    height, width = size
    rows, columns = (torch.arange(side) for side in size)
    # Whole turns go before the division: the phase is exact.
    along_y = (frequencies[:, :1].cpu() * rows % height) * width
    along_x = (frequencies[:, 1:].cpu() * columns % width) * height
    steps = (along_y[:, :, None] + along_x[:, None, :]) % (height * width)
    wave = _wave(height * width)
    return wave[steps].to(device)


def on_plane(
    values: Float[Tensor, " basis"], frequencies: Int[Tensor, "basis 2"], size: tuple[int, int]
) -> Float[Tensor, "height width"]:
    """Lay out numbers on the shifted plane, each at its frequency and at its conjugate.

    Args:
        values: A number for each frequency.
        frequencies: As `half_plane` gives them.
        size: Height and width of the plane.

    Returns:
        Zero frequency at bin ``(H // 2, W // 2)``; NaN where no frequency was given.
    """
    plane = values.new_full((size[0] * size[1],), math.nan)
    for signed in (frequencies, -frequencies):
        plane[_place(signed, size)] = values
    return plane.view(size)


def _place(frequencies: Tensor, size: tuple[int, int]) -> Tensor:
    """Return where frequencies lie on the shifted plane, row by row."""
    rows, columns = ((frequencies[:, axis] + side // 2) % side for axis, side in enumerate(size))
    return rows * size[1] + columns


def _wave(count: int) -> Tensor:
    """Return one turn of the wave in ``count`` steps, scaled so that as many values have the norm 1."""
    angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    return ((angle.cos() + angle.sin()) / math.sqrt(count)).float()
