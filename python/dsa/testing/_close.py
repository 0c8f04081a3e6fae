"""Outputs against the answer, element by element, each in units of its own bound."""
import numpy as np

from dsa._arrays import integers_of, stored, whole
from dsa._errors import require
from dsa.reference._answers import answer, facts_of, named
from dsa.testing import _record, _suspects

_DECISIONS = ("chosen",)


def _ascending(name, x):
    """Rows of a selection with the subscripts before the first -1 in ascending order: their order is no error."""
    rows = integers_of(name, x).copy()
    for row in rows.reshape(-1, rows.shape[-1]) if rows.size else ():
        holes = np.flatnonzero(row < 0)
        row[:holes[0] if len(holes) else len(row)].sort()
    return rows


def outputs_of(case, actual):
    """{name: (type, bytes, shape)} of one array, which is the op's first output, or of a dict of them."""
    asked = case.outputs()
    first = next((n for n in ("out", "scores", "chosen", "experts", "y", "h") if n in asked), next(iter(asked)))
    outputs = {}
    for name, x in (actual if isinstance(actual, dict) else {first: actual}).items():
        require(name in asked, f"{case.op} has no output called {name!r:.80}, expected {', '.join(asked)}")
        dtype, data, shape = stored(name, _ascending(name, x) if name in _DECISIONS else x)
        require(tuple(shape) == tuple(asked[name][2]),
                f"output {name} of {case.op} has shape {tuple(shape)}, expected {tuple(asked[name][2])}")
        outputs[name] = (dtype, data, list(shape))
    return outputs


def _near_threshold(case, verdict, topk):
    """How near to the k-th score of its row the worst place is: whether the error can turn the selection."""
    want, allowed = case.want().get("scores"), case.allowed().get("scores")
    if want is None or not verdict["at"] or not topk:
        return ""
    rows, topk = case.sizes()["T"], int(topk)
    want, allowed, row = want.reshape(rows, -1), allowed.reshape(rows, -1), verdict["at"][0]
    order = np.argsort(-want[row], kind="stable")
    order = order[np.isfinite(want[row][order])]
    if len(order) <= topk:
        return f"; row {row} sees {len(order)} keys, no more than k = {topk}, so that nothing is left out"
    kth, next_best = want[row][order[topk - 1]], want[row][order[topk]]
    room = allowed[row][order[topk - 1]] + allowed[row][order[topk]]
    gap = kth - next_best
    in_bounds = f"{gap / room:.3g} times what the two may be wrong by" if room > 0 else "and both are exact"
    text = f"; the k-th score of row {row} is {kth:.9g}, the next {next_best:.9g}: {gap:.3g} apart, {in_bounds}"
    if verdict["output"] == "scores" and len(verdict["at"]) == 2:
        text += f"; the worst place is {abs(verdict['want'] - kth):.3g} from the k-th score"
    return text


def _describe(case, verdict, topk):
    """One clause on an output that is wrong."""
    near = _near_threshold(case, verdict, topk)
    if verdict["why"]:
        return f"{verdict['output']}: {verdict['why']}{near}"
    kinds = f", {verdict['wrong_kind']:,} NaN or infinite on one side only" if verdict["wrong_kind"] else ""
    wrong = verdict["over"] + verdict["wrong_kind"]
    times = (f"{verdict['worst']:.3g} times the {verdict['allowed']:.3g} allowed there" if verdict["allowed"] > 0
             else "and no error is allowed there")
    return (f"{verdict['output']}: {wrong:,} of {verdict['n']:,} elements beyond their bounds{kinds}; "
            f"worst at {verdict['at']}: got {verdict['got']:.9g}, want {verdict['want']:.9g}, {times}{near}")


def judge(case, outputs, name, topk=None):
    """Raises AssertionError where an output is beyond its bounds. Error: the outputs have no elements."""
    verdicts = [v for v in case.judge(outputs) if v["n"] > 0]
    require(verdicts, f"{case.op} has no elements to judge here ({name}): its shapes have an extent of 0")
    wrong = [v for v in verdicts if not v["ok"]]
    message = ""
    if wrong:
        lines = "\n  ".join(_describe(case, v, topk) for v in wrong)
        kinds = _suspects.kinds(case, outputs)
        said = "\n  kind: " + "; or ".join(kinds) if kinds else "\n  kind: none of the known ones (docs/ops.md)"
        message = f"{case.op} ({case.dtype}, {name}) is wrong\n  {lines}{said}"
    for v in verdicts:
        _record.add(op=case.op, dtype=case.dtype, case=name, output=v["output"], ok=v["ok"], elements=v["n"],
                    worst=v["worst"], message="" if v["ok"] else message)
    if wrong:
        raise AssertionError(message)


def assert_close(actual, *, op, inputs, dtype="fp32", topk=None, **scalars):
    """Holds a kernel's output against the definition's answer for the same inputs. There is no tolerance argument: the
    bound of each element is derived from the inputs and the dtype.

    actual: the op's first output, or {output: array}; any dtype (a narrower one than asked is allowed its own
    rounding). op, inputs, dtype, scalars: as dsa.reference.answer takes them. topk: of indexer_scores, the k that the
    scores are selected by: a failure then says how near the k-th score was.
    """
    op = named(op)
    topk = None if topk is None else whole("topk", topk, 0, 2**20)
    if topk is not None and any(name == "topk" for name in _scalars_of(op)):
        scalars["topk"] = topk
    wanted = answer(op, inputs, dtype, **scalars)
    judge(wanted.case, outputs_of(wanted.case, actual), "inputs of your own",
          topk if topk is not None else scalars.get("topk"))


def _scalars_of(op):
    return dict(facts_of(op)["scalars"])
