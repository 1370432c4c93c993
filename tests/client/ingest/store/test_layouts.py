from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.ingest.layouts import BadRow, Labels, Layout, LayoutError, Manifest, load_layout
from models.config import ConfigError, build
from models.studies.schema import CHEXPERT

Folder = Callable[..., Path]
SHIPPED = ["chestxray14", "covid-chestxray", "covid-cxr", "image-folder", "kermany", "nih64"]


def layout(**changes: Any) -> Layout:
    values = {
        "name": "set",
        "csv": ["manifest.csv"],
        "image": ["{image}"],
        "patient": "{patient}",
        "source": {"value": "here"},
    }
    return build(Layout, {**values, **changes}, "layout")


def values(manifest: Manifest, number: int = 0) -> dict[str, Any]:
    row = manifest.rows[number]
    return manifest.values(row, manifest.image_path(row)[0])


def labels(rules: dict[str, Any], row: dict[str, str]) -> dict[str, int]:
    made = build(Labels, rules, "labels")
    found = made.of(row, made.columns_in(list(row)))
    return {name.removeprefix("label:"): code for name, code in found.items()}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_layouts_load_and_name_known_findings(name: str) -> None:
    shipped = load_layout(name)
    assert shipped.name == name and shipped.about
    assert not any("note" in column.lower() for column in shipped.columns())


def test_shipped_list_is_whole() -> None:
    with pytest.raises(ConfigError, match=f"did you mean 'kermany'.*{', '.join(SHIPPED)}"):
        load_layout("kermani")


