"""Text towers: any Hugging Face causal language model made bidirectional, or a BERT, with pooling, LoRA and a projection.

    encoder = TextConfig(source="/models/llama-3.2-1b", pooling="mean", lora=Lora(rank=16)).build()
    vectors = encoder.encode(["No pleural effusion."], instructions="Retrieve semantically similar sentences")

A folder on this machine always works; a name on a hub only with ``download: true``. Weights are read from safetensors,
never unpickled, and no code that comes with a model is run.
"""
