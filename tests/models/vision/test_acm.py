"""ACM against its definition, walked position by position with the mean taken off, and against the published layers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

from models.config import ConfigError, build
from models.vision.acm import ACM, ACMConfig, compare, orthogonality
from tests.reference.acm import LiteralACM, literal, ours_from_literal

NAMES = ("attend", "squeeze_weight", "squeeze_bias", "excite_weight", "excite_bias")


def pair(channels: int, groups: int, seed: int = 0) -> tuple[ACM, LiteralACM]:
    """Ours and the published module with the same lively weights, in float64; all biases are away from zero."""
    torch.manual_seed(seed)
    theirs = LiteralACM(channels, groups).double()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.2 * torch.randn_like(p))
    ours = ACM(channels, groups).double()
    ours.load_state_dict(ours_from_literal(theirs.state_dict()))
    return ours, theirs


def films(*shape: int, seed: int = 0, last: bool = False) -> Tensor:
    """float64 with a mean well away from zero."""
    x = 1.5 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.7
    return x.contiguous(memory_format=torch.channels_last) if last else x


def backward(out: tuple[Tensor, Tensor], seed: int = 1) -> None:
    """Through both outputs at once, by gradients of about 1 each, whatever the memory format."""
    generator = torch.Generator().manual_seed(seed)
    gradients = [torch.randn(tuple(t.shape), dtype=torch.float64, generator=generator).to(t.dtype) for t in out]
    gradients[1] = gradients[1] * 10
    torch.autograd.backward(out, gradients)


@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([2, 4, 6]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_outputs_and_gradients_are_the_definition(images, groups, inside, height, width, last, seed):
    ours, theirs = pair(groups * inside, groups, seed)
    x = films(images, groups * inside, height, width, seed=seed, last=last).requires_grad_()
    y = x.detach().clone().requires_grad_()
    found, want = ours(x), literal(y, dict(theirs.named_parameters()), groups)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-10)
    assert found[0].stride() == x.stride()
    backward(found)
    backward(want)
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-10)
    gradients = ours_from_literal({name: p.grad for name, p in theirs.named_parameters()})
    for name in NAMES:
        torch.testing.assert_close(getattr(ours, name).grad, gradients[name], rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("last", [False, True])
def test_the_layers_that_we_are_timed_against_are_the_definition_too(last):
    ours, theirs = pair(64, 32)
    x = films(2, 64, 6, 5, last=last).requires_grad_()
    y = x.detach().clone().requires_grad_()
    found, (image, correlation) = ours(x), theirs(y)
    torch.testing.assert_close(found, (image, correlation.flatten()), rtol=0, atol=1e-12)
    backward(found)
    backward((image, correlation.flatten()))
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-11)


def test_a_wrong_module_is_found_out():
    """The control: the mean left in K and Q, maps swapped, or a gate that sees something else, all differ."""
    ours, theirs = pair(12, 3)
    x, state = films(2, 12, 4, 3), theirs.state_dict()
    y, d = literal(x, state, 3)
    swapped = copy.deepcopy(ours)
    swapped.attend.data = ours.attend.data.flip(0)
    assert (swapped(x)[0] - y).abs().max() > 1e-2 and torch.allclose(swapped(x)[1], d)
    maps = ours.maps(x).flatten(3)
    pooled = torch.einsum("bkgn,bgdn->kbgd", maps, x.view(2, 3, 4, 12))
    with_mean = (pooled[0] * pooled[1]).sum((1, 2)) / 12
    assert (with_mean - d).abs().max() > 1e-2
    closed = copy.deepcopy(ours)
    closed.excite_bias.data += 1
    assert (closed(x)[0] - y).abs().max() > 1e-2


def test_the_bias_of_the_maps_is_inert():
    _, theirs = pair(12, 3)
    x = films(2, 12, 4, 3)
    backward(theirs(x))
    assert theirs.add_mod.map_gen[0].bias.grad.abs().max() < 1e-10
    assert theirs.add_mod.map_gen[0].weight.grad.abs().max() > 1e-2
    before = theirs(x)
    theirs.add_mod.map_gen[0].bias.data += 3
    torch.testing.assert_close(theirs(x), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("last", [False, True])
def test_gradcheck(last):
    ours, _ = pair(8, 2)
    x = films(2, 8, 3, 2, last=last).requires_grad_()
    inputs = (x, *(getattr(ours, name) for name in NAMES))
    assert torch.autograd.gradcheck(lambda *t: compare(*t, groups=2), inputs)


@pytest.mark.parametrize("training", [True, False])
def test_gradcheck_through_an_absorbed_norm(training):
    ours, _ = pair(8, 2)
    norm = lively_norm(8).train(training)
    x = films(3, 8, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: ours(x, norm), (x, *ours.parameters(), norm.weight, norm.bias))


def lively_norm(channels: int, **settings) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, **settings).double()
    with torch.no_grad():
        norm.weight.uniform_(-1, 1)
        norm.bias.normal_()
        if norm.running_mean is not None:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"momentum": None}, {"momentum": 0.4, "eps": 0.1}, {"track_running_stats": False}]
)
def test_an_absorbed_norm_is_the_norm(training, last, settings):
    ours, _ = pair(16, 4)
    apart, norm = copy.deepcopy(ours), lively_norm(16, **settings).train(training)
    norm_apart = copy.deepcopy(norm)
    x = films(3, 16, 4, 5, last=last).requires_grad_()
    y = x.detach().clone().requires_grad_()
    for _ in range(3):  # the running statistics of several steps
        found, want = ours(x, norm), apart(norm_apart(y))
    torch.testing.assert_close(found, want, rtol=0, atol=1e-12)
    assert found[0].stride() == x.stride()
    backward(found)
    backward(want)
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-12)
    for (name, p), q in zip(
        [*ours.named_parameters(), *norm.named_parameters()], [*apart.parameters(), *norm_apart.parameters()]
    ):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-11, msg=name)
    torch.testing.assert_close(dict(norm.named_buffers()), dict(norm_apart.named_buffers()), rtol=0, atol=1e-12)


def test_a_norm_that_is_not_plain_is_called():
    ours, _ = pair(16, 4)
    x, called = films(2, 16, 3, 3), []
    for norm in (
        nn.GroupNorm(4, 16).double(),
        nn.InstanceNorm2d(16).double(),
        nn.BatchNorm2d(16, affine=False).double(),
    ):
        torch.testing.assert_close(ours(x, norm), ours(norm(x)), rtol=0, atol=1e-12)
    heard = lively_norm(16)
    heard.register_forward_hook(lambda *_: called.append(1))
    ours(x, heard)
    assert called == [1]
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ours(x[:1, :, :1, :1], lively_norm(16))


def test_maps_are_the_two_softmaxes():
    ours, theirs = pair(12, 3)
    x, state = films(2, 12, 4, 3), theirs.state_dict()
    maps = ours.maps(x)
    assert maps.shape == (2, 2, 3, 4, 3)
    for k, name in enumerate(("add_mod", "sub_mod")):
        for g in range(3):
            weight = state[f"{name}.map_gen.0.weight"][g, :, 0, 0]
            scores = torch.einsum("d,bdhw->bhw", weight, x[:, 4 * g : 4 * g + 4])
            want = scores.flatten(1).softmax(1).view(2, 4, 3)
            torch.testing.assert_close(maps[:, k, g], want, rtol=0, atol=1e-12)
    last = ours.maps(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, maps)


def test_equal_maps_add_nothing_and_a_flat_film_has_nothing_to_compare():
    ours, _ = pair(12, 3)
    same = copy.deepcopy(ours)
    same.attend.data[1] = same.attend.data[0]
    x = films(2, 12, 4, 3)
    y, d = same(x)
    gate = y / x
    torch.testing.assert_close(gate, gate[:, :, :1, :1].expand_as(gate), rtol=1e-9, atol=1e-9)
    assert (d > 0).all()  # K is Q: the mean of squares
    flat, none = ours(torch.full((1, 12, 4, 3), 3.0, dtype=torch.float64))
    assert none.abs().max() < 1e-12 and torch.allclose(flat, flat[:, :, :1, :1].expand_as(flat))


@pytest.mark.parametrize("last", [False, True])
def test_extreme_scores_stay_finite(last):
    ours = ACM(16, 4)
    x = 1e4 * films(2, 16, 5, 5, last=last).float()
    x.requires_grad_()
    y, d = ours(x)
    (y.sum() + d.sum()).backward()
    assert torch.isfinite(y).all() and torch.isfinite(d).all() and torch.isfinite(x.grad).all()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_bfloat16_is_no_worse_than_the_published_layers_in_it(last, offset):
    """Relative error of outputs and of all gradients against float64, norm included."""
    torch.manual_seed(0)
    channels, groups = 64, 8
    theirs = LiteralACM(channels, groups)
    ours, norm = ACM(channels, groups), nn.BatchNorm2d(channels)
    ours.load_state_dict(ours_from_literal(theirs.state_dict()))
    nn.init.uniform_(norm.weight, 0.3, 1.0)
    nn.init.normal_(norm.bias)
    x = (1.5 * torch.randn(4, channels, 28, 28) + offset).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last) if last else x

    def errors(module, norm, module_apart: bool) -> list[Tensor]:
        image = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y, d = module(norm(image)) if module_apart else module(image, norm)
        assert y.dtype == torch.bfloat16
        backward((y, d.flatten()))
        gradients = {name: p.grad for name, p in module.named_parameters()}
        gradients = ours_from_literal(gradients) if module_apart else gradients
        return [y, d.flatten(), image.grad, *(gradients[n] for n in NAMES), norm.weight.grad, norm.bias.grad]

    exact, exact_norm = copy.deepcopy(ours).double(), copy.deepcopy(norm).double()
    image = x.double().requires_grad_()
    y, d = exact(exact_norm(image))
    backward((y, d))
    truth = [y, d, image.grad, *(getattr(exact, n).grad for n in NAMES), exact_norm.weight.grad, exact_norm.bias.grad]
    mine, published = errors(ours, copy.deepcopy(norm), False), errors(theirs, copy.deepcopy(norm), True)
    for name, want, a, b in zip(("y", "d", "x", *NAMES, "weight", "bias"), truth, mine, published):
        error, theirs_error = (
            float((t.detach().double() - want.detach()).norm() / want.detach().norm()) for t in (a, b)
        )
        assert error < max(1.2 * theirs_error, 5e-3), name
        assert error < 0.1, name


def held_bytes(module: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps from forward to backward, beside input, output and parameters."""
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y, _ = module(x)
    for known in (x, y, *module.parameters()):
        held.pop(known.untyped_storage().data_ptr(), None)
    return sum(held.values())


