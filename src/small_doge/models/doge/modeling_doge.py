"""Doge: a decoder with dynamic mask attention and, if wanted, retrieved experts.

Parameter names, shapes and outputs of dense models are those of `transformers.models.doge`.
Shapes: B batch, T tokens, D hidden_size, H query heads, K key-value heads, d head size, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    ROPE_INIT_FUNCTIONS,
    Cache,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    GradientCheckpointingLayer,
    PreTrainedModel,
    dynamic_rope_update,
)
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.generation import GenerationMode
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from transformers.utils import can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ... import ops
from ...ops.attention import causal_mask, zero_rows_without_keys
from ...ops.elementwise import rms_norm, silu_mul
from ...ops.reference import reference_attention
from ...utils.errors import UserError
from ...utils.hardware import without_emulated_bf16
from ..cache import DynamicMaskCache
from .configuration_doge import DogeConfig


logger = logging.get_logger(__name__)

# How `attn_implementation` names our backends.
ATTENTION_BACKENDS = {"eager": "reference", "sdpa": "auto", "flex_attention": "flex"}


class DogeRMSNorm(nn.Module):
    """Root mean square normalisation, computed in float32 or better."""

    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.variance_epsilon = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D], in the type of the input."""
        return rms_norm(hidden_states, self.weight, self.variance_epsilon)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, eps={self.variance_epsilon}"


class DogeRotaryEmbedding(nn.Module):
    """Cosines and sines of the rotary position embedding (RoFormer, arXiv:2104.09864)."""

    def __init__(self, config: DogeConfig) -> None:
        super().__init__()
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        rope_init = self.compute_default_rope_parameters
        if self.rope_type != "default":
            rope_init = ROPE_INIT_FUNCTIONS[self.rope_type]
        inv_freq, self.attention_scaling = rope_init(config)
        self.inv_freq = nn.Buffer(inv_freq, persistent=False)
        self.original_inv_freq = nn.Buffer(inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: DogeConfig, **kwargs: Any) -> tuple[torch.Tensor, float]:
        """Inverse frequencies [d / 2] and the scale of the cosines, which is 1."""
        size = config.head_size
        exponent = torch.arange(0, size, 2, dtype=torch.float) / size
        return 1.0 / (config.rope_parameters["rope_theta"] ** exponent), 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [B, T, d] in the type of x, for positions [B, T]."""
        freqs = position_ids[..., None].float() * self.inv_freq.to(device=x.device, dtype=torch.float)
        emb = torch.cat((freqs, freqs), dim=-1)
        return (emb.cos() * self.attention_scaling).to(x.dtype), (emb.sin() * self.attention_scaling).to(x.dtype)


def apply_rotary_pos_emb(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate [B, heads, T, d] by cos and sin [B, 1, T, d]."""
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return torch.addcmul(x * cos, rotated, sin)


