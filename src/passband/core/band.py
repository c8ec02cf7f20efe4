"""A band of spatial frequencies as a value, and each paper's way of cutting one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from passband.core.errors import PassbandError, unknown

Shape = Literal["disc", "square"]
Unit = Literal["pixel", "cycles"]
Edge = Literal["inclusive", "exclusive", "half_open"]
Side = Literal["low", "high"]


@dataclass(frozen=True)
class Band:
    """Name the frequencies that a filter keeps.

    The frequency of a bin is counted from the zero frequency, which lies at bin ``(H // 2, W // 2)`` of the
    shifted spectrum, on non-square images too.

    Attributes:
        cutoff: Radius of a disc, or half the side of a square, in ``unit``; 0 or more.
        shape: ``"disc"`` compares ``sqrt(u² + v²)`` with the cut-off, ``"square"`` ``max(|u|, |v|)``.
        unit: ``"pixel"`` counts bins of the H×W spectrum, ``"cycles"`` cycles per pixel (0.5 is Nyquist).
        edge: ``"inclusive"`` keeps the cut-off itself, ``"exclusive"`` drops it, ``"half_open"`` (square only)
            keeps ``-cutoff <= u < cutoff``, which is not symmetric: the real part then weighs ±cutoff by a half.
        side: ``"low"`` keeps what lies inside, ``"high"`` the complement, so that low + high is the image.

    Raises:
        PassbandError: when the cut-off is negative or not finite, or a field holds an unknown word.

    >>> str(Band.disc(12))
    'low disc r<=12'
    >>> str(~Band.disc(12))
    'high disc r<=12'
    """

    cutoff: float
    shape: Shape = "disc"
    unit: Unit = "pixel"
    edge: Edge = "inclusive"
    side: Side = "low"

    def __post_init__(self) -> None:
        allowed = {
            "shape": ("disc", "square"),
            "unit": ("pixel", "cycles"),
            "edge": ("inclusive", "exclusive", "half_open"),
            "side": ("low", "high"),
        }
        for field, words in allowed.items():
            if getattr(self, field) not in words:
                raise PassbandError(f"a band's {field} is one of {', '.join(words)}; got '{getattr(self, field)}'")
        if not 0 <= self.cutoff < float("inf"):
            raise PassbandError(f"a band's cut-off is a finite number of 0 or more; got {self.cutoff}")
        if self.edge == "half_open" and self.shape != "square":
            raise PassbandError("a half-open edge belongs to a square band; a disc is inclusive or exclusive")

    @classmethod
    def disc(cls, radius: float, *, inclusive: bool = True, unit: Unit = "pixel") -> Band:
        """Keep frequencies within ``radius``.

        **Source**: high-frequency, section 3 (``<=``); the authors' code uses ``<`` (``inclusive=False``).
        """
        return cls(radius, "disc", unit, "inclusive" if inclusive else "exclusive")

    @classmethod
    def square(cls, side: float, *, edge: Edge = "exclusive", unit: Unit = "pixel") -> Band:
        """Keep the central ``side`` × ``side`` square.

        **Source**: adversarial-focus, table 1 ("low-pass degree").
        **Differs**: keeps ``|k| < side / 2``, which is symmetric; ``edge="half_open"`` is the paper's reading.
        """
        return cls(side / 2, "square", unit, edge)

    @classmethod
    def parse(cls, text: str) -> Band:
        """Read a band from words: a side, perhaps ``square`` (of that side's length), a number.

        Raises:
            PassbandError: when it says something else.

        >>> str(Band.parse("high 8")), str(Band.parse("low square 16"))
        ('high disc r<=8', 'low square k<8')
        """
        side, *shape, size = text.split() if len(text.split()) in (2, 3) else ("", "", "")
        try:
            number = float(size)
        except ValueError:
            number = -1.0
        if side not in ("low", "high") or shape not in ([], ["disc"], ["square"]) or number < 0:
            raise PassbandError(f"a band is written as 'low 8', 'high disc 12' or 'low square 16'; got '{text}'")
        band = cls.square(number) if shape == ["square"] else cls.disc(number)
        return band if side == "low" else ~band

    def __invert__(self) -> Band:
        """Return the complement."""
        return replace(self, side="high" if self.side == "low" else "low")

    @property
    def low(self) -> Band:
        """The low side of this cut."""
        return replace(self, side="low")

    @property
    def high(self) -> Band:
        """The high side of this cut."""
        return replace(self, side="high")

    def __str__(self) -> str:
        letter = "r" if self.shape == "disc" else "k"
        unit = "" if self.unit == "pixel" else " cycles/pixel"
        if self.edge == "half_open":
            return f"{self.side} square -{self.cutoff:g}<={letter}<{self.cutoff:g}{unit}"
        sign = "<=" if self.edge == "inclusive" else "<"
        return f"{self.side} {self.shape} {letter}{sign}{self.cutoff:g}{unit}"


def preset(name: str, size: float) -> Band:
    """Cut as a paper or its code does.

    Args:
        name: ``"high-frequency"`` (disc, ``<=``), ``"high-frequency-code"`` (disc, ``<``),
            ``"adversarial-focus"`` (central D×D square, half open), ``"square"`` (``|k| < D/2``).
        size: Radius of the disc or side D of the square, in pixels of the spectrum.

    Raises:
        PassbandError: when no preset has that name.
    """
    if name == "high-frequency":
        return Band.disc(size)
    if name == "high-frequency-code":
        return Band.disc(size, inclusive=False)
    if name == "adversarial-focus":
        return Band.square(size, edge="half_open")
    if name == "square":
        return Band.square(size)
    raise unknown("band preset", name, PRESETS)


PRESETS = ("high-frequency", "high-frequency-code", "adversarial-focus", "square")
