import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from client.ingest.phantom.course import CHANGES, MILD, PROGRESSIONS, STEP, compare
from client.ingest.phantom.findings import Lesion
from client.ingest.phantom.patients import patient, patients
from client.ingest.phantom.style import PATHOLOGIES, STYLES, Style, style
from models.config import ConfigError, build
from models.studies.schema import CHEXPERT, SEXES, VIEWS, Label


@pytest.fixture(scope="module")
def films():
    return {name: list(patients(s, 40, seed=1, size=48)) for name, s in STYLES.items()}


def same(a, b):
    return all(
        np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y
        for x, y in zip(dataclasses.astuple(a), dataclasses.astuple(b))
    )


def test_same_seed_same_films_whatever_was_drawn_before():
    all_at_once = list(patients(STYLES["south"], 6, seed=3, size=64))
    alone = list(patient(STYLES["south"], 4, seed=3, size=64))
    assert len(alone) >= 1
    assert [f.patient for f in alone] == ["P0005"] * len(alone)
    for a, b in zip([f for f in all_at_once if f.patient == "P0005"], alone, strict=True):
        assert same(a, b)


def test_other_seed_or_style_other_films():
    first = next(patients(STYLES["north"], 1, seed=3, size=64))
    for other in (
        next(patients(STYLES["north"], 1, seed=4, size=64)),
        next(patients(dataclasses.replace(STYLES["north"], name="west"), 1, seed=3, size=64)),
    ):
        assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("name", STYLES)
def test_sizes_show_the_same_person(name):
    """A small film is the large one reduced, up to noise and drawing of lines thinner than a pixel."""
    for small, large in zip(patients(STYLES[name], 3, 5, 64), patients(STYLES[name], 3, 5, 256), strict=True):
        assert small.labels == large.labels and small.severity == large.severity
        reduced = cv2.resize(large.pixels, small.pixels.shape[::-1], interpolation=cv2.INTER_AREA)
        r = np.corrcoef(reduced.ravel(), small.pixels.ravel())[0, 1]
        assert r > 0.95, r


@pytest.mark.parametrize("name", STYLES)
def test_pixels(films, name):
    for f in films[name]:
        assert f.pixels.dtype == np.uint8 and min(f.pixels.shape) == 48
        assert f.pixels.std() > 25  # not blank, uses the range
        if f.view != "LATERAL":
            height, width = f.pixels.shape
            lung = f.pixels[int(0.35 * height) : int(0.5 * height), int(0.2 * width) : int(0.33 * width)].mean()
            spine = f.pixels[int(0.35 * height) : int(0.6 * height), int(0.46 * width) : int(0.54 * width)].mean()
            assert spine > lung + 10  # bone bright, air dark, unless the whole lung is full


@pytest.mark.parametrize("name", STYLES)
def test_truth_agrees_with_itself(films, name):
    for f in films[name]:
        assert f.view in VIEWS and f.sex in SEXES and 18 <= f.age <= 110
        assert tuple(f.labels) == CHEXPERT
        assert all(code in Label._value2member_map_ for code in f.labels.values())
        for finding in PATHOLOGIES:
            if finding in f.severity:
                assert MILD <= f.severity[finding] <= 1
                assert f.labels[finding] in (Label.PRESENT, Label.UNCERTAIN)
            elif finding != "Enlarged Cardiomediastinum":
                assert f.labels[finding] == Label.ABSENT
        assert (f.labels["No Finding"] == Label.PRESENT) == (not f.severity)
        if f.labels["Cardiomegaly"] == Label.PRESENT:
            assert f.labels["Enlarged Cardiomediastinum"] == Label.PRESENT
        opacities = [f.labels[o] for o in ("Edema", "Consolidation", "Lung Lesion", "Atelectasis")]
        assert (f.labels["Lung Opacity"] == Label.PRESENT) == (Label.PRESENT in opacities)
        assert (f.labels["Support Devices"] == Label.PRESENT) == bool(f.devices)