class DogeAttention(nn.Module):
    """Dynamic mask attention with normalised, rotated queries and keys and grouped heads."""

    def __init__(self, config: DogeConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_size
        self.num_heads = config.num_attention_heads
        self.num_key_value_heads = config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout or 0.0
        self.keep_window_size = config.keep_window_size

        hidden, bias = config.hidden_size, config.attention_bias
        query_size, kv_size = self.num_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(hidden, query_size, bias=bias)
        self.k_proj = nn.Linear(hidden, kv_size, bias=bias)
        self.v_proj = nn.Linear(hidden, kv_size, bias=bias)
        self.A = nn.Parameter(torch.zeros(self.num_key_value_heads))
        self.dt_proj = nn.Linear(kv_size, self.num_key_value_heads, bias=bias)
        self.o_proj = nn.Linear(query_size, hidden, bias=bias)
        self.q_norm = DogeRMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self.k_norm = DogeRMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        document_ids: torch.Tensor | None = None,
        documents: list[ops.DocumentGroup] | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[B, T, D] -> [B, T, D] and, if asked for, attention weights [B, H, T, N].

        `attention_mask` is [B, N] over all tokens so far, [B, 1, T, N] for any other pattern, or None.
        """
        batch, num_tokens, _ = hidden_states.shape
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        cos, sin = (x.unsqueeze(1) for x in position_embeddings)
        heads = (batch, num_tokens, -1, self.head_dim)
        query = apply_rotary_pos_emb(self.q_norm(query.view(heads)).transpose(1, 2), cos, sin)
        key = apply_rotary_pos_emb(self.k_norm(key.view(heads)).transpose(1, 2), cos, sin)

        weights = None
        dropout = self.attention_dropout if self.training else 0.0
        if isinstance(past_key_values, DynamicMaskCache) and not output_attentions:
            output = self._attend_bounded(query, key, value, attention_mask, past_key_values)
        elif (
            past_key_values is None and not output_attentions and (attention_mask is None or attention_mask.dim() == 2)
        ):
            output = ops.dynamic_mask_attention(
                query,
                key,
                value.view(heads).transpose(1, 2),
                self._compute_scores(value),
                keep_window_size=self.keep_window_size,
                padding_mask=attention_mask,
                document_ids=document_ids,
                documents=documents,
                scale=self.scaling,
                backend=ATTENTION_BACKENDS.get(self.config._attn_implementation, "auto"),
                dropout=dropout,
            )
        else:
            output, weights = self._attend_dense(
                query, key, value, attention_mask, past_key_values, document_ids, dropout
            )
        output = output.transpose(1, 2).reshape(batch, num_tokens, -1)
        return self.o_proj(output), weights if output_attentions else None

    def _compute_scores(self, value: torch.Tensor) -> torch.Tensor:
        """Scores [B, K, N] of tokens with value states [B, N, K * d]; float32 weights are not rounded under autocast."""
        weight = getattr(self.dt_proj, "weight", value)  # what replaces the layer may have no weight, or a packed one
        if weight.dtype in (torch.float32, torch.float64):
            value = value.to(weight.dtype)
        with torch.autocast(value.device.type, enabled=False):
            return ops.compute_scores(self.dt_proj(value), self.A)

    def _attend_bounded(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cache: DynamicMaskCache,
    ) -> torch.Tensor:
        layer = cache.layers[self.layer_idx]
        score = self._compute_scores(value)
        value = value.view(*value.shape[:2], -1, self.head_dim).transpose(1, 2)
        padding = None
        if attention_mask is not None:
            if attention_mask.dim() != 2:
                raise UserError(
                    f"attention_mask has {attention_mask.dim()} dimensions; DynamicMaskCache takes masks of 2, "
                    "[batch, tokens]. Pass past_key_values=DynamicCache() for other patterns"
                )
            padding = attention_mask[:, -query.shape[2] :].bool()
            score = score.masked_fill(~padding[:, None, :], ops.PADDING_SCORE)
        has_past = None if padding is None else layer.has_real_key()
        output = layer.attend(query, key, value, score, self.scaling)
        return output if padding is None else zero_rows_without_keys(output, padding, has_past=has_past)

    def _attend_dense(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cache: Cache | None,
        document_ids: torch.Tensor | None,
        dropout: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The reference path: any mask, any cache, and the weights."""
        past = 0
        value = value.view(*value.shape[:2], -1, self.head_dim).transpose(1, 2)
        if isinstance(cache, DynamicMaskCache):
            raise UserError(
                "output_attentions=True needs all keys; pass use_cache=False or past_key_values=DynamicCache()"
            )
        if cache is not None:
            past = int(cache.get_seq_length(self.layer_idx))
            key, value = cache.update(key, value, self.layer_idx)
        score = self._compute_scores(value.transpose(1, 2).flatten(2))
        if attention_mask is not None and attention_mask.dim() == 4:
            allowed = attention_mask if attention_mask.dtype == torch.bool else attention_mask >= 0
            allowed = allowed[..., : key.shape[2]]
        elif cache is None:
            allowed = causal_mask(query.shape[2], attention_mask, document_ids, query.device)
        else:
            allowed = _cached_causal_mask(query.shape[2], key.shape[2], past, attention_mask, query.device)
        return reference_attention(query, key, value, score, allowed, self.keep_window_size, self.scaling, dropout)


def _cached_causal_mask(
    num_queries: int, num_keys: int, past: int, padding: torch.Tensor | None, device: torch.device
) -> torch.Tensor:
    """[B or 1, 1, T, N] bool for queries that follow `past` cached keys; slots beyond them are empty."""
    query = torch.arange(past, past + num_queries, device=device)[:, None]
    mask = (torch.arange(num_keys, device=device) <= query)[None, None]
    if padding is not None:
        padding = F.pad(padding.bool(), (0, max(0, num_keys - padding.shape[1])), value=True)[:, :num_keys]
        mask = mask & padding[:, None, None, :]
    return mask


# Tokens that the feed-forward layer takes at once when no gradient is wanted: its inner tensors, several times as wide
# as the residual stream, then stay small enough to be reused rather than mapped anew (long prompts: less memory, faster).
TOKENS_AT_ONCE = 2048


class DogeMLP(nn.Module):
    """Gated feed-forward layer: W_down(act(W_gate x) * W_up x)."""

    def __init__(self, config: DogeConfig) -> None:
        super().__init__()
        hidden, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(hidden, inner, bias=bias)
        self.up_proj = nn.Linear(hidden, inner, bias=bias)
        self.down_proj = nn.Linear(inner, hidden, bias=bias)
        self.act_fn = ACT2FN[config.hidden_act]
        self.is_silu = config.hidden_act in ("silu", "swish")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]."""
        if not torch.is_grad_enabled() and x.shape[-2] > TOKENS_AT_ONCE and not torch.compiler.is_compiling():
            return torch.cat([self._gate_and_project(part) for part in x.split(TOKENS_AT_ONCE, dim=-2)], dim=-2)
        return self._gate_and_project(x)

    def _gate_and_project(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        gated = silu_mul(gate, up) if self.is_silu else self.act_fn(gate) * up
        return self.down_proj(gated)


class DogeCDMoE(DogeMLP):
    """Cross Domain Mixture of Experts: the gated layer beside `num_experts` single-neuron experts.

    The router logits of a token, [2 * kappa], are split in two halves of that token; expert i * kappa + j scores
    r_x[i] + r_y[j] (arXiv:2412.11834; `transformers` splits another axis and mixes tokens, see `legacy_routing`).
    """

    def __init__(self, config: DogeConfig) -> None:
        super().__init__(config)
        self.num_keys = round(config.num_experts**0.5)
        self.top_k = config.num_experts_per_tok
        self.legacy_routing = config.legacy_routing
        self.router_gate = nn.Linear(config.hidden_size, self.num_keys * 2, bias=False)
        self.down_embed = nn.Embedding(config.num_experts, config.hidden_size)
        self.up_embed = nn.Embedding(config.num_experts, config.hidden_size)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """[B, T, D] -> [B, T, D] and router logits [B * T, 2 * kappa]."""
        tokens = x.reshape(-1, x.shape[-1])
        router_logits = self.router_gate(tokens)
        if self.legacy_routing:
            halves = router_logits.view(2, len(tokens), -1)
            router_logits = torch.cat((halves[0], halves[1]), dim=-1)
        weights, experts = ops.route_tokens(router_logits, self.top_k)
        mixed = ops.mix_experts(tokens, self.down_embed.weight, self.up_embed.weight, experts, weights, self.act_fn)
        return super().forward(x) + mixed.view_as(x), router_logits


class DogeDecoderLayer(GradientCheckpointingLayer):
    """Attention and feed-forward, each with RMSNorm before it and a learned scale on the residual."""

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
        """[B, T, D] -> [B, T, D]; keyword arguments go to the attention."""
        mixed, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = self._add_residual(hidden_states, mixed, self.input_residual)
        mixed = self.mlp(self.post_attention_layernorm(hidden_states))
        mixed = mixed[0] if isinstance(mixed, tuple) else mixed
        return self._add_residual(hidden_states, mixed, self.post_attention_residual)

    def _add_residual(self, residual: torch.Tensor, update: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        update = F.dropout(update, p=self.hidden_dropout, training=self.training)
        return torch.addcmul(update.to(residual.dtype), residual, scale.to(residual.dtype))


class DogePreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation."""

    config_class = DogeConfig
    config: DogeConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DogeDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_record_outputs = {
        "router_logits": OutputRecorder(DogeCDMoE, index=1),
        "hidden_states": DogeDecoderLayer,
        "attentions": DogeAttention,
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DogeAttention):
            init.zeros_(module.A)
        elif isinstance(module, DogeDecoderLayer):
            init.ones_(module.input_residual)
            init.ones_(module.post_attention_residual)


