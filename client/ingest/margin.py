"""Finds lines of burned-in text in the margin of a stored image, where names and dates of birth are printed.

Looks at the image as it is stored (short side 512 or so): what cannot be read there cannot identify
anybody. A text line is a row of letter-sized, sharp, isolated spots of like height on one baseline. Side
markers ("R", "PA") are too short to count; ribs, wires and electrodes are too long, too big or in no row.
Words of the technique ("PORTABLE") count as text: telling them from a name needs reading, which is left to
a person.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

_MARGIN = 0.25  # of each side
_STROKE = 11  # pixels; strokes of letters are thinner, anatomy is not
_BOLD, _FAINT = 70, 40  # grey levels above (or below) the surroundings
_MOST_FAINT = 0.01  # of all pixels; above, the image is grainy, and faint writing is lost in it
_HEIGHTS = (5, 36)  # pixels at short side 512
_MOST_OUTLINES = 800  # more are noise, not writing
_LEAST_IN_ROW = 3


class _Spot(NamedTuple):
    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


def text_length(image: np.ndarray) -> int:
    """Letters in the longest line of text in the margin of an 8-bit image; 0 where there is none.

    Letters that touch count as one, so the number is a lower bound.
    """
    scale = 512 / min(image.shape)
    if not 0.8 < scale < 1.25:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (_STROKE, _STROKE))
    height, width = image.shape
    down, across = int(height * _MARGIN), int(width * _MARGIN)
    longest = 0
    for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):  # bright letters, dark letters
        relief = cv2.morphologyEx(image, operation, kernel)
        relief[down : height - down, across : width - across] = 0
        faint = (relief >= _FAINT).view(np.uint8)
        masks = [faint] if cv2.countNonZero(faint) <= _MOST_FAINT * image.size else []
        for mask in (*masks, (relief >= _BOLD).view(np.uint8)):
            longest = max(longest, _longest_line(_spots(mask)))
    return longest


def _spots(sharp: np.ndarray) -> list[_Spot]:
    """Letter-sized spots of a mask, from left to right."""
    # Contours cost a sixth of labelled components on a mask this sparse.
    outlines, _ = cv2.findContours(sharp, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if len(outlines) > _MOST_OUTLINES:
        return []
    found = [_Spot(*cv2.boundingRect(outline)) for outline in outlines]
    return sorted(spot for spot in found if _like_a_letter(spot, sharp))


def _like_a_letter(spot: _Spot, sharp: np.ndarray) -> bool:
    left, top, width, height = spot
    if not (_HEIGHTS[0] <= height <= _HEIGHTS[1] and width <= 1.6 * height + 2):
        return False
    area = cv2.countNonZero(sharp[top : top + height, left : left + width])
    return area >= max(5, 0.2 * width * height)


def _longest_line(spots: list[_Spot]) -> int:
    """Letters of the longest line: rows of neighbouring spots, then rows that share a baseline (words)."""
    rows: list[list[_Spot]] = []
    used: set[int] = set()
    for start in range(len(spots)):
        if start in used:
            continue
        row, last = [start], start
        while (last := _neighbour(spots, last)) is not None:
            row.append(last)
        if len(row) >= _LEAST_IN_ROW:
            used.update(row)
            rows.append([spots[i] for i in row])
    lengths = [0]
    for row in rows:
        low, tall = np.median([s.bottom for s in row]), np.median([s.height for s in row])
        lengths.append(
            sum(
                len(other)
                for other in rows
                if abs(np.median([s.bottom for s in other]) - low) <= 0.4 * tall
                and 0.6 <= np.median([s.height for s in other]) / tall <= 1.7
            )
        )
    return max(lengths)


def _neighbour(spots: list[_Spot], at: int) -> int | None:
    """The nearest spot to the right that may be the next letter of the same word."""
    here = spots[at]
    for place in range(at + 1, len(spots)):
        there = spots[place]
        tall = max(here.height, there.height)
        if there.left - here.right > here.height / 0.6:
            return None  # too far for any letter of like height
        if (
            there.left > here.left
            and -1 <= there.left - here.right <= tall
            and abs(there.bottom - here.bottom) <= 0.25 * tall
            and min(there.height, here.height) >= 0.6 * tall
        ):
            return place
    return None
