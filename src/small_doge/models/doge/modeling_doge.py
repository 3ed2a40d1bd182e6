"""Doge: a decoder with dynamic mask attention and, if wanted, retrieved experts.

Parameter names, shapes and outputs of dense models are those of `transformers.models.doge`. The parts of a layer are
in `attention`, `feed_forward` and `layers`; what they compute is in `small_doge.ops` (see docs/models.md).

Shapes: B batch, T tokens, N tokens so far, D hidden_size, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    Cache,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    GradientCheckpointingLayer,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.generation import GenerationMode
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from transformers.utils import can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ... import ops
from ...utils.errors import UserError
from ...utils.hardware import without_emulated_bf16
from ..cache import CACHE_NAME, DynamicMaskCache
from .attention import DogeAttention, resolve_backend
from .configuration_doge import DogeConfig
from .feed_forward import DogeCDMoE, DogeMLP
from .layers import DogeRMSNorm, DogeRotaryEmbedding


logger = logging.get_logger(__name__)


class DogeDecoderLayer(GradientCheckpointingLayer):
    """Runs attention and feed-forward, each with RMSNorm before it and a learned scale on its residual."""

    def __init__(self, config: DogeConfig, layer_idx: int) -> None:
        super().__init__()
        self.hidden_dropout = config.hidden_dropout
        self.input_layernorm = DogeRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = DogeAttention(config, layer_idx)
        self.input_residual = nn.Parameter(torch.ones(config.hidden_size))
        self.post_attention_layernorm = DogeRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = DogeCDMoE(config) if config.is_moe else DogeMLP(config)
        self.post_attention_residual = nn.Parameter(torch.ones(config.hidden_size))

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Run the layer on hidden states [B, T, D]; keyword arguments go to the attention."""
        # Under the name that `transformers` gives it, since its checkpointing sets the cache to None by that name.
        cache = kwargs.pop(CACHE_NAME, None)
        mixed, _ = self.self_attn(self.input_layernorm(hidden_states), past_key_values=cache, **kwargs)
        hidden_states = self._add_residual(hidden_states, mixed, self.input_residual)
        mixed = self.mlp(self.post_attention_layernorm(hidden_states))
        mixed = mixed[0] if isinstance(mixed, tuple) else mixed
        return self._add_residual(hidden_states, mixed, self.post_attention_residual)

    def _add_residual(self, residual: torch.Tensor, update: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Scale the residual, and add to it an update in its own type."""
        update = F.dropout(update, p=self.hidden_dropout, training=self.training)
        return torch.addcmul(update.to(residual.dtype), residual, scale.to(residual.dtype))


class DogePreTrainedModel(PreTrainedModel):
    """Loads, saves and initialises every Doge model, and checks names of attention implementations."""

    config_class = DogeConfig
    config: DogeConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DogeDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_record_outputs = {
        "router_logits": OutputRecorder(DogeCDMoE, index=1),
        "hidden_states": DogeDecoderLayer,
        "attentions": DogeAttention,
    }

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        # `transformers` would look for its own interface of attention in the source of this module.
        return True

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """Check the name of an implementation of attention: one of `ops.BACKENDS`, or an alias of `transformers`.

        Raises:
            UserError: another name.
        """
        resolve_backend(requested_attention)
        return requested_attention or "sdpa"

    def _check_and_adjust_attn_implementation(
        self, attn_implementation: str | None, is_init_check: bool = False, allow_all_kernels: bool = False
    ) -> str:
        # Without its search for other kernels, on the hub among others.
        return self.get_correct_attn_implementation(attn_implementation, is_init_check)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise a module: scores start at exp(0) = 1 for every key, residuals at a scale of 1."""
        super()._init_weights(module)
        if isinstance(module, DogeAttention):
            init.zeros_(module.A)
        elif isinstance(module, DogeDecoderLayer):
            init.ones_(module.input_residual)
            init.ones_(module.post_attention_residual)


class DogeModel(DogePreTrainedModel):
    """Runs the decoder, without a head."""

    def __init__(self, config: DogeConfig) -> None:
        super().__init__(config)
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList([DogeDecoderLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = DogeRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = DogeRotaryEmbedding(config)
        self.gradient_checkpointing = False
        if config.is_moe and config.legacy_routing:
            logger.warning_once(
                "legacy_routing=True: tokens are routed by other tokens' logits too, the future's included, so this "
                "model is not causal in a full forward pass"
            )
        self.post_init()

    @without_emulated_bf16
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> MoeModelOutputWithPast:
        """Compute the hidden states of token numbers or embeddings.

        Args:
            input_ids: [B, T]; or `inputs_embeds` [B, T, D].
            attention_mask: [B, N], 1 for real tokens; or [B, 1, T, N], bool or additive.
            position_ids: [B, T]. Where they restart, with neither mask nor cache, a packed document begins.
            past_key_values: `DynamicMaskCache`, or any cache of `transformers`.
            inputs_embeds: [B, T, D]; or `input_ids`.
            use_cache: make a `DynamicMaskCache` when none is given.
            cache: `past_key_values` by the name that `transformers` gives it since 5.24.

        Returns:
            `last_hidden_state` [B, T, D] and the cache; hidden states, attentions, router logits if asked for.

        Raises:
            UserError: both or neither of `input_ids` and `inputs_embeds`, or a cache by both its names.
        """
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise UserError("pass exactly one of input_ids and inputs_embeds")
        if cache is not None and past_key_values is not None:
            raise UserError("past_key_values and cache are two names of one argument; pass one of them")
        past_key_values = cache if past_key_values is None else past_key_values
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        attention_mask = _drop_full_mask(attention_mask)
        document_ids = documents = None
        if position_ids is None:
            past = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + past).unsqueeze(0)
        elif attention_mask is None and past_key_values is None:
            # With a mask or a cache, positions that restart are the 0, 0, 0, 1, 2 of left padding in `generate`.
            document_ids, documents = _find_documents(position_ids, inputs_embeds.shape[0])
        wants_weights = bool(kwargs.get("output_attentions", self.config.output_attentions))
        if use_cache and past_key_values is None and document_ids is None and not self.training:
            needs_all = wants_weights or (attention_mask is not None and attention_mask.dim() != 2)
            past_key_values = DynamicCache() if needs_all else DynamicMaskCache(self.config)

        position_embeddings = self.rotary_emb(inputs_embeds, position_ids)
        hidden_states = inputs_embeds
        for layer in self.layers[: self.config.num_hidden_layers]:  # fewer in early-exit decoding
            hidden_states = layer(
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                document_ids=document_ids,
                documents=documents,
                output_attentions=wants_weights,
                **{CACHE_NAME: past_key_values},
            )
        return MoeModelOutputWithPast(last_hidden_state=self.norm(hidden_states), **{CACHE_NAME: past_key_values})


@torch.compiler.disable
def _find_documents(
    position_ids: torch.Tensor, batch: int
) -> tuple[torch.Tensor | None, list[ops.DocumentGroup] | None]:
    """Find the documents [B, T] of packed rows, and their groups.

    Whether rows are packed depends on the data, so compiled graphs break here.
    """
    document_ids = ops.document_ids_from_positions(position_ids.expand(batch, -1))
    return document_ids, None if document_ids is None else ops.group_documents(document_ids)


@torch.compiler.disable
def _drop_full_mask(attention_mask: torch.Tensor | None) -> torch.Tensor | None:
    """Replace a mask [B, N] without padding by None, which says the same and runs faster.

    Only on a CPU: reading the mask would stall a GPU.
    """
    if attention_mask is not None and attention_mask.dim() == 2 and attention_mask.device.type == "cpu":
        return None if bool(attention_mask.all()) else attention_mask
    return attention_mask


def is_plain_linear(module: nn.Module) -> bool:
    """Tell whether calling a module is the product with its weight and nothing else, so that it may be done elsewhere.

    Adapters, quantised layers, sharded weights and hooks all make a layer do something else.
    """
    if type(module) is not nn.Linear or module.bias is not None or "forward" in module.__dict__:
        return False
    weight = module.weight
    if hasattr(weight, "ds_id"):  # DeepSpeed gathers it when it is read; its hooks change nothing
        return weight.numel() == module.in_features * module.out_features
    return type(weight) is nn.Parameter and not (module._forward_hooks or module._forward_pre_hooks)


class DogeForCausalLM(DogePreTrainedModel, GenerationMixin):
    """Predicts the next token: Doge with a language modelling head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}

    def __init__(self, config: DogeConfig) -> None:
        super().__init__(config)
        self.model = DogeModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @without_emulated_bf16
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_router_logits: bool | None = None,
        shift_labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        skip_logits: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> MoeCausalLMOutputWithPast:
        """Compute logits, and the loss when labels are given. What is not listed is as in `DogeModel`.

        Args:
            labels: [B, T]; -100 does not count. Shifted here; `shift_labels` are taken as they are.
            logits_to_keep: compute the logits of the last so many tokens, or of the given indices; 0 for all.
            output_router_logits: return router logits and add the load-balancing loss; as the configuration if None.
            num_items_in_batch: labels in the whole accumulated batch; the loss is the sum divided by it.
            skip_logits: with labels, leave `logits` None and never hold them all. By default in training.

        Returns:
            `loss`, `logits` [B, T or fewer, V], `aux_loss` (the load-balancing loss, not weighted), the cache, and
            hidden states, attentions and router logits if asked for.
        """
        if output_router_logits is None:
            output_router_logits = self.config.output_router_logits
        output_router_logits = output_router_logits and self.config.is_moe
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_router_logits=output_router_logits,
            cache=cache,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        loss = aux_loss = logits = None
        if labels is not None and shift_labels is None:
            shift_labels = F.pad(labels, (0, 1), value=-100)[..., 1:]
        if shift_labels is not None:
            loss = self._compute_loss(hidden_states, shift_labels, num_items_in_batch)
        if shift_labels is None or not (self.training if skip_logits is None else skip_logits):
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden_states[:, keep])
        if output_router_logits:
            aux_loss = self._compute_router_loss(outputs.router_logits, attention_mask, hidden_states.shape[1])
        if loss is not None and aux_loss is not None and shift_labels is not None:
            weight: Any = self.config.router_aux_loss_coef
            if num_items_in_batch is not None:  # this part's share, so that the parts add up to one loss
                weight = weight * (shift_labels != -100).sum() / num_items_in_batch
            loss = loss + weight * aux_loss.to(loss.device)
        return MoeCausalLMOutputWithPast(
            loss=loss,
            aux_loss=aux_loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_logits=outputs.router_logits,
            **{CACHE_NAME: outputs.get(CACHE_NAME)},
        )

    def _compute_loss(
        self, hidden_states: torch.Tensor, targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Compute the loss of targets [B, T]. A plain head never holds all logits; any other is called once."""
        hidden_states = hidden_states.reshape(-1, hidden_states.shape[-1])
        targets = targets.reshape(-1).to(hidden_states.device)
        if is_plain_linear(self.lm_head):
            return ops.linear_cross_entropy(
                hidden_states, self.lm_head.weight, targets, num_items_in_batch=num_items_in_batch
            )
        return ops.cross_entropy(self.lm_head(hidden_states), targets, num_items_in_batch=num_items_in_batch)

    def _compute_router_loss(
        self, router_logits: tuple[torch.Tensor, ...], attention_mask: torch.Tensor | None, num_tokens: int
    ) -> torch.Tensor:
        """Compute the load-balancing loss of `num_tokens` new tokens per row, padding left out."""
        mask = None
        if attention_mask is not None and attention_mask.dim() == 2:
            mask = attention_mask[:, -num_tokens:]  # with a cache it covers earlier tokens too
        return ops.compute_load_balancing_loss(router_logits, self.config.num_experts_per_tok, mask)

    def save_pretrained(
        self,
        save_directory: Any,
        is_main_process: bool = True,
        state_dict: dict | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Save as in `transformers`; tied weights are saved once, also where `state_dict` has copies of them (ZeRO-3 does)."""
        if state_dict is not None and self.config.tie_word_embeddings:
            state_dict = {name: x for name, x in state_dict.items() if name not in self._tied_weights_keys}
        super().save_pretrained(save_directory, is_main_process, state_dict, *args, **kwargs)

    def generate(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Generate as in `transformers`; `inputs` may also be what `apply_chat_template` returns, with its mask."""
        if "cache" in kwargs:
            kwargs[CACHE_NAME] = kwargs.pop("cache")
        if hasattr(inputs, "keys"):
            given = {name: value for name, value in inputs.items() if name not in kwargs}
            return super().generate(None, *args, **given, **kwargs)
        return super().generate(inputs, *args, **kwargs)

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict,
        generation_mode: GenerationMode,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Make the bounded cache unless another is asked for, or evicted keys are needed again.

        Assisted decoding takes rejected tokens back, and attention weights are of all keys.
        """
        no_choice = model_kwargs.get(CACHE_NAME) is None and generation_config.cache_implementation is None
        assisted = generation_mode == GenerationMode.ASSISTED_GENERATION or generation_config.is_assistant
        needs_all = assisted or generation_config.output_attentions
        if no_choice and generation_config.use_cache is not False and not needs_all:
            model_kwargs[CACHE_NAME] = DynamicMaskCache(self.config)
            return
        super()._prepare_cache_for_generation(generation_config, model_kwargs, generation_mode, *args, **kwargs)

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: the pages of `transformers` hold keys without their scores.

        Raises:
            NotImplementedError: always, with what to use instead.
        """
        raise NotImplementedError(
            "continuous batching of transformers keeps keys without the scores that dynamic mask attention ranks "
            "them by. Use small_doge.inference.open_engine, which batches continuously, or generate with a padded batch"
        )

    @staticmethod
    def create_masks_for_generate(attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
        """Return the mask [B, N] itself: no dense mask is ever needed."""
        return attention_mask


class DogeForSequenceClassification(GenericForSequenceClassification, DogePreTrainedModel):
    """Classifies sequences: Doge with a linear head on the last real token."""


__all__: list[str] = [
    "DogeForCausalLM",
    "DogeForSequenceClassification",
    "DogeModel",
    "DogePreTrainedModel",
]