def test_a_layout_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ncsv: [a.csv]\nimage: ['{i}']\npatient: '{p}'\nsource: {value: x}\n")
    assert load_layout(path).name == "mine"
    path.write_text("name: mine\ncsv: [a.csv]\nimage: ['{i}']\npatiant: '{p}'\nsource: {value: x}\n")
    with pytest.raises(ConfigError, match="did you mean 'patient'"):
        load_layout(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"labels": {"column": "a", "map": {"x": "Edema"}, "headers": True}},
            "column and headers contradict",
        ),
        ({"labels": {"column": "a"}}, "column and map belong together"),
        ({"labels": {"columns": {"edema, bad": "a"}}}, "not allowed"),
        ({"labels": {"column": "a", "map": {"x": {"Edema": "yes"}}}}, "present"),
        ({"view": {"column": "v", "value": "PA"}}, "either column or value"),
        ({"view": {"value": "PA", "otherwise": "AP"}}, "need column"),
        ({"rows": [{"column": "a"}]}, "either equals or differs"),
        ({"report": {"deidentified": False, "findings": "text"}}, "without identifiers"),
        ({"csv": []}, "at least one"),
        ({"lables": {}}, "did you mean 'labels'"),
        ({"day": {"column": "d", "kind": "weeks"}}, "days"),
    ],
)
def test_contradictions_in_a_layout(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        layout(**change)


def test_missing_folder_csv_and_column(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no such folder"):
        Manifest(tmp_path / "nowhere", layout())
    with pytest.raises(LayoutError, match=r"no manifest\.csv there"):
        Manifest(tmp_path, layout())
    path = folder([{"image": "a.png", "Patient ID": "1"}])
    with pytest.raises(LayoutError, match=r"no column 'patient'.*nearest is 'Patient ID'.*image, Patient ID"):
        Manifest(path, layout())
    (path / "manifest.csv").write_bytes(b"image,patient\n\xff\xfe,1\n")
    with pytest.raises(LayoutError, match="UTF-8"):
        Manifest(path, layout())
    (path / "manifest.csv").write_text("")
    with pytest.raises(LayoutError, match="no header"):
        Manifest(path, layout())


def test_image_is_found_in_the_first_place_that_has_it(folder: Folder) -> None:
    names = ["a.png", "images/b.png", "images_002/images/c.png", "gone.png"]
    path = folder([{"image": n, "patient": 1, "absent": n == "gone.png"} for n in names])
    rows = [{"image": Path(n).name, "patient": "1"} for n in names]
    manifest = Manifest(path, layout(image=["{image}", "images/{image}", "images_*/images/{image}"]))
    assert [manifest.image_path(row) for row in rows] == [
        ("a.png", f"{path}/a.png"),
        ("b.png", f"{path}/images/b.png"),
        ("c.png", f"{path}/images_002/images/c.png"),
        ("gone.png", None),
    ]


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.png", "a/../../b.png", "", "..", "a\0b"])
def test_a_path_never_leaves_the_folder(folder: Folder, name: str) -> None:
    manifest = Manifest(folder([{"image": "a.png", "patient": 1}]), layout())
    with pytest.raises(BadRow):
        manifest.image_path({"image": name, "patient": "1"})


def test_facts_of_a_row(folder: Folder) -> None:
    path = folder(
        [
            {
                "image": "a.png",
                "patient": " 7 ",
                "v": "L",
                "s": "M",
                "a": "056Y",
                "d": "3.0",
                "o": "2",
                "site": "X",
            },
            {"image": "b.png", "patient": "7", "v": "", "s": "", "a": "18M", "d": "", "o": "", "site": "Y"},
            {
                "image": "c.png",
                "patient": "7",
                "v": "swimmer",
                "s": "?",
                "a": "old",
                "d": "x",
                "o": "",
                "site": "Z",
            },
        ]
    )
    manifest = Manifest(
        path,
        layout(
            view={"column": "v", "map": {"L": "LATERAL"}},
            sex={"column": "s", "otherwise": "UNKNOWN"},
            age="a",
            day={"column": "d"},
            order="o",
            source={"column": "site", "map": {"X": "first", "Y": "second"}},
        ),
    )
    first, second = values(manifest, 0), values(manifest, 1)
    facts = ("patient_id", "study_id", "view", "sex", "age_band", "day", "order", "source")
    assert [first[f] for f in facts] == ["7", "day 3 order 2", "LATERAL", "M", "50-59", 3, 2, "first"]
    assert [second[f] for f in facts] == [
        "7", "image b.png", "UNKNOWN", "UNKNOWN", "00-09", None, None, "second",
    ]  # fmt: skip
    with pytest.raises(BadRow, match="d"):
        values(manifest, 2)


def test_values_that_are_not_allowed_make_a_bad_row(folder: Folder) -> None:
    path = folder([{"image": "a.png", "patient": "1", "v": "swimmer", "site": "Z", "d": "2020-13-01", "none": ""}])
    for change in (
        {"view": {"column": "v"}},
        {"source": {"column": "site", "map": {"X": "first"}}},
        {"source": {"column": "none"}},
        {"day": {"column": "d", "kind": "date"}},
        {"order": "site"},
        {"patient": "{none}"},
    ):
        with pytest.raises(BadRow):
            values(Manifest(path, layout(**change)))
    assert values(Manifest(path, layout(view={"column": "v", "otherwise": "UNKNOWN"})))["view"] == "UNKNOWN"


def test_dates_become_dates_and_studies_of_a_day_are_one(folder: Folder) -> None:
    rows = [
        {"image": f"{i}.png", "patient": "1", "d": d} for i, d in enumerate(["01.02.2020", "01.02.2020", "02.02.2020"])
    ]
    manifest = Manifest(folder(rows), layout(day={"column": "d", "kind": "date", "format": "%d.%m.%Y"}))
    found = [values(manifest, i) for i in range(3)]
    assert found[0]["date"].isoformat() == "2020-02-01" and found[0]["day"] is None
    assert found[0]["study_id"] == found[1]["study_id"] != found[2]["study_id"]


def test_row_conditions_flags_report_and_optional_columns(folder: Folder) -> None:
    rows = [
        {"image": "a.png", "patient": "1", "m": "X-ray", "mark": "yes", "text": " Clear lungs. "},
        {"image": "b.png", "patient": "1", "m": "CT", "mark": "no", "text": ""},
    ]
    manifest = Manifest(
        folder(rows),
        layout(
            rows=[{"column": "m", "differs": ["CT"]}],
            flags={"order-mark": {"column": "mark", "equals": ["yes"]}},
            report={"deidentified": True, "findings": "text"},
            sex={"column": "not there"},
            optional=["not there"],
        ),
    )
    assert [number for number, _ in manifest.kept()] == [2]
    assert values(manifest, 0)["flags"] == "order-mark" and values(manifest, 1)["flags"] is None
    assert values(manifest, 0)["findings"] == "Clear lungs." and values(manifest, 1)["findings"] is None
    assert values(manifest, 0)["sex"] == "UNKNOWN"


def test_one_column_with_terms() -> None:
    rules = {
        "column": "f",
        "separator": "|",
        "others": "absent",
        "map": {"Mass": "Lung Lesion", "Nodule": "Lung Lesion", "Edema": "Edema", "No Finding": "No Finding"},
    }
    assert labels(rules, {"f": "Mass|Nodule"}) == {"Lung Lesion": 1, "Edema": 0, "No Finding": 0}
    assert labels(rules, {"f": "No Finding"}) == {"Lung Lesion": 0, "Edema": 0, "No Finding": 1}
    assert labels(rules, {"f": ""}) == {}
    with pytest.raises(BadRow):
        labels(rules, {"f": "Edema|Cyst"})
    assert labels({**rules, "unmapped": "ignore"}, {"f": "Edema|Cyst"})["Edema"] == 1
    assert labels({**rules, "unmapped": "ignore"}, {"f": "Cyst"}) == {}
    assert labels({**rules, "others": "unmentioned"}, {"f": "Edema"}) == {"Edema": 1}


def test_terms_that_contradict_the_stronger_wins() -> None:
    rules = {
        "column": "f",
        "separator": "/",
        "map": {"a": {"Edema": "absent"}, "b": {"Edema": "uncertain"}, "c": {"Edema": "present"}},
    }
    assert [labels(rules, {"f": cell})["Edema"] for cell in ("a", "a/b", "b/c/a")] == [0, -1, 1]


def test_one_column_a_finding() -> None:
    row = {"Edema": "1.0", "e": "-1", "Fracture": "", "label:Own Label": "0", "Other": "9"}
    assert labels({"headers": True}, row) == {"Edema": 1, "Own Label": 0}
    assert labels({"columns": {"Edema": "e"}}, row) == {"Edema": -1}
    assert labels({"columns": {"Edema": "e"}, "values": {"-1": "absent"}}, row) == {"Edema": 0}
    with pytest.raises(BadRow):
        labels({"columns": {"Edema": "Other"}}, row)


def test_findings_of_a_manifest() -> None:
    rules = build(Labels, {"headers": True}, "labels")
    assert rules.findings(["image", *CHEXPERT, "label:Own Label"]) == (*CHEXPERT, "Own Label")


def test_official_chestxray14_columns(folder: Folder) -> None:
    row = {
        "image": "images_003/images/00000001_000.png",
        "Image Index": "00000001_000.png",
        "Finding Labels": "Cardiomegaly|Pleural_Thickening|Infiltration",
        "Follow-up #": "2",
        "Patient ID": "1",
        "Patient Age": "058Y",
        "Patient Gender": "M",
        "View Position": "PA",
        "OriginalImage[Width": "2682",
        "Height]": "2749",
    }
    path = folder([row])
    (path / "manifest.csv").rename(path / "Data_Entry_2017.csv")
    manifest = Manifest(path, load_layout("chestxray14"))
    found = values(manifest)
    assert manifest.image_path(manifest.rows[0])[1] == f"{path}/images_003/images/00000001_000.png"
    assert (found["order"], found["age_band"], found["sex"], found["view"]) == (2, "50-59", "M", "PA")
    present = {name for name, code in found.items() if name.startswith("label:") and code == 1}
    assert present == {"label:Cardiomegaly", "label:Pleural Other", "label:Infiltration"}
    assert found["label:No Finding"] == 0 and "label:Lung Opacity" not in found and "label:Fracture" not in found


def test_official_covid_chestxray_columns(folder: Folder) -> None:
    def row(**changes: str) -> dict[str, str]:
        return {
            "image": f"images/{changes.get('filename', 'a.png')}",
            "patientid": "2",
            "offset": "0",
            "sex": "M",
            "age": "65.0",
            "finding": "Pneumonia/Viral/COVID-19",
            "view": "PA",
            "modality": "X-ray",
            "date": "January 22, 2020",
            "folder": "images",
            "filename": "a.png",
            "clinical_notes": "Jane Doe",
            **changes,
        }

    path = folder(
        [
            row(),
            row(filename="b.png", offset="3.0", view="AP Supine", finding="Pneumonia/Bacterial/Klebsiella"),
            row(filename="c.png", view="Axial", modality="CT"),
            row(filename="d.png", view="L"),
            row(filename="e.png", finding="todo", offset=""),
        ]
    )
    (path / "manifest.csv").rename(path / "metadata.csv")
    manifest = Manifest(path, load_layout("covid-chestxray"))
    assert [number for number, _ in manifest.kept()] == [2, 3, 6]
    first, second, last = values(manifest, 0), values(manifest, 1), values(manifest, 4)
    assert first["day"] == 0 and second["day"] == 3 and second["view"] == "AP" and last["day"] is None
    assert first["label:COVID-19"] == 1 and first["label:Pneumonia"] == 1 and first["label:Bacterial Pneumonia"] == 0
    assert second["label:COVID-19"] == 0 and second["label:Bacterial Pneumonia"] == 1
    assert not [name for name in last if name.startswith("label:")]
    assert not any("Jane" in str(value) for value in first.values())
