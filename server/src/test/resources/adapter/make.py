"""Writes the expectations in this folder, from Python 3.11's re and PEFT 0.21.2 (torch 2.15, CPU).

    python make.py MODELS   # MODELS: a folder that holds the unquantized tiny model llama_mha

lora_config.json   the fields of LoraConfig and their defaults
regex.json         patterns, and which of the paths Python matches with them
targets.json       configs, and which modules PEFT adapts (rank, scale) or replaces, or that it refuses
peft/              adapters over llama_mha of kinds that are rare, and their logits
"""

import dataclasses
import json
import pathlib
import re
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

warnings.simplefilter("ignore")
here = pathlib.Path(__file__).parent


def write(name, value):
    (here / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def lora_config():
    fields = {}
    for field in dataclasses.fields(LoraConfig):
        default = field.default
        if default is dataclasses.MISSING:
            default = field.default_factory()
        fields[field.name] = dataclasses.asdict(default) if dataclasses.is_dataclass(default) else default
    write("lora_config.json", fields)


PATHS = [
    "",
    "model",
    "lm_head",
    "model.norm",
    "model.embed_tokens",
    "model.layers.0",
    "model.layers.0.self_attn",
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.v_proj",
    "model.layers.10.self_attn.k_proj",
    "model.layers.11.mlp.up_proj",
    "model.layers.23.mlp.act_fn",
    "model.layers.3.input_layernorm",
    "MODEL.LAYERS.7.MLP.DOWN_PROJ",
    "aaaa",
    "ab-c]d{2}^",
]

PATTERNS = [
    r".*", r"", r"model", r"(model)", r"lm_head|model\.norm", r".*\.(q|k)_proj", r".*_proj$", r"^model.*",
    r".*\.layers\.[01]\.(self_attn\.(q|k)_proj|mlp\.gate_proj)", r"(.*\.)?(q_proj)$", r"(.*\.)?(layers\.1\.self_attn\.v_proj)$",
    r"model\.layers\.\d+\..*", r"model\.layers\.\d{2}\..*", r"model\.layers\.\d{2,}\.\w+\.\w+", r"model\.layers\.\d{,1}\.mlp.*",
    r"model\.layers\.\d{1,2}?\..*", r"model\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj|v_proj|up_proj))",
    r"(?:.*?(?:language|text|model).*?(?:self_attn|attention|mlp).*?(?:k_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:mlp)\.(?:(?:up_proj)))",
    r"(?!.*norm).*", r"^(?!.*(?:lm_head|embed)).*(?:proj|norm)$", r".*(?<=_)proj", r".*(?<!q_)proj", r".*(?<!up_)proj", r"(?=m).*k_proj",
    r"(?i)model\.layers\.7\.mlp\.down_proj", r"(?i:model)\..*", r"(?i:MODEL)\.layers.*", r"(?-i:model).*", r"(?s).*", r"(?P<a>model)\..*", r"(?P<a b>m).*",
    r"(?#comment)model(?# x)*", r"[^.]+", r"[^.]+\.[^.]+", r"[]a]+.*", r"[a-]+.*", r"[\w.]+", r"[\W]+", r"[\d\D]*", r"[^\W]+", r"[^\d.]+",
    r"[a-z_.0-9]+", r"(([a-z_.0-9]+)+)+\$x", r"(a+)+", r"(a+)+b", r"(a|aa)*", r"(a*)*", r"(|a)+", r"(a?){4}", r"(a?){3}", r"a{2}{2}", r"a{4}",
    r"a{2,}", r"a{,4}", r"a{5,}", r"a{3,2}", r"a{}", r"a{x}", r"a{", r"ab-c\]d\{2\}\^", r"ab-c]d{2}\^", r"ab-c]d\{2}\^", r"ab-c]d[{]2}\^", r"a**", r"a*+", r"a++", r"a?+", r"*a", r"^*", r"$*a",
    r"\b*", r"(?=a)*aaaa", r"(a", r"a)", r"(a))", r"[a", r"[z-a]", r"[\d-z]", r"[a-\d]", r"\q", r"\1", r"(a)\1", r"(a)(?(1)aaa|b)", r"\x61+", r"\u0061+",
    r"\x6", r"a\Z", r"aaaa\Z", r"\Aaaaa", r"aaaa\z", r"\baaaa\b", r"\Baaaa", r"a\Ba.*", r"model\b.*", r"m\bodel.*", r"(?<=a+)a", r"(?<=a|b)", r"a(?<=a|b)aaa",
    r"(?<=a|bb)a", r"aa(?<=aa)aa", r"(?>a)aaa", r"(?x)a a", r"a(?i)aaa", r"(?L)a", r"(?i)MODEL.*", r".*(?i:Q_PROJ)", r"[[]a]", r"[a&&b]+", r"[^^]+", r"[\]a]+", r"[\-a]+",
    r"a|", r"|", r"()", r"(()|a)+", r".*\.layers\.(?:0|1)\.self_attn\.(?:q|v)_proj", r"\w+\.\w+", r"\s*", r"\S+", r"\D+", r"m.d.l", r"\m", r"\.", r"model\Wnorm", r"(?:)", r"(?:a|b|)+",
    r"(?P=a)", r"(?P<a>a)(?P=a)", r"(?<a>a)", r"(?i", r"(?", r"(?:", r"(?=", r"\\", "\\", r"[\b]", r"[\n]", r"[\q]", r"(?a)\w+", r"(?u)\w+", r"(?m)^model$", r"(?im:MODEL).*", r"(?i-s:MODEL).*",
]


def regex():
    cases = []
    for pattern in dict.fromkeys(PATTERNS):
        case = {"pattern": pattern}
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            case["error"] = str(error)
        else:
            if pattern == r"(([a-z_.0-9]+)+)+\$x":
                case["all"] = case["start"] = []  # it would take Python for ever
            else:
                case["all"] = [p for p in PATHS if compiled.fullmatch(p)]
                case["start"] = [p for p in PATHS if compiled.match(p)]
        cases.append(case)
    write("regex.json", {"paths": PATHS, "cases": cases})


PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

CONFIGS = [
    dict(),
    dict(target_modules=["q_proj"]),
    dict(target_modules=["q_proj", "nonsense"]),
    dict(target_modules=["nonsense"]),
    dict(target_modules=["proj"]),
    dict(target_modules=[]),
    dict(target_modules=PROJECTIONS + ["lm_head", "embed_tokens"]),
    dict(target_modules=["self_attn.q_proj"]),
    dict(target_modules=["layers.1.self_attn.q_proj"]),
    dict(target_modules=["model.layers.1.self_attn.q_proj"]),
    dict(target_modules=["1.self_attn.q_proj"]),
    dict(target_modules=["input_layernorm"]),
    dict(target_modules=["mlp"]),
    dict(target_modules=["act_fn"]),
    dict(target_modules=["norm"]),
    dict(target_modules=["lm_head"]),
    dict(target_modules="all-linear"),
    dict(target_modules="ALL-Linear"),
    dict(target_modules="q_proj"),
    dict(target_modules=".*q_proj"),
    dict(target_modules=r"model\.layers\.(0|2)\..*_proj"),
    dict(target_modules=r".*\.(embed_tokens|v_proj)"),
    dict(target_modules=r".*"),
    dict(target_modules=r".*self_attn.*"),
    dict(target_modules=r".*[qv]_proj", exclude_modules=r".*\.1\..*"),
    dict(target_modules=PROJECTIONS, exclude_modules=["q_proj", "mlp.up_proj", "model.layers.2.self_attn.v_proj"]),
    dict(target_modules="all-linear", exclude_modules=["down_proj"]),
    dict(target_modules=["q_proj"], exclude_modules=["q_proj"]),
    dict(target_modules=["q_proj", "self_attn"], exclude_modules=["self_attn"]),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=1),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[0, 2]),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[]),
    dict(target_modules=["q_proj", "lm_head"], layers_to_transform=[1]),
    dict(target_modules=["q_proj", "model.layers.0.self_attn.v_proj"], layers_to_transform=[1]),
    dict(target_modules=["q_proj"], layers_to_transform=[7]),
    dict(target_modules=["q_proj"], layers_to_transform=[-1]),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="layers"),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern=["h", "layers"]),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="h"),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="lay"),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="l.*s"),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="(?:h|layers)"),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern=""),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern=[]),
    dict(target_modules=["q_proj"], layers_pattern="layers"),
    dict(target_modules=".*q_proj", layers_to_transform=[1]),
    dict(target_modules="all-linear", layers_to_transform=[1]),
    dict(target_modules=".*q_proj", layers_pattern="layers"),
    dict(target_modules=["v_proj"], modules_to_save=["lm_head"]),
    dict(target_modules=["v_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    dict(target_modules=["v_proj"], modules_to_save=["norm"]),
    dict(target_modules=["v_proj"], modules_to_save=["model.norm"]),
    dict(target_modules=["v_proj"], modules_to_save=["input_layernorm"]),
    dict(target_modules=["v_proj"], modules_to_save=["layernorm"]),
    dict(target_modules=["v_proj"], modules_to_save=["score"]),
    dict(target_modules=["v_proj"], modules_to_save=["layers.0.input_layernorm"]),
    dict(target_modules=["v_proj"], modules_to_save=["layers.0"]),
    dict(target_modules=["v_proj"], modules_to_save=["q_proj"]),
    dict(target_modules=["v_proj"], modules_to_save=["mlp"]),
    dict(target_modules=["v_proj", "q_proj"], modules_to_save=["q_proj"]),
    dict(target_modules=["v_proj"], modules_to_save=["v_proj"]),
    dict(target_modules=["v_proj"], modules_to_save=[]),
    dict(target_modules=["v_proj"], modules_to_save=["(norm"]),
    dict(target_modules=["v_proj"], modules_to_save=["act_fn"]),
    dict(target_modules=PROJECTIONS, r=8, lora_alpha=16, rank_pattern={"q_proj": 4, "v_proj": 3, "layers.1.self_attn.v_proj": 12}),
    dict(target_modules=PROJECTIONS, r=8, lora_alpha=16, rank_pattern={"layers.1.self_attn.v_proj": 12, "v_proj": 3}),
    dict(target_modules=PROJECTIONS, r=8, lora_alpha=16, rank_pattern={r".*\.layers\.0\.mlp\.up_proj": 2, "roj": 5, "(q|k)_proj": 6}),
    dict(target_modules=PROJECTIONS, r=8, lora_alpha=16, rank_pattern={"self_attn": 5, "^q_proj": 2, "nothing": 4}),
    dict(target_modules=PROJECTIONS, r=8, lora_alpha=16, rank_pattern={"model.layers.0.self_attn.q_proj": 1, "q_proj|k_proj": 3}),
    dict(target_modules=PROJECTIONS, r=8, lora_alpha=16, alpha_pattern={"up_proj": 3, "layers.2.*": 1.5, "v_proj": 0}),
    dict(target_modules=PROJECTIONS, r=8, lora_alpha=16, use_rslora=True, rank_pattern={"q_proj": 3}, alpha_pattern={"q_proj": 9, "k_proj": 7}),
    dict(target_modules=PROJECTIONS, r=7, lora_alpha=0.1),
    dict(target_modules=PROJECTIONS, r=3, lora_alpha=-1, use_rslora=True),
    dict(target_modules=["q_proj"], rank_pattern={"q_proj": 0}),
    dict(target_modules=["q_proj"], rank_pattern={"(?i)Q_PROJ": 3}),
    dict(target_modules=["q_proj"], rank_pattern={"(?i:Q)_PROJ|q_proj": 3}),
    dict(target_modules=["q_proj"], rank_pattern={"q_(": 3}),
    dict(target_modules=["embed_tokens", "q_proj"], lora_bias=True),
    dict(target_modules=["embed_tokens", "q_proj"], use_dora=True),
    dict(target_modules=["q_proj"], lora_bias=True, use_dora=True),
]


def bases():
    shape = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    return {
        "llama": LlamaForCausalLM(LlamaConfig(**shape)),
        "qwen3": Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8, tie_word_embeddings=True)),
    }


