"""A language model that writes its KV cache into noisy cells, token by token.

Needs transformers. The model is small and random, so that this runs in seconds; a pretrained one (`from_pretrained`),
or any model of Hugging Face, timm or your own, is converted in the same way.
"""

import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import ohmformer as of

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=128, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
model = LlamaForCausalLM(config).eval()
prompts = torch.randint(3, 500, (2, 10))

hardware = of.load("clipformer_tcad_2024")
hardware = of.replace(hardware, "attention.array.cell.write_noise.gamma", 2.0)

# Rules: the first match wins. Here the head stays digital, and each token of K of layer 0 has a range of its own.
rules = {"lm_head": None, "model.layers.0.self_attn.K": of.Rule(scale="token")}
converted = of.convert(model, hardware, sample={"input_ids": prompts}, rules=rules, level="noise", verbose=True)

with torch.no_grad(), of.samples(["first text", "second text"]):
    text = converted.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=8, do_sample=False)
    # A token is written once and keeps its noise, so one pass over the whole text gives the same tokens as the steps.
    whole = converted(input_ids=text).logits
print("steps and one pass agree:", torch.equal(whole[:, 9:-1].argmax(-1), text[:, 10:]))

with tempfile.TemporaryDirectory() as folder:
    of.save(converted, Path(folder) / "converted.safetensors")
    restored = of.restore(LlamaForCausalLM(config).eval(), Path(folder) / "converted.safetensors")
with torch.no_grad(), of.samples(["first text", "second text"]):
    print("restored to the bit:", torch.equal(restored(input_ids=text).logits, whole))

digital = of.revert(converted)
with torch.no_grad():
    print("reverted to the bit:", torch.equal(digital(input_ids=text).logits, model(input_ids=text).logits))

step = of.trace(model, {"input_ids": text[:, -1:]}, phase="decode", context=17)
print(f"one more token: {step.macs:,} multiplications, {step.dynamic_macs:,} of them with K and V")
