"""Published detectors, quoted for reference: AP on WIDER FACE val as their authors report it, which
is not comparable to a proxy's."""

from __future__ import annotations

from dataclasses import dataclass

from trials.record import Cost


@dataclass(frozen=True)
class Published:
    name: str
    params: int
    gmacs: float
    """At the image size it was published for; all layers, in thop's convention."""
    ap: tuple[float, float, float]
    """easy, medium, hard, in percent."""
    pixels: int = 640 * 640
    """Of the image that `gmacs` refers to."""
    label: str = "middle right"
    """Position of its name relative to its marker."""

    @property
    def short(self) -> str:
        """Its name as shown beside its marker."""
        return self.name.removeprefix("RetinaFace ")

    @property
    def cost(self) -> Cost:
        """At 640×640: MACs grow with the number of pixels."""
        return Cost(params=self.params, macs=round(self.gmacs * 1e9 * 640 * 640 / self.pixels))

    @property
    def accuracy_score(self) -> float:
        return sum(self.ap) / 300


_VGA = 640 * 480
PUBLISHED = (  # RetinaFace (Deng et al. 2020), YuNet (Wu et al. 2023), SCRFD (Guo et al. 2022)
    Published("RetinaFace mobile0.25", 426_608, 1.0297, (90.70, 88.16, 73.82), label="top center"),
    Published(
        "RetinaFace ResNet-50", 27_293_600, 44.66, (94.22, 93.25, 89.00), label="bottom left"
    ),
    Published(
        "RetinaFace ResNet-18 P2–P6",
        11_636_448,
        9.998,
        (74.35, 71.65, 68.15),
        480 * 480,
        label="bottom left",
    ),
    Published("YuNet-s", 54_608, 0.3785, (88.7, 87.1, 76.8), label="bottom left"),
    Published("YuNet-n", 75_856, 0.5854, (89.2, 88.3, 81.1), label="top left"),
    Published("SCRFD 0.5G", 572_741, 0.517, (90.57, 88.12, 68.51), _VGA, label="bottom right"),
    Published("SCRFD 2.5G", 671_761, 2.537, (93.78, 92.16, 77.87), _VGA),
    Published("SCRFD 10G", 3_860_225, 9.995, (95.16, 93.87, 83.05), _VGA, label="middle left"),
    Published("SCRFD 34G", 9_802_737, 34.285, (96.06, 94.92, 85.29), _VGA, label="top left"),
)
QUOTED_NOTE = (
    "published detectors are quoted: trained in full on all of WIDER FACE train, AP on "
    "its val images"
)
