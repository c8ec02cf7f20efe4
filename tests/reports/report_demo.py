"""An answer with all five kinds of result, over real photographs, whose numbers a test can look for."""

from __future__ import annotations

import numpy as np
from skimage import data
from skimage.transform import resize

from passband.core.answer import Answer
from passband.core.claims import Judged
from passband.core.results import Axis, Column, Curve, Gallery, Map, Picture, Scalar, Series, Table

RADII = (2, 4, 8, 12, 16)
HOSTILE = "<script>alert(1)</script>"
COMMAND = "passband probe resnet18 --data folder:photos --only bands,robustness"
HOW = {
    "probe": "bands",
    "band": "low disc r<=12",
    "radii": [2, 4, 8, 12, 16],
    "seeds": [0],
    "precision": "float32",
}


def photograph(name: str, height: int, width: int) -> np.ndarray:
    """Return one of scikit-image's photographs, uint8 [height, width, 3]."""
    picture = getattr(data, name)()
    side = min(picture.shape[:2])
    square = picture[:side, :side]
    small = resize(square, (height, width), anti_aliasing=True)
    if small.ndim == 2:
        small = np.repeat(small[..., None], 3, axis=2)
    return np.round(small[..., :3] * 255).astype(np.uint8)


def gallery(name: str = "bands.pictures", **changes: object) -> Gallery:
    """Return a gallery with a slider: even and odd sizes, a hostile class name, a large image."""
    shots = [("astronaut", 32, 32), ("coffee", 28, 30), ("camera", 33, 32), ("chelsea", 224, 224)]
    pictures = []
    for place, (title, height, width) in enumerate(shots):
        truth = HOSTILE if place == 1 else title
        sides = {
            side: [
                {
                    "prediction": truth if (radius > 4) == (side == "low") else "grass",
                    "confidence": 0.25 + radius / 64,
                }
                for radius in RADII
            ]
            for side in ("low", "high")
        }
        full = {"prediction": truth, "confidence": 0.97}
        pictures.append(
            Picture(
                image=photograph(title, height, width),
                caption=f"{title} {HOSTILE}" if place == 1 else title,
                data={"truth": truth, "full": full, **sides},
            )
        )
    given = {"radii": list(RADII), "shape": "disc", "edge": "inclusive", "unit": "pixel"} | changes
    return Gallery(
        name=name,
        title="What each side of the cut-off shows",
        pictures=tuple(pictures),
        view="bands",
        data=given,
    )


def curve(name: str = "bands.accuracy", shift: float = 0.0) -> Curve:
    """Return two lines in percent, one with a gap."""
    low = (0.11 + shift, 0.2513 + shift, 0.6021, None, 0.8812)
    high = (0.7521, 0.5512 - shift, 0.3127, 0.1811, 0.1003)
    return Curve(
        name=name,
        title="Accuracy by frequency band",
        x=Axis(name="radius", unit="pixel", values=RADII),
        y=Axis(name="accuracy", unit="fraction"),
        series=(_line("low-pass", low), _line("high-pass", high)),
        how=HOW,
        notes=("The low-pass keeps r <= cut-off; the high-pass is the rest, so that both add up to the image.",),
    )


def _line(name: str, values: tuple[float | None, ...]) -> Series:
    ends = [(None, None) if value is None else (value - 0.031, value + 0.033) for value in values]
    return Series(name=name, values=values, low=tuple(a for a, _ in ends), high=tuple(b for _, b in ends), n=1000)


def envelope() -> Curve:
    """Return a long line over many orders of magnitude."""
    at = np.linspace(0.002, 0.5, 256)
    lines = [Series(name=f"layer {k}", values=tuple((0.05 / at ** (1 + k / 2)).tolist())) for k in range(3)]
    return Curve(
        name="envelope.radial",
        title="Spectral envelope of the depthwise filters",
        x=Axis(name="frequency", unit="cycles/pixel", values=tuple(at.tolist())),
        y=Axis(name="amplitude"),
        series=tuple(lines),
        how=HOW,
    )