@pytest.mark.parametrize(("channels", "side"), [(256, 28), (512, 14), (2048, 7)])
def test_it_keeps_at_most_two_fifths_of_what_the_published_layers_keep(channels, side):
    x = torch.randn(2, channels, side, side, requires_grad=True)
    ours, theirs = held_bytes(ACM(channels), x), held_bytes(LiteralACM(channels), x)
    assert theirs > 2 * x.nbytes  # the control: X less its mean, and X + K - Q
    assert ours < 0.4 * theirs


def test_official_form_is_the_published_one():
    """|mean over images of the sum over modules of their d|, for three modules of different widths."""
    correlations, published = [], 0
    for seed, channels in enumerate((8, 16, 24)):
        ours, theirs = pair(channels, 4, seed)
        x = films(5, channels, 4, 4, seed=seed)
        correlations.append(ours(x)[1])
        published = published + theirs(x)[1]
    torch.testing.assert_close(orthogonality(correlations, "official"), published.mean().abs(), rtol=0, atol=1e-12)
    each = torch.stack(correlations).detach()
    assert (each > 0).any() and (each < 0).any()
    want = sum(abs(float(each[m, b])) for m in range(3) for b in range(5)) / 5
    assert float(orthogonality(correlations, "per_image").detach()) == pytest.approx(want, rel=1e-12)


