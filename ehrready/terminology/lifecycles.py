"""Likelihoods of releases from which codes were seen at all: the kernel of `release-inferred` (checks.md 12).

Codes that are valid in the same releases are one group.  How often a code was used is not needed: of each group only
the number of distinct codes seen counts, so that profiles with hidden small counts serve as well as exact ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]

# Use of a group's codes relative to the codes that are valid in every release, with its prior: new codes come into use
# slowly, and the codes of one subject are used together.
_ADOPTION = np.array([0.03, 0.1, 0.25, 0.5, 1.0, 2.0])
_ADOPTION_PRIOR = np.array([0.02, 0.06, 0.10, 0.20, 0.50, 0.12])
# The same of codes that the release does not have: codes retired and still used, mistakes, codes of another feed.
_LEAK = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 0.6])
_LEAK_PRIOR = np.array([0.15, 0.20, 0.25, 0.25, 0.10, 0.05])
# Shape of the gamma distribution of a group's use around its mean (the negative binomial's size).
_SHAPE = 5.0
_LEAK_SHAPE = 2.0
# Codes whose use in all blocks stands behind the rate of each block, as if they had been seen there.
_BLOCK_PRIOR = 20.0

_lgamma = np.frompyfunc(math.lgamma, 1, 1)


@dataclass(frozen=True, slots=True)
class Lifecycles:
    """The codes of one system, grouped by the releases they are valid in.

    ``masks`` bool[G, R]; ``size`` codes of each group; ``group`` the group of each code (-1: valid in no release);
    ``born`` the first release of each group and ``gone`` the first one after its last (R: still valid); ``alias``
    numbers the runs of neighbouring releases with the same codes, from 0; ``block`` is 0..B-1 for each code.
    """

    masks: Bools
    size: Ints
    group: Ints
    born: Ints
    gone: Ints
    alias: Ints
    block: Ints
    by_block: Ints  # int[G, B]: codes of each group in each block

    @property
    def releases(self) -> int:
        """Return the number of releases."""
        return int(self.masks.shape[1])

    @property
    def always(self) -> Bools:
        """Return which groups are valid in every release: they tell how much is used, not which release."""
        return np.asarray(self.masks.all(axis=1))


def _keys(valid: Bools) -> NDArray[np.uint64]:
    """One number per row, the same for equal rows; different rows share one by chance in 1 of 10⁹ tables."""
    packed = np.packbits(valid, axis=1)
    words = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    words[:, : packed.shape[1]] = packed
    key = np.zeros(len(words), np.uint64)
    for word in words.view("<u8").T:
        key = (key ^ word) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


def _unique_rows(valid: Bools) -> tuple[Ints, Ints]:
    """First row of each distinct one, in the order of the rows' own bits, and for each row the number of its distinct one."""
    _, first, inverse = np.unique(_keys(valid), return_index=True, return_inverse=True)
    if not np.array_equal(valid[first][inverse], valid):  # two different rows met in one number
        _, first, inverse = np.unique(valid, axis=0, return_index=True, return_inverse=True)
    order = np.lexsort(valid[first].T[::-1])  # the rows' order, not the numbers': the same whatever the order of codes
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order].astype(np.intp), rank[inverse.reshape(-1)].astype(np.intp)


def lifecycles(valid: Bools, block: NDArray[np.integer] | None = None) -> Lifecycles:
    """Group codes by the releases they are valid in.

    Args:
        valid: bool[n_codes, R], releases in their order.
        block: Optional int[n_codes]: codes used together (a chapter), with a rate of use of their own; any integers.

    Raises:
        ValueError: Wrong shape, or not one block for each code.
    """
    valid = np.ascontiguousarray(valid, dtype=np.bool_)
    if valid.ndim != 2:
        raise ValueError("valid must be a table of codes by releases")
    if block is not None and np.shape(block) != (len(valid),):
        raise ValueError("there must be one block for each code")
    some = valid.any(axis=1)
    first, inverse = _unique_rows(valid[some])
    masks = valid[some][first]
    releases = valid.shape[1]
    group = np.full(len(valid), -1, np.intp)
    group[some] = inverse
    blocks = np.zeros(len(valid), np.intp) if block is None else np.unique(block, return_inverse=True)[1].reshape(-1).astype(np.intp)
    n_blocks = int(blocks.max(initial=0)) + 1
    by_block = np.bincount(inverse * n_blocks + blocks[some], minlength=len(masks) * n_blocks).reshape(len(masks), n_blocks)
    changes = (masks[:, 1:] != masks[:, :-1]).any(axis=0)
    return Lifecycles(
        masks=masks,
        size=by_block.sum(axis=1),
        group=group,
        born=masks.argmax(axis=1),
        gone=releases - masks[:, ::-1].argmax(axis=1),
        alias=np.concatenate([np.zeros(min(releases, 1), np.intp), np.cumsum(changes)]).astype(np.intp),
        block=blocks,
        by_block=by_block,
    )


