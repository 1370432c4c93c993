"""A phantom film as a DICOM file, with the header that a PACS would give it: identifiers, gaps and quirks."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite, uid
from pydicom.dataset import FileMetaDataset

from client.ingest.phantom.encoding import LOSSY, UIDS, put_pixels
from client.ingest.phantom.habits import Archive
from client.ingest.phantom.patients import PhantomStudy
from client.ingest.phantom.people import Hospital, Person
from client.ingest.phantom.storing import store


@dataclass(frozen=True)
class Stored:
    """How one film was filed: what the truth file says besides what is on the film."""

    sop_instance_uid: str
    study_uid: str
    accession: str
    date: datetime.date
    transfer_syntax: str
    photometric: str
    bits_stored: int
    window: str
    lossy: bool
    view_position: str  # as in the header, '' where it is missing
    padding: tuple[int, int]  # columns of padding left and right of the picture


def make_uid(*parts: object) -> str:
    """A unique identifier below 2.25, the same for the same parts."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def write_film(
    path: Path,
    film: PhantomStudy,
    value: np.ndarray,
    archive: Archive,
    person: Person,
    hospital: Hospital,
    root: tuple[object, ...],
    rng: np.random.Generator,
) -> Stored:
    """Write one film to ``path``.

    Args:
        value: display values, float32 [H, W] in [0, 1].
        root: what names site, seed and patient in the unique identifiers.
    """
    syntax = _draw(archive.syntaxes, rng)
    bits = 8 if syntax == "JPEG" else int(_draw(archive.bits, rng))
    window = _draw(archive.windows, rng)
    inverted = bool(rng.random() < archive.inverted)
    date = person.first_day + datetime.timedelta(days=film.day)
    study = make_uid(*root, film.study)
    stored = Stored(
        sop_instance_uid=make_uid(*root, film.study, film.image, "image"),
        study_uid=study,
        accession=accession(hospital, date, root, film.study),
        date=date,
        transfer_syntax=str(UIDS[syntax]),
        photometric="MONOCHROME1" if inverted else "MONOCHROME2",
        bits_stored=bits,
        window=window,
        lossy=syntax in LOSSY,
        view_position="" if rng.random() < archive.viewless else _VIEW[film.view],
        padding=_padding(value, archive, rng),
    )
    dataset = _header(film, stored, archive, person, hospital, root, rng)
    order = ">" if syntax == "big endian" else "<"
    # A stream of its own, so that a film's size changes nothing but its pixels.
    pixels = store(dataset, value, bits, window, inverted, order, np.random.default_rng(int(rng.integers(2**62))))
    black = 2**bits - 1 if inverted else 0
    if any(stored.padding):
        pixels = np.pad(pixels, ((0, 0), stored.padding), constant_values=black)
        dataset.PixelPaddingValue = black
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.LossyImageCompression = "01" if stored.lossy else "00"
    put_pixels(dataset, pixels, syntax)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = UIDS[syntax]
    dataset.file_meta.SourceApplicationEntityTitle = hospital.station
    dcmwrite(path, dataset, enforce_file_format=True)
    return stored


def accession(hospital: Hospital, date: datetime.date, root: tuple[object, ...], study: int) -> str:
    """Accession number of a study: letters of the site, year, and eight digits."""
    digits = int(make_uid(*root, study, "accession").removeprefix("2.25.")) % 10**8
    return f"{hospital.prefix}{date:%y}{digits:08d}"


_VIEW = {"PA": "PA", "AP": "AP", "LATERAL": "LL"}
_SAID = {
    "PA": ("CHEST PA", "XR CHEST PA", "W033 CHEST", "CHEST PA/LAT"),
    "AP": ("CHEST AP PORTABLE", "XR CHEST 1V", "MOBILE CHEST", "CHEST SUPINE"),
    "LATERAL": ("CHEST LATERAL", "XR CHEST LAT", "CHEST PA/LAT"),
}


def _draw(shares: dict[str, float], rng: np.random.Generator) -> str:
    names = list(shares)
    return names[int(rng.choice(len(names), p=np.array([shares[n] for n in names]) / sum(shares.values())))]


