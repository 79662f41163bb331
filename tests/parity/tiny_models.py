"""Tiny Qwen2 models of transformers whose parameters have moved away from one another."""


def tiny_qwen2(vocab_size, eos_id, **changes):
    """The config of a model of two layers."""
    import transformers

    fields = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "eos_token_id": eos_id,
        "pad_token_id": eos_id,
    }
    return transformers.Qwen2Config(vocab_size=vocab_size, **fields | changes)


def moving_models(config, moves, tmp_path_factory):
    """Directories of one model after each of some moves: (name, standard deviation)."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(config).float()
    found = []
    for name, size in moves:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * size)
        found.append(tmp_path_factory.mktemp(name))
        model.save_pretrained(found[-1])
    return found
