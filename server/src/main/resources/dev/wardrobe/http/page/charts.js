// What the server does now: throughput, time to the first token, queue and batch, memory.

import { getJson, request } from '/page/api.js';
import { byId, bytes, count, decimal, el, millis, plural, showError } from '/page/dom.js';
import { Plot } from '/page/plot.js';

const EVERY_MILLIS = 2000;
const KEPT = 150;

const KINDS = [
  ['base_packed', 'Base, 4 bit'],
  ['base_absmax', 'Base, statistics'],
  ['base_nested_absmax', 'Base, nested statistics'],
  ['base_dense', 'Base, 16 or 32 bit'],
  ['embeddings', 'Embeddings'],
  ['norms_and_biases', 'Norms and biases'],
  ['kv_cache', 'Keys and values'],
  ['adapters', 'Adapters'],
  ['workspace', 'Workspace'],
];

export class Live {
  #visible;
  #samples = [];
  #step = null;
  #first = null;
  #metrics = true;
  #timer = null;
  #memory = el('figure.panel.chart.memory');
  #shown = '';

  #throughput = plot('Throughput', [
    { name: 'Generated', tone: 1 }, { name: 'Prompt', tone: 2 },
  ], (y) => `${decimal(y)}/s`);

  #ttft = plot('Time to first token', [{ name: 'Mean', tone: 3 }], millis);

  #load = plot('Queue and batch', [
    { name: 'Running', tone: 1 }, { name: 'Waiting', tone: 4 },
  ], (y) => (Number.isInteger(y) ? count(y) : decimal(y)));

  // What comes and goes; the base's part stays as it is.
  #held = plot('Memory', [
    { name: 'In all', tone: 9 }, { name: 'Keys and values', tone: 7 }, { name: 'Adapters', tone: 8 },
  ], bytes);

  /** @param {() => boolean} visible whether somebody looks */
  constructor(visible) {
    this.#visible = visible;
    byId('charts').append(this.#throughput.element, this.#ttft.element, this.#load.element, this.#held.element, this.#memory);
    document.addEventListener('visibilitychange', () => this.wake());
  }

  /** Goes on, if somebody looks. */
  wake() {
    if (this.#timer === null && !document.hidden) {
      this.#tick();
    }
  }

  async #tick() {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.wake();
    }, EVERY_MILLIS);
    try {
      await this.#sample();
      showError(byId('live-error'), null);
    } catch (failure) {
      if (this.#visible()) {
        showError(byId('live-error'), failure);
      }
      this.#add({ info: null, generated: null, prompt: null, first: null });
    }
    if (this.#visible()) {
      this.#draw();
    }
  }

  async #sample() {
    const now = performance.now();
    const [info, steps, first] = await Promise.all([
      getJson('/v1/info'),
      getJson(`/v1/steps?after=${this.#step?.number ?? 0}`),
      this.#firstTokens(),
    ]);
    const seconds = this.#step === null ? null : (now - this.#step.at) / 1000;
    let generated = 0;
    let prompt = 0;
    let last = BigInt(this.#step?.number ?? 0);
    for (const step of steps.steps ?? []) {
      generated += step.decode_tokens ?? 0;
      prompt += step.prefill_tokens ?? 0;
      const number = BigInt(step.number ?? 0);
      last = number > last ? number : last;
    }
    this.#step = { number: String(last), at: now };
    this.#add({
      info,
      generated: seconds === null ? null : generated / seconds,
      prompt: seconds === null ? null : prompt / seconds,
      first,
    });
  }

  /** The mean of those since the last time, in milliseconds; null if there were none. */
  async #firstTokens() {
    if (!this.#metrics) {
      return null;
    }
    let text;
    try {
      text = await (await request('/metrics')).text();
    } catch (failure) {
      this.#metrics = failure.status === 0 || failure.status >= 500;
      return null;
    }
    const sum = total(text, 'vllm:time_to_first_token_seconds_sum');
    const number = total(text, 'vllm:time_to_first_token_seconds_count');
    const before = this.#first;
    this.#first = { sum, number };
    return before === null || number <= before.number
      ? null
      : (1000 * (sum - before.sum)) / (number - before.number);
  }

  #add(sample) {
    this.#samples.push({ time: Date.now(), ...sample });
    this.#samples.splice(0, Math.max(0, this.#samples.length - KEPT));
  }

  #draw() {
    const samples = this.#samples;
    const now = samples.at(-1).time;
    const x = samples.map((sample) => (sample.time - now) / 1000);
    const of = (read) => samples.map((sample) => (sample.info === null ? null : read(sample)));
    this.#throughput.update(x, [of((s) => s.generated), of((s) => s.prompt)]);
    this.#ttft.update(x, [of((s) => s.first)]);
    this.#load.update(x, [
      of((s) => s.info.running_sequences ?? 0), of((s) => s.info.waiting_sequences ?? 0),
    ]);
    this.#held.update(x, [
      of((s) => KINDS.reduce((all, [field]) => all + Number(s.info.memory?.[field] ?? 0), 0)),
      of((s) => Number(s.info.memory?.kv_cache ?? 0)),
      of((s) => Number(s.info.memory?.adapters ?? 0)),
    ]);
    const info = samples.at(-1).info;
    if (info !== null) {
      this.#drawMemory(info.memory ?? {});
      byId('live-summary').textContent = [
        info.backend,
        `${plural(info.running_sequences ?? 0, 'request')} running`,
        `${count(info.waiting_sequences ?? 0)} waiting`,
        `${plural(Number(info.steps ?? 0), 'step')} so far`,
      ].filter(Boolean).join(' · ');
    }
  }

  #drawMemory(memory) {
    const kinds = KINDS.map(([field, name], i) => ({ name, tone: i + 1, size: Number(memory[field] ?? 0) }))
      .filter((kind) => kind.size > 0);
    const sum = kinds.reduce((all, kind) => all + kind.size, 0);
    const shown = JSON.stringify(kinds);
    if (shown === this.#shown) {
      return;
    }
    this.#shown = shown;
    const bar = el('div.bar', { 'aria-hidden': 'true' }, kinds.map((kind) => {
      const part = el(`span.fill.tone-${kind.tone}`, { title: `${kind.name}: ${bytes(kind.size)}` });
      part.style.flexGrow = String(kind.size);
      return part;
    }));
    this.#memory.replaceChildren(
      el('figcaption', null, el('h3', null, 'Memory by kind'),
        el('p.readout', null, el('span.value', null, 'In all ', el('strong', null, bytes(sum))))),
      bar,
      el('table.plain', null,
        el('caption.visually-hidden', null, 'Memory by kind'),
        el('tbody', null, kinds.map((kind) => el('tr', null,
          el('th', { scope: 'row' }, el(`span.swatch.tone-${kind.tone}`, { 'aria-hidden': 'true' }), kind.name),
          el('td', null, bytes(kind.size)),
          el('td', null, `${decimal((100 * kind.size) / sum)} %`))))));
  }
}

function plot(title, series, format) {
  return new Plot({
    title,
    series,
    format,
    binary: format === bytes,
    nameX: 'Time',
    formatX: (x) => (x === 0 ? 'now' : `${Math.round(x)} s`),
  });
}

/** A metric's sum over all labels, in Prometheus' text form. */
export function total(text, name) {
  let sum = 0;
  for (const line of text.split('\n')) {
    if (line.startsWith(name) && (line[name.length] === '{' || line[name.length] === ' ')) {
      const value = Number(line.slice(line.lastIndexOf('}') + 1).trim().split(/\s+/).at(line.includes('}') ? 0 : 1));
      sum += Number.isFinite(value) ? value : 0;
    }
  }
  return sum;
}