def _padding(value: np.ndarray, archive: Archive, rng: np.random.Generator) -> tuple[int, int]:
    if rng.random() >= archive.padded:
        return 0, 0
    left, right = (rng.uniform(0.02, 0.07, 2) * value.shape[1]).astype(int)
    return int(left), int(right)


def _header(
    film: PhantomStudy,
    stored: Stored,
    archive: Archive,
    person: Person,
    hospital: Hospital,
    root: tuple[object, ...],
    rng: np.random.Generator,
) -> Dataset:
    d = Dataset()
    digital = rng.random() < archive.digital
    moment = f"{int(rng.integers(0, 24)):02d}{int(rng.integers(0, 60)):02d}{int(rng.integers(0, 60)):02d}"
    day = f"{stored.date:%Y%m%d}"
    d.SpecificCharacterSet = "ISO_IR 100"
    d.ImageType = ["DERIVED" if stored.lossy else "ORIGINAL", "PRIMARY"]
    d.SOPClassUID = uid.DigitalXRayImageStorageForPresentation if digital else uid.ComputedRadiographyImageStorage
    d.SOPInstanceUID, d.StudyInstanceUID = stored.sop_instance_uid, stored.study_uid
    d.SeriesInstanceUID = make_uid(*root, film.study, film.image, "series")
    d.StudyDate = d.SeriesDate = d.AcquisitionDate = d.ContentDate = day
    d.StudyTime = d.SeriesTime = d.ContentTime = moment
    d.AccessionNumber = stored.accession
    d.Modality = "DX" if digital else "CR"
    if digital:
        d.PresentationIntentType = "FOR PRESENTATION"
    d.Manufacturer = archive.makers[int(rng.integers(len(archive.makers)))]
    d.ManufacturerModelName = f"Model {int(rng.integers(1, 9))}00"
    d.DeviceSerialNumber = f"{int(rng.integers(10**5, 10**6))}"
    d.InstitutionName, d.InstitutionAddress = hospital.name, hospital.address
    d.StationName = hospital.station
    referrer = hospital.referrers[int(rng.integers(len(hospital.referrers)))]
    d.ReferringPhysicianName = f"{referrer}^Dr"
    d.OperatorsName = hospital.radiologists[int(rng.integers(len(hospital.radiologists)))]
    said = _SAID[film.view][int(rng.integers(len(_SAID[film.view])))]
    d.StudyDescription = said
    if rng.random() < 0.7:
        d.SeriesDescription = said
    d.PatientName, d.PatientID = person.dicom_name, person.number
    d.OtherPatientIDs = person.other_number
    d.PatientBirthDate = f"{person.born:%Y%m%d}"
    d.PatientSex = film.sex
    if rng.random() < 0.8:
        d.PatientAge = f"{film.age:03d}Y"
    d.PatientAddress = f"{person.street}, {person.town}"
    d.PatientTelephoneNumbers = person.phone
    # Without a body part, the description still says that this is a chest.
    body = ("CHEST", "CHEST", "CHEST", "THORAX", "")[int(rng.integers(5))]
    if body:
        d.BodyPartExamined = body
    d.KVP = str(int(rng.integers(80, 126)))
    if stored.view_position:
        d.ViewPosition = stored.view_position
    d.StudyID = f"{int(rng.integers(1, 10**5))}"
    d.SeriesNumber, d.InstanceNumber = film.image + 1, 1
    if film.view != "LATERAL" and rng.random() < 0.5:
        d.PatientOrientation = ["L", "F"]
    d.BurnedInAnnotation = "NO"
    block = d.private_block(0x0019, f"{d.Manufacturer.upper()} HDR", create=True)
    block.add_new(0x01, "LO", f"{person.given} {person.family}")
    block.add_new(0x02, "SH", stored.accession)
    block.add_new(0x10, "DS", f"{rng.normal(200, 20):.2f}")
    block = d.private_block(0x0029, "PHANTOM ARCHIVE", create=True)
    block.add_new(0x20, "LT", f"Moved from {hospital.station} for {person.dicom_name} on {day}")
    return d
