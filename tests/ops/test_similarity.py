"""Cosines and Gram matrices against what they mean, written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from src.ops.similarity import cosine_distance, gram_distance


def slow_gram_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The definition: a matrix [N, N] for each picture of each network."""
    found = []
    for s, t in zip(student, teacher, strict=True):
        one, other = (F.normalize(x.flatten(1).T, dim=1) for x in (s, t))
        found.append(((one @ one.T - other @ other.T) ** 2).mean())
    return torch.stack(found).mean()


def like(student: Tensor, noise: float, seed: int = 1) -> Tensor:
    return student.detach() + noise * torch.randn(
        student.shape, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("size", [(2, 8, 5, 7), (1, 8, 1, 1), (3, 4, 2, 1)])
@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_gram_distance_is_that_of_the_large_matrices_and_so_is_its_gradient(
    size: tuple[int, ...], noise: float
) -> None:
    student = torch.randn(size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    teacher = like(student, noise)
    wanted = slow_gram_distance(student.double(), teacher.double())
    (gradient,) = torch.autograd.grad(wanted, student)
    found = gram_distance(student, teacher)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(torch.autograd.grad(found, student)[0], gradient, rtol=1e-4, atol=1e-7)


def test_gram_distance_agrees_with_the_sum_of_three_squares() -> None:
    student = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    teacher = like(student, 0.5)
    s, t = (F.normalize(x.double().flatten(2), dim=1)[0].T for x in (student, teacher))
    squares = [(a.T @ b).square().sum() for a, b in ((s, s), (t, t), (s, t))]
    wanted = (squares[0] + squares[1] - 2 * squares[2]) / 16**2
    torch.testing.assert_close(gram_distance(student, teacher).double(), wanted, rtol=1e-5, atol=0)


def test_a_vit_that_has_not_moved_is_not_pulled() -> None:
    student = torch.randn(2, 6, 3, 4, requires_grad=True)
    distance = gram_distance(student, student.detach())
    distance.backward()
    assert distance.item() == 0.0 and student.grad is not None and not student.grad.any()


def test_gram_distance_sees_no_rotation_of_all_vectors_and_no_length() -> None:
    student = torch.randn(1, 6, 3, 4, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    turned = torch.einsum("ij,bjhw->bihw", rotation, student) * torch.rand(1, 1, 3, 4).add(0.5)
    assert gram_distance(student, turned).item() < 1e-10


def test_gram_distance_is_computed_in_float32_and_knows_each_picture_by_itself() -> None:
    student = torch.randn(2, 6, 3, 4).bfloat16()
    teacher = student.flip(0)
    distance = gram_distance(student, teacher)
    alone = [gram_distance(s[None], t[None]) for s, t in zip(student, teacher, strict=True)]
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, torch.stack(alone).mean())


def test_cosine_distance_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0], [3.0, 3.0]]).T[None, :, :, None]  # two cells of width 2
    teacher = torch.tensor([[0.0, 2.0], [5.0, 5.0]]).T[None, :, :, None]
    assert cosine_distance(student, teacher).item() == pytest.approx(0.5)
    assert cosine_distance(student, -student).item() == pytest.approx(2.0)
    assert cosine_distance(student.bfloat16(), teacher.bfloat16()).dtype == torch.float32