class DogeModel(DogePreTrainedModel):
    """The decoder without a head."""

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
        **kwargs: Any,
    ) -> MoeModelOutputWithPast:
        """Token numbers or embeddings to hidden states.

        Args:
            input_ids: [B, T]; or `inputs_embeds` [B, T, D].
            attention_mask: [B, tokens so far], 1 for real tokens; or [B, 1, T, N], bool or additive.
            position_ids: [B, T]. Where they restart, with neither mask nor cache, a packed document begins.
            past_key_values: `DynamicMaskCache`, or any cache of `transformers`.
            use_cache: make a `DynamicMaskCache` when none is given.

        Returns:
            `last_hidden_state` [B, T, D] and the cache; hidden states, attentions, router logits if asked for.
        """
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise UserError("pass exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        attention_mask = _drop_full_mask(attention_mask)
        document_ids = documents = None
        if position_ids is None:
            past = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + past).unsqueeze(0)
        elif attention_mask is None and past_key_values is None:
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
                past_key_values=past_key_values,
                document_ids=document_ids,
                documents=documents,
                output_attentions=wants_weights,
            )
        return MoeModelOutputWithPast(last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values)


@torch.compiler.disable
def _find_documents(
    position_ids: torch.Tensor, batch: int
) -> tuple[torch.Tensor | None, list[ops.DocumentGroup] | None]:
    """Document numbers and groups. Whether rows are packed depends on the data, so compiled graphs break here."""
    document_ids = ops.document_ids_from_positions(position_ids.expand(batch, -1))
    return document_ids, None if document_ids is None else ops.group_documents(document_ids)


