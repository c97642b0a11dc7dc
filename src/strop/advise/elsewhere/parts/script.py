"""The script that runs TRL's trainers with a written config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from strop.advise.elsewhere.carried import Keys
from strop.errors import UsageError
from strop.files import read_text
from strop.text.chat.named import NAMED

TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True, slots=True)
class Trainer:
    """`Trainer("trl", "DPOConfig", "DPOTrainer")`; `rewarded` ones take a reward function, `taught`
    ones the name of a teacher."""

    module: str
    config: str
    trainer: str
    rewarded: bool = False
    scalar: bool = False
    taught: bool = False


CLASSES: Mapping[str, Trainer] = {
    "sft": Trainer("trl", "SFTConfig", "SFTTrainer"),
    "dpo": Trainer("trl", "DPOConfig", "DPOTrainer"),
    "kto": Trainer("trl", "KTOConfig", "KTOTrainer"),
    "cpo": Trainer("trl.experimental.cpo", "CPOConfig", "CPOTrainer"),
    "orpo": Trainer("trl.experimental.orpo", "ORPOConfig", "ORPOTrainer"),
    "reward": Trainer("trl", "RewardConfig", "RewardTrainer", scalar=True),
    "grpo": Trainer("trl", "GRPOConfig", "GRPOTrainer", rewarded=True),
    "rloo": Trainer("trl", "RLOOConfig", "RLOOTrainer", rewarded=True),
    "gmpo": Trainer("trl.experimental.gmpo", "GMPOConfig", "GMPOTrainer", rewarded=True),
    "gkd": Trainer("trl.experimental.gkd", "GKDConfig", "GKDTrainer", taught=True),
}
"""The classes of TRL 1.16 by family."""

SCRIPT = '''"""Runs this folder's config.yaml with TRL 1.16: python train.py"""

import sys
from pathlib import Path

from datasets import load_dataset
from transformers import {auto}, AutoTokenizer, set_seed
from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config
from {module} import {config}, {trainer}

HERE = Path(__file__).resolve().parent


def build(arguments=()):
    """The trainer of the config; arguments override it, as in --learning_rate 1e-6."""
    parser = TrlParser(({config}, ModelConfig))
    args, model_args = parser.parse_args_and_config(
        ["--config", str(HERE / "config.yaml"), *arguments]
    )
    set_seed(args.seed)
    quantization = get_quantization_config(model_args)
    model = {auto}.from_pretrained(
        model_args.model_name_or_path,
        revision=model_args.model_revision,
        dtype=model_args.dtype,
        trust_remote_code=args.trust_remote_code,{labels}
        quantization_config=quantization,
        device_map={{"": 0}} if quantization is not None else None,
    )
    tokenizer = AutoTokenizer.from_pretrained(
        {tokenizer},
        trust_remote_code=args.trust_remote_code,
    ){template}
    data = load_dataset("json", data_files={{{files}}})
    return {trainer}(
        model=model,{teacher}
        args=args,
        train_dataset=data["train"],{held_out}{rewards}
        processing_class=tokenizer,
        peft_config=get_peft_config(model_args),
    )


if __name__ == "__main__":
    trainer = build(sys.argv[1:])
    trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
    trainer.save_model(str(Path(trainer.args.output_dir) / "final"))
'''


TEACHER = "\n        teacher_model=args.teacher_model_name_or_path,"

OWN_TOKENIZER = """model_args.model_name_or_path,
        revision=model_args.model_revision"""


def trl_script(classes: Trainer, *, tokenizer: str | None, template: bool, held_out: bool) -> str:
    """`train.py` for one of TRL's trainers."""
    read = f'\n    tokenizer.chat_template = (HERE / "{TEMPLATE}").read_text(encoding="utf-8")'
    files = ['"train": str(HERE / "train.jsonl")']
    if held_out:
        files.append('"eval": str(HERE / "eval.jsonl")')
    text = SCRIPT.format(
        auto="AutoModelForSequenceClassification" if classes.scalar else "AutoModelForCausalLM",
        module=classes.module,
        config=classes.config,
        trainer=classes.trainer,
        labels="\n        num_labels=1," if classes.scalar else "",
        tokenizer=OWN_TOKENIZER if tokenizer is None else repr(tokenizer),
        template=read if template else "",
        files=", ".join(files),
        held_out='\n        eval_dataset=data["eval"],' if held_out else "",
        rewards="\n        reward_funcs=[reward]," if classes.rewarded else "",
        teacher=TEACHER if classes.taught else "",
    )
    if not classes.rewarded:
        return text
    loaded = "\nsys.path.insert(0, str(HERE))\nfrom reward import reward  # noqa: E402\n"
    home = "HERE = Path(__file__).resolve().parent\n"
    return text.replace(home, home + loaded)


def template_text(keys: Keys) -> str | None:
    """The recipe's own chat template, by its file or its name."""
    chosen = keys.take("chat_template")
    if chosen is None:
        return None
    if chosen in NAMED:
        keys.say(f"the template {chosen} is written there without adding its tokens to the "
                 "tokenizer: use a tokenizer that has them")  # fmt: skip
        return NAMED[chosen].source
    return read_text(Path(chosen), UsageError)


def template_file(keys: Keys) -> Mapping[str, str]:
    """`chat_template.jinja`, where the recipe names a template."""
    text = template_text(keys)
    return {} if text is None else {TEMPLATE: text}
