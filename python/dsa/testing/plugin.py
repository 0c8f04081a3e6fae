"""pytest --dsa-report out.html: what was judged, test by test, with the worst error in units of its bound."""
import html
import importlib

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>dsa: kernels</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}}
table{{border-collapse:collapse;width:100%}}td,th{{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;
vertical-align:top}}td.n{{text-align:right;font-variant-numeric:tabular-nums}}.bar{{background:#4a7;height:.6rem}}
.bad .bar{{background:#c33}}.bad{{background:#fdf3f3}}pre{{white-space:pre-wrap;margin:0}}</style>
<h1>{verdict}</h1><p>{summary} An error of 1 is all that the bound of its element allows; bounds are derived from the
inputs and the dtype (docs/ops.md). Built from {build}.</p>
<table><tr><th>test<th>op<th>case<th>output<th>elements<th>worst / allowed<th></tr>
{rows}</table>
{skipped}</html>
"""


def pytest_addoption(parser):
    """The plugin's one option."""
    parser.addoption("--dsa-report", metavar="FILE", help="write what dsa.testing judged as an HTML page")


def pytest_configure(config):
    """Starts the report where it is asked for."""
    if config.getoption("--dsa-report"):
        config.pluginmanager.register(_Report(config.getoption("--dsa-report")), "dsa-report")


def _row(test, line):
    width = min(1.0, line.worst) * 100
    message = f"<pre>{html.escape(line.message)}</pre>" if line.message else ""
    return (f'<tr class="{"ok" if line.ok else "bad"}"><td>{html.escape(test)}{message}<td>{html.escape(line.op)}'
            f'<td>{html.escape(line.case)}<td>{html.escape(line.output)}<td class="n">{line.elements:,}'
            f'<td class="n">{line.worst:.3g}<td style="width:8rem"><div class="bar" style="width:{width:.0f}%"></div>')


class _Report:
    """Collects what was judged, and writes the page at the end."""

    def __init__(self, path):
        self.path, self.lines, self.skipped = path, [], []

    def pytest_runtest_setup(self):
        """What was judged outside of tests belongs to none."""
        _record().take()

    def pytest_runtest_logreport(self, report):
        """Keeps the lines of a test that has just run, and the reasons of those that were skipped."""
        if report.when == "call":
            self.lines += [(report.nodeid, line) for line in _record().take()]
        if report.skipped and isinstance(report.longrepr, tuple):
            self.skipped.append((report.nodeid, report.longrepr[2]))

    def pytest_sessionfinish(self):
        """Writes the page."""
        from dsa import _core
        wrong = sum(not line.ok for _, line in self.lines)
        tests = len({test for test, _ in self.lines})
        skipped = "".join(f"<li>{html.escape(test)}: {html.escape(reason)}" for test, reason in self.skipped)
        right = "Every output is within its bounds" if self.lines else "Nothing was judged"
        verdict = "Wrong outputs" if wrong else right
        page = _PAGE.format(verdict=verdict, build=html.escape(_core.build()["commit"]),
                            summary=f"{len(self.lines):,} outputs of {tests:,} tests, {wrong:,} of them wrong.",
                            rows="\n".join(_row(test, line) for test, line in self.lines),
                            skipped=f"<h2>Skipped</h2><ul>{skipped}</ul>" if skipped else "")
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(page)


def _record():
    return importlib.import_module("dsa.testing._record")
