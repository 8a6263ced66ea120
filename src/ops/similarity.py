"""How alike the features of two networks are: cosines of their vectors, and Gram matrices of their patches.

Legend: B batch, D width, N = h * w cells of a map.
"""

import torch.nn.functional as F
from torch import Tensor


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine between the vectors of each cell, mean over cells and pictures.

    Args:
        student: [B, D, h, w] floating.
        teacher: Likewise, of the same shape.

    Returns:
        A scalar in [0, 2], float32.
    """
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=1)).mean()


def gram_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two Gram matrices (DINOv3's Gram anchoring), without making them.

    With S and T [N, D] the normalised vectors of a picture, it is |SS^T - TT^T|^2 / N^2. With the difference
    A = S - T and the sum C = S + T, SS^T - TT^T is (AC^T + CA^T) / 2, whose square is half of
    <A^TA, C^TC> + <A^TC, (A^TC)^T>: products of size [D, D] in place of [N, N]. It is the same number as
    |S^TS|^2 + |T^TT|^2 - 2|S^TT|^2, but small numbers are not differences of large ones here, and it is
    exactly 0, without gradient, where S is T.

    Args:
        student: [B, D, h, w] floating.
        teacher: Likewise, of the same shape.

    Returns:
        A scalar, mean over pictures; float32, in which it is also computed.
    """
    unit = [F.normalize(x.float().flatten(2), dim=1) for x in (student, teacher)]  # [B, D, N]
    difference, total = unit[0] - unit[1], unit[0] + unit[1]
    own = difference @ difference.mT
    cross = difference @ total.mT
    squares = (own * (total @ total.mT)).sum((1, 2)) + (cross * cross.mT).sum((1, 2))
    num_cells = difference.shape[2]
    return squares.mean() / (2 * num_cells**2)
