"""Reads weights that others released into our towers, exactly: same features for the same film.

    released = read_released("dino_deitsmall8_pretrain.pth", normalise="imagenet")
    tower = released.build()              # a tower as the file describes it, or
    released.load_into(model.vision)      # one that the run's configuration made

Formats, by the tensors found and not by the file's name, as ``.pth`` (loaded as weights only: nothing in the file is
run) or safetensors:

- ViT of DINO (arXiv 2104.14294), DINOv2 (2304.07193) and DISTL (2202.06431), plain or inside a training checkpoint;
- ResNet-50, torchvision's names, and the authors' with ACM (2007.07506).

What our towers do not have is folded into what they have: the class token's position into the token, layer scale into
the layer before it, the input's normalisation into the patch convolution. The bias of ACM's maps does nothing and is
dropped. Prefixes such as ``module.backbone.`` are taken off at the front only; the authors' ACM blocks have a
``module.`` in the middle of their names, which must stay.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checkpoint import load
from models.config import build
from models.vision import resnet50, vit
from models.vision.resnet50 import IMAGENET_MEAN, IMAGENET_STD, STAGES

Normalise = Literal["none", "imagenet"]
PARTS = ("state_dict", "student", "teacher", "model", "model_state_dict")
ANCHORS = {"vit": "patch_embed.proj.weight", "resnet50": "layer1.0.conv1.weight"}
# Heads of training and of classification, and what masks patches in training: not of the tower.
NOT_TOWER = re.compile(r"(head\w*|dino_head|ibot_head|fc|classifier\w*|mask_token)(\.|$)")


class ReleasedError(ValueError):
    """A file of weights that cannot be read, or does not fit. The text says what is missing or unexpected."""


@dataclass(frozen=True)
class Released:
    """What a file holds. config: of the tower its shapes describe; tower: tensors under our names; heads: the rest,
    under the file's names without prefix (a classifier, prototypes)."""

    config: vit.Config | resnet50.Config
    tower: dict[str, Tensor]
    heads: dict[str, Tensor]

    def build(self) -> nn.Module:
        """A tower with these weights."""
        tower = self.config.build()
        self.load_into(tower)
        return tower

    @torch.no_grad()
    def load_into(self, tower: nn.Module) -> None:
        """Copy the weights into ``tower``; nothing is changed unless all of them fit.

        A position table of another size is resampled. A grey tower gets the sum of the three colours' weights, which
        is the same for a grey film.

        Raises:
            ReleasedError: a tower of another kind or size; the text names the tensors.
        """
        tensors = _adapted(self, tower)
        own = {name: t for name, t in tower.state_dict().items() if not name.endswith("num_batches_tracked")}
        _same_names(own.keys(), tensors.keys(), "the tower")
        for name, value in own.items():
            if value.shape != tensors[name].shape:
                raise ReleasedError(
                    f"{name}: the file has {tuple(tensors[name].shape)}, the tower {tuple(value.shape)}"
                )
        for name, value in own.items():
            value.copy_(tensors[name])


def read_released(
    path: Path | str, *, part: str = "", normalise: Normalise = "none", heads: int | None = None
) -> Released:
    """Read the file at ``path``.

    Args:
        part: of a training checkpoint with several networks, e.g. ``teacher`` or ``student``.
        normalise: of the input the weights were trained on. ``imagenet`` for DINO, DINOv2 and the authors' ACM;
            DISTL's were trained on films in [0,1], ``none``.
        heads: attention heads of a ViT, which no tensor's shape tells; None for one for each 64 channels, as in all
            of the above.

    Raises:
        ReleasedError: not such a file, or one with missing or unexpected tensors.
    """
    state, kind = _tower_of(*_state(_contents(Path(path)), part))
    rest = {name: value for name, value in state.items() if NOT_TOWER.match(name)}
    state = {name: value.float() for name, value in state.items() if name not in rest}
    if kind == "vit":
        return _vit(state, rest, normalise, heads)
    return _resnet(state, rest, normalise)


def _contents(path: Path) -> Any:
    if not path.is_file():
        raise ReleasedError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return load(path)
        except ValueError as error:
            raise ReleasedError(str(error)) from None
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a strange file provokes; torch's own text advises to load it unsafely
        raise ReleasedError(f"{path}: {_foreign(path) or f'no file of weights ({type(error).__name__})'}") from None


def _harmless() -> list[Any]:
    """Plain values in training checkpoints, needed only to get past them: options, a best score, an epoch."""
    scalar = np.float64(0).__reduce__()[0]
    types = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    return [
        argparse.Namespace,
        np.dtype,
        *types,
        *((scalar, f"numpy.{m}.multiarray.scalar") for m in ("core", "_core")),
    ]


_HARMLESS = _harmless()


