"""`lm_eval --model dsa`, wherever this package is installed.

lm-evaluation-harness (0.4.13) keeps its models in a table and has no entry points for others. Python imports this
module at its start (python/dsa-lm-eval.pth); once lm_eval.models has been imported, it adds the adapter's name to the
table. The adapter is imported when somebody asks for it, and lm_eval never by this module.
"""
import sys
from importlib.machinery import PathFinder


def register():
    """Adds the name "dsa" to lm_eval's models."""
    from lm_eval.api.registry import model_registry
    if "dsa" not in model_registry:
        model_registry.register("dsa", target="dsa.lm_eval:Adapter")


class Watch:
    """A finder that finds lm_eval.models as everybody else does, and nothing else."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """The module's spec, whose loader also registers the adapter."""
        if name != "lm_eval.models":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                register()

            spec.loader.exec_module = execute_and_register
        return spec


if Watch not in sys.meta_path:
    sys.meta_path.insert(0, Watch)
