"""negspacy in the place of our own scopes: the same mentions and cue lists, another engine.

What the labeller is checked against and timed against. Phrases and texts are folded alike, so that only what the
engines do with them differs. ``shipped`` uses negspacy's own clinical terms and knows no doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import spacy
from negspacy.negation import Negex
from negspacy.termsets import termset
from spacy.tokenizer import Tokenizer
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

from models.language.lexicon import Kind, Placed, lexicon
from models.language.polarity import Verdict
from models.language.vocabulary import expand, load
from models.studies.schema import Label

_MISLEADING = ("cannot", "can't", "versus", "rule out", "r/o", "evaluate for", "doubt")
"""Shipped terms that radiology uses for doubt."""


class Engine:
    """Two negspacy components, denial and doubt; doubt wins."""

    def __init__(self, shipped: bool = False) -> None:
        fold = lexicon().fold
        nlp = spacy.blank("en")
        # Phrases are words already: spaCy's own rules would make two of "cannot".
        nlp.tokenizer = Tokenizer(nlp.vocab, token_match=re.compile(r"\S+").fullmatch)

        def folded(texts: Iterable[str]) -> set[str]:
            return {" ".join(words) for text in texts if (words := fold(text))}

        def phrases(*lists: Iterable[str]) -> set[str]:
            return {" ".join(fold.phrase(words)) for patterns in lists for p in patterns for words in expand(p)}

        denial = {key: folded(texts) for key, texts in termset("en_clinical").get_patterns().items()}
        self._vocab, self._doubt = nlp.vocab, None
        if not shipped:
            cues = load("cues")
            deny, doubt, ends = cues["negation"], cues["uncertainty"], cues["ends"]
            before = phrases(doubt["before"], doubt["evidence"])
            after = phrases(doubt["after"], doubt["closing"])
            own = {
                "preceding_negations": phrases(deny["before"]),
                "following_negations": phrases(deny["after"], deny["closing"]),
                "pseudo_negations": phrases(cues["nothing"]) | before | after,
                "termination": phrases(ends["both"], ends["negation"]),
            }
            # negspacy does not take the longest phrase: an end that is part of a cue would cut the cue off.
            cue_words = {word for key in own if key != "termination" for term in own[key] for word in term.split()}
            cue_words |= {word for term in before | after for word in term.split()}
            ends_only = {term for term in own["termination"] if not cue_words.issuperset(term.split())}
            own["termination"] = ends_only
            denial = {key: (denial[key] - folded(_MISLEADING)) | own[key] for key in own}
            doubted = {
                "pseudo_negations": [],
                "preceding_negations": sorted(before),
                "following_negations": sorted(after),
                "termination": sorted(ends_only & phrases(ends["both"])),
            }
            self._doubt = Negex(nlp, "doubt", doubted, [], "doubted", [])
        self._denial = Negex(nlp, "denial", {key: sorted(terms) for key, terms in denial.items()}, [], "denied", [])

    def verdicts(self, tokens: Sequence[str], spans: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Verdict]:
        """Verdict on each of ``spans``, pairs of words, in one sentence."""
        doc = Doc(self._vocab, words=list(tokens), sent_starts=[True] + [False] * (len(tokens) - 1))
        doc.ents = filter_spans([Span(doc, start, end, label="X") for start, end in spans])
        self._denial(doc)
        if self._doubt is not None:
            self._doubt(doc)
        found = {}
        for ent in doc.ents:
            label = Label.ABSENT if ent._.denied else Label.PRESENT
            if self._doubt is not None and ent._.doubted:
                label = Label.UNCERTAIN
            found[ent.start, ent.end] = Verdict(label)
        return found

    def scopes(self) -> type:
        """A class that stands in for :class:`models.language.polarity.Scopes`."""
        engine = self

        class Scopes:
            def __init__(self, tokens: Sequence[str], found: Sequence[list[Placed]]) -> None:
                spans = {(s, e) for kind in (Kind.TERM, Kind.PREDICATE) for s, e, _ in found[kind]}
                self._verdicts = engine.verdicts(tokens, spans) if tokens and spans else {}

            def of(self, start: int, end: int) -> Verdict:
                return self._verdicts.get((start, end), Verdict(Label.PRESENT))

        return Scopes
