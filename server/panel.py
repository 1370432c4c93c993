"""Draws what ``server.attention`` found as one picture: the film, and the film under colour for each map."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from server.attention import Look, half_level, where

BACK, INK, DIM = (16, 18, 22), (236, 238, 240), (160, 166, 174)
HEAT = np.array([(255, 240, 170), (254, 196, 79), (240, 90, 40), (200, 20, 60)], np.float32)
COOL = np.array([(180, 220, 255), (80, 160, 240), (30, 80, 200)], np.float32)
WARM = np.array([(255, 222, 170), (250, 160, 60), (220, 90, 10)], np.float32)
OCTAVES = 4
"""The colour scale ends at 2 ** OCTAVES times even attention."""
MARGIN, GAP, LINE = 28, 14, 20
Tile = tuple[np.ndarray, str, str]
"""Picture, name above it, caption below it."""
EVEN = 0.45
"""A map that puts half of its attention on more of the film than this has no place worth naming."""
NOTES = (
    "Colour shows where the model attends more than evenly; half of all its attention lies inside the white line.",
    "Attention says where the model looked, not why it decided. It is no finding and no diagnosis.",
    "Left and right are those of the picture.",
)
NOTES_ACM = (
    "Each block adds object less context to every spot; maps are means over channel groups, by their effect on the features.",
    *NOTES,
)


def draw(seen: Look) -> Image.Image:
    """The panel of a ViT's heads or of a ResNet's ACMs."""
    return _heads(seen) if seen.heads is not None else _compared(seen)


# -- panels ----------------------------------------------------------------------------------------------------------


def _heads(seen: Look) -> Image.Image:
    side, columns = 300, 4
    tiles = [(seen.film_tile(side), "Film, as the model takes it", f"{len(seen.film)} x {len(seen.film)} pixels")]
    for number, head in enumerate([seen.heads.mean(0), *seen.heads]):
        name = "All heads, mean" if number == 0 else f"Head {number}"
        tiles.append((heated(seen.film_tile(side), head), name, _caption(head)))
    source = "the mean of all patches" if seen.pooled else "the class token"
    kind = f"Attention of the last block, from {source}; {seen.heads.shape[-1]} x {seen.heads.shape[-1]} patches"
    page = _Page(seen, kind, columns * side + (columns - 1) * GAP)
    page.legend("times even attention", HEAT, [f"{2**i}" for i in range(OCTAVES + 1)])
    for start in range(0, len(tiles), columns):
        page.row(tiles[start : start + columns], side)
    return page.finish(NOTES)


def _compared(seen: Look) -> Image.Image:
    side = 176
    limit = max(1.0, *(float((c.focus - c.context).abs().quantile(0.995)) for c in seen.compared))
    kind = "Attend-and-Compare: what each block takes as object, what it compares it with, and the difference"
    width = 6 * side + 5 * GAP + 2 * GAP
    page = _Page(seen, kind, width)
    page.legend("times even attention", HEAT, [f"{2**i}" for i in range(OCTAVES + 1)])
    page.legend(
        "object less context", np.vstack([COOL[::-1], WARM]), [f"-{limit:.0f}", "0", f"+{limit:.0f}"], signed=True
    )
    film = seen.film_tile(side)
    entries = []
    for c in seen.compared:
        focus, context = c.focus.numpy(), c.context.numpy()
        moved = 50 * float(np.abs(focus - context).mean())
        name = f"{_block(c.place)}  ({focus.shape[0]} x {focus.shape[1]})"
        entries.append(
            [
                (heated(film, focus), name, f"object: {_place(focus)}"),
                (heated(film, context), "", f"context: {_place(context)}"),
                (signed(film, focus - context, limit), "", f"{moved:.0f} % of attention differs"),
            ]
        )
    page.row(_overview(seen, (page.width - 2 * MARGIN - 3 * GAP) // 4, limit), (page.width - 2 * MARGIN - 3 * GAP) // 4)
    for start in range(0, len(entries), 2):
        page.row([tile for entry in entries[start : start + 2] for tile in entry], side, apart=3)
    return page.finish(NOTES_ACM)


def _overview(seen: Look, side: int, limit: float) -> list[Tile]:
    """The film, and the mean over all blocks."""
    film = seen.film_tile(side)
    focus, context = (
        np.mean([_enlarged(getattr(c, name).numpy(), side) for c in seen.compared], axis=0)
        for name in ("focus", "context")
    )
    return [
        (film, "Film, as the model takes it", f"{len(seen.film)} x {len(seen.film)} pixels"),
        (heated(film, focus), "All blocks, mean: object", _caption(focus)),
        (heated(film, context), "All blocks, mean: context", _caption(context)),
        (signed(film, focus - context, limit), "All blocks, mean: difference", ""),
    ]


def _block(place: str) -> str:
    """``layer3.5`` as ``Stage 3, block 6``."""
    stage, _, number = place.partition(".")
    return f"Stage {stage.removeprefix('layer')}, block {int(number) + 1}"


def _place(map_HW: np.ndarray) -> str:
    found = where(map_HW)
    return found["where"] if found["half_on"] < EVEN else "almost even"


def _caption(map_HW: np.ndarray) -> str:
    return f"strongest {_place(map_HW)}; half on {where(map_HW)['half_on']:.0%} of the film".replace(
        "strongest almost", "almost"
    )


# -- colour ----------------------------------------------------------------------------------------------------------


def heated(film: np.ndarray, relative: np.ndarray) -> np.ndarray:
    """uint8 [s,s,3]: colour where ``relative`` [h,w] is above 1, on a logarithmic scale, and a line around half of the
    attention; where attention is even or less, the film stays as it is."""
    wide = _enlarged(relative, film.shape[0])
    strength = np.log2(wide.clip(1, 2**OCTAVES)) / OCTAVES
    out = _blend(film, _ramp(HEAT, strength), 0.7 * np.sqrt(strength))
    level, area = half_level(wide)
    if area < EVEN:
        lines, _ = cv2.findContours((wide > level).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, lines, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return out


def signed(film: np.ndarray, difference: np.ndarray, limit: float) -> np.ndarray:
    """uint8 [s,s,3]: warm where ``difference`` is positive, cool where negative, full at ``limit``."""
    wide = (_enlarged(difference, film.shape[0]) / limit).clip(-1, 1)
    strength = np.abs(wide)
    colours = np.where(wide[..., None] > 0, _ramp(WARM, strength), _ramp(COOL, strength))
    return _blend(film, colours, 0.75 * np.sqrt(strength))


def _enlarged(grid: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(grid.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)


def _ramp(stops: np.ndarray, strength: np.ndarray) -> np.ndarray:
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(strength, places, stops[:, i]) for i in range(3)], -1)


def _blend(film: np.ndarray, colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    grey = film[..., None].astype(np.float32)
    return np.ascontiguousarray((grey * (1 - alpha[..., None]) + colours * alpha[..., None]).round().astype(np.uint8))


# -- page ------------------------------------------------------------------------------------------------------------


class _Page:
    """A page that grows downwards: head, legends, rows of tiles with captions, notes."""

    def __init__(self, seen: Look, kind: str, width: int) -> None:
        self.width = width + 2 * MARGIN
        self.image = Image.new("RGB", (self.width, 8000), BACK)
        self.pen = ImageDraw.Draw(self.image)
        self.y = MARGIN
        self._text(MARGIN, self.y, seen.title, 24)
        self.y += 34
        self._text(MARGIN, self.y, kind, 15, DIM)
        self.y += LINE + 4
        if seen.scores:
            ranked = sorted(seen.scores.items(), key=lambda item: -item[1])
            shown = "    ".join(f"{name} {value:.2f}" for name, value in ranked[:6])
            self._text(MARGIN, self.y, f"Probabilities:  {shown}", 15)
            self.y += LINE + 4
        self.legend_x = MARGIN
        self.y += 6

    def _text(self, x: int, y: int, text: str, size: int, ink: tuple[int, int, int] = INK) -> None:
        self.pen.text((x, y), text, ink, font=ImageFont.load_default(size))

    def legend(self, name: str, stops: np.ndarray, ticks: list[str], signed: bool = False) -> None:
        """A colour bar on the line of legends, over mid grey as on a film."""
        length, height = 240, 14
        strength = np.linspace(-1, 1, length) if signed else np.linspace(0, 1, length)
        colours = (
            np.where(strength[:, None] > 0, _ramp(WARM, np.abs(strength)), _ramp(COOL, np.abs(strength)))
            if signed
            else _ramp(stops, strength)
        )
        alpha = 0.75 * np.sqrt(np.abs(strength))
        bar = _blend(
            np.full((height, length), 96, np.uint8), np.tile(colours, (height, 1, 1)), np.tile(alpha, (height, 1))
        )
        self._text(self.legend_x, self.y - 2, name, 14, DIM)
        start = self.legend_x + int(self.pen.textlength(name, font=ImageFont.load_default(14))) + 12
        self.image.paste(Image.fromarray(bar), (start, self.y))
        for i, tick in enumerate(ticks):
            x = start + i * (length - 1) // (len(ticks) - 1)
            half = int(self.pen.textlength(tick, font=ImageFont.load_default(12))) // 2
            self._text(x - half, self.y + height + 2, tick, 12, DIM)
        self.legend_x = start + length + 48

    def row(self, tiles: list[Tile], side: int, apart: int = 0) -> None:
        """Tiles side by side, a name above and a caption below each; after ``apart`` tiles a wider gap."""
        if self.legend_x > MARGIN:
            self.y, self.legend_x = self.y + 46, MARGIN
        for i, (tile, name, caption) in enumerate(tiles):
            x = MARGIN + i * (side + GAP) + (2 * GAP if apart and i >= apart else 0)
            self._text(x, self.y, name, 15)
            self.image.paste(Image.fromarray(tile), (x, self.y + LINE))
            self._text(x, self.y + LINE + side + 3, caption, 12, DIM)
        self.y += LINE + side + 3 + LINE + 8

    def finish(self, notes: tuple[str, ...]) -> Image.Image:
        for note in notes:
            self._text(MARGIN, self.y, note, 13, DIM)
            self.y += LINE
        return self.image.crop((0, 0, self.width, self.y + MARGIN // 2))
