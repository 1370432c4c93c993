"""Augmentation: what each range may do to a film, measured on the film."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.config import ConfigError, build
from models.studies.augment import AugmentConfig, to_float

OFF = {"degrees": 0.0, "translate": 0.0, "scale": 0.0, "brightness": 0.0, "contrast": 0.0}
SIDE, MANY = 65, 64


def changed(images: torch.Tensor, seed: int = 0, **ranges) -> torch.Tensor:
    torch.manual_seed(seed)
    return build(AugmentConfig, {**OFF, **ranges}).build(images.shape[-1])(images)


def blobs(row: float, column: float) -> torch.Tensor:
    """MANY films with one soft bright spot, whose centre of mass tells exactly where it went."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    spot = torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 8.0)
    return spot.expand(MANY, 1, SIDE, SIDE).clone()


def centres(images: torch.Tensor) -> np.ndarray:
    """(row, column) of each spot from the middle of the film, [MANY,2]."""
    weight = images[:, 0].double()
    axis = torch.arange(SIDE, dtype=torch.float64) - SIDE // 2
    mass = weight.sum((1, 2))
    rows, columns = (weight.sum(2) * axis).sum(1) / mass, (weight.sum(1) * axis).sum(1) / mass
    return torch.stack([rows, columns], 1).numpy()


def test_all_zero_is_the_identity():
    images = torch.rand(4, 1, 20, 20)
    assert torch.equal(changed(images), images)


def test_rotation_stays_within_its_degrees_and_uses_them():
    found = centres(changed(blobs(32, 52), degrees=20.0))
    angles = np.degrees(np.arctan2(found[:, 0], found[:, 1]))
    assert np.abs(angles).max() <= 20.3 and np.abs(angles).max() > 12 and angles.min() < -5 < 5 < angles.max()
    np.testing.assert_allclose(np.hypot(*found.T), 20, atol=0.3)  # about the middle, nothing else


def test_translation_stays_within_its_share_of_the_side():
    found = centres(changed(blobs(32, 32), translate=0.1))
    assert np.abs(found).max() <= 0.1 * SIDE + 0.3 and np.abs(found).max() > 0.07 * SIDE
    assert (found.min(0) < -2).all() and (found.max(0) > 2).all()


def test_scaling_stays_within_its_range():
    found = np.hypot(*centres(changed(blobs(32, 47), scale=0.2)).T) / 15
    assert found.min() >= 0.8 - 0.02 and found.max() <= 1.2 + 0.02
    assert found.min() < 0.88 and found.max() > 1.12


def test_brightness_shifts_the_mean_within_its_range():
    images = torch.full((MANY, 1, 8, 8), 0.5)
    shifts = changed(images, brightness=0.3).mean((1, 2, 3)) - 0.5
    assert shifts.abs().max() <= 0.3 + 1e-6 and shifts.min() < -0.2 and shifts.max() > 0.2


def test_contrast_stretches_about_the_mean_of_each_film():
    images = torch.full((MANY, 1, 8, 8), 0.2)
    images[..., 4:] = 0.4  # dark and bright half; the mean is not the middle of [0, 1]
    out = changed(images, contrast=0.5)
    torch.testing.assert_close(out.mean((1, 2, 3)), images.mean((1, 2, 3)))
    gains = (out.amax((1, 2, 3)) - out.amin((1, 2, 3))) / 0.2
    assert 0.5 - 1e-4 <= gains.min() < 0.7 and 1.3 < gains.max() <= 1.5 + 1e-4


def test_every_film_of_a_batch_is_changed_in_its_own_way():
    out = changed(blobs(32, 47), degrees=10.0, brightness=0.2)
    assert len(np.unique(centres(out).round(3), axis=0)) > MANY * 0.9


def test_nothing_is_mirrored_unless_asked():
    left = blobs(32, 15)
    torch.manual_seed(0)
    default = AugmentConfig().build(SIDE)
    for _ in range(4):
        brightest = default(left).flatten(1).argmax(1) % SIDE
        assert (brightest < SIDE // 2 - 5).all()
    np.testing.assert_allclose(changed(left, flip=1.0).numpy(), left.flip(-1).numpy(), atol=1e-6)
    sides = np.sign(centres(changed(left, flip=0.5))[:, 1])
    assert 0.2 < (sides > 0).mean() < 0.8


def test_erasing_blanks_a_small_rectangle():
    out = changed(torch.full((MANY, 1, SIDE, SIDE), 0.5), erase=1.0)
    shares = (out != 0.5).float().mean((1, 2, 3))
    assert shares.min() > 0.01 and shares.max() < 0.12


def test_cropping_keeps_the_size_and_enlarges():
    y, x = torch.meshgrid(torch.arange(SIDE) - 32, torch.arange(SIDE) - 32, indexing="ij")
    disc = (y**2 + x**2 < 100).float().expand(MANY, 1, SIDE, SIDE).clone()
    out = changed(disc, crop=0.5)
    assert out.shape == disc.shape
    growth = (out > 0.5).sum((1, 2, 3)) / (disc > 0.5).sum((1, 2, 3))
    assert 0.93 < growth.min() < 1.2 and 1.6 < growth.max() < 2.15  # half of the area at most is lost


@pytest.mark.parametrize("channels", [1, 3])
def test_films_stay_films(channels):
    images = torch.rand(8, channels, 32, 32)
    strong = {"brightness": 1.0, "contrast": 1.0, "degrees": 30, "scale": 0.3, "translate": 0.2, "crop": 0.5}
    out = changed(images, **strong, erase=0.5, flip=0.5)
    assert out.shape == images.shape and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1 and torch.isfinite(out).all()


def test_the_seed_decides_and_nothing_else():
    images = torch.rand(4, 1, 32, 32)
    everything = {
        "degrees": 8,
        "translate": 0.1,
        "scale": 0.1,
        "brightness": 0.2,
        "contrast": 0.2,
        "crop": 0.2,
    }
    once = changed(images, seed=3, flip=0.5, erase=0.5, **everything)
    torch.rand(11)
    np.random.seed(1)
    assert torch.equal(once, changed(images, seed=3, flip=0.5, erase=0.5, **everything))
    assert not torch.equal(once, changed(images, seed=4, flip=0.5, erase=0.5, **everything))


@pytest.mark.parametrize("name", ["translate", "scale", "brightness", "contrast", "crop", "flip", "erase", "degrees"])
@pytest.mark.parametrize("value", [-0.1, 1000.0, math.nan])
def test_a_range_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        build(AugmentConfig, {name: value})


def test_to_float_divides_by_255_and_repeats_the_grey_plane():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    grey = to_float(images)
    np.testing.assert_array_equal(grey.numpy().ravel(), np.arange(256, dtype=np.float32) / np.float32(255))
    colour = to_float(images, 3)
    assert colour.shape == (1, 3, 16, 16) and all(torch.equal(colour[:, c : c + 1], grey) for c in range(3))
    assert images.dtype == torch.uint8 and int(images.max()) == 255
