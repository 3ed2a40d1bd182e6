"""Makes the Auto classes of `transformers` build our Doge."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


CONFIGURATION = "small_doge.models.doge.configuration_doge"
MODEL = "small_doge.models.doge.modeling_doge"
# The modules of transformers that hold the Auto classes, and ours that they have to know.
OURS = {
    "transformers.models.auto.configuration_auto": CONFIGURATION,
    "transformers.models.auto.modeling_auto": MODEL,
}


class _AfterImport(MetaPathFinder):
    """Calls a function with a module as soon as it has been loaded.

    Args:
        actions: the function by the module's name.
    """

    def __init__(self, actions: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self.actions = actions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of the modules as Python does, and let its loader call the function; leave all others to Python."""
        if fullname not in self.actions:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_act(module: ModuleType) -> None:
            load(module)
            self.actions[fullname](module)

        spec.loader.exec_module = load_and_act  # type: ignore[method-assign]
        return spec


def register_when_loaded() -> None:
    """Register Doge as soon as the Auto classes are loaded, which is now if they are already.

    Registering needs torch and transformers, which take seconds to load; whoever uses an Auto class loads them anyway.
    """
    # Either side may come first, and load the other in its middle: what registers is that ours is loaded as a whole.
    actions = {CONFIGURATION: _register_configurations, MODEL: _register_models}
    sys.meta_path.insert(0, _AfterImport({**actions, **dict.fromkeys(OURS, _load_ours)}))
    for theirs in OURS:
        if theirs in sys.modules:
            _load_ours(sys.modules[theirs])


def register_auto_classes() -> None:
    """Register `doge` and `doge_moe` now; calling it again changes nothing."""
    for ours in OURS.values():
        importlib.import_module(ours)


def _load_ours(theirs: ModuleType) -> None:
    importlib.import_module(OURS[theirs.__name__])


def _register_configurations(ours: ModuleType) -> None:
    from transformers import AutoConfig

    for config in (ours.DogeConfig, ours.DogeMoeConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_models(ours: ModuleType) -> None:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    from .doge.configuration_doge import DogeConfig, DogeMoeConfig

    classes = {
        AutoModel: ours.DogeModel,
        AutoModelForCausalLM: ours.DogeForCausalLM,
        AutoModelForSequenceClassification: ours.DogeForSequenceClassification,
    }
    for config in (DogeConfig, DogeMoeConfig):
        for auto, model in classes.items():
            # Not auto.register: it asks for one configuration class per model, and ours serves two.
            auto._model_mapping.register(config, model, exist_ok=True)
