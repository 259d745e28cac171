// Training runs, where the server has a trainer that knows of some.

import { getJson } from '/page/api.js';
import { byId, bytes, count, decimal, el, errorBox, moment, plural, refill } from '/page/dom.js';
import { Plot } from '/page/plot.js';

const EVERY_MILLIS = 3000;

const STATES = {
  STATE_RUNNING: ['running', 'alias'],
  STATE_FINISHED: ['finished', 'device'],
  STATE_STOPPED: ['stopped', 'disk'],
  STATE_BROKEN: ['cannot be read', 'bad'],
};

export class Training {
  #visible;
  #runs = [];
  #chosen = null;
  #list = el('ul.run-list', { 'aria-label': 'Runs' });
  #detail = el('div.run-detail');
  #facts = el('div.panel.facts-panel');
  #timer = null;

  #loss = new Plot({
    title: 'Loss',
    series: [{ name: 'Training', tone: 1 }, { name: 'Evaluation', tone: 3, sparse: true }],
    format: (y) => y.toFixed(3),
    nameX: 'Step',
    formatX: (x) => count(x),
    fromZero: false,
  });

  #rate = new Plot({
    title: 'Learning rate',
    series: [{ name: 'Rate', tone: 2 }],
    format: (y) => (y === 0 ? '0' : y.toExponential(1)),
    nameX: 'Step',
    formatX: (x) => count(x),
  });

  #norm = new Plot({
    title: 'Gradient norm',
    series: [{ name: 'Norm', tone: 4 }],
    format: decimal,
    nameX: 'Step',
    formatX: (x) => count(x),
  });

  /** @param {() => boolean} visible whether somebody looks */
  constructor(visible) {
    this.#visible = visible;
    this.#detail.append(this.#facts,
      el('div.charts', null, this.#loss.element, this.#rate.element, this.#norm.element));
    byId('runs').append(this.#list, this.#detail);
  }

  /** Whether there is anything to show; then the section appears. */
  async find() {
    try {
      await this.#load();
    } catch {
      return false;
    }
    document.querySelector('[data-view=training]').parentElement.hidden = false;
    this.wake();
    return true;
  }

  wake() {
    if (this.#timer === null) {
      this.#tick();
    }
  }

  async #tick() {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#visible() && !document.hidden) {
        this.#tick();
      }
    }, EVERY_MILLIS);
    if (!this.#visible()) {
      return;
    }
    try {
      await this.#load();
      await this.#show();
      refill(byId('training-error'));
    } catch (error) {
      refill(byId('training-error'), errorBox(error));
    }
  }

  async #load() {
    const answer = await getJson('/v1/runs');
    this.#runs = answer.runs ?? [];
    this.#chosen ??= this.#runs[0]?.name ?? null;
    const running = this.#runs.filter((run) => run.state === 'STATE_RUNNING').length;
    byId('training-summary').textContent = this.#runs.length === 0
      ? 'No runs yet. What wardrobe train leaves in a folder under --runs appears here.'
      : [plural(this.#runs.length, 'run'), running > 0 ? `${running} under way` : null].filter(Boolean).join(' · ');
    this.#detail.hidden = this.#runs.length === 0;
    refill(this.#list, this.#runs.map((run) => {
      const [state, tone] = STATES[run.state] ?? ['unknown', 'disk'];
      return el('li', null, el('button.run', {
        type: 'button',
        'aria-pressed': String(run.name === this.#chosen),
        'data-focus': run.name,
        onclick: () => {
          this.#chosen = run.name;
          this.#load().then(() => this.#show()).catch((error) => refill(byId('training-error'), errorBox(error)));
        },
      },
      el('span.name', null, run.name),
      el(`span.badge.${tone}`, null, state),
      el('span.note', null, [
        run.steps ? `${count(run.step ?? 0)} of ${plural(run.steps, 'step')}` : plural(run.step ?? 0, 'step'),
        run.loss !== undefined ? `loss ${run.loss.toFixed(3)}` : null,
        run.eval_loss !== undefined ? `evaluated ${run.eval_loss.toFixed(3)}` : null,
      ].filter(Boolean).join(' · ')),
      run.steps ? el('progress', { max: run.steps, value: run.step ?? 0, 'aria-label': `Progress of ${run.name}` }) : null));
    }));
  }

  async #show() {
    if (this.#chosen === null) {
      return;
    }
    const { run, points = [] } = await getJson(`/v1/runs/${this.#chosen.split('/').map(encodeURIComponent).join('/')}`);
    if (run.name !== this.#chosen) {
      return;
    }
    const of = (field) => points.map((point) => point[field] ?? null);
    const x = points.map((point) => point.step ?? 0);
    this.#loss.update(x, [of('loss'), of('eval_loss')]);
    this.#rate.update(x, [of('learning_rate')]);
    this.#norm.update(x, [of('gradient_norm')]);
    const facts = [
      ['Base', run.base],
      ['Changed', run.changed ? moment(new Date(run.changed)) : null],
      ['Epoch', run.epoch === undefined ? null : decimal(run.epoch)],
      ['Tokens', run.tokens === undefined ? null : count(Number(run.tokens))],
      ['Tokens/s', run.tokens_per_second === undefined ? null : decimal(run.tokens_per_second)],
      ['Memory', Number(run.memory_bytes ?? 0) > 0 ? bytes(Number(run.memory_bytes)) : null],
      ['Perplexity', run.eval_loss === undefined ? null : decimal(Math.exp(run.eval_loss))],
      ...Object.entries(run.settings ?? {}),
    ].filter(([, value]) => value !== null && value !== undefined && value !== '');
    refill(this.#facts,
      el('h3', null, run.name),
      run.problem ? el('p.problem', null, run.problem) : null,
      el('dl.figures', null, facts.map(([name, value]) => el('div', null, el('dt', null, name), el('dd', null, value)))));
  }
}
