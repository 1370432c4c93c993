"""Views of a film against other libraries and by what they must leave alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.nn import functional as F

from models.config import ConfigError, build
from models.studies.crops import ViewConfig, autocontrast, blur, boxes, draw, equalise, warp

STILL = {"area": (1, 1), "ratio": (1, 1), "degrees": 0, "autocontrast": 0, "equalise": 0, "blur": 0}


def films(count: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth films in [0,1] on 256 levels, brighter to the right, so that a flip is seen."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 8, 8, generator=g)
    smooth = F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    ramp = torch.linspace(0, 0.5, side)
    return ((0.5 * smooth + ramp).clamp(0, 1) * 255).round() / 255


def as_image(film: torch.Tensor) -> Image.Image:
    return Image.fromarray((film[0] * 255).round().to(torch.uint8).numpy())


def view(**changes) -> ViewConfig:
    return build(ViewConfig, {**STILL, **changes})


def test_a_view_without_any_change_is_the_film():
    x = films(3)
    torch.testing.assert_close(draw(x, 32, view()), x, rtol=0, atol=1e-6)


def test_the_grid_is_torchs_affine_grid():
    maps = boxes(5, build(ViewConfig, {}))
    x = films(5)
    grid = F.affine_grid(maps, [5, 1, 16, 16], align_corners=False)
    want = F.grid_sample(x, grid, mode="bicubic", align_corners=False).clamp(0, 1)
    torch.testing.assert_close(warp(x, maps, 16), want, rtol=0, atol=1e-5)


def test_a_flip_is_a_mirror_and_only_comes_when_asked_for():
    x = films(64)
    torch.testing.assert_close(draw(x, 32, view(flip=1.0)), x.flip(-1), rtol=0, atol=1e-5)
    some = draw(x, 32, view(flip=0.5))
    mirrored = [torch.allclose(a, b, atol=1e-4) for a, b in zip(some, x.flip(-1))]
    assert 16 < sum(mirrored) < 48
    turned = boxes(2000, build(ViewConfig, {}))[:, :, :2]
    assert (torch.linalg.det(turned) > 0).all()  # by default left stays left


def test_rotation_turns_as_far_as_asked_and_no_further():
    maps = boxes(4000, view(degrees=15.0))
    angle = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]) * 180 / math.pi
    assert angle.abs().max() <= 15 and angle.max() > 14 and angle.min() < -14 and abs(angle.mean()) < 0.6


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.6), (0.75, 1.0)])
def test_boxes_have_the_area_asked_for_and_lie_inside_the_film(low, high):
    maps = boxes(4000, view(area=(low, high), ratio=(0.75, 4 / 3)))
    width, height = maps[:, 0, 0], maps[:, 1, 1]
    area = width * height
    assert area.max() <= high + 1e-6 and (area >= low - 1e-6).float().mean() > 0.8
    assert area.mean() == pytest.approx((low + high) / 2, abs=0.03)
    ratio = (width / height)[(width < 1) & (height < 1)]
    assert ratio.min() >= 0.75 - 1e-5 and ratio.max() <= 4 / 3 + 1e-5
    for size, middle in ((width, maps[:, 0, 2]), (height, maps[:, 1, 2])):
        assert (middle.abs() + size <= 1 + 1e-6).all()
        assert middle.max() > 0.05 and middle.min() < -0.05


def test_autocontrast_is_pillows():
    x = films(4) * 0.6 + 0.1
    x = (x * 255).round() / 255
    for film, found in zip(x, autocontrast(x)):
        want = torch.from_numpy(np.asarray(ImageOps.autocontrast(as_image(film)))) / 255
        assert (found[0] - want).abs().max() <= 1.01 / 255  # Pillow truncates to a level
    flat = torch.full((1, 1, 4, 4), 0.3)
    assert torch.equal(autocontrast(flat), flat)


@pytest.mark.parametrize("side", [16, 33, 128])
def test_equalisation_is_pillows(side):
    x = films(6, side, seed=side)
    for film, found in zip(x, equalise(x)):
        want = torch.from_numpy(np.asarray(ImageOps.equalize(as_image(film)))) / 255
        torch.testing.assert_close(found[0], want, rtol=0, atol=1e-6)
    flat = torch.full((1, 1, 8, 8), 0.3)
    assert torch.equal(equalise(flat), flat)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_a_gaussian_with_repeated_edges(sigma):
    x = films(2, 24).double()
    found = blur(x, torch.tensor([sigma, 2 * sigma]))
    for film, blurred, s in zip(x, found, (sigma, 2 * sigma)):
        reach = math.ceil(3 * 2 * sigma)
        weights = np.array([math.exp(-0.5 * (d / s) ** 2) for d in range(-reach, reach + 1)])
        weights /= weights.sum()
        padded = np.pad(film[0].numpy(), reach, mode="edge")
        want = np.zeros((24, 24))
        for i, wi in enumerate(weights):
            for j, wj in enumerate(weights):
                want += wi * wj * padded[i : i + 24, j : j + 24]
        np.testing.assert_allclose(blurred[0].numpy(), want, rtol=0, atol=1e-6)
    if sigma == 0.7:  # an outside opinion; Pillow approximates by boxes
        image = as_image(films(2, 24)[0]).filter(ImageFilter.GaussianBlur(0.7))
        assert np.abs(np.asarray(image) / 255 - found[0, 0].numpy())[3:-3, 3:-3].max() < 0.03


@pytest.mark.parametrize("name", ["autocontrast", "equalise", "blur"])
def test_each_change_comes_as_often_as_asked(name):
    x = films(400) * 0.5 + 0.2
    changed = lambda p: (
        (draw(x, 32, view(sigma=(0.5, 2.0), **{name: p})) - draw(x, 32, view())).abs().amax(dim=(1, 2, 3)) > 1e-3
    )
    torch.manual_seed(0)
    assert changed(0.0).sum() == 0
    assert changed(0.3).float().mean() == pytest.approx(0.3, abs=0.09)
    assert changed(1.0).float().mean() > 0.9


def test_views_are_in_range_and_of_the_size_asked_for_and_repeat_with_their_seed():
    x = films(3)
    torch.manual_seed(4)
    one = draw(x, 16, build(ViewConfig, {"flip": 0.5}))
    torch.manual_seed(4)
    two = draw(x, 16, build(ViewConfig, {"flip": 0.5}))
    assert one.shape == (3, 1, 16, 16) and torch.equal(one, two)
    assert one.min() >= 0 and one.max() <= 1
    assert not torch.equal(one, draw(x, 16, build(ViewConfig, {"flip": 0.5})))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"area": [0.0, 0.5]}, "area"),
        ({"area": [0.5, 1.2]}, "area"),
        ({"area": [0.6, 0.5]}, "area"),
        ({"ratio": [0.0, 1.0]}, "ratio"),
        ({"degrees": 200}, "degrees 200"),
        ({"flip": 1.5}, "flip 1.5"),
        ({"blur": -0.1}, "blur -0.1"),
        ({"sigma": [0.0, 2.0]}, "sigma"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        build(ViewConfig, values)