@torch.compiler.disable
def _drop_full_mask(attention_mask: torch.Tensor | None) -> torch.Tensor | None:
    """A 2-d mask without padding says nothing: None is the faster way to say it."""
    if attention_mask is not None and attention_mask.dim() == 2 and attention_mask.device.type == "cpu":
        return None if bool(attention_mask.all()) else attention_mask
    return attention_mask


def is_plain_linear(module: nn.Module) -> bool:
    """Whether calling a module is the product with its weight and nothing else, so that the product may be done elsewhere.

    Adapters, quantised layers, sharded weights and hooks all make a layer do something else.
    """
    if type(module) is not nn.Linear or module.bias is not None or "forward" in module.__dict__:
        return False
    weight = module.weight
    if hasattr(weight, "ds_id"):  # DeepSpeed gathers it when it is read; its hooks change nothing
        return weight.numel() == module.in_features * module.out_features
    return type(weight) is nn.Parameter and not (module._forward_hooks or module._forward_pre_hooks)


class DogeForCausalLM(DogePreTrainedModel, GenerationMixin):
    """Doge with a language modelling head."""

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
        **kwargs: Any,
    ) -> MoeCausalLMOutputWithPast:
        """Logits, and the loss when labels are given.

        Args:
            labels: [B, T]; -100 does not count. Shifted here; `shift_labels` are taken as they are.
            logits_to_keep: compute the logits of the last so many tokens, or of the indices named; 0 for all.
            num_items_in_batch: labels in the whole accumulated batch; the loss is the sum divided by it.
            skip_logits: with labels, leave `logits` None and never hold them all. By default in training.

        The other arguments are those of `DogeModel`.
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
            mask = attention_mask if attention_mask is not None and attention_mask.dim() == 2 else None
            aux_loss = ops.compute_load_balancing_loss(outputs.router_logits, self.config.num_experts_per_tok, mask)
            if loss is not None:
                weight: Any = self.config.router_aux_loss_coef
                if num_items_in_batch is not None:  # this part's share, so that the parts add up to one loss
                    weight = weight * (shift_labels != -100).sum() / num_items_in_batch
                loss = loss + weight * aux_loss.to(loss.device)
        return MoeCausalLMOutputWithPast(
            loss=loss,
            aux_loss=aux_loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_logits=outputs.router_logits,
        )

    def _compute_loss(
        self, hidden_states: torch.Tensor, targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """The loss of targets [B, T]. With a plain head the logits are never all held; any other head is called once."""
        hidden_states = hidden_states.reshape(-1, hidden_states.shape[-1])
        targets = targets.reshape(-1).to(hidden_states.device)
        if is_plain_linear(self.lm_head):
            return ops.linear_cross_entropy(
                hidden_states, self.lm_head.weight, targets, num_items_in_batch=num_items_in_batch
            )
        return ops.cross_entropy(self.lm_head(hidden_states), targets, num_items_in_batch=num_items_in_batch)

    def save_pretrained(
        self, save_directory: Any, is_main_process: bool = True, state_dict: dict | None = None, **kwargs: Any
    ) -> None:
        """As in `transformers`; tied weights are saved once, also where `state_dict` has copies of them (ZeRO-3 does)."""
        if state_dict is not None and self.config.tie_word_embeddings:
            state_dict = {name: x for name, x in state_dict.items() if name not in self._tied_weights_keys}
        super().save_pretrained(save_directory, is_main_process, state_dict, **kwargs)

    def generate(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in `transformers`; the first argument may also be what `apply_chat_template` returns, with its mask."""
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
        """The bounded cache unless another is asked for, or evicted keys are needed again.

        Assisted decoding takes rejected tokens back, and attention weights are of all keys.
        """
        no_choice = model_kwargs.get("past_key_values") is None and generation_config.cache_implementation is None
        assisted = generation_mode == GenerationMode.ASSISTED_GENERATION or generation_config.is_assistant
        needs_all = assisted or generation_config.output_attentions
        if no_choice and generation_config.use_cache is not False and not needs_all:
            model_kwargs["past_key_values"] = DynamicMaskCache(self.config)
            return
        super()._prepare_cache_for_generation(generation_config, model_kwargs, generation_mode, *args, **kwargs)

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """Not available: the pages of `transformers` hold keys without their scores."""
        raise NotImplementedError(
            "continuous batching of transformers keeps keys without the scores that dynamic mask attention ranks "
            "them by. Use small_doge.inference.open_engine, which batches continuously, or generate with a padded batch"
        )

    @staticmethod
    def create_masks_for_generate(attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
        """The 2-d mask itself: no dense mask is ever needed."""
        return attention_mask


class DogeForSequenceClassification(GenericForSequenceClassification, DogePreTrainedModel):
    """Doge with a linear head on the last real token."""


__all__: list[str] = [
    "DogeForCausalLM",
    "DogeForSequenceClassification",
    "DogeModel",
    "DogePreTrainedModel",
]
