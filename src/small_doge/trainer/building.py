"""The model and the tokenizer that a run starts from."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from ..models import DogeConfig, DogeForCausalLM, load_model
from ..models.starting_weights import set_starting_weights
from ..optim import Muon, split_parameters
from ..processor.tokenizer import build_generation_config
from ..utils.errors import UserError
from ..utils.extras import needs_extra
from ..utils.model_folder import load_tokenizer
from ..utils.suggest import unknown_name_message
from ..utils.vocabulary import check_tokenizer_fits, hash_vocabulary
from .arguments import AdapterArguments, ModelArguments, StageArguments


def find_tokenizer(model: ModelArguments) -> PreTrainedTokenizerBase:
    """Load the tokenizer that the settings name, or that of the model."""
    name = model.tokenizer_name_or_path or model.model_name_or_path or model.continue_from
    if name is None:
        raise UserError("tokenizer_name_or_path is missing: a new model needs to be told its tokenizer")
    return load_tokenizer(name, "tokenizer_name_or_path" if model.tokenizer_name_or_path else "model")


def build_model(model: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> DogeForCausalLM:
    """Build a new model of a preset, or load a trained one; its configuration records the vocabulary.

    Raises:
        UserError: the tokenizer does not belong to trained weights, or is larger than the vocabulary of new ones.
    """
    trained = model.model_name_or_path or model.continue_from
    if trained is not None:
        doge = load_model(AutoModelForCausalLM, trained, dtype=torch.float32)
    else:
        tokens = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        doge = DogeForCausalLM(DogeConfig.from_preset(model.model_preset, **{**tokens, **model.model_overrides}))
        set_starting_weights(
            doge, model.init_zero_outputs, model.init_embedding_std, model.init_query_key_gain, prefix="init_"
        )
    if trained is not None and model.tokenizer_name_or_path is not None:
        check_tokenizer_belongs(trained, model.tokenizer_name_or_path, tokenizer)
    check_tokenizer_fits(tokenizer, doge.config, trained or "the new model", doge.generation_config)
    doge.config.vocabulary_hash = hash_vocabulary(tokenizer)
    doge.generation_config = build_generation_config(tokenizer)
    return doge


def check_tokenizer_belongs(model: str, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a `UserError` if tokens that trained weights have learnt have other numbers in another tokenizer."""
    own = load_tokenizer(model)
    if own is None:
        return
    vocab = tokenizer.get_vocab()
    wrong = [token for token, number in own.get_vocab().items() if vocab.get(token) != number]
    if wrong:
        raise UserError(
            f"tokenizer_name_or_path={name} is not the tokenizer of {model}: {len(wrong)} of its tokens have other numbers "
            f"there or are missing, such as {wrong[0]!r}. Leave tokenizer_name_or_path out, or train new weights"
        )


def add_adapter(model: DogeForCausalLM, args: ModelArguments) -> Any:
    """Put a new LoRA adapter, which alone is trained, around the model where the settings ask for one.

    Raises:
        ValueError: peft is not installed, or a named layer is not there.
    """
    if not isinstance(args, AdapterArguments) or not args.lora_r:
        return model
    with needs_extra(f"lora_r={args.lora_r}", "lora"):
        from peft import LoraConfig, get_peft_model
    layers = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    for name in args.lora_target_modules:
        if name not in layers - {"lm_head"}:
            raise UserError(unknown_name_message("layer in lora_target_modules", name, sorted(layers - {"lm_head"})))
    config = LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=args.lora_target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def build_muon(model: torch.nn.Module, args: StageArguments) -> Muon:
    """Build Muon for the matrices of a model's layers, with AdamW for its other parameters, by the settings of a run.

    Raises:
        UserError: no matrix of the model is trained whole, as when all are frozen.
    """
    adamw = {
        "lr": args.learning_rate,
        "weight_decay": args.weight_decay,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
    }
    muon = {
        "lr": args.muon_lr,
        "weight_decay": args.muon_weight_decay,
        "momentum": args.muon_momentum,
        "momentum_warmup_steps": args.muon_momentum_warmup_steps,
        "cautious_weight_decay": args.muon_cautious_weight_decay,
    }
    groups = split_parameters(model, muon, {**adamw, "lr": args.embedding_lr or args.learning_rate}, adamw)
    if not any(group["use_muon"] for group in groups):
        raise UserError("optim=muon has no matrix to train in this model: use another optim")
    return Muon(groups, lr=args.learning_rate)  # which schedules of the library read
