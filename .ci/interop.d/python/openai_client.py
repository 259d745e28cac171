"""The unmodified openai package: completes, streams, keeps to a schema, is refused; and the tokens are those of gRPC."""

import json
import sys

import grpc
import openai
from wardrobe.v1 import generation_pb2, generation_pb2_grpc

QUESTION = "Do you sell tents?"


def main(address):
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0)
    channel = grpc.insecure_channel(address)
    generation = generation_pb2_grpc.GenerationServiceStub(channel)

    models = {m.id: m for m in client.models.list().data}
    base = next(id for id, m in models.items() if not getattr(m, "parent", None))
    assert {"pirate", "sql", "terse"} <= set(models), sorted(models)

    # The same request and seed over HTTP and over gRPC, greedy and drawn, base and adapters.
    compared = 0
    for model in [base, "pirate", "terse", "sql"]:
        for temperature in [0.0, 1.0]:
            over_http = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": QUESTION}],
                seed=42,
                temperature=temperature,
                max_completion_tokens=32,
                logprobs=True,
            )
            request = generation_pb2.GenerateRequest(
                messages=[generation_pb2.Message(role="user", content=QUESTION)],
                seed=42,
                temperature=temperature,
                max_tokens=32,
            )
            if model != base:
                request.adapter = model
            over_grpc = generation.Generate(request, timeout=60)
            choice = over_http.choices[0]
            assert choice.message.content == over_grpc.text, (model, temperature, choice.message.content, over_grpc.text)
            assert over_http.usage.completion_tokens == over_grpc.usage.generated_tokens
            assert over_http.usage.prompt_tokens == over_grpc.usage.prompt_tokens
            # Token by token, as far as HTTP tells of them: their bytes.
            pieces = b"".join(bytes(t.bytes) for t in choice.logprobs.content)
            assert pieces.decode(errors="replace").startswith(over_grpc.text), (pieces, over_grpc.text)
            streamed = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": QUESTION}],
                seed=42,
                temperature=temperature,
                max_completion_tokens=32,
                stream=True,
                stream_options={"include_usage": True},
            )
            text, usage = "", None
            for chunk in streamed:
                usage = chunk.usage or usage
                text += "".join(c.delta.content or "" for c in chunk.choices)
            assert text == over_grpc.text, (model, temperature, text, over_grpc.text)
            assert usage.completion_tokens == over_grpc.usage.generated_tokens, usage
            compared += 1

    completion = client.completions.create(model="pirate", prompt="Ahoy", max_tokens=5, seed=1)
    assert completion.choices[0].text and completion.usage.completion_tokens == 5, completion

    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "count": {"type": "integer"}},
        "required": ["name", "count"],
        "additionalProperties": False,
    }
    constrained = client.chat.completions.create(
        model="json",
        messages=[{"role": "user", "content": QUESTION}],
        response_format={"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}},
        max_completion_tokens=120,
        seed=5,
    )
    value = json.loads(constrained.choices[0].message.content)
    assert set(value) == {"name", "count"} and isinstance(value["count"], int), value

    vector = client.embeddings.create(model=base, input=[QUESTION, "tents"])
    assert len(vector.data) == 2 and len(vector.data[0].embedding) > 0

    try:
        client.chat.completions.create(model="no-such-adapter", messages=[{"role": "user", "content": "x"}])
        raise AssertionError("an unknown adapter was answered")
    except openai.NotFoundError as e:
        assert "no-such-adapter" in e.message and e.body, e
    try:
        client.chat.completions.create(model=base, messages=[{"role": "user", "content": "x"}], temperature=-1)
        raise AssertionError("a temperature below 0 was taken")
    except openai.BadRequestError as e:
        assert "temperature" in e.message, e
    print(f"openai {openai.__version__}: {compared} answers over HTTP, whole and streamed, are gRPC's for the same seed; schema, embeddings and errors as they should be")


main(sys.argv[1])
