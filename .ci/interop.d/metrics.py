"""Reads a server's metrics, while it answers, as Prometheus' own client library does."""

import concurrent.futures
import json
import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

SERVER = f"http://{sys.argv[1]}"


def ask(model):
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 60}).encode()
    request = urllib.request.Request(
        SERVER + "/v1/completions", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["usage"]["completion_tokens"]


def scrape(accept, parse):
    request = urllib.request.Request(SERVER + "/metrics", headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return {family.name: family for family in parse(answer.read().decode())}


def check(condition, what):
    if not condition:
        sys.exit(f"interop: metrics: {what}")


with concurrent.futures.ThreadPoolExecutor(8) as pool:
    answers = [pool.submit(ask, model) for model in ["sql", "pirate"] * 8]
    while not all(answer.done() for answer in answers):
        check("vllm:num_requests_running" in scrape("text/plain", text), "no running requests' gauge")
        scrape("application/openmetrics-text", openmetrics)
    tokens = sum(answer.result() for answer in answers)

plain = scrape("text/plain", text)
opened = scrape("application/openmetrics-text", openmetrics)
# Of an information, text has the name with its suffix.
names = [{name.removesuffix("_info") for name in families} for families in (plain, opened)]
check(plain and names[0] == names[1], f"two sets of names: {names[0] ^ names[1]}")
generated = sum(sample.value for sample in plain["vllm:generation_tokens"].samples)
check(generated >= tokens, f"{generated} tokens generated, {tokens} answered")
(lora,) = plain["vllm:lora_requests_info"].samples
check({"sql", "pirate"} <= set(lora.labels["running_lora_adapters"].split(",")), f"in memory: {lora}")
check(int(lora.labels["max_lora"]) > 0 and lora.value > 1.7e9, f"{lora}")
for family in plain.values():
    check(family.type != "unknown" and family.documentation, f"{family.name} has no type or help")
print(f"interop: metrics: {len(plain)} families read as text and as OpenMetrics under load")
