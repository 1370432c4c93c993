"""Variants that differ from their report in one fact."""

import random
import re
from collections import Counter

import pytest

from models.language import edits
from models.language.attributes import length_pattern
from models.language.draft import Draft, again, draft, line
from models.language.labeller import label_report
from models.language.sections import Sections
from models.language.variants import KINDS, Refused, Variant, build_variants, make_variant, targets
from models.language.vocabulary import load
from models.studies.schema import CHEXPERT, Label
from tests.models.language.openi import reports, sections

REPORT = (
    "FINDINGS: Small left pleural effusion. This measures 2 cm. Mild cardiomegaly. No pneumothorax. 8 mm nodule in the "
    "right upper lobe. Right internal jugular central venous catheter with its tip in the SVC.\n"
    "IMPRESSION: 1. Small left effusion. 2. Mild cardiomegaly."
)


def make(report, kind, finding, seed=0, **more):
    return make_variant(draft(report), kind, finding, random.Random(seed), **more)


def text(variant):
    return f"{variant.sections.findings or ''} / {variant.sections.impression or ''}"


def test_targets_are_present_with_certainty():
    assert targets(draft(REPORT)) == ["Cardiomegaly", "Lung Lesion", "Pleural Effusion", "Support Devices"]
    assert targets(draft("Possible effusion. No edema.")) == []


def test_omitted_takes_what_goes_on_about_it():
    made = make(REPORT, "omitted", "Pleural Effusion")
    assert "effusion" not in text(made).lower() and "2 cm" not in text(made)
    assert label_report(made.sections)["Pleural Effusion"] is Label.UNMENTIONED
    assert [change.after for change in made.changes] == [None, None, None]


def test_negated_stands_where_the_finding_stood():
    made = make(REPORT, "negated", "Pleural Effusion")
    denial = made.sections.findings.split(".")[0]
    assert made.rule in load("wording")["denials"]["train"] and "pleural effusion" in denial.lower()
    assert label_report(made.sections)["Pleural Effusion"] is Label.ABSENT
    assert "effusion" not in made.sections.impression.lower()


def test_wordings_of_training_and_test_are_apart():
    rules = {
        kind: {make(REPORT, "negated", "Pleural Effusion", seed, wordings=kind).rule for seed in range(60)}
        for kind in ("train", "test")
    }
    assert len(rules["train"]) >= 10 and len(rules["test"]) >= 5 and not rules["train"] & rules["test"]


def test_entity_names_what_nobody_spoke_of_and_drops_the_summary():
    report = "FINDINGS: Small left effusion. Lungs are clear.\nIMPRESSION: No acute disease. Small left effusion."
    before = label_report(report)
    for seed in range(20):
        made = make(report, "entity", "Pleural Effusion", seed)
        labels = label_report(made.sections)
        new = [name for name in CHEXPERT[1:] if labels[name] is Label.PRESENT]
        assert len(new) == 1 and before[new[0]] is Label.UNMENTIONED and labels["Pleural Effusion"] is Label.UNMENTIONED
        assert "clear" not in text(made) and "acute" not in text(made)


def test_laterality_changes_every_repeat():
    made = make(REPORT, "laterality", "Pleural Effusion")
    assert made.sections.findings.startswith("Small right pleural effusion.")
    assert made.sections.impression.startswith("Small right effusion.")
    assert "right upper lobe" in text(made) and "Right internal jugular" in text(made)  # of other findings


def test_severity_changes_every_repeat():
    made = make(REPORT, "severity", "Cardiomegaly")
    assert text(made).lower().count("severe cardiomegaly") == 2 and "mild" not in text(made).lower()
    assert "Small left pleural effusion" in text(made)


def test_measurement():
    made = make(REPORT, "measurement", "Lung Lesion")
    assert "8 mm" not in text(made) and "2 cm" in text(made) and re.search(r"\d+ mm nodule", text(made))


def test_device():
    for seed in range(10):
        made = make(REPORT, "device", "Support Devices", seed)
        assert made.rule in ("device renamed", "device moved") and len(made.changes) == 1
        assert label_report(made.sections) == label_report(draft(REPORT).sections())


