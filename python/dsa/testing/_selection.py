"""A top-k as a decision: right if some scores within their errors would have made it."""
import numpy as np

from dsa import _core
from dsa._arrays import integers_of, numbers_of, whole
from dsa._errors import require
from dsa.testing import _record

_KINDS = {
    "no subscript": "a subscript that is no key",
    "duplicate": "a duplicate",
    "invisible": "a future key, or another one that the query may not see",
    "count": "a wrong count",
    "preference": "a key that is too weak",
}


def _row_fault(row, scores, allowed, k):
    """(ratio, kind, clause) of one row."""
    holes = np.flatnonzero(row == -1)
    length = int(holes[0]) if len(holes) else len(row)
    behind = row[length:]
    if np.any(behind != -1):
        at = length + int(np.flatnonzero(behind != -1)[0])
        return np.inf, "-1 in the middle", f"key {row[at]} at {at} stands behind the -1 at {length}"
    ratio, why, fault = _core.judge_topk([int(s) for s in row[:length]], scores, allowed, k)
    return ratio, _KINDS.get(fault, fault), why


def _near(scores, k):
    """How near the k-th score and the next one are."""
    seen = np.sort(scores[np.isfinite(scores)])[::-1]
    if k < 1 or len(seen) <= k:
        return ""
    return f"; the k-th score is {seen[k - 1]:.9g}, the next {seen[k]:.9g}, {seen[k - 1] - seen[k]:.3g} apart"


def assert_selection(indices, scores, k, *, allowed=None):
    """Judges indices (T, K) that a kernel selected, -1 behind the last one of a row, by scores (T, S), -inf where a key
    is not seen. The order within a row is free.

    Right is: the min(k, visible) best keys, up to ties, and up to the errors that the scores may have: allowed (T, S),
    as dsa.reference.answer("indexer_scores", ...).allowed["scores"] gives them; without it the scores are exact. A
    failure names the kind: a future key, a duplicate, -1 in the middle, a wrong count, a key that is too weak.
    """
    indices, scores = integers_of("indices", indices, 2), numbers_of("scores", scores, 2)
    k = whole("k", k, 0, 2**20)
    bounds = np.zeros_like(scores) if allowed is None else numbers_of("allowed", allowed, 2)
    require(bounds.shape == scores.shape, f"allowed has shape {bounds.shape}, expected {scores.shape}, as scores")
    require(len(indices) == len(scores), f"indices have {len(indices)} rows, expected {len(scores)}, as scores")
    require(len(indices) > 0, "there are no rows to judge")
    require(not np.isnan(scores).any(), "scores hold NaN, by which nothing can be selected")
    require(bool(np.all(np.isfinite(bounds) & (bounds >= 0))), "allowed holds numbers that are no bounds")
    faults = [(t, *_row_fault(indices[t], scores[t], bounds[t], k)) for t in range(len(indices))]
    wrong = [f for f in faults if not f[1] <= 1]
    message = ""
    if wrong:
        t, ratio, kind, why = wrong[0]
        times = f", {ratio:.3g} times what the scores may be wrong by" if np.isfinite(ratio) else ""
        kinds = "; or ".join(dict.fromkeys(f[2] for f in wrong))
        message = (f"the selection is wrong in {len(wrong):,} of {len(faults):,} rows\n  row {t}: {why}{times}"
                   f"{_near(scores[t], k)}\n  kind: {kinds}")
    _record.add(op="selection", dtype="", case=f"k = {k}", output="indices", ok=not wrong, elements=int(indices.size),
                worst=max((f[1] for f in faults), default=0.0), message=message)
    if wrong:
        raise AssertionError(message)