def _foreign(path: Path) -> str:
    """What a file asks to run that loading as weights only refuses; empty if it cannot be told."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        return ""
    return f"asks for {', '.join(found)}, which is more than weights; refused" if found else ""


def _state(contents: Any, part: str) -> tuple[dict[str, Tensor], str]:
    """The flat tensors of a file, or of its ``part``; and the part that is still to be found among their names."""
    while isinstance(contents, Mapping):
        inner = [name for name, value in contents.items() if isinstance(value, Mapping)]
        found = [name for name in inner if name == part] or [name for name in PARTS if name in inner]
        if not found:
            break
        if len(found) > 1:
            raise ReleasedError(f"holds {', '.join(found)}; give one of them as part")
        contents, part = contents[found[0]], "" if found[0] == part else part
    if not isinstance(contents, Mapping):
        raise ReleasedError(f"holds a {type(contents).__name__}, not tensors by name")
    return {str(name): value for name, value in contents.items() if isinstance(value, Tensor)}, part


def _tower_of(state: dict[str, Tensor], part: str) -> tuple[dict[str, Tensor], str]:
    """The tensors without their common prefix, and which kind of tower they are."""
    found = [(name.removesuffix(a), kind) for kind, a in ANCHORS.items() for name in state if _ends(name, a)]
    if part:
        found = [(prefix, kind) for prefix, kind in found if part in prefix.split(".")]
    if len(found) != 1:
        if found:
            what = ", ".join(repr(prefix) for prefix, _ in found)
            raise ReleasedError(f"holds {len(found)} networks, {what}; give the word that marks one as part")
        if part:
            raise ReleasedError(f"part {part!r}: nothing of that name in the file, which has {sorted(state)[:3]}")
        raise ReleasedError(
            f"no ViT ({ANCHORS['vit']}) and no ResNet-50 ({ANCHORS['resnet50']}) in it; it has {sorted(state)[:3]}"
        )
    prefix, kind = found[0]
    # Heads may stand beside the tower, outside its prefix.
    outer = prefix[: prefix.rfind(".", 0, -1) + 1]
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    beside = {name.removeprefix(outer): v for name, v in state.items() if name.startswith(outer) and prefix != outer}
    return {n: v for n, v in beside.items() if NOT_TOWER.match(n)} | inside, kind


def _ends(name: str, anchor: str) -> bool:
    return name == anchor or name.endswith("." + anchor)


def _same_names(wanted: Iterable[str], given: Iterable[str], where: str) -> None:
    wanted, given = set(wanted), set(given)
    missing, extra = sorted(wanted - given), sorted(given - wanted)
    if missing or extra:
        show = lambda names: ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise ReleasedError(
            f"the file does not fit {where}: missing {show(missing) or 'none'}; unexpected {show(extra) or 'none'}"
        )


# -- ViT -----------------------------------------------------------------------------------------------------------


def _vit(state: dict[str, Tensor], rest: dict[str, Tensor], normalise: Normalise, heads: int | None) -> Released:
    for name, what in (("register_tokens", "register tokens"), ("blocks.0.mlp.w12.weight", "SwiGLU layers")):
        if name in state:
            raise ReleasedError(f"{name}: this ViT has {what}, which our tower has not; take the variant without")
    # Large DINOv2 trainings nest the blocks in chunks: blocks.<chunk>.<block>.
    state = {re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", name): value for name, value in state.items()}
    depth = 1 + max((int(n.split(".")[1]) for n in state if n.startswith("blocks.")), default=-1)
    scaled = "blocks.0.ls1.gamma" in state
    _same_names(_vit_names(depth, scaled), state, "a ViT")
    kernel, table = state["patch_embed.proj.weight"], state["pos_embed"]
    width, grid = kernel.shape[0], math.isqrt(table.shape[1] - 1)
    if grid * grid != table.shape[1] - 1:
        raise ReleasedError(f"pos_embed: {table.shape[1]} rows are no class token and square grid")
    if heads is None and width % 64:
        raise ReleasedError(f"width {width} is no multiple of 64, so the heads cannot be told; give heads")
    config = build(
        vit.Config,
        {
            "image_size": grid * kernel.shape[-1],
            "patch": kernel.shape[-1],
            "channels": kernel.shape[1],
            "width": width,
            "depth": depth,
            "heads": heads or width // 64,
            "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
            "positions": "learned",
        },
    )
    kernel, bias = _normalised(kernel, state["patch_embed.proj.bias"], normalise)
    tower = {
        "patch_embed.weight": kernel,
        "patch_embed.bias": bias,
        "cls_token": state["cls_token"] + table[:, :1],
        "pos_embed": table[:, 1:],
        "norm.weight": state["norm.weight"],
        "norm.bias": state["norm.bias"],
    }
    for i in range(depth):
        for kind in ("weight", "bias"):
            for theirs, ours, scale in (
                ("norm1", "norm1", ""),
                ("attn.qkv", "attn.qkv", ""),
                ("attn.proj", "attn.proj", "ls1.gamma"),
                ("norm2", "norm2", ""),
                ("mlp.fc1", "mlp.0", ""),
                ("mlp.fc2", "mlp.2", "ls2.gamma"),
            ):
                value = state[f"blocks.{i}.{theirs}.{kind}"]
                if scaled and scale:
                    value = value * state[f"blocks.{i}.{scale}"].view(-1, *[1] * (value.ndim - 1))
                tower[f"blocks.{i}.{ours}.{kind}"] = value
    return Released(config, tower, rest)


def _vit_names(depth: int, scaled: bool) -> set[str]:
    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    names = {f"blocks.{i}.{layer}.{kind}" for i in range(depth) for layer in layers for kind in ("weight", "bias")}
    names |= {f"blocks.{i}.ls{n}.gamma" for i in range(depth) for n in (1, 2) if scaled}
    return names | {
        "cls_token",
        "pos_embed",
        *(f"{n}.{k}" for n in ("patch_embed.proj", "norm") for k in ("weight", "bias")),
    }


def _normalised(kernel: Tensor, bias: Tensor, normalise: Normalise) -> tuple[Tensor, Tensor]:
    """A convolution without padding that takes (x - mean) / std, as one that takes x."""
    if normalise == "none":
        return kernel, bias
    if kernel.shape[1] != 3:
        raise ReleasedError(f"normalise 'imagenet': the weights have {kernel.shape[1]} channels, ImageNet's mean has 3")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    kernel = kernel / std
    return kernel, bias - (kernel * mean).sum((1, 2, 3))


# -- ResNet-50 -----------------------------------------------------------------------------------------------------


def _resnet(state: dict[str, Tensor], rest: dict[str, Tensor], normalise: Normalise) -> Released:
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    places = sorted({m[1] for name in state if (m := re.match(r"(layer\d\.\d+)\.module\.", name))})
    groups = state[f"{places[0]}.module.add_mod.map_gen.0.weight"].shape[0] if places else 0
    values = {
        "channels": state["conv1.weight"].shape[1],
        "base": state["conv1.weight"].shape[0],
        "norm": "batch" if "bn1.running_mean" in state else "group",
        "normalise": normalise,
        "acm": {"groups": groups, "at": _places(places)} if places else None,
    }
    config = build(resnet50.Config, values)
    for place in places:
        state |= _acm(state, place)
    with torch.device("meta"):
        own = config.build().state_dict()
    _same_names((n for n in own if not n.endswith("num_batches_tracked")), state, "a ResNet-50")
    return Released(config, state, rest)


def _places(blocks: list[str]) -> list[str]:
    """Whole stages by their name."""
    places: list[str] = []
    for stage, count in STAGES.items():
        found = [block for block in blocks if block.startswith(stage)]
        places += [stage] if len(found) == count else found
    return places


def _acm(state: dict[str, Tensor], place: str) -> dict[str, Tensor]:
    """Takes a module's tensors out of ``state`` and gives them under our names."""
    prefix, gate = f"{place}.module.", "mul_mod.feature_gen"
    theirs = {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}
    maps = [f"{branch}.map_gen.0.{kind}" for branch in ("add_mod", "sub_mod") for kind in ("weight", "bias")]
    wanted = {*maps, *(f"{gate}.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias"))}
    _same_names({prefix + name for name in wanted}, {prefix + name for name in theirs}, "an ACM")
    ours = {
        "attend": torch.stack([theirs[f"{branch}.map_gen.0.weight"].flatten() for branch in ("add_mod", "sub_mod")]),
        "squeeze_weight": theirs[f"{gate}.0.weight"].flatten(1),
        "squeeze_bias": theirs[f"{gate}.0.bias"],
        "excite_weight": theirs[f"{gate}.2.weight"].flatten(1),
        "excite_bias": theirs[f"{gate}.2.bias"],
    }
    return {f"{place}.acm.{name}": value for name, value in ours.items()}