def frequency_map() -> Map:
    """Return a map of both signs, with one cell that was not measured."""
    u, v = np.meshgrid(np.arange(-8, 8), np.arange(-8, 8))
    values = np.cos(u / 3) * np.exp(-np.hypot(u, v) / 6)
    values[3, 4] = np.nan
    axis = tuple(range(-8, 8))
    return Map(
        name="kernels.map",
        title="Frequency response of the first layer",
        x=Axis(name="u", unit="pixel", values=axis),
        y=Axis(name="v", unit="pixel", values=axis),
        values=values,
        unit="gain",
        how=HOW,
    )


def table(name: str = "robustness.table") -> Table:
    """Return a table with words, fractions, points, counts and gaps."""
    return Table(
        name=name,
        title="Accuracy by what learns",
        columns=(
            Column(name="learn"),
            Column(name="accuracy", unit="fraction"),
            Column(name="margin", unit="points"),
            Column(name="parameters"),
            Column(name="seconds", unit="s"),
        ),
        rows=(
            ("everything", 0.9134, 0.0, 272474, 61.25),
            ("channels", 0.8977, -1.57, 250112, 58.0),
            ("spatial", None, None, 22362, 55.5),
            ("a <b>bold</b> name", 0.1, -81.3, 1, 0.125),
        ),
        how=HOW,
    )


def kernels() -> Gallery:
    """Return small gray pictures."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 7, 7), dtype=np.uint8)
    pictures = tuple(Picture(image=item, caption=f"filter {k}", data={"peak": 0.1 * k}) for k, item in enumerate(noise))
    return Gallery(name="kernels.pictures", title="Filters of the first layer", pictures=pictures, how=HOW)


def scalar() -> Scalar:
    """Return one fraction with its interval."""
    return Scalar(
        name="bands.clean",
        title="Accuracy on untouched images",
        value=0.9134,
        low=0.8944,
        high=0.9293,
        n=1000,
        unit="fraction",
        how=HOW,
    )


def claims() -> tuple[Judged, ...]:
    """Return a claim of each verdict."""
    shared = {"unit": "points", "smallest": 0.0, "seeds": 3, "interval": "t over 3 seeds"}
    verdicts = (
        ("holds", 12.31, 8.2, 16.4),
        ("fails", -3.72, -5.1, -2.3),
        ("undecided", 0.4, -1.0, 1.8),
        ("not judged at this scale", 2.25, 0.5, 4.0),
        ("not measured", None, None, None),
    )
    return tuple(
        Judged(
            name=f"claim {k}",
            sentence="Learning only the channel mixing costs little accuracy.",
            place="table 1",
            verdict=verdict,
            margin=margin,
            low=low,
            high=high,
            **shared,
        )
        for k, (verdict, margin, low, high) in enumerate(verdicts)
    )


def answer() -> Answer:
    """Return an answer as `passband probe` gives it."""
    head = {
        "title": "resnet18 on photos",
        "command": COMMAND,
        "digest": "3f2a90c1",
        "model": "resnet18 (timm, a1_in1k)",
        "mean and std": "the model's metadata",
        "data": "photos, test, 1,000 images",
        "precision": "float32",
        "versions": {"python": "3.11.2", "torch": "2.15.0", "timm": "1.0.31"},
        "hardware": "two cores",
    }
    return Answer(head, (scalar(), curve(), gallery(), table(), kernels(), frequency_map(), envelope()))


def experiment() -> Answer:
    """Return an answer as an experiment gives it: claims, a table of its rows, results by case."""
    results = [table("rows")]
    for k, case in enumerate(("everything", "channels", "spatial")):
        results += [
            curve(f"{case}/bands.accuracy", 0.1 * k),
            curve(f"{case}/robustness.accuracy", 0.04 + 0.1 * k),
        ]
    head = {"title": "quickstart", "command": "passband quickstart", "notes": ["Three models, one question."]}
    return Answer(head, results, claims())
