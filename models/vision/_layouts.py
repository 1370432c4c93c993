"""The few products that ACM needs of an image tensor, for either memory format, in passes that read X once.

Shape letters: B batch, C channels, G groups, D = C / G channels of a group, N positions, R rows, a map each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def layout(x_BCHW: Tensor, groups: int) -> Planes | Pixels:
    """By the memory format of ``x_BCHW``; anything that is neither format is copied into planes."""
    pixels = not x_BCHW.is_contiguous() and x_BCHW.permute(0, 2, 3, 1).is_contiguous()
    return Pixels(x_BCHW, groups) if pixels else Planes(x_BCHW, groups)


def _moments(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, by batch norm's own pass; ``torch.var_mean`` takes four times as long."""
    zero = torch.zeros(x.shape[1], dtype=dtype, device=x.device)
    return torch.batch_norm_update_stats(x, zero, torch.ones_like(zero), 0.0)


class Planes:
    """X as NCHW memory: every group of every image is one small matrix [D,N]."""

    def __init__(self, x_BCHW: Tensor, groups: int) -> None:
        self.x, self.B, self.G = x_BCHW.contiguous(), len(x_BCHW), groups
        self.N = x_BCHW.shape[2] * x_BCHW.shape[3]

    def _matrices(self, x: Tensor) -> Tensor:
        return x.view(self.B * self.G, -1, self.N)

    def mean(self, dtype: torch.dtype) -> Tensor:
        """Over positions, [B,G,D]."""
        return self.x.mean((2, 3), dtype=dtype).view(self.B, self.G, -1)

    def moments(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Mean over positions [B,G,D]; mean and variance over images and positions [C]."""
        planes = self.x.view(1, -1, *self.x.shape[2:])
        mean_BC, var_BC = (t.view(self.B, -1) for t in _moments(planes, dtype))
        var_C, mean_C = torch.var_mean(mean_BC, 0, correction=0)
        return mean_BC.view(self.B, self.G, -1), mean_C, var_C + var_BC.mean(0)

    def score(self, vectors_BGRD: Tensor) -> Tensor:
        """Inner products of ``vectors`` with X at every position, [B,G,R,N]; B may be 1 in ``vectors``."""
        B, G, R, D = self.B, self.G, *vectors_BGRD.shape[2:]
        vectors = vectors_BGRD.expand(B, G, R, D).reshape(B * G, R, D)
        return torch.bmm(vectors, self._matrices(self.x)).view(B, G, R, self.N)

    def pool(self, rows_BGRN: Tensor) -> Tensor:
        """Sums of X over positions weighted by ``rows``, [B,G,R,D]."""
        rows = rows_BGRN.reshape(self.B * self.G, -1, self.N)
        return torch.bmm(rows, self._matrices(self.x).transpose(1, 2)).view(self.B, self.G, rows.shape[1], -1)

    def add_outer(self, out: Tensor, rows_BGRN: Tensor, vectors_BGRD: Tensor) -> Tensor:
        """``out`` (as made by ``scaled_back``) plus the sum over R of row times vector, in place."""
        rows, vectors = (t.reshape(self.B * self.G, -1, t.shape[-1]) for t in (rows_BGRN, vectors_BGRD))
        self._matrices(out).baddbmm_(vectors.transpose(1, 2), rows)
        return out

    # Scale and shift of a plane are batch norm's last step, so its kernels do in one pass what would take two.

    def scaled(self, scale_BC: Tensor, shift_BC: Tensor) -> Tensor:
        """X * scale + shift."""
        zero, one = torch.zeros_like(scale_BC).view(-1), torch.ones_like(scale_BC).view(-1)
        planes = self.x.view(1, scale_BC.numel(), *self.x.shape[2:])
        out = torch.native_batch_norm(planes, scale_BC.view(-1), shift_BC.view(-1), zero, one, False, 0.0, 0.0)[0]
        return out.view_as(self.x)

    def scaled_back(self, grad: Tensor, scale_BC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """grad * scale, and the sums over positions of grad * X and of grad, both [B,C]."""
        zero, one = torch.zeros_like(scale_BC).view(-1), torch.ones_like(scale_BC).view(-1)
        shape = (1, scale_BC.numel(), *self.x.shape[2:])
        out, with_x, alone = torch.ops.aten.native_batch_norm_backward(
            grad.contiguous().view(shape),
            self.x.view(shape),
            scale_BC.view(-1),
            zero,
            one,
            zero,
            one,
            False,
            0.0,
            [True] * 3,
        )
        return out.view_as(self.x), with_x.view_as(scale_BC), alone.view_as(scale_BC)


class Pixels:
    """X as NHWC memory: every image is one matrix [N,C]; some groups at a time are a block-diagonal product with it.

    That multiplies zeros, but reads X as it lies; to copy it into planes and back costs more.
    """

    def __init__(self, x_BCHW: Tensor, groups: int) -> None:
        self.x, self.B, self.G = x_BCHW, len(x_BCHW), groups
        self.shape_BHWC = x_BCHW.permute(0, 2, 3, 1).shape
        # Measured: matrix units do the zeros for nothing; plain processors are fastest with 8 groups at a time.
        wide = x_BCHW.is_cuda or x_BCHW.dtype in (torch.bfloat16, torch.float16)
        self.parts = 1 if wide else groups // math.gcd(groups, 8)
        self.matrix_BNC = self._matrix(x_BCHW)

    def mean(self, dtype: torch.dtype) -> Tensor:
        return self.matrix_BNC.sum(1, dtype=dtype).div_(self.matrix_BNC.shape[1]).view(self.B, self.G, -1)

    def moments(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        return self.mean(dtype), *_moments(self.x, dtype)

    def _matrix(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(self.B, -1, x.shape[1])

    def _like_x(self, matrix_BNC: Tensor) -> Tensor:
        return matrix_BNC.view(self.shape_BHWC).permute(0, 3, 1, 2)

    def _blocks(self, vectors_BGRD: Tensor) -> tuple[Tensor, ...]:
        """Block-diagonal [B, groups * R, groups * D] of each part."""
        B, G, R, D = vectors_BGRD.shape
        n, g = self.parts, G // self.parts
        blocks = vectors_BGRD.new_zeros(B, n, g, R, g, D)
        blocks.diagonal(dim1=2, dim2=4).copy_(vectors_BGRD.view(B, n, g, R, D).permute(0, 1, 3, 4, 2))
        return blocks.view(B, n, g * R, g * D).unbind(1)

    def score(self, vectors_BGRD: Tensor) -> Tensor:
        columns = self.matrix_BNC.chunk(self.parts, 2)
        scores = [torch.matmul(b, x.transpose(1, 2)) for b, x in zip(self._blocks(vectors_BGRD), columns)]
        return torch.cat(scores, 1).view(self.B, self.G, vectors_BGRD.shape[2], -1)

    def pool(self, rows_BGRN: Tensor) -> Tensor:
        R, n, g = rows_BGRN.shape[2], self.parts, self.G // self.parts
        rows = rows_BGRN.reshape(self.B, self.G * R, -1).chunk(n, 1)
        sums = torch.stack([torch.bmm(a, x) for a, x in zip(rows, self.matrix_BNC.chunk(n, 2))], 1)
        blocks = sums.view(self.B, n, g, R, g, -1).diagonal(dim1=2, dim2=4)  # [B,n,R,D,g]
        return blocks.permute(0, 1, 4, 2, 3).reshape(self.B, self.G, R, -1)

    def add_outer(self, out: Tensor, rows_BGRN: Tensor, vectors_BGRD: Tensor) -> Tensor:
        rows = rows_BGRN.reshape(self.B, -1, rows_BGRN.shape[-1]).transpose(1, 2).chunk(self.parts, 2)
        columns = self._matrix(out).chunk(self.parts, 2)
        for part, row, block in zip(columns, rows, self._blocks(vectors_BGRD)):
            part.baddbmm_(row, block)
        return out

    def scaled(self, scale_BC: Tensor, shift_BC: Tensor) -> Tensor:
        scale, shift = (t[:, None].to(self.x.dtype) for t in (scale_BC, shift_BC))
        return self._like_x(torch.mul(self.matrix_BNC, scale).add_(shift))

    def scaled_back(self, grad: Tensor, scale_BC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        g_BNC = self._matrix(grad)
        with_x = (g_BNC * self.matrix_BNC).sum(1, dtype=scale_BC.dtype)
        return self._like_x(g_BNC * scale_BC[:, None].to(g_BNC.dtype)), with_x, g_BNC.sum(1, dtype=scale_BC.dtype)