def test_per_image_form_is_separable_and_the_official_one_is_not():
    """The gradient of an image's own share must not depend on who else is in the batch."""
    together = torch.tensor([[0.5, -2.0, 0.1], [0.2, 0.4, -0.3]], dtype=torch.float64)

    def gradients(form: str, chosen: list[int]) -> Tensor:
        d = together[:, chosen].clone().requires_grad_()
        orthogonality(list(d), form).backward()
        return d.grad * len(chosen)

    assert torch.equal(gradients("per_image", [0, 1, 2])[:, 0], gradients("per_image", [0])[:, 0])
    assert not torch.equal(gradients("official", [0, 1, 2])[:, 0], gradients("official", [0])[:, 0])


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_per_image_are_those_of_images_alone():
    ours, _ = pair(16, 4)
    x = films(4, 16, 3, 4)

    def loss(parameters, image):
        y, d = functional_call(ours, parameters, (image[None],))
        return y.square().sum() + orthogonality([d], "per_image")

    parameters = dict(ours.named_parameters())
    found = vmap(grad(loss), (None, 0))(parameters, x)
    for i in range(4):
        ours.zero_grad()
        loss(parameters, x[i]).backward()
        for name in NAMES:
            torch.testing.assert_close(found[name][i], getattr(ours, name).grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("how", ["compile", "checkpoint", "reentrant"])
def test_compiled_or_checkpointed_it_is_the_same(how):
    ours, _ = pair(16, 4)
    norm = lively_norm(16)
    wrapped = {
        "compile": lambda: torch.compile(ours, backend="aot_eager", fullgraph=True),
        "checkpoint": lambda: lambda x, norm: checkpoint(ours, x, norm, use_reentrant=False),
        "reentrant": lambda: lambda x, norm: checkpoint(ours, x, norm, use_reentrant=True),
    }[how]()
    results = []
    for module in (ours, wrapped):
        x = films(3, 16, 4, 4).requires_grad_()
        ours.zero_grad()
        out = module(x, copy.deepcopy(norm))
        backward(out)
        results.append([*out, x.grad, *(p.grad.clone() for p in ours.parameters())])
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_it_starts_as_published():
    torch.manual_seed(0)
    ours, theirs = ACM(1024), LiteralACM(1024)
    for name, want in ours_from_literal(theirs.state_dict()).items():
        found = getattr(ours, name)
        assert found.shape == want.shape, name
        assert float(found.detach().std()) == pytest.approx(float(want.std()), rel=0.1, abs=1e-9), name
    assert float(ours.attend.detach().std()) == pytest.approx(math.sqrt(2 / 32), rel=0.1)
    inert = 2 * 32
    assert (
        sum(p.numel() for p in ours.parameters())
        == 36_416 - inert
        == sum(p.numel() for p in theirs.parameters()) - inert
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"groups": 0}, "groups 0: at least 1"),
        ({"at": []}, "at: empty"),
        ({"weight": -0.1}, "weight -0.1"),
        ({"form": "batch"}, "form: "),
        ({"group": 8}, "did you mean 'groups'"),
    ],
)
def test_a_bad_setting_is_refused_in_words(values, said):
    with pytest.raises(ConfigError, match=said):
        build(ACMConfig, values)


def test_groups_that_do_not_fit_are_refused_with_ones_that_do():
    with pytest.raises(ConfigError, match="groups 32 and 48 channels: must divide half of them; try 24"):
        ACM(48, 32)
    with pytest.raises(ConfigError, match="try 1"):
        ACM(2, 2)