@pytest.mark.parametrize("name", STYLES)
def test_progression_is_the_difference_of_severities(films, name):
    for _, group in itertools.groupby(films[name], key=lambda f: f.patient):
        frontal = [f for f in group if f.image == 0]
        assert [f.study for f in frontal] == list(range(len(frontal)))
        assert frontal[0].progression == {} and frontal[0].change == {} and frontal[0].day == 0
        for prior, current in itertools.pairwise(frontal):
            assert current.day > prior.day
            assert set(current.progression) == set(prior.severity) | set(current.severity)
            assert set(current.change) == set(PATHOLOGIES)
            for finding in PATHOLOGIES:
                delta = current.severity.get(finding, 0.0) - prior.severity.get(finding, 0.0)
                word, flag = current.progression.get(finding), current.change[finding]
                assert word is None or word in PROGRESSIONS
                assert flag in CHANGES
                if word == "worsened":
                    assert delta >= STEP and flag in ("worsened", "new")
                elif word == "improved":
                    assert delta <= -STEP and flag in ("improved", "resolved")
                elif word == "stable":
                    assert abs(delta) < 0.1 and flag == "stable"  # nothing lies in the doubtful zone
                else:
                    assert flag == "absent" and delta == 0


def test_compare_of_reversed_pair_is_the_inversion():
    before = {"Edema": Lesion("Edema", 0.8), "Cardiomegaly": Lesion("Cardiomegaly", 0.5)}
    after = {"Edema": Lesion("Edema", 0.3), "Lung Lesion": Lesion("Lung Lesion", 0.4)}
    progression, change = compare(before, after)
    assert progression == {"Edema": "improved", "Cardiomegaly": "improved", "Lung Lesion": "worsened"}
    assert (change["Edema"], change["Cardiomegaly"], change["Lung Lesion"]) == ("improved", "resolved", "new")
    assert change["Pneumothorax"] == "absent"
    inverted = {"improved": "worsened", "worsened": "improved", "stable": "stable"}
    assert compare(after, before)[0] == {f: inverted[w] for f, w in progression.items()}


def test_every_change_happens(films):
    seen = {flag for group in films.values() for f in group for flag in f.change.values()}
    assert seen == set(CHANGES)


def test_prevalence_follows_the_style():
    style = Style(name="x", prevalence={"Edema": 0.6, "Pneumothorax": 0.1}, follow_up=0.0)
    films = list(patients(style, 200, seed=0, size=32))
    share = {f: np.mean([f in film.severity for film in films]) for f in PATHOLOGIES}
    assert abs(share["Edema"] - 0.6) < 0.1 and abs(share["Pneumothorax"] - 0.1) < 0.06
    assert all(share[f] == 0 for f in PATHOLOGIES if f not in style.prevalence)


def test_views_follow_the_style(films):
    ap = {name: np.mean([f.view == "AP" for f in group]) for name, group in films.items()}
    assert ap["south"] > ap["east"] > ap["north"]
    laterals = [f for f in films["north"] if f.view == "LATERAL"]
    assert laterals and all(f.image == 1 for f in laterals)
    assert not [f for f in films["south"] if f.view == "LATERAL"]


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="no 'nort'"):
        style("nort")
    with pytest.raises(ConfigError, match="unknown finding 'Edemia'"):
        build(Style, {"name": "x", "prevalence": {"Edemia": 0.1}})
    with pytest.raises(ConfigError, match=r"prevalence\.Edema: 1\.5"):
        build(Style, {"name": "x", "prevalence": {"Edema": 1.5}})
    with pytest.raises(ConfigError, match="did you mean 'gamma'"):
        build(Style, {"name": "x", "prevalence": {}, "scanner": {"gama": 1.0}})
    with pytest.raises(ValueError, match="32 or more"):
        next(patients(STYLES["north"], 1, 0, 16))
