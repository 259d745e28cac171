// The unmodified openai package against a server of the embedded model.
//
// node openai.mjs ADDRESS TOOLS: the second serves the same model with a chat template that has a
// place for tools.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages are kept outside of the repository.
const require = createRequire(pathToFileURL(`${process.env.WARDROBE_NODE}/`));
const { default: OpenAI, NotFoundError, BadRequestError, APIError, APIUserAbortError } =
  require("openai");
const { default: Ajv } = require("ajv");

const [address, tools] = process.argv.slice(2);
const client = of(address);
const caller = of(tools);
const asked = [{ role: "user", content: "When does order 4172 arrive?" }];
const plain = { model: "base", messages: asked, max_tokens: 24, seed: 7 };

function of(where) {
  return new OpenAI({ baseURL: `http://${where}/v1`, apiKey: "none", maxRetries: 0 });
}

async function textOf(stream) {
  let text = "";
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  return text;
}

const checks = {
  async "completes, for the base and for an adapter"() {
    const base = await client.chat.completions.create(plain);
    assert.equal(base.object, "chat.completion");
    assert.equal(base.choices[0].message.role, "assistant");
    assert.ok(base.choices[0].message.content.length > 0);
    assert.match(base.system_fingerprint, /^fp_[0-9a-f]{12}$/);
    const { usage } = base;
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    const again = await client.chat.completions.create(plain);
    assert.equal(again.choices[0].message.content, base.choices[0].message.content);
    const pirate = await client.chat.completions.create({ ...plain, model: "pirate" });
    assert.notEqual(pirate.choices[0].message.content, base.choices[0].message.content);
    assert.equal(pirate.model, "pirate");
    assert.ok(pirate._request_id);
  },

  async "completes a plain prompt, and several at once"() {
    const one = await client.completions.create({ model: "base", prompt: "The order", seed: 1 });
    assert.equal(one.object, "text_completion");
    assert.equal(one.usage.completion_tokens, 16);
    const two = await client.completions.create({
      model: "base",
      prompt: ["The order", "The"],
      seed: 1,
      echo: true,
    });
    assert.equal(two.choices.length, 2);
    assert.equal(two.choices[0].text, `The order${one.choices[0].text}`);
  },

  async "streams the same text, with usage at the end"() {
    const whole = await client.chat.completions.create(plain);
    const stream = await client.chat.completions.create({
      ...plain,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let usage = null;
    let reason = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      reason = chunk.choices[0]?.finish_reason ?? reason;
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(reason, whole.choices[0].finish_reason);
    assert.deepEqual(usage.completion_tokens, whole.usage.completion_tokens);
    const collected = await client.chat.completions.stream(plain).finalChatCompletion();
    assert.equal(collected.choices[0].message.content, text);
    const completion = await client.completions.create({
      model: "base",
      prompt: "The order",
      seed: 1,
      stream: true,
    });
    let prompted = "";
    for await (const chunk of completion) {
      prompted += chunk.choices[0].text;
    }
    const same = await client.completions.create({ model: "base", prompt: "The order", seed: 1 });
    assert.equal(prompted, same.choices[0].text);
  },

  async "keeps to a JSON schema"() {
    const schema = {
      type: "object",
      properties: {
        order: { type: "integer", minimum: 1000, maximum: 9999 },
        carrier: { enum: ["Blue Van", "Red Bike"] },
        items: { type: "array", items: { type: "string", maxLength: 12 }, minItems: 1, maxItems: 3 },
      },
      required: ["order", "carrier", "items"],
      additionalProperties: false,
    };
    const valid = new Ajv().compile(schema);
    for (const seed of [1, 2, 3]) {
      const parsed = await client.chat.completions.parse({
        ...plain,
        seed,
        max_tokens: 200,
        response_format: {
          type: "json_schema",
          json_schema: { name: "order", strict: true, schema },
        },
      });
      const { parsed: value } = parsed.choices[0].message;
      assert.ok(valid(value), JSON.stringify([value, valid.errors]));
    }
    const any = await client.chat.completions.create({
      ...plain,
      model: "json",
      max_tokens: 300,
      response_format: { type: "json_object" },
    });
    if (any.choices[0].finish_reason === "stop") {
      assert.equal(typeof JSON.parse(any.choices[0].message.content), "object");
    }
  },

  async "calls tools, when it has to"() {
    const find = {
      type: "function",
      function: {
        name: "find_order",
        strict: true,
        parameters: {
          type: "object",
          properties: {
            number: { type: "integer", minimum: 1, maximum: 99999 },
            detail: { $ref: "#/$defs/detail" },
          },
          required: ["number", "detail"],
          additionalProperties: false,
          $defs: { detail: { enum: ["short", "long"] } },
        },
      },
    };
    const stop = { type: "function", function: { name: "stop", parameters: {} } };
    const valid = new Ajv().compile(find.function.parameters);
    const asking = { ...plain, max_tokens: 150, tools: [find, stop], parallel_tool_calls: false };
    const check = (message, reason) => {
      assert.equal(reason, "tool_calls");
      assert.equal(message.tool_calls.length, 1);
      const [call] = message.tool_calls;
      assert.equal(call.type, "function");
      assert.ok(call.id);
      const value = JSON.parse(call.function.arguments);
      if (call.function.name === "find_order") {
        assert.ok(valid(value), JSON.stringify([value, valid.errors]));
      } else {
        assert.equal(call.function.name, "stop");
        assert.deepEqual(value, {});
      }
    };
    const named = { type: "function", function: { name: "find_order" } };
    for (const tool_choice of ["required", named]) {
      const { choices } = await caller.chat.completions.create({ ...asking, tool_choice });
      check(choices[0].message, choices[0].finish_reason);
      const streamed = await caller.chat.completions
        .stream({ ...asking, tool_choice })
        .finalChatCompletion();
      check(streamed.choices[0].message, streamed.choices[0].finish_reason);
      assert.deepEqual(
        streamed.choices[0].message.tool_calls.map((call) => call.function.arguments),
        choices[0].message.tool_calls.map((call) => call.function.arguments),
      );
      // What came goes back in, with its result.
      const next = await caller.chat.completions.create({
        ...plain,
        max_tokens: 4,
        messages: [
          ...asked,
          choices[0].message,
          { role: "tool", tool_call_id: choices[0].message.tool_calls[0].id, content: "Thursday" },
        ],
      });
      assert.equal(next.choices[0].message.role, "assistant");
    }
    await assert.rejects(
      client.chat.completions.create({ ...asking, tool_choice: "required" }),
      (e) => e instanceof BadRequestError && e.param === "tools",
    );
  },

  async "lists and retrieves models"() {
    const names = [];
    for await (const model of client.models.list()) {
      names.push(model.id);
      assert.equal(model.parent, model.id === "base" ? null : "base");
    }
    assert.ok(["base", "json", "pirate", "sql", "terse"].every((name) => names.includes(name)));
    assert.equal((await client.models.retrieve("pirate")).id, "pirate");
    await assert.rejects(client.models.retrieve("none"), NotFoundError);
  },

  async "gives vectors"() {
    const given = { model: "terse", input: ["one", "two"] };
    // The package asks for base64 by itself.
    const { data, usage } = await client.embeddings.create(given);
    const floats = await client.embeddings.create({ ...given, encoding_format: "float" });
    assert.equal(data.length, 2);
    assert.ok(usage.prompt_tokens > 0);
    for (const i of [0, 1]) {
      assert.equal(data[i].embedding.length, floats.data[i].embedding.length);
      floats.data[i].embedding.forEach((value, j) =>
        assert.equal(Math.fround(value), Math.fround(data[i].embedding[j])),
      );
    }
    const short = await client.embeddings.create({ ...given, dimensions: 16 });
    assert.equal(short.data[0].embedding.length, 16);
  },

  async "reports log-probabilities"() {
    const { choices } = await client.chat.completions.create({
      ...plain,
      logprobs: true,
      top_logprobs: 2,
    });
    const { content } = choices[0].logprobs;
    assert.equal(content.map((each) => each.token).join(""), choices[0].message.content);
    for (const each of content) {
      assert.ok(each.logprob <= 0);
      assert.equal(each.top_logprobs.length, 2);
      assert.equal(Buffer.from(each.bytes).toString(), each.token);
    }
    const old = await client.completions.create({ model: "base", prompt: "The", logprobs: 1, seed: 1 });
    const { tokens, text_offset: offsets, token_logprobs: values } = old.choices[0].logprobs;
    assert.equal(tokens.join(""), old.choices[0].text);
    tokens.forEach((token, i) => assert.ok(old.choices[0].text.startsWith(token, offsets[i])));
    assert.equal(values.length, tokens.length);
  },

  async "gives several answers"() {
    const { choices } = await client.chat.completions.create({
      ...plain,
      n: 3,
      temperature: 1.5,
    });
    assert.deepEqual(choices.map((choice) => choice.index), [0, 1, 2]);
    assert.ok(new Set(choices.map((choice) => choice.message.content)).size > 1);
    const stream = await client.chat.completions.create({ ...plain, n: 3, temperature: 1.5, stream: true });
    const texts = ["", "", ""];
    for await (const chunk of stream) {
      for (const choice of chunk.choices) {
        texts[choice.index] += choice.delta.content ?? "";
      }
    }
    assert.deepEqual(texts, choices.map((choice) => choice.message.content));
  },

  async "ends when its reader leaves"() {
    const long = { ...plain, max_tokens: 400, ignore_eos: true, n: 8, temperature: 1, stream: true };
    const stream = await client.chat.completions.create(long);
    for await (const chunk of stream) {
      if (chunk.choices[0].delta.content) {
        break;
      }
    }
    const controller = new AbortController();
    const other = client.chat.completions.create(
      { ...long, stream: false },
      { signal: controller.signal },
    );
    setTimeout(() => controller.abort(), 50);
    await assert.rejects(other, APIUserAbortError);
    assert.ok(await textOf(await client.chat.completions.create({ ...plain, stream: true })));
  },

  async "says what is wrong"() {
    await assert.rejects(client.chat.completions.create({ ...plain, model: "nobody" }), (e) => {
      assert.ok(e instanceof NotFoundError);
      assert.equal(e.code, "model_not_found");
      assert.equal(e.param, "model");
      assert.match(e.message, /base.*pirate/);
      return true;
    });
    await assert.rejects(
      client.chat.completions.create({ ...plain, model: "nobody", stream: true }),
      NotFoundError,
    );
    await assert.rejects(client.chat.completions.create({ ...plain, temprature: 1 }), (e) => {
      assert.ok(e instanceof BadRequestError);
      assert.equal(e.param, "temprature");
      assert.match(e.message, /temperature/);
      return true;
    });
    await assert.rejects(
      client.chat.completions.create({ ...plain, temperature: "hot" }),
      (e) => e instanceof APIError && e.status === 400 && e.param === "temperature",
    );
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`openai (Node): ${name}: ok`);
  } catch (e) {
    failed++;
    console.log(`openai (Node): ${name}: FAILED: ${e.stack ?? e}`);
  }
}
console.log(`openai (Node): ${Object.keys(checks).length - failed} of ${Object.keys(checks).length} checks hold`);
process.exitCode = failed === 0 ? 0 : 1;
