"""Configuration of Doge. Fields, defaults and file format are those of `transformers`' own Doge."""

import math
from copy import deepcopy
from numbers import Integral, Real
from typing import Any

from transformers import ROPE_INIT_FUNCTIONS, PreTrainedConfig

from ...compat.names import rename_model_fields
from ...utils.errors import UserError
from ...utils.suggest import unknown_name_message
from ..presets import PRESETS


SIZES = (  # whole numbers of at least 1
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "keep_window_size",
)


class DogeConfig(PreTrainedConfig):
    """Holds the settings of a Doge model.

    `DogeConfig(is_moe=True)` gives a `DogeMoeConfig`, which is saved with another `model_type`: its routing differs
    from that of `transformers`, which must refuse it rather than route it wrongly.

    Args:
        vocab_size: entries of the vocabulary.
        hidden_size: width of the residual stream.
        intermediate_size: width of the feed-forward layer.
        num_hidden_layers: decoder layers.
        hidden_dropout: dropout on the output of attention and feed-forward.
        hidden_act: activation of the feed-forward and the experts.
        initializer_range: standard deviation of the initial weights.
        rms_norm_eps: epsilon of the normalisations.
        use_cache: return the cache of keys and values.
        tie_word_embeddings: one matrix for the embedding and the head.
        max_position_embeddings: trained length.
        rope_parameters: `rope_type`, `rope_theta` and what the type needs.
        num_attention_heads: query heads.
        num_key_value_heads: key-value heads; `num_attention_heads` if None.
        head_dim: dimensions of an attention head; `hidden_size / num_attention_heads` if not given.
        attention_bias: biases in the attention projections.
        attention_dropout: dropout on attention weights.
        mlp_bias: biases in the feed-forward layer.
        sliding_window: must be None: `keep_window_size` is Doge's window.
        keep_window_size: keys that a query keeps.
        is_moe: add retrieved experts to each feed-forward layer.
        num_experts: experts per layer, a square number.
        num_experts_per_tok: experts a token uses.
        norm_topk_prob: kept for the file format; the weights of the chosen experts always sum to 1.
        output_router_logits: return router logits, and add the load-balancing loss. For loops of your own: the trainers here
            add it without being asked.
        router_aux_loss_coef: weight of the load-balancing loss in training; always 0 in a dense model.
        legacy_routing: route as `transformers` does, by other tokens' logits too; only for weights trained that way.
        vocabulary_hash: which text each token id stood for in training (`utils.vocabulary`), so that another tokenizer is
            refused; None if unknown.
        pad_token_id: padding token.
        bos_token_id: first token.
        eos_token_id: token or tokens that end a text.

    Raises:
        UserError: a size that is no whole number, sizes that do not fit together, or an unknown name.
    """

    model_type = "doge"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # cache: by transformers since 5.24
    base_model_tp_plan = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.dt_proj": "rowwise",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }

    vocab_size: int = 32768
    hidden_size: int = 1024
    intermediate_size: int = 2048
    num_hidden_layers: int = 32
    hidden_dropout: float | int = 0.0
    hidden_act: str = "silu"
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-06
    use_cache: bool = True
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 2048
    rope_parameters: dict | None = None
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    attention_bias: bool = False
    attention_dropout: float | None = 0.0
    mlp_bias: bool = False
    sliding_window: int | None = None
    keep_window_size: int = 2048
    is_moe: bool = False
    num_experts: int = 16384
    num_experts_per_tok: int = 64
    norm_topk_prob: bool = False
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    legacy_routing: bool = False
    vocabulary_hash: str | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __new__(cls, *args: Any, is_moe: bool = False, legacy_routing: bool = False, **kwargs: Any) -> "DogeConfig":
        """Return a `DogeMoeConfig` where experts are asked for by this name."""
        if cls is DogeConfig and is_moe and not legacy_routing:
            cls = DogeMoeConfig
        return super().__new__(cls)

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs = rename_model_fields(kwargs)
        for name in [name for name in kwargs if name in self.__dataclass_fields__]:
            setattr(self, name, kwargs.pop(name))
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if "head_dim" in kwargs:
            self.head_dim = kwargs.pop("head_dim")
        self._check_sizes()
        self._check_activation()
        if not self.is_moe:
            # A dense model has no router: a coefficient in an older file would make trainers ask for its loss.
            self.router_aux_loss_coef = 0.0
            self.output_router_logits = False
        if not isinstance(self.rope_parameters, dict | None):
            raise UserError(
                f"rope_parameters={self.rope_parameters!r} must map names to values, such as {{'rope_type': 'default'}}"
            )
        super().__post_init__(**kwargs)
        self._check_rope()

    def _check_sizes(self) -> None:
        for name in SIZES:
            self._check_size(name)
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if self.__dict__.get("head_dim"):
            self._check_size("head_dim")
        elif self.hidden_size % heads != 0:
            raise UserError(f"hidden_size={self.hidden_size} must be a multiple of num_attention_heads={heads}")
        if self.head_dim % 2:
            given = "head_dim" if self.__dict__.get("head_dim") else "hidden_size / num_attention_heads"
            raise UserError(f"{given}={self.head_dim} must be even: rotary positions turn pairs of dimensions")
        if heads % kv_heads != 0:
            raise UserError(f"num_attention_heads={heads} must be a multiple of num_key_value_heads={kv_heads}")
        pad = self.pad_token_id
        if pad is not None and not (isinstance(pad, Integral) and pad < self.vocab_size):
            raise UserError(
                f"pad_token_id={pad!r} must be a whole number below vocab_size={self.vocab_size}; raise that, or choose "
                "another token"
            )
        if self.sliding_window is not None:
            raise UserError(
                f"sliding_window={self.sliding_window} is not supported: set keep_window_size, Doge's window, instead"
            )
        if self.is_moe:
            self._check_experts()

    def _check_size(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, Integral):
            raise UserError(f"{name}={value!r} must be a whole number")
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")

    def _check_activation(self) -> None:
        if self.hidden_act == "silu":  # that of every preset, for which the others need not be imported
            return
        from transformers.activations import ACT2FN

        if self.hidden_act not in ACT2FN:
            raise UserError(unknown_name_message("hidden_act", str(self.hidden_act), ACT2FN))

    def _check_rope(self) -> None:
        """Refuse parameters of the rotary positions that `transformers` checks only when it saves, if at all."""
        assert self.rope_parameters is not None  # `transformers` fills them in
        rope_type = self.rope_parameters["rope_type"]
        known = {"default", *ROPE_INIT_FUNCTIONS}
        if rope_type not in known:
            raise UserError(unknown_name_message("rope_type", str(rope_type), known))
        for name in ("rope_theta",) if rope_type in ("default", "longrope") else ("rope_theta", "factor"):
            value = self.rope_parameters.get(name, 1.0)  # whether it may be left out is checked below
            if not isinstance(value, Real):
                raise UserError(f"rope_parameters.{name}={value!r} must be a number")
        try:
            self.validate_rope()
        except (KeyError, TypeError) as error:
            raise UserError(
                f"rope_parameters={self.rope_parameters} is not what rope_type={rope_type!r} needs: {error.args[0]}. Mend "
                "it, or choose rope_type='default'"
            ) from error

    def _check_experts(self) -> None:
        for name in ("num_experts", "num_experts_per_tok"):
            if not isinstance(getattr(self, name), Integral):
                raise UserError(f"{name}={getattr(self, name)!r} must be a whole number")
        root = math.isqrt(max(self.num_experts, 0))
        if self.num_experts < 1 or root * root != self.num_experts:
            near = " or ".join(str(n * n) for n in (max(root, 1), root + 1))
            raise UserError(f"num_experts={self.num_experts} must be a square number; the nearest are {near}")
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise UserError(
                f"num_experts_per_tok={self.num_experts_per_tok} must lie between 1 and num_experts={self.num_experts}"
            )
        weight = self.router_aux_loss_coef
        if not (isinstance(weight, Real) and 0 <= weight < math.inf):
            raise UserError(f"router_aux_loss_coef={weight!r} must be a number of at least 0; 0 leaves the loss out")

    @property
    def head_dim(self) -> int:
        """Return the dimensions of an attention head: `hidden_size / num_attention_heads` unless one was given."""
        return self.__dict__.get("head_dim") or self.hidden_size // self.num_attention_heads

    @head_dim.setter
    def head_dim(self, value: int | None) -> None:
        # Kept where `to_dict` looks: a file holds it only if it was given, as with the Doge of `transformers`.
        self.__dict__["head_dim"] = value

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "DogeConfig":
        """Build the configuration of a size of the family, such as "Doge-20M" or "Doge-20M-MoE".

        Args:
            name: an entry of `PRESETS`.
            overrides: fields to change.

        Raises:
            UserError: an unknown name.
        """
        if name not in PRESETS:
            raise UserError(unknown_name_message("preset", name, PRESETS))
        return DogeConfig(**{**deepcopy(PRESETS[name]), **overrides})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "DogeConfig":
        """Build a configuration from a dictionary, as in `transformers`.

        Raises:
            UserError: the dictionary says `doge` with experts, and `legacy_routing=True` is not among `kwargs`.
        """
        if "legacy_routing" in kwargs:
            config_dict = {**config_dict, "legacy_routing": kwargs.pop("legacy_routing")}
        foreign = config_dict.get("model_type", "doge") == "doge"
        if foreign and config_dict.get("is_moe") and not config_dict.get("legacy_routing"):
            raise UserError(
                "this checkpoint has model_type='doge' with is_moe=true: its experts were trained with a routing that "
                "mixes tokens and reads the future. Pass legacy_routing=True to reproduce it, or make a causal one from "
                "a dense checkpoint with `small-doge upcycle`"
            )
        return super().from_dict(config_dict, **kwargs)


class DogeMoeConfig(DogeConfig):
    """Holds the settings of a Doge model whose tokens each choose their experts by themselves."""

    model_type = "doge_moe"

    is_moe: bool = True
