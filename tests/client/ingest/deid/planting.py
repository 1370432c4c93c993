"""Reports with planted identifiers: what people write, kept apart from what the scrubber looks for."""

from __future__ import annotations

import datetime
import random
import unicodedata


def words(text: str) -> list[str]:
    return text.split()


GIVEN = words(
    "James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth José María François Zoë "
    "Søren Jürgen Ángel "
    "Wei Xiu Hiroshi Yuki Priya Ravi Fatima Mohammed Olga Dmitri Chidi Amara Seán Siobhán Łukasz "
    "Małgorzata Björn "
    "Anh Thuy Jin-Soo Jean-Pierre Ann-Marie D'Andre Kwame Leilani"
)
FAMILY = words(
    "Smith Johnson Williams Garcia Rodriguez Martínez Hernández Nguyen Patel Kowalski Müller "
    "Schröder Großmann Dubois "
    "Lefèvre O'Brien O'Sullivan McDonald MacLeod Fitzgerald Al-Sayed Abdullah Ivanov Petrova Tanaka "
    "Yamamoto Kim Wang "
    "Zhang Okafor Adeyemi Castañeda Peña Núñez Åkesson Ødegård Jørgensen Sigurðsson Wójcik Kołodziej "
    "Novák Horváth "
    "Papadopoulos Rossi Bianchi Esposito Van-Dyke Delacroix Smith-Jones García-López Thistlethwaite "
    "Quigley Zimmerman"
)
WEAK_FAMILY = words("Long May Young White Hill Bell Price Gray Rose Wood Lamb Fields Stone Day King Cook Rich Li Wu Le")

BEFORE = (
    "Heart size is normal. ",
    "The lungs are clear. ",
    "No pleural effusion or pneumothorax is seen. ",
    "There is a 3.5 cm mass in the right upper lobe. ",
    "FINDINGS: 2-view chest. ",
    "",
)
BEHIND = (
    " No acute osseous abnormality.",
    " The cardiomediastinal silhouette is unchanged.",
    " Degenerative changes at T4-T5 measuring 4 mm.",
    "",
)


def plain(text: str) -> str:
    """Without accents, as many systems write names."""
    text = (
        text.replace("ß", "ss")
        .replace("ø", "o")
        .replace("Ø", "O")
        .replace("ł", "l")
        .replace("Ł", "L")
        .replace("ð", "d")
    )
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def day(rng: random.Random) -> datetime.date:
    return datetime.date(1935, 1, 1) + datetime.timedelta(days=rng.randrange(33_000))


def dates(rng: random.Random) -> str:
    """A full date in one of the ways people write it."""
    d = day(rng)
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(d.day % 10 if d.day not in (11, 12, 13) else 0, "th")
    full, short = d.strftime("%B"), d.strftime("%b")
    two = f"{d.year % 100:02d}"
    return rng.choice(
        [
            d.isoformat(),
            d.strftime("%Y%m%d"),
            d.strftime("%Y/%m/%d"),
            d.strftime("%m/%d/%Y"),
            d.strftime("%d/%m/%Y"),
            f"{d.month}/{d.day}/{d.year}",
            f"{d.month}/{d.day}/{two}",
            f"{d.day:02d}.{d.month:02d}.{d.year}",
            f"{d.day}.{d.month}.{two}",
            f"{d.month:02d}-{d.day:02d}-{d.year}",
            f"{d.month}-{d.day}-{two}",
            f"{full} {d.day}, {d.year}",
            f"{full} {d.day}{suffix}, {d.year}",
            f"{full} {d.day}{suffix} {d.year}",
            f"{d.day} {full} {d.year}",
            f"{d.day}{suffix} {full} {d.year}",
            f"{d.day}{suffix} of {full}, {d.year}",
            f"{short} {d.day}, {d.year}",
            f"{short}. {d.day}, {d.year}",
            f"{d.day}-{short}-{d.year}",
            f"{d.day:02d}{short.upper()}{d.year}",
            f"{d.day}-{short}-{two}",
            f"{d.day} {short} {d.year}",
            f"{full} {d.year}",
            f"{short} {d.year}",
            f"{d.month}/{d.year}",
        ]
    )


DATE_FRAMES = (
    "Comparison is made to {}.",
    "Compared with the study of {}.",
    "Exam date: {}",
    "Seen on {}.",
    "Film from {}",
    "{}",
)


def times(rng: random.Random) -> str:
    hour, minute = rng.randrange(24), rng.randrange(60)
    half, noon = (hour - 1) % 12 + 1, "am" if hour < 12 else "pm"
    return rng.choice(
        [
            f"{hour:02d}:{minute:02d}",
            f"{half}:{minute:02d} {noon}",
            f"{half}:{minute:02d}{noon.upper()}",
            f"{half}:{minute:02d} {noon[0]}.m.",
            f"{half} {noon}",
            f"{hour:02d}{minute:02d} hours",
            f"{hour:02d}{minute:02d} hrs",
            f"{hour:02d}:{minute:02d}:{rng.randrange(60):02d}",
        ]
    )


