"""Loaded by vLLM's own Python (`--worker-extension-cls strop_vllm_cpu.Plain`), on a CPU.

There vLLM packs linear weights for oneDNN when it loads a model, and `reload_weights` then fills
tensors that nobody reads any more. Without packing it fills those that are read. The module is
imported before the model is loaded.
"""

import vllm._custom_ops

vllm._custom_ops._supports_onednn = False


class Plain:
    """vLLM wants a class to extend its workers with; nothing is added."""