# -- into a tower that is there already ----------------------------------------------------------------------------


def _adapted(released: Released, tower: nn.Module) -> dict[str, Tensor]:
    theirs, own, tensors = released.config, getattr(tower, "cfg", None), dict(released.tower)
    if type(own) is not type(theirs):
        raise ReleasedError(
            f"the file holds a {theirs.name}, the tower is a {getattr(own, 'name', type(tower).__name__)}"
        )
    first = "conv1.weight" if theirs.name == "resnet50" else "patch_embed.weight"
    if theirs.name == "resnet50" and theirs.normalise != own.normalise:
        raise ReleasedError(
            f"the weights take input with normalise {theirs.normalise!r}, the tower is configured with {own.normalise!r}"
        )
    if theirs.name == "vit" and own.heads != theirs.heads:
        raise ReleasedError(f"the weights have {theirs.heads} heads, the tower is configured with {own.heads}")
    if own.channels == 1 and theirs.channels > 1:
        tensors[first] = tensors[first].sum(1, keepdim=True)
    if theirs.name == "vit" and own.positions == "learned":
        tensors["pos_embed"] = resampled(tensors["pos_embed"], own.image_size // own.patch)
    return tensors


def resampled(table: Tensor, grid: int) -> Tensor:
    """Position table [1,g*g,D] for another grid, [1,grid*grid,D], bicubic; the same numbers when it fits already."""
    trained = math.isqrt(table.shape[1])
    if trained == grid:
        return table
    planes = table.view(1, trained, trained, -1).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, size=(grid, grid), mode="bicubic", align_corners=False)
    return planes.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)
