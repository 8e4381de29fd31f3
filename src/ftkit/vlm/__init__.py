"""Vision-language models: supervised fine-tuning, preference tuning, and yes-or-no questions."""
