"""The labeller on sentences of our own."""

from pathlib import Path

import pytest
import yaml

from models.language.labeller import label_text
from models.studies.schema import CHEXPERT, Label

SHORT = dict(
    zip(["EC", "CM", "LL", "LO", "ED", "CO", "PN", "AT", "PT", "PE", "PO", "FX", "SD"], CHEXPERT[1:], strict=True)
)
CODES = {"p": Label.PRESENT, "a": Label.ABSENT, "u": Label.UNCERTAIN}
CASES = yaml.safe_load((Path(__file__).parent / "sentences.yaml").read_text(encoding="utf-8"))


def expected(codes: dict[str, str]) -> dict[str, Label]:
    said = {SHORT[short]: CODES[code] for short, code in codes.items()}
    return {name: said.get(name, Label.UNMENTIONED) for name in CHEXPERT[1:]}


@pytest.mark.parametrize(("sentence", "codes"), CASES, ids=[case[0][:60] for case in CASES])
def test_sentence(sentence, codes):
    found = label_text(sentence)
    assert {name: found[name] for name in CHEXPERT[1:]} == expected(codes)
