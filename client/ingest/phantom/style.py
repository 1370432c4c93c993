"""What makes one hospital's films differ from another's: scanner, habits, and the people who come."""

from __future__ import annotations

from client.ingest.phantom.habits import Archive, Dictation
from models.config import ConfigError, config

PATHOLOGIES = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
)
"""CheXpert classes that the phantom draws and follows in time; it also draws Support Devices."""


@config
class Scanner:
    """Detector, processing and field of view."""

    beam: float = 0.30  # weight of bone against soft tissue; falls with the tube voltage
    scatter: float = 0.10  # scattered over primary radiation; flattens dense regions
    dose: float = 1.0  # relative exposure; noise falls with its root
    blur: float = 0.006  # detector and focus blur, thorax units (1 unit is about 14 cm)
    sharpen: float = 0.3  # unsharp mask of the processing, 0 none
    gamma: float = 1.0  # display curve; above 1 darkens
    toe: float = 0.5  # 0 linear .. 1 strongly S-shaped curve
    window: tuple[float, float] = (2.0, 97.0)  # percentiles of density shown as black and white
    aspect: float = 1.15  # height over width
    field: float = 2.55  # width of the field, thorax units
    collimation: float = 0.3  # share of films with borders in the picture
    marker: float = 0.6  # share of films with a side marker

    def check(self) -> None:
        if not 0.7 <= self.aspect <= 1.5:
            raise ConfigError(f"scanner.aspect: {self.aspect} is outside 0.7 .. 1.5 (height over width)")
        if not 2.0 <= self.field <= 4.0:
            raise ConfigError(f"scanner.field: {self.field} is outside 2 .. 4 thorax units")
        low, high = self.window
        if not 0 <= low < high <= 100:
            raise ConfigError(f"scanner.window: {self.window} must be two rising percentiles in 0 .. 100")
        if self.dose <= 0 or self.blur < 0 or self.scatter < 0:
            raise ConfigError("scanner: dose must be above 0, blur and scatter at least 0")


@config
class Style:
    """One hospital. Shares and prevalences are probabilities per patient or film."""

    name: str
    scanner: Scanner = Scanner()
    archive: Archive = Archive()
    dictation: Dictation = Dictation()
    prevalence: dict[str, float]  # at the first study; findings not named never occur
    devices: float = 0.2  # share of AP films with lines or tubes among patients without findings
    ap: float = 0.3
    lateral: float = 0.0  # share of upright studies with an additional lateral film
    sloppiness: float = 0.3  # positioning errors, 0 .. 1
    female: float = 0.5
    age: tuple[float, float] = (55.0, 18.0)  # mean, standard deviation, years
    habitus: float = 0.35  # mean, 0 thin .. 1 obese
    follow_up: float = 0.5  # chance of one more study after each
    studies: int = 6  # at most, per patient
    gap: float = 30.0  # median days between studies
    hedging: float = 0.1  # share of mild findings that are labelled uncertain
    mildest: float = 0.25  # least severity of a present finding; higher is an easier, graver hospital

    def check(self) -> None:
        unknown = sorted(set(self.prevalence) - set(PATHOLOGIES))
        if unknown:
            raise ConfigError(f"prevalence: unknown finding {unknown[0]!r}; known: {', '.join(PATHOLOGIES)}")
        shares = {f"prevalence.{k}": v for k, v in self.prevalence.items()} | {
            k: getattr(self, k) for k in ("devices", "ap", "lateral", "sloppiness", "female", "follow_up", "hedging")
        }
        for key, value in shares.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{key}: {value} is not a share in 0 .. 1")
        if not 0 < self.mildest < 0.8:
            raise ConfigError(f"mildest: {self.mildest} is not a severity in 0 .. 0.8")
        if self.studies < 1 or self.gap <= 0:
            raise ConfigError("studies must be at least 1 and gap above 0 days")


STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        Style(
            name="north",
            scanner=Scanner(beam=0.26, dose=1.6, blur=0.005, sharpen=0.5, toe=0.55, aspect=1.18, field=2.5, marker=0.8),
            prevalence={
                "Enlarged Cardiomediastinum": 0.05,
                "Cardiomegaly": 0.2,
                "Lung Lesion": 0.24,
                "Edema": 0.08,
                "Consolidation": 0.14,
                "Atelectasis": 0.1,
                "Pneumothorax": 0.1,
                "Pleural Effusion": 0.16,
            },
            ap=0.12,
            lateral=0.12,
            sloppiness=0.15,
            devices=0.2,
            age=(58, 16),
            habitus=0.35,
            follow_up=0.55,
            gap=120,
        ),
        Style(
            name="south",
            archive=Archive(makers=("Kestrel Imaging", "Halcyon Mobile"), inverted=0.55, viewless=0.5, padded=0.3),
            dictation=Dictation(
                headings="bare",
                upper=0.35,
                short=0.45,
                impression_only=0.25,
                unheaded=0.15,
                lines="CRLF",
                key="study_uid",
                encoding="cp1252",
                delimiter=";",
            ),
            scanner=Scanner(
                beam=0.34,
                scatter=0.22,
                dose=0.6,
                blur=0.009,
                sharpen=0.0,
                gamma=0.85,
                toe=0.3,
                window=(1, 99.0),
                aspect=0.95,
                field=2.75,
                collimation=0.6,
                marker=0.4,
            ),
            prevalence={
                "Enlarged Cardiomediastinum": 0.06,
                "Cardiomegaly": 0.26,
                "Lung Lesion": 0.1,
                "Edema": 0.26,
                "Consolidation": 0.22,
                "Atelectasis": 0.16,
                "Pneumothorax": 0.12,
                "Pleural Effusion": 0.3,
            },
            ap=0.85,
            sloppiness=0.7,
            devices=0.55,
            female=0.43,
            age=(66, 13),
            habitus=0.5,
            follow_up=0.72,
            gap=3,
        ),
        Style(
            name="east",
            archive=Archive(makers=("Ostrava Medical Optics",), inverted=0.35, viewless=0.3, digital=0.02),
            dictation=Dictation(headings="mixed", upper=0.05, short=0.3, addenda=0.1, lines="CR", kept_as="folder"),
            scanner=Scanner(
                beam=0.30,
                scatter=0.14,
                dose=0.9,
                blur=0.012,
                sharpen=0.9,
                gamma=1.25,
                toe=0.75,
                window=(1.5, 95),
                aspect=1.22,
                field=2.35,
                collimation=0.15,
                marker=0.55,
            ),
            prevalence={
                "Enlarged Cardiomediastinum": 0.04,
                "Cardiomegaly": 0.13,
                "Lung Lesion": 0.14,
                "Edema": 0.1,
                "Consolidation": 0.28,
                "Atelectasis": 0.1,
                "Pneumothorax": 0.22,
                "Pleural Effusion": 0.16,
            },
            ap=0.35,
            sloppiness=0.4,
            devices=0.3,
            female=0.47,
            age=(47, 19),
            habitus=0.2,
            follow_up=0.5,
            gap=21,
        ),
    )
}
"""Ready-made hospitals: an outpatient clinic (north), intensive care (south), an emergency department
(east).
"""


def style(name: str) -> Style:
    """A ready-made style by name.

    Raises:
        ConfigError: for a name that is not one of STYLES.
    """
    if name not in STYLES:
        raise ConfigError(f"style: no {name!r}; known: {', '.join(STYLES)}")
    return STYLES[name]
