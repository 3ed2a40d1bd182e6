"""Makes the Auto classes of `transformers` build our Doge."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from .doge.configuration_doge import DogeConfig, DogeMoeConfig
from .doge.modeling_doge import DogeForCausalLM, DogeForSequenceClassification, DogeModel


def register_auto_classes() -> None:
    """Register `doge` and `doge_moe`; calling it again changes nothing."""
    classes = {
        AutoModel: DogeModel,
        AutoModelForCausalLM: DogeForCausalLM,
        AutoModelForSequenceClassification: DogeForSequenceClassification,
    }
    for config in (DogeConfig, DogeMoeConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        for auto, model in classes.items():
            # Not auto.register: it asks for one configuration class per model, and ours serves two.
            auto._model_mapping.register(config, model, exist_ok=True)