def targets():
    kinds = {"Linear": "LINEAR", "Embedding": "EMBEDDING", "LlamaRMSNorm": "NORM", "Qwen3RMSNorm": "NORM"}
    out = {"bases": {}, "cases": []}
    for name, model in bases().items():
        out["bases"][name] = {
            path: "HEAD" if path == "lm_head" else kinds[type(module).__name__]
            for path, module in model.named_modules()
            if type(module).__name__ in kinds
        }
    for config in CONFIGS:
        case = {"config": config}
        for name in out["bases"]:
            model = bases()[name]
            try:
                lora = LoraConfig(task_type="CAUSAL_LM", **config)
                peft = get_peft_model(model, lora)
                case[name] = {"adapted": {}, "replaced": []}
                prefix = "base_model.model."
                for path, module in peft.named_modules():
                    if isinstance(module, LoraLayer):
                        case[name]["adapted"][path.removeprefix(prefix)] = [module.r["default"], module.scaling["default"]]
                    if isinstance(module, ModulesToSaveWrapper):
                        inner = module.modules_to_save["default"]
                        for leaf, part in inner.named_modules():
                            if type(part).__name__ in kinds:
                                case[name]["replaced"].append((path + "." + leaf).removeprefix(prefix).rstrip("."))
                case[name]["replaced"].sort()
            except Exception as error:
                case[name] = {"error": type(error).__name__ + ": " + str(error)[:100]}
        out["cases"].append(case)
    write("targets.json", out)