def counts(table: Lifecycles, seen: NDArray[np.integer]) -> Ints:
    """Distinct codes seen of each group in each block, int[G, B]; duplicates in ``seen`` count once.

    Raises:
        ValueError: An index that is not a row of the table.
    """
    seen = np.unique(np.asarray(seen, dtype=np.intp).reshape(-1))
    if len(seen) and (seen[0] < 0 or seen[-1] >= len(table.group)):
        raise ValueError("seen holds an index that is no row of the table")
    groups, n_blocks = table.by_block.shape
    seen = seen[table.group[seen] >= 0]
    cells = table.group[seen] * n_blocks + table.block[seen]
    return np.bincount(cells, minlength=groups * n_blocks).reshape(groups, n_blocks)


def base_rate(table: Lifecycles, seen: Ints) -> Floats:
    """Share of the codes in each block that normal use would show: that of the codes valid in every release.

    A table without such codes falls back to the share of all codes of one release.
    """
    always = table.always
    known, used = table.by_block[always].sum(axis=0).astype(float), seen[always].sum(axis=0).astype(float)
    if known.sum() == 0:
        known = table.by_block.T @ table.masks.mean(axis=1)
        used = np.minimum(seen.sum(axis=0), known).astype(float)
    overall = used.sum() / max(known.sum(), 1.0)
    if len(known) == 1:
        return np.asarray(np.clip(np.array([overall]), 1e-9, 1 - 1e-6))
    return np.asarray(np.clip((used + _BLOCK_PRIOR * overall) / (known + _BLOCK_PRIOR), 1e-9, 1 - 1e-6))


def _log_seen(k: Ints, size: Ints, rate: Floats, use: Floats, shape: float) -> Floats:
    """Log probability of k of the size codes for each cell and each use relative to normal: float[cells, uses].

    Beta-binomial with mean 1 - (1 - rate)^use; for rare use it is the negative binomial of that shape.  The binomial
    coefficient is left out: it is the same under every release.
    """
    mean = -np.expm1(np.log1p(-rate)[:, None] * use[None, :])
    alpha = np.full_like(mean, shape)
    beta = shape * (1 - mean) / mean
    seen, left = k[:, None].astype(float), (size - k)[:, None].astype(float)
    gammas = [
        np.asarray(_lgamma(x), dtype=float) for x in (alpha + seen, beta + left, alpha + beta, alpha + beta + seen + left, alpha, beta)
    ]
    return np.asarray(gammas[0] + gammas[1] + gammas[2] - gammas[3] - gammas[4] - gammas[5])


def logsumexp(values: Floats, axis: int = -1) -> Floats:
    """Logarithm of the sum of exponentials along an axis."""
    top = values.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(values - top).sum(axis=axis)) + np.squeeze(top, axis=axis))


def group_terms(table: Lifecycles, seen: Ints) -> tuple[Floats, Floats]:
    """Log likelihood of what was seen of each group: if the release has it, float[G]; if not, by leak, float[G, L]."""
    rate = base_rate(table, seen)
    rows, blocks = np.nonzero(table.by_block * ~table.always[:, None])
    k, size = seen[rows, blocks], table.by_block[rows, blocks]
    groups = len(table.masks)

    def total(use: Floats, shape: float) -> Floats:
        cells = _log_seen(k, size, rate[blocks], use, shape)
        out = np.zeros((groups, len(use)))
        np.add.at(out, rows, cells)
        return out

    valid = logsumexp(total(_ADOPTION, _SHAPE) + np.log(_ADOPTION_PRIOR / _ADOPTION_PRIOR.sum()))
    valid[table.always] = 0.0
    return valid, total(_LEAK, _LEAK_SHAPE)


def _leaks(past: Floats, future: Floats) -> Floats:
    """Average over the leak grid (the last axis), half of the prior on one leak for both, half on two.

    People keep retired codes in use; codes of the future come by mistakes only.
    """
    prior = np.log(_LEAK_PRIOR / _LEAK_PRIOR.sum())
    return np.asarray(np.logaddexp(logsumexp(past + future + prior), logsumexp(past + prior) + logsumexp(future + prior)) - math.log(2))


def log_likelihood(table: Lifecycles, terms: tuple[Floats, Floats]) -> Floats:
    """Log likelihood of every release, float[R], averaged over the leaks."""
    valid, leak = terms
    missing = ~table.masks
    future = missing & (table.born[:, None] > np.arange(table.releases)[None, :])
    past = missing & ~future
    return np.asarray(table.masks.T.astype(float) @ valid + _leaks(past.T.astype(float) @ leak, future.T.astype(float) @ leak))


def log_likelihood_pools(table: Lifecycles, terms: tuple[Floats, Floats]) -> Floats:
    """Log likelihood of every pool of the releases i to j, float[R, R]; -inf below the diagonal.

    A pool has each code that any of its releases has.  Gaps in a code's life are overlooked: codes hardly ever return.
    """
    valid, leak = terms
    releases = table.releases
    columns = np.column_stack([valid, leak])
    born, gone = np.zeros((releases + 1, columns.shape[1])), np.zeros((releases + 1, columns.shape[1]))
    np.add.at(born, table.born, columns)
    np.add.at(gone, table.gone, columns)
    later = born.sum(axis=0) - np.cumsum(born, axis=0)[:releases]  # row j: groups born after j
    earlier = np.cumsum(gone, axis=0)[:releases]  # row i: groups gone by i
    used = valid.sum() - later[None, :, 0] - earlier[:, None, 0]
    out = used + _leaks(earlier[:, None, 1:], later[None, :, 1:])
    out[np.tril_indices(releases, -1)] = -np.inf
    return np.asarray(out)