TIME_FRAMES = ("Results were called at {}.", "Image obtained at {}.", "Read at {}", "at {} today.")


def digits(rng: random.Random, count: int) -> str:
    return str(rng.randrange(1, 10)) + "".join(str(rng.randrange(10)) for _ in range(count - 1))


def phones(rng: random.Random) -> str:
    a, b, c = digits(rng, 3), digits(rng, 3), digits(rng, 4)
    return rng.choice(
        [
            f"({a}) {b}-{c}",
            f"{a}-{b}-{c}",
            f"{a}.{b}.{c}",
            f"{a} {b} {c}",
            f"1-{a}-{b}-{c}",
            f"+1 {a} {b} {c}",
            f"+44 20 {c} {digits(rng, 4)}",
            f"+49 30 {digits(rng, 7)}",
            f"020 {c} {digits(rng, 4)}",
            f"{b}-{c}",
            f"x{digits(rng, 4)}",
            f"ext. {digits(rng, 4)}",
            f"pager {digits(rng, 5)}",
            f"pager #{digits(rng, 4)}",
            f"fax {a}-{b}-{c}",
            f"beeper {digits(rng, 4)}",
        ]
    )


PHONE_FRAMES = (
    "Please call {} with questions.",
    "Discussed with the team at {}.",
    "Contact: {}",
    "Reachable on {}.",
)


def numbers(rng: random.Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(3))
    return rng.choice(
        [
            f"MRN {digits(rng, 7)}",
            f"MRN: {digits(rng, 8)}",
            f"MRN# {digits(rng, 6)}",
            f"medical record number {digits(rng, 7)}",
            f"Accession {letters}{digits(rng, 8)}",
            f"Accession number: {digits(rng, 10)}",
            f"Acc# {letters}-{digits(rng, 4)}-{digits(rng, 5)}",
            f"{letters[0]}{digits(rng, 7)}",
            f"SSN {digits(rng, 3)}-{digits(rng, 2)}-{digits(rng, 4)}",
            f"Patient ID: {letters}{digits(rng, 4)}",
            f"{digits(rng, 9)}",
            f"CXR-20{digits(rng, 2)}-{digits(rng, 5)}",
            f"NHS number {digits(rng, 3)} {digits(rng, 3)} {digits(rng, 4)}",
            f"case #{digits(rng, 5)}",
            f"Order: {digits(rng, 8)}",
            f"account {digits(rng, 9)}",
            f"visit number {digits(rng, 8)}",
            f"1.2.840.{digits(rng, 5)}.{digits(rng, 3)}.{digits(rng, 8)}",
        ]
    )


NUMBER_FRAMES = ("{}", "Patient with {}.", "{} was reviewed.", "See {}.")


def links(rng: random.Random) -> str:
    name = plain(rng.choice(FAMILY)).lower().replace("'", "")
    return rng.choice(
        [
            f"{name}@hospital.org",
            f"j.{name}@rad.uni-heidelberg.de",
            f"{name}_{digits(rng, 2)}@mail.nhs.uk",
            f"https://pacs.{name}.org/view?id={digits(rng, 5)}",
            f"www.{name}radiology.com",
            f"http://10.1.{rng.randrange(255)}.{rng.randrange(255)}/study/{digits(rng, 4)}",
            f"{name}imaging.com",
        ]
    )


LINK_FRAMES = ("Contact {} for images.", "Images at {} .", "Sent to {}.")


def addresses(rng: random.Random) -> str:
    street = rng.choice(
        ["Oak", "Maple", "Washington", "Church", "North Main", "Martin Luther King", "Elm", "5th", "Victoria"]
    )
    kind = rng.choice(["Street", "St.", "Ave", "Avenue", "Road", "Rd", "Lane", "Drive", "Blvd"])
    return rng.choice(
        [
            f"{rng.randrange(1, 9999)} {street} {kind}",
            f"{rng.randrange(1, 9999)} {street} {kind}, Apt {rng.randrange(1, 99)}",
            f"P.O. Box {rng.randrange(10, 9999)}",
            f"Springfield, IL {digits(rng, 5)}",
            f"SW{rng.randrange(1, 20)} {rng.randrange(1, 9)}AB",
            f"Hauptstraße {rng.randrange(1, 200)}",
            f"{rng.randrange(1, 200)} rue de la Paix",
        ]
    )


ADDRESS_FRAMES = ("Patient lives at {}.", "Address: {}", "Sent to {}.", "Referred from {}.")