@pytest.mark.parametrize(
    ("report", "kind", "finding", "reason"),
    [
        ("Right middle lobe atelectasis.", "laterality", "Atelectasis", "one_sided"),
        ("Left lingular consolidation.", "laterality", "Consolidation", "one_sided"),
        ("Opacity over the left hemidiaphragm.", "laterality", "Lung Opacity", "one_sided"),
        ("Left-sided pacemaker with lead in the right atrium.", "laterality", "Support Devices", "one_sided"),
        ("Cardiomegaly, left greater than right.", "laterality", "Cardiomegaly", "finding_without_side"),
        ("Bilateral effusions.", "laterality", "Pleural Effusion", "no_side"),
        ("Left effusion and right nodule with edema and mass.", "laterality", "Edema", "finding_without_side"),
        ("Pleural effusion.", "severity", "Pleural Effusion", "no_degree"),
        ("Effusion is slightly increased.", "severity", "Pleural Effusion", "degree_of_something_else"),
        ("Pleural effusion.", "measurement", "Pleural Effusion", "no_measurement"),
        ("Pleural effusion.", "device", "Pleural Effusion", "no_device"),
        ("Vagal stimulator over the chest.", "device", "Support Devices", "device_unknown"),
        ("Pleural effusion.", "omitted", "Pleural Effusion", "nothing_left"),
        ("Possible effusion.", "omitted", "Pleural Effusion", "not_present"),
        ("No effusion.", "laterality", "Pleural Effusion", "not_present"),
        ("Large left hydropneumothorax. Normal heart.", "omitted", "Pneumothorax", "another_finding_changed"),
    ],
)
def test_what_cannot_be_changed_alone_is_refused(report, kind, finding, reason):
    assert make(report, kind, finding) == Refused(kind, finding, reason)


def test_the_side_of_another_finding_in_the_sentence_is_kept():
    """The blind spot of a check by labels alone: 14 labels stay the same when both sides are exchanged."""
    report = "Left effusion is adjacent to right nodule. Heart normal."
    made = make(report, "laterality", "Pleural Effusion")
    assert isinstance(made, Refused) or "right nodule" in text(made)


def test_a_degree_in_one_place_only_contradicts_and_is_refused():
    """Findings say small, impression large: exchanged, they would still contradict the original half-way."""
    report = "FINDINGS: Small left effusion.\nIMPRESSION: Large left effusion."
    assert isinstance(make(report, "severity", "Pleural Effusion"), Refused)


def test_words_about_one_of_two_are_cut():
    one = line("findings", "Opacity in the left base, atelectasis or scarring.")
    assert edits.cut(one, "Atelectasis") == "Opacity in the left base, scarring."
    assert edits.cut(line("findings", "Small effusion."), "Pleural Effusion") is None
    made = make("Opacity in the left base, compatible with atelectasis. No edema.", "negated", "Atelectasis")
    assert isinstance(made, Variant) and "Opacity in the left base" in text(made)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Left effusion.", "Right effusion."),
        ("Right-sided effusion, right greater than left.", "Left-sided effusion, left greater than right."),
        ("LLL opacity.", "RLL opacity."),
        ("RULF opacity.", "LULF opacity."),
        ("LEFT EFFUSION.", "RIGHT EFFUSION."),
        ("Effusion.", None),
        ("Upright film.", None),
    ],
)
def test_mirror(before, after):
    assert edits.mirror(line("findings", before)) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("A small effusion.", "A large effusion."),
        ("There is a moderate effusion.", "There is a large effusion."),
        ("There is an extensive effusion.", "There is a subtle effusion."),
        ("Minimal effusion.", "Marked effusion."),
        ("Effusion.", None),
    ],
)
def test_degree(before, after):
    assert edits.degree(line("findings", before), "Pleural Effusion", True) == after


def test_every_degree_has_another():
    table = load("attributes")
    for word in [w for pair in table["degrees"] for w in pair] + list(table["either"]):
        changed = edits.degree(line("findings", f"{word} effusion"), "Pleural Effusion", True)
        assert changed and changed.split()[0] != word


