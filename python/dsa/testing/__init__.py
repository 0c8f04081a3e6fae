"""Your kernels in a pytest: no tolerance to choose, and a failure that says what kind of bug it is.

  from dsa.testing import assert_close, assert_selection, parametrize

  @parametrize("indexer_scores", dtype="bf16")
  def test_scores(case):
      case.check(my_scores(**case.torch("cuda")))

assert_close judges the output of any op on inputs of your own, assert_selection a top-k as a decision; cases() gives
the suite's inputs. `pytest --dsa-report out.html` writes what was judged. Wrong outputs are AssertionError; what cannot be
judged is dsa.Error.
"""
from dsa.testing._cases import Case, cases, parametrize
from dsa.testing._close import assert_close
from dsa.testing._selection import assert_selection

__all__ = ["Case", "assert_close", "assert_selection", "cases", "parametrize"]