def hospitals(rng: random.Random) -> str:
    return rng.choice(
        [
            "Mercy Hospital",
            "St. Vincent's Hospital",
            "Mount Sinai Medical Center",
            "Johns Hopkins Hospital",
            "Guy's and St Thomas' NHS Foundation Trust",
            "University of Springfield Medical Center",
            "Hospital of Saint Raphael",
            "Lakeside Clinic",
            "Klinikum Großhadern",
            "Northside Imaging Center",
            "Cedars Memorial Hospital",
            "Riverside Nursing Home",
        ]
    )


HOSPITAL_FRAMES = (
    "Transferred from {}.",
    "Outside film from {} is available.",
    "Performed at {}.",
    "{} is the referring site.",
)


def cued_names(rng: random.Random) -> tuple[str, list[str]]:
    """(text, the words that must go): staff who are not in the header, behind or before a cue."""
    given, family = rng.choice(GIVEN), rng.choice([*FAMILY, *WEAK_FAMILY])
    initial = given[0]
    frames = [
        (f"Findings were discussed with Dr. {family} by telephone.", [family]),
        (f"Discussed with Dr {given} {family} at the time of reading.", [given, family]),
        (f"Dr. {initial}. {family} was notified.", [family]),
        (f"Dictated by: {given} {family}, MD", [given, family]),
        (f"DICTATED BY: DR. {family.upper()}", [family.upper()]),
        (f"Electronically signed by {given} {family}, M.D.", [given, family]),
        (f"Referring physician: Dr. {given} {family}", [given, family]),
        (f"Attending: {family}, {given}", [given, family]),
        (f"These findings were communicated to Nurse {family}.", [family]),
        (f"Interpreted by: {given} {initial}. {family} M.D.", [given, family]),
        (f"Drs. {family} and Kovacs were present.", [family, "Kovacs"]),
        (f"Transcribed by {given} {family}.", [given, family]),
        (f"Mr. {family} has a history of falls.", [family]),
        (f"Mrs {family} was seen in clinic.", [family]),
        (f"Reviewed by Prof. {family}.", [family]),
        (f"dr. {family.lower()} was informed.", [family.lower()]),
    ]
    return rng.choice(frames)


def header_names(rng: random.Random) -> tuple[str, str, list[str]]:
    """(PN of the header, text, the words that must go) for a name that is never a common word."""
    given, middle, family = rng.choice(GIVEN), rng.choice("ABCDEFGHJKLMNPRSTW"), rng.choice(FAMILY)
    name = f"{family}^{given}^{middle}"
    if rng.random() < 0.3:
        name = plain(name).upper()
    style = rng.choice([str, str, str.upper, str.lower, plain, lambda t: plain(t).upper()])
    g, f = style(given), style(family)
    frames = [
        (f"{g} {f} is a pleasant patient.", [g, f]),
        (f"{f}, {g}: chest film.", [g, f]),
        (f"Patient {g} {middle}. {f} was imaged.", [g, f]),
        (f"the film of {f} was lost", [f]),
        (f"{f}'s radiograph is unchanged", [f]),
        (f"as {g} reports pain", [g]),
        (f"[{f}/{g}] portable", [g, f]),
        (f"file {f}_{g}.dcm", [g, f]),
        (f"{f.replace('-', ' ')} seen", [f.replace("-", " ")]),
        (f"{f}{g} again", [f + g]),
    ]
    text, gone = rng.choice(frames)
    return name, text, gone


def weak_names(rng: random.Random) -> tuple[str, str, list[str]]:
    """The same for a family name that is also a word, standing where a name stands."""
    given, family = rng.choice(GIVEN), rng.choice(WEAK_FAMILY)
    frames = [
        (f"The patient {given} {family} was imaged.", [given, family]),
        (f"Seen today, {family}, {given}, for cough.", [given, family]),
        (f"Compared with the film of Mr. {family}.", [family]),
        (f"Reported to Ms {family} today.", [family]),
        (f"the wishes of {family} are known", [family]),
        (f"{given.upper()} {family.upper()} WAS SEEN.", [given.upper(), family.upper()]),
    ]
    text, gone = rng.choice(frames)
    return f"{family}^{given}", text, gone


PLANTED = {
    "DATE": (dates, DATE_FRAMES),
    "TIME": (times, TIME_FRAMES),
    "PHONE": (phones, PHONE_FRAMES),
    "ID": (numbers, NUMBER_FRAMES),
    "LINK": (links, LINK_FRAMES),
    "ADDRESS": (addresses, ADDRESS_FRAMES),
    "PLACE": (hospitals, HOSPITAL_FRAMES),
}


def surround(rng: random.Random, text: str, shout: bool) -> str:
    """The planted sentence within a report."""
    report = rng.choice(BEFORE) + text + rng.choice(BEHIND)
    return report.upper() if shout else report