@pytest.mark.parametrize(
    ("before", "factor", "after"),
    [
        ("8 mm nodule", 2.0, "16 mm nodule"),
        ("2.5 cm mass", 0.5, "1.2 cm mass"),
        ("22 x 14 mm mass", 2.0, "44 x 28 mm mass"),
        ("8mm nodule", 2.5, "20mm nodule"),
        ("1 mm nodule", 0.4, None),
        ("T12 fracture at 3 levels", 2.0, None),
    ],
)
def test_measurements(before, factor, after):
    assert edits.measurement(before, factor) == after


def test_the_same_seed_the_same_variants_and_all_kinds():
    first, second = build_variants(REPORT, 4), build_variants(REPORT, 4)
    assert first == second and [v.kind for v in first] == list(KINDS)
    assert any(build_variants(REPORT, seed) != first for seed in range(5, 9))
    only = build_variants(REPORT, 4, kinds=("severity",))
    assert [v.kind for v in only] == ["severity"] and only[0] == next(v for v in first if v.kind == "severity")


def test_what_was_changed_is_told():
    for variant in build_variants(REPORT, 2):
        before, after = Counter(), Counter()
        for part, out in ((variant.original, before), (variant.sections, after)):
            for one in draft(part, split=False).lines:
                out[one.section, one.text] += 1
        gone, new = before - after, after - before
        assert gone == Counter((c.section, c.before) for c in variant.changes if c.before)
        assert new == Counter((c.section, c.after) for c in variant.changes if c.after)
        assert variant.finding in targets(draft(REPORT))


def test_what_cannot_be_asked_is_refused():
    for kind, finding in (("swapped", "Edema"), ("omitted", "Fever"), ("omitted", "No Finding")):
        with pytest.raises(ValueError, match="kinds are"):
            make(REPORT, kind, finding)


@pytest.mark.parametrize(
    "report", ["", "FINDINGS:\nIMPRESSION:", "\0\x01", "\U0001fac1", "No effusion.", "Normal chest."]
)
def test_a_report_without_a_finding_has_no_variants(report):
    assert build_variants(report, 1) == []


def test_a_draft_written_down_is_read_as_it_was():
    whole = draft(REPORT)
    assert again(whole).said() == whole.said() and again(whole).attributes() == whole.attributes()
    assert Draft(()).sections() == Sections()


def check(variant: Variant) -> None:
    """The claim of every variant, by the labeller on its written text and by words of its own."""
    before, after = label_report(variant.original), label_report(variant.sections)
    same = [name for name in CHEXPERT[1:] if name != variant.finding]
    wanted = {"omitted": Label.UNMENTIONED, "entity": Label.UNMENTIONED, "negated": Label.ABSENT}
    assert after[variant.finding] is wanted.get(variant.kind, Label.PRESENT)
    differ = {name for name in same if before[name] != after[name]}
    assert len(differ) == (variant.kind == "entity")
    one, two = (f"{s.findings or ''} {s.impression or ''}".lower() for s in (variant.original, variant.sections))
    if variant.kind == "laterality":
        count = [Counter(re.findall(r"\b(?:left|right|lower|upper|middle|lingula)\b", t)) for t in (one, two)]
        assert sum(count[0].values()) == sum(count[1].values()) and "middle" not in {
            w for c in variant.changes for w in (c.before or "").lower().split()
        }
    if variant.kind == "measurement":
        assert length_pattern().findall(one) != length_pattern().findall(two)


@pytest.mark.real
def test_real_variants(dev_data):
    """Nine of ten reports give a clean omitted and negated pair for a target by lot; every variant holds its claim."""
    pairs = tried = built = made = 0
    for number, row in enumerate(reports(dev_data)[::3]):
        whole = draft(sections(row))
        names = targets(whole)
        if not names:
            continue
        rng = random.Random(number)
        finding = rng.choice(names)
        tried += 1
        pairs += all(isinstance(make_variant(whole, kind, finding, rng), Variant) for kind in ("omitted", "negated"))
        if number % 3:
            continue
        built += 1
        for variant in build_variants(whole, number):
            check(variant)
            made += 1
    assert tried > 250 and pairs / tried >= 0.85 and made > 3 * built > 240
