"""cuDNN's two calls as NumPy computes them from their operands; what it leaves unwritten is NaN."""

import jax
import jax.numpy as jnp
import numpy as np


def _problems(query, key, value, packing, bias, causal):
    """(mask, of queries, of keys, of statistics) of each problem: functions that give views."""
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    if not packing:
        for row in range(batch):
            mask = np.tri(length, key.shape[1], dtype=bool) | (not causal)
            mask = mask if bias is None else mask & (np.asarray(bias[row, 0], np.float32) == 0)
            yield (mask, *(lambda x, row=row: x[row] for _ in "qk"), lambda x, row=row: x[row])
        return
    lengths, key_lengths, offsets, key_offsets = (np.asarray(x).reshape(-1) for x in packing)
    np.testing.assert_array_equal(lengths, key_lengths)
    assert offsets.size == key_offsets.size == lengths.size + batch
    for slot, size in enumerate(lengths):
        if size <= 0:
            assert size == 0 and offsets[slot] == query.size and key_offsets[slot] == key.size
            continue

        def view(x, offset, heads, size=size):
            return x.reshape(-1)[offset : offset + size * heads * head_dim].reshape(
                size, heads, head_dim
            )

        yield (
            np.tri(size, dtype=bool),
            lambda x, offset=offsets[slot], view=view: view(x, offset, heads),
            lambda x, offset=key_offsets[slot], view=view: view(x, offset, kv_heads),
            lambda x, slot=slot, size=size: x[slot, :, :size],
        )


def _scores(query, key, mask):
    """[heads, length, key_length], and keys of each head."""
    group = query.shape[1] // key.shape[1]
    keys = np.repeat(key, group, axis=1)
    scores = np.einsum("lnd,snd->nls", query, keys) * query.shape[-1] ** -0.5
    return np.where(mask, scores, -np.inf), keys


def _forward(query, key, value, packing, bias, causal, slots):
    query, key, value = (np.asarray(x) for x in (query, key, value))
    out = np.full(query.shape, np.nan, np.float32)
    statistics = np.full((slots, query.shape[2], query.shape[1]), np.nan, np.float32)
    group = query.shape[2] // key.shape[2]
    for mask, rows, columns, statistics_of in _problems(query, key, value, packing, bias, causal):
        scores, _ = _scores(rows(query), columns(key), mask)
        total = np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1))
        total += scores.max(-1)
        values = np.repeat(columns(value), group, axis=1)
        rows(out)[:] = np.einsum("nls,snd->lnd", np.exp(scores - total[..., None]), values)
        statistics_of(statistics)[:] = total
    return out, statistics


def _backward(query, key, value, statistics, out, out_grad, packing, bias, causal):
    arrays = [np.asarray(x) for x in (query, key, value, statistics, out, out_grad)]
    query, key, value, statistics, out, out_grad = arrays
    grads = [np.full(x.shape, np.nan, np.float32) for x in (query, key, value)]
    kv_heads, head_dim = key.shape[2:]
    for mask, rows, columns, statistics_of in _problems(query, key, value, packing, bias, causal):
        scores, keys = _scores(rows(query), columns(key), mask)
        weights = np.exp(scores - statistics_of(statistics)[..., None])
        grad, values = rows(out_grad), np.repeat(columns(value), query.shape[2] // kv_heads, axis=1)
        mean = np.einsum("lnd,lnd->nl", rows(out), grad)
        score_grads = weights * (np.einsum("lnd,snd->nls", grad, values) - mean[..., None])
        score_grads *= head_dim**-0.5
        rows(grads[0])[:] = np.einsum("nls,snd->lnd", score_grads, keys)
        for target, whole in (
            (grads[1], np.einsum("nls,lnd->snd", score_grads, rows(query))),
            (grads[2], np.einsum("nls,lnd->snd", weights, grad)),
        ):
            size = whole.shape[0]
            columns(target)[:] = whole.reshape(size, kv_heads, -1, head_dim).sum(axis=2)
    return tuple(grads)


def emulated_forward(query, key, value, *packing, bias=None, causal=True):
    """Like cudnn.cudnn_forward, in float32."""
    slots = packing[0].size if packing else query.shape[0]
    shapes = (query.shape, (slots, query.shape[2], query.shape[1]))
    result = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)

    def call(query, key, value, packing, bias):
        return _forward(query, key, value, packing, bias, causal, slots)

    return jax.pure_callback(call, result, query, key, value, packing, bias)


def emulated_backward(query, key, value, *rest, bias=None, causal=True):
    """Like cudnn.cudnn_backward, in float32."""
    statistics, out, out_grad, *packing = rest
    result = tuple(jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (query, key, value))

    def call(query, key, value, statistics, out, out_grad, packing, bias):
        return _backward(query, key, value, statistics, out, out_grad, packing, bias, causal)

    operands = (query, key, value, statistics, out, out_grad, tuple(packing), bias)
    return jax.pure_callback(call, result, *operands)
