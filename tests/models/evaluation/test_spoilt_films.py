"""Spoilt films: what each kind does to pixels, against independent ones; the same for every batch, order and model."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from models.config import ConfigError, build
from models.evaluation.metrics import Ranking
from models.evaluation.spoilt_films import KINDS, UNTOUCHED, Robustness, SpoiltView, scores_under, spoil
from models.studies.store import Store
from models.studies.views import Labelled
from tests.world import FINDINGS, write_store

STRONG = {"noise": 0.3, "blur": 0.1, "contrast": 0.3, "brightness": 0.25}


def films(count: int = 4, side: int = 48, seed: int = 0) -> torch.Tensor:
    """Smooth, like films: independent pixels have no sharpness to lose."""
    rough = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(rough, side, mode="bicubic").clamp(0.02, 0.98)


def names(count: int) -> list[str]:
    return [f"film {i}" for i in range(count)]


@pytest.fixture(scope="module")
def view(tmp_path_factory) -> Labelled:
    store = Store.open(write_store(tmp_path_factory.mktemp("films") / "store", patients=30, sources=("a", "b")))
    return Labelled(store, size=32, findings=FINDINGS)


@pytest.mark.parametrize("kind", KINDS)
def test_untouched_is_the_film_itself(kind, view):
    given = films()
    assert spoil(given, kind, UNTOUCHED[kind], names(4)) is given
    found = SpoiltView(view, kind, UNTOUCHED[kind]).batch(torch.arange(5)).images
    assert torch.equal(found, view.batch(torch.arange(5)).images)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_out_is_a_film_and_the_one_given_is_not_touched(kind):
    given = films()
    before = given.clone()
    for strength in (STRONG[kind], -0.9 if kind == "brightness" else 0.25):
        found = spoil(given, kind, strength, names(4))
        assert found.shape == given.shape and found.min() >= 0 and found.max() <= 1
        assert not torch.equal(found, given)
    assert torch.equal(given, before)


def test_noise_has_its_deviation_on_mid_grey_and_no_pattern():
    grey = torch.full((8, 1, 128, 128), 0.5)
    found = spoil(grey, "noise", 0.1, names(8)) - 0.5
    n = found.numel()
    assert found.std().item() == pytest.approx(0.1, rel=5 / np.sqrt(2 * n))
    assert abs(found.mean().item()) < 5 * 0.1 / np.sqrt(n)
    flat = found.flatten(1).numpy()
    assert np.abs(np.corrcoef(flat) - np.eye(8)).max() < 5 / np.sqrt(flat.shape[1]), "films share no noise"
    assert abs(np.corrcoef(flat[0][:-1], flat[0][1:])[0, 1]) < 5 / np.sqrt(flat.shape[1])


def test_a_stronger_noise_is_the_same_noise():
    grey = torch.full((2, 1, 16, 16), 0.5)
    weak, strong = (spoil(grey, "noise", s, names(2)) - 0.5 for s in (0.01, 0.05))
    assert torch.allclose(5 * weak, strong, atol=1e-5)


@pytest.mark.parametrize(("share", "side"), [(1 / 48, 48), (0.05, 60), (0.04, 100)])
def test_blur_is_the_gaussian_of_others(share, side):
    given = films(3, side)
    found = spoil(given, "blur", share, names(3)).numpy()[:, 0]
    sigma = share * side
    reach = int(np.ceil(3 * sigma))
    for film, blurred in zip(given.numpy()[:, 0], found):
        by_scipy = gaussian_filter(film, sigma, mode="nearest", truncate=(reach + 0.25) / sigma)
        by_cv2 = cv2.GaussianBlur(film, (2 * reach + 1,) * 2, sigma, borderType=cv2.BORDER_REPLICATE)
        np.testing.assert_allclose(blurred, by_scipy, atol=2e-6)
        np.testing.assert_allclose(blurred, by_cv2, atol=2e-6)


def test_a_blur_takes_as_much_at_any_size():
    """A film at 64 and at 256 pixels, blurred by the same share: the same film, at another size."""
    large = films(2, 256)
    small = torch.nn.functional.interpolate(large, 64, mode="area")
    found = spoil(small, "blur", 0.06, names(2))
    expected = torch.nn.functional.interpolate(spoil(large, "blur", 0.06, names(2)), 64, mode="area")
    assert (found - expected).abs().max() < 0.01
    assert (found - small).abs().max() > 0.1
    in_pixels = spoil(large, "blur", 0.06 / 4, names(2))  # the same number of pixels on the larger film
    assert (torch.nn.functional.interpolate(in_pixels, 64, mode="area") - expected).abs().max() > 0.05


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.02])
def test_contrast_keeps_the_mean_and_scales_the_rest(factor):
    given = films()
    mean = given.mean(dim=(1, 2, 3), keepdim=True)
    found = spoil(given, "contrast", factor, names(4))
    assert torch.allclose(found.mean(dim=(1, 2, 3)), mean.flatten(), atol=1e-3)
    assert torch.allclose(found.std(dim=(1, 2, 3)), factor * given.std(dim=(1, 2, 3)), atol=1e-3)


def test_brightness_is_added_and_cut_off():
    given = films()
    assert torch.allclose(spoil(given, "brightness", 0.3, names(4)), torch.clamp(given + 0.3, max=1))
    assert torch.equal(spoil(given, "brightness", -1.0, names(4)), torch.zeros_like(given))


@pytest.mark.parametrize("kind", KINDS)
def test_a_film_is_spoilt_alike_whatever_its_batch(kind, view):
    spoilt = SpoiltView(view, kind, STRONG[kind])
    whole = spoilt.batch(torch.arange(len(view))).images
    assert whole.dtype == torch.uint8
    order = torch.randperm(len(view), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(123)  # no part of it
    for part in order.split(7):
        batch = SpoiltView(view, kind, STRONG[kind]).batch(part)
        assert torch.equal(batch.images, whole[part])
        assert torch.equal(batch.labels, torch.from_numpy(view.labels)[part])
    some = Labelled(view.store, rows=view.rows[5:9], size=32, findings=FINDINGS)  # another view, other positions
    assert torch.equal(SpoiltView(some, kind, STRONG[kind]).batch([0, 3]).images, whole[[5, 8]])


def test_another_seed_is_other_noise():
    grey = torch.full((1, 1, 16, 16), 0.5)
    one, two = (spoil(grey, "noise", 0.1, names(1), seed) for seed in (0, 1))
    assert not torch.equal(one, two)


def test_eight_bits_are_kept(view):
    """What a view gives is the film in [0,1] spoilt and rounded to 256 levels, not cut down."""
    index = np.arange(6)
    given = view.batch(index).images.float() / 255
    found = SpoiltView(view, "contrast", 0.5).batch(index).images.float() / 255
    assert (found - spoil(given, "contrast", 0.5, names(6))).abs().max() <= 0.5 / 255 + 1e-6


class Discs:
    """Reads pixels as an objective does: how bright the place of each finding is, beside the rest."""

    class cfg:
        findings = FINDINGS

    def logits(self, model, images):
        x = images.float()[:, 0] / 255
        rest = x[:, 10:, 20:].mean(dim=(1, 2))
        places = [x[:, 22:24, 12:14], x[:, 6:8, 12:14]]
        found = torch.stack([place.mean(dim=(1, 2)) - rest for place in places], dim=1)
        return (20 * found).round(decimals=3)  # what is equal but for rounding is a tie


def test_a_reader_of_pixels_falls_as_noise_rises_and_a_flat_film_tells_nothing(view):
    def auroc(kind, strength, batch=128):
        scores = scores_under(torch.nn.Identity(), Discs(), view, kind, strength, torch.device("cpu"), batch)
        return np.mean([Ranking(s, y == 1).auroc()[0] for s, y in zip(scores.T.astype(float), view.labels.T)]), scores

    clean, _ = auroc("noise", 0.0)
    some, in_one = auroc("noise", 0.5)
    strong, _ = auroc("noise", 1.0)
    assert clean > 0.99 > some + 0.03 > strong + 0.06
    np.testing.assert_allclose(in_one, auroc("noise", 0.5, batch=11)[1], rtol=1e-5)
    assert auroc("contrast", 0.0)[0] == 0.5
    assert auroc("brightness", -1.0)[0] == 0.5


def test_the_plan_lists_strengths_with_the_untouched_one_once():
    found = build(Robustness, {"noise": [0.2, 0.0, 0.1], "blur": [], "contrast": [2.0, 0.5]})
    assert found.strengths("noise") == (0.0, 0.1, 0.2)
    assert found.strengths("contrast") == (0.5, 1.0, 2.0)
    assert found.strengths("blur") == ()
    assert 0.0 in Robustness().strengths("brightness")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"noise": [-0.1]}, "noise -0.1"),
        ({"blur": [0.3]}, "blur 0.3"),
        ({"contrast": [-1.0]}, "contrast -1"),
        ({"brightness": [1.5]}, "brightness 1.5"),
        ({"noise": [float("nan")]}, "finite"),
        ({"noize": [0.1]}, "noise"),
        ({kind: [] for kind in KINDS}, "all empty"),
    ],
)
def test_strengths_that_mean_nothing_are_refused(values, text):
    with pytest.raises(ConfigError, match=text):
        build(Robustness, values)
