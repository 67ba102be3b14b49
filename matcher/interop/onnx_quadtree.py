"""QuadTree attention in the operators of ONNX, for the step of a graph that stands for it.

The descent is that of `matcher.attention.reference`, for one pair: letters as there, tokens in
quad order. Every size that is not known is a -1 in a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matcher.errors import require_extra

Value = Any
"""A tensor of the graph."""


class OnnxQuadTree:
    """Writes the descent of one attention with (1, C, h, w) maps into a graph.

    Args:
        op: the operators of an opset, of the package ``onnxscript``.
        channels: C.
    """

    def __init__(self, op: Any, channels: int, heads: int, levels: int) -> None:
        self.op, self.heads, self.levels = op, heads, levels
        self.depth = channels // heads
        splits = levels - 1
        rows = list(range(2, 3 + splits))
        columns = list(range(3 + splits, 4 + 2 * splits))
        pairs = [axis for pair in zip(rows, columns, strict=True) for axis in pair]
        self.order = [0, *pairs, 1]
        """From (H, D, rows, 2, ..., columns, 2, ...) to (H, rows, columns, 2, 2, ..., D)"""

    def ints(self, *values: int) -> Value:
        return self.op.Constant(value_ints=list(values))

    def tokens(self, maps: Value) -> Value:
        """(1, H D, h, w) maps as (H, N, D) tokens."""
        op, splits = self.op, [2] * (self.levels - 1)
        height, width = self.cells(maps)
        shape = (self.ints(self.heads, -1), height, self.ints(*splits), width, self.ints(*splits))
        blocks = op.Transpose(op.Reshape(maps, op.Concat(*shape, axis=0)), perm=self.order)
        return op.Reshape(blocks, self.ints(self.heads, -1, self.depth))

    def maps(self, tokens: Value, like: Value) -> Value:
        """(H, N, D) tokens as maps of the size of `like`."""
        op = self.op
        inverse = [self.order.index(axis) for axis in range(len(self.order))]
        splits = self.ints(*[2] * (2 * (self.levels - 1)))
        shape = (self.ints(self.heads), *self.cells(like), splits, self.ints(self.depth))
        blocks = op.Transpose(op.Reshape(tokens, op.Concat(*shape, axis=0)), perm=inverse)
        return op.Reshape(blocks, op.Shape(like))

    def cells(self, maps: Value) -> tuple[Value, Value]:
        """(1,) number of rows and of columns of the coarsest level."""
        op, cell = self.op, self.ints(2 ** (self.levels - 1))
        return tuple(op.Div(op.Shape(maps, start=axis, end=axis + 1), cell) for axis in (2, 3))

    def mask(self, mask: Value) -> Value:
        """(1, h, w) bool as (N, 1) ones and zeros in quad order."""
        op = self.op
        alone = OnnxQuadTree(op, 1, 1, self.levels)
        valid = op.Cast(op.Unsqueeze(mask, self.ints(0)), to=1)
        return op.Squeeze(alone.tokens(valid), self.ints(0))

    def pyramid(self, tokens: Value, masks: Sequence[Value]) -> list[Value]:
        """(H, N, D) means of the valid tokens of each level, coarsest first."""
        op, out = self.op, [tokens]
        for mask in masks[:0:-1]:
            valid = op.Reshape(mask, self.ints(-1, 4, 1))
            children = op.Mul(op.Reshape(out[0], self.ints(self.heads, -1, 4, self.depth)), valid)
            count = op.ReduceSum(valid, self.ints(1), keepdims=0)
            total = op.ReduceSum(children, self.ints(2), keepdims=0)
            out.insert(0, op.Div(total, op.Max(count, op.Constant(value_float=1.0))))
        return out

    def masks(self, mask: Value) -> list[Value]:
        """(N, 1) of each level, coarsest first: valid is what has a valid child."""
        op, out = self.op, [self.mask(mask)]
        for _ in range(self.levels - 1):
            children = op.Reshape(out[0], self.ints(-1, 4, 1))
            out.insert(0, op.ReduceMax(children, self.ints(1), keepdims=0))
        return out

    def softmax(self, scores: Value, valid: Value) -> Value:
        """Over the last axis; rows without a valid key give zeros."""
        op = self.op
        least = op.Constant(value_float=-3.4e38)
        masked = op.Where(op.Greater(valid, op.Constant(value_float=0.5)), scores, least)
        return op.Mul(op.Softmax(masked, axis=-1), valid)

    def gather(self, tokens: Value, keys: Value) -> Value:
        """(H, G, K, D) of (H, S, D) tokens at (H, G, K)."""
        op = self.op
        count = op.Shape(tokens, start=1, end=2)
        heads = op.Constant(value_ints=list(range(self.heads)))
        first = op.Reshape(op.Mul(heads, count), self.ints(self.heads, 1, 1))
        return op.Gather(op.Reshape(tokens, self.ints(-1, self.depth)), op.Add(keys, first))

    def descend(
        self, pyramids: Sequence[Sequence[Value]], topks: Sequence[int], variant: str
    ) -> list[Value]:
        """(H, N, D) messages, coarsest first, of pyramids of queries, keys, values and masks."""
        messages, above = [], None
        for level, (query, *target) in enumerate(zip(*pyramids, strict=True)):
            topk = topks[level] if level < self.levels - 1 else 0
            message, above = self.attend(query, target, above, topk, variant)
            messages.append(message)
        return messages

    def attend(
        self, query: Value, target: Sequence[Value], above: Any, topk: int, variant: str
    ) -> tuple[Value, Any]:
        """The message of one level, and the (H, N, k) keys that descend with their probability."""
        op = self.op
        key, value, mask = target
        query = op.Mul(query, op.Constant(value_float=self.depth**-0.5))
        if above is None:  # one group of queries, all keys
            keys = op.Range(
                *(
                    op.Constant(value_int=0),
                    op.Squeeze(op.Shape(key, start=1, end=2)),
                    op.Constant(value_int=1),
                )
            )
            keys = op.Expand(op.Reshape(keys, self.ints(1, 1, -1)), self.ints(self.heads, 1, 1))
            key, value = (op.Unsqueeze(x, self.ints(1)) for x in (key, value))
            valid = op.Reshape(mask, self.ints(1, 1, 1, -1))
            query = op.Unsqueeze(query, self.ints(1))
        else:
            children = op.Add(
                op.Mul(op.Unsqueeze(above[0], self.ints(3)), self.ints(4)), self.ints(0, 1, 2, 3)
            )
            keys = op.Reshape(children, self.ints(0, 0, -1))
            key, value = self.gather(key, keys), self.gather(value, keys)
            valid = op.Unsqueeze(op.Gather(op.Reshape(mask, self.ints(-1)), keys), self.ints(2))
            query = op.Reshape(query, self.ints(self.heads, -1, 4, self.depth))
        scores = op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2]))  # (H, G, N / G, K)
        if above is None or variant == "B":
            p = self.softmax(scores, valid)
        else:
            p = self.softmax(*(op.Reshape(x, self.ints(0, 0, 0, -1, 4)) for x in (scores, valid)))
            parents = op.Unsqueeze(op.Unsqueeze(above[1], self.ints(2)), self.ints(4))
            p = op.Reshape(op.Mul(p, parents), self.ints(0, 0, 0, -1))
        selected = None
        used = p
        if topk:
            best, at = op.TopK(p, self.ints(topk), axis=-1, largest=1, sorted=0)
            if variant == "A":
                used = op.ScatterElements(
                    p, at, op.Mul(best, op.Constant(value_float=0.0)), axis=-1
                )
            keys = op.Expand(op.Unsqueeze(keys, self.ints(2)), op.Shape(p))
            chosen = op.GatherElements(keys, at, axis=-1)
            selected = [op.Reshape(x, self.ints(self.heads, -1, topk)) for x in (chosen, best)]
        message = op.MatMul(used, value)
        return op.Reshape(message, self.ints(self.heads, -1, self.depth)), selected

    def merge(self, messages: Sequence[Value], weights: Value | None) -> Value:
        """(H, N, D): the sum of the messages, those of a level repeated to its children."""
        op, total = self.op, None
        if weights is not None:
            weights = op.Softmax(weights, axis=0)
        for level, message in enumerate(messages):
            if weights is not None:
                message = op.Mul(message, op.Gather(weights, op.Constant(value_int=level)))
            if total is not None:
                children = op.Reshape(message, self.ints(self.heads, -1, 4, self.depth))
                message = op.Add(op.Unsqueeze(total, self.ints(2)), children)
                message = op.Reshape(message, self.ints(self.heads, -1, self.depth))
            total = message
        return total


def quadtree(
    query: Value,
    key: Value,
    value: Value,
    query_mask: Value,
    key_mask: Value,
    level_weights: Value | None,
    topks: Sequence[int],
    heads: int,
    variant: str,
) -> Value:
    """`matcher.attention.operator` for a batch of one, as an entry of a translation table."""
    op = require_extra("onnxscript", "onnx", "export onnx").opset23
    tree = OnnxQuadTree(op, int(query.shape[1]), heads, len(topks))
    masks0, masks1 = tree.masks(query_mask), tree.masks(key_mask)
    queries = tree.pyramid(tree.tokens(query), masks0)
    keys, values = (tree.pyramid(tree.tokens(x), masks1) for x in (key, value))
    messages = tree.descend((queries, keys, values, masks1), topks, variant)
    return tree.maps(tree.merge(messages, level_weights), query)
