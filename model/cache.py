"""What attention keeps between the steps of generation. Shapes as in model/t5.py; n positions."""

from torch import Tensor


class KVCache:
    """Keys and values (B,H,n,d) of one attention layer, kept between the steps of generation.

    In self-attention there is room for `length` positions, and a step's are put at `position` (n,). In cross-attention,
    without both, they are computed once.
    """

    def __init__(self, length: int = 0, position: Tensor | None = None) -> None:
        self.length, self.position = length, position
        self.kv: tuple[Tensor, Tensor] | None = None

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.position is None:
            self.kv = k, v
            return self.kv
        if self.kv is None:
            B, H, _, d = k.shape
            self.kv = k.new_zeros(B, H, self.length, d), v.new_zeros(B, H, self.length, d)
        for kept, new in zip(self.kv, (k, v), strict=True):
            kept.index_copy_(2, self.position, new)
        return self.kv