RARE = {
    "dora_embed_head": dict(target_modules=["embed_tokens", "lm_head", "q_proj"], use_dora=True, r=3, lora_alpha=7),
    "dora_rslora": dict(target_modules=["v_proj", "down_proj"], use_dora=True, use_rslora=True, r=5, lora_alpha=3),
    "saved_linear": dict(target_modules=["v_proj"], modules_to_save=["layers.0.self_attn.q_proj", "norm"], r=2),
    "saved_embed": dict(target_modules=["lm_head"], modules_to_save=["embed_tokens"], r=2),
    "saved_container": dict(target_modules=["layers.1.self_attn.v_proj"], modules_to_save=["layers.0.mlp"], r=2),
    "full_names": dict(target_modules=["model.layers.1.mlp.up_proj", "model.embed_tokens"], r=130, lora_alpha=1.5, rank_pattern={"embed_tokens": 3}),
    "lora_bias_head": dict(target_modules=["lm_head", "o_proj"], lora_bias=True, r=1, lora_alpha=2),
}


def rare(models):
    tokens = torch.tensor([[51, 447, 408, 500, 385, 443, 458, 115, 113, 123, 507, 72]])
    logits = {}
    for name, config in RARE.items():
        torch.manual_seed(20)
        model = AutoModelForCausalLM.from_pretrained(models / "llama_mha", dtype=torch.float32)
        peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path="llama_mha", **config)).eval()
        with torch.no_grad():
            for key, parameter in peft.named_parameters():
                if "lora_magnitude" in key:
                    parameter.mul_(1 + 0.3 * torch.randn_like(parameter))
                elif "lora_" in key:
                    parameter.copy_(0.2 * torch.randn_like(parameter))
                elif "modules_to_save" in key:
                    parameter.add_(0.1 * torch.randn_like(parameter))
            logits[name] = peft(tokens).logits[0, -4:].contiguous()
        peft.save_pretrained(here / "peft" / name, save_embedding_layers="auto")
        (here / "peft" / name / "README.md").unlink(missing_ok=True)
    logits["tokens"] = tokens[0].to(torch.int32)
    save_file(logits, here / "peft" / "logits.safetensors")


if __name__ == "__main__":
    lora_config()
    regex()
    targets()
    rare(pathlib.Path(sys.argv[1]))
