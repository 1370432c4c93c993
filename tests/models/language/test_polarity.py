"""Denial and doubt, on any phrase, against rules written here and against negspacy."""

import itertools

import pytest

from models.language.polarity import polarity
from models.studies.schema import Label

P, A, U = Label.PRESENT, Label.ABSENT, Label.UNCERTAIN


@pytest.mark.parametrize(
    ("sentence", "phrase", "label"),
    [
        ("No effusion.", "effusion", A),
        ("Effusion.", "effusion", P),
        ("Possible effusion.", "effusion", U),
        ("The patient denies chest pain.", "chest pain", A),
        ("No fever, chills or cough.", "cough", A),
        ("No fever but she has a cough.", "cough", P),
        ("She has no history of asthma.", "asthma", A),
        ("Pneumonia was ruled out.", "Pneumonia", A),
        ("Rule out pneumonia.", "pneumonia", U),
        ("No change in the mass.", "mass", P),
        ("Without significant change in the mass.", "mass", P),
        ("Not well seen mass.", "mass", P),
        ("No effusion; small PTX cannot be excluded.", "PTX", U),
        ("No effusion; small PTX cannot be excluded.", "effusion", A),
        ("No opacity suggestive of pneumonia.", "pneumonia", A),
        ("Opacity suggestive of pneumonia.", "pneumonia", U),
        ("Possible mass, no effusion.", "effusion", A),
        ("No pneumothorax, small effusion.", "effusion", P),
        ("No pneumothorax, small effusion or edema.", "effusion", A),
        ("No pneumothorax, consolidation or edema.", "edema", A),
        ("Widening of the mediastinum, cannot exclude aortic injury.", "Widening", P),
        ("Widening of the mediastinum, cannot exclude aortic injury.", "aortic injury", U),
        ("Nodule, not seen on the prior film.", "Nodule", P),
        ("Small left effusion, pneumothorax not identified.", "effusion", P),
        ("Effusion, consolidation, or pneumothorax is not seen.", "Effusion", A),
        ("Effusion resolved.", "Effusion", A),
        ("Atelectasis versus pneumonia.", "Atelectasis", U),
        ("NO RALES", "RALES", A),
        ("Negative pressure dressing, effusion.", "effusion", P),
    ],
)
def test_sentence(sentence, phrase, label):
    assert polarity(sentence, phrase) is label


def test_the_phrase_itself_is_no_cue():
    assert polarity("There is no evidence of negative deflection.", "negative deflection") is A
    assert polarity("Seen is a possible worlds lesion.", "possible worlds lesion") is P


def test_a_place_may_be_given_instead_of_words():
    text = "No effusion. Effusion"
    assert polarity(text, (3, 11)) is A
    assert polarity("Effusion and no effusion", (16, 24)) is A
    assert polarity("Effusion and no effusion", (0, 8)) is P


@pytest.mark.parametrize(
    ("phrase", "told"), [("mass", "does not stand"), ("", "does not stand"), ((3, 99), "outside"), ((5, 5), "outside")]
)
def test_a_phrase_that_is_not_there_is_refused(phrase, told):
    with pytest.raises(ValueError, match=told):
        polarity("No effusion.", phrase)


FINDINGS = ("pleural effusion", "pneumothorax", "nodule")
TEMPLATES = {
    "No {a}.": A,
    "No evidence of {a}.": A,
    "Without {a}.": A,
    "There is {a}.": P,
    "Small {a} in the left chest.": P,
    "No {a} or {b}.": A,
    "No {b} or {a}.": A,
    "No {b}, but there is {a}.": P,
    "{a} has resolved.": A,
    "{a} cannot be excluded.": U,
    "Cannot exclude {a}.": U,
    "Possible {a}.": U,
    "No change in {a}.": P,
}


def test_negspacy_agrees_on_plain_sentences():
    """Another engine with the same cue lists; its reaches end elsewhere, so plain sentences only."""
    pytest.importorskip("negspacy")
    from models.language.lexicon import lexicon
    from tests.reference.negspacy_labeller import Engine

    engine, words = Engine(), lexicon()
    seen = 0
    for (template, label), (a, b) in itertools.product(TEMPLATES.items(), itertools.permutations(FINDINGS, 2)):
        sentence = template.format(a=a, b=b)
        tokens, named = words.fold(sentence), words.fold(a)
        start = next(k for k in range(len(tokens)) if tokens[k : k + len(named)] == named)
        theirs = engine.verdicts(tokens, [(start, start + len(named))])[start, start + len(named)].label
        assert polarity(sentence, a) is label is theirs, sentence
        seen += 1
    assert seen == len(TEMPLATES) * 6
