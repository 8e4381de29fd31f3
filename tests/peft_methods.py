"""peft's methods, each as an option of a module, small enough for the tiny models."""

import peft
from peft import PeftConfig

STEPS = 4
VIRTUAL = {"num_virtual_tokens": 3}
UNCHANGED: dict[str, PeftConfig] = {  # by methods that change nothing before they are trained
    "lora": peft.LoraConfig(r=4, lora_alpha=8),
    "rslora": peft.LoraConfig(r=4, lora_alpha=8, use_rslora=True),
    "dora": peft.LoraConfig(r=4, lora_alpha=8, use_dora=True),
    "pissa": peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights="pissa"),
    "adalora": peft.AdaLoraConfig(init_r=4, target_r=2, tinit=1, tfinal=1, total_step=STEPS),
    "ia3": peft.IA3Config(),
    "oft": peft.OFTConfig(oft_block_size=8),
    "vera": peft.VeraConfig(r=4),
    "ln": peft.LNTuningConfig(),
    "saved_norm": peft.LoraConfig(r=4, modules_to_save=["norm"]),
}
PROMPTS: dict[str, PeftConfig] = {
    "prompt": peft.PromptTuningConfig(**VIRTUAL),
    "prefix": peft.PrefixTuningConfig(**VIRTUAL),
    "p_tuning": peft.PromptEncoderConfig(**VIRTUAL, encoder_hidden_size=16),
}
METHODS = UNCHANGED | PROMPTS
