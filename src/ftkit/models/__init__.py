"""Pretrained models: loading, quantization, adapters, losses, generation and facts."""
