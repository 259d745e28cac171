// One conversation, answered side by side: each column goes on with its own answers.

import { ApiError, GONE, events, request } from '/page/api.js';
import { byId, count, decimal, el, errorBox, millis, shortDigest } from '/page/dom.js';

const MOST_COLUMNS = 3;
const MOST_NAMES = 300;
const STORED = 'wardrobe.chat';

export class Chat {
  #registry;
  #base = '';
  #columns = [];
  #turns = [];
  #running = new Set();
  #models = el('datalist', { id: 'models' });
  #chosen = false;
  #offered = '';
  #writing = false;

  constructor(registry) {
    this.#registry = registry;
    document.body.append(this.#models);
    this.#restore();
    byId('view-chat').addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.#running.size > 0) {
        event.preventDefault();
        this.stop();
      }
    });
    byId('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#ask();
    });
    const question = byId('question');
    question.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#ask();
      }
    });
    question.addEventListener('input', () => this.#grow());
    byId('stop').addEventListener('click', () => this.stop());
    byId('regenerate').addEventListener('click', () => this.#regenerate());
    byId('clear').addEventListener('click', () => this.#clear());
    byId('composer').addEventListener('change', () => this.#settingsChanged());
    registry.addEventListener('change', () => this.#offer());
    this.#settingsChanged();
    this.#drawColumns();
    this.#drawEmpty();
  }

  /** The base is known; the first adapters take the other columns. */
  async begin(base) {
    this.#base = base;
    if (!this.#chosen) {
      this.#columns = [{ model: base }];
    }
    this.#drawColumns();
    await this.#registry.ready;
    if (!this.#chosen) {
      const names = [...this.#registry.groups()]
        .filter(([, entries]) => entries.some((entry) => !entry.problem))
        .map(([name]) => name);
      this.#columns.push(...names.slice(0, MOST_COLUMNS - 1).map((model) => ({ model })));
      this.#drawColumns();
    }
    this.#offer();
  }

  /** Shows an adapter: in a column that it takes, or has. */
  show(model) {
    this.#chosen = true;
    if (!this.#columns.some((column) => column.model === model)) {
      if (this.#columns.length < MOST_COLUMNS) {
        this.#columns.push({ model });
      } else {
        this.#columns[this.#columns.length - 1].model = model;
      }
      this.#drawColumns();
      this.#keep();
    }
    byId('question').focus();
  }

  #restore() {
    try {
      const stored = JSON.parse(sessionStorage.getItem(STORED) ?? 'null');
      if (Array.isArray(stored?.columns) && stored.columns.length > 0) {
        this.#columns = stored.columns.slice(0, MOST_COLUMNS).map((model) => ({ model: String(model) }));
        this.#chosen = true;
      }
      for (const name of ['system', 'temperature', 'maxTokens', 'seed']) {
        if (typeof stored?.[name] === 'string') {
          byId('composer').elements[name].value = stored[name];
        }
      }
    } catch {
      // Then it begins as it does for a new reader.
    }
  }

  #keep() {
    const form = byId('composer').elements;
    const kept = { columns: this.#columns.map((column) => column.model) };
    for (const name of ['system', 'temperature', 'maxTokens', 'seed']) {
      kept[name] = form[name].value;
    }
    try {
      sessionStorage.setItem(STORED, JSON.stringify(kept));
    } catch {
      // It is a convenience.
    }
  }

  #settingsChanged() {
    const { system, temperature, maxTokens, seed } = byId('composer').elements;
    byId('settings-summary').textContent = [
      `temperature ${temperature.value || 'as the model says'}`,
      `${maxTokens.value || 'any number of'} tokens`,
      seed.value === '' ? null : `seed ${seed.value}`,
      system.value.trim() === '' ? null : 'system message',
    ].filter(Boolean).join(' · ');
    if (this.#chosen) {
      this.#keep();
    }
  }

  #grow() {
    const question = byId('question');
    question.style.height = 'auto';
    question.style.height = `${Math.min(question.scrollHeight + 2, 200)}px`;
  }

  /** Offers the names that have what is typed in them; they are drawn anew only if they are others. */
  #offer(typed = '') {
    const wanted = typed.trim().toLowerCase();
    const names = [...(this.#base === '' ? [] : [this.#base]), ...this.#registry.names()]
      .filter((name) => name.toLowerCase().includes(wanted))
      .slice(0, MOST_NAMES);
    const offered = names.join('\n');
    if (offered !== this.#offered) {
      this.#offered = offered;
      this.#models.replaceChildren(...names.map((value) => el('option', { value })));
    }
  }

  #drawColumns() {
    const many = this.#columns.length > 1;
    const pickers = this.#columns.map((column, i) => el('div.picker', null,
      el('label', { for: `column-${i}` }, many ? `Column ${i + 1}` : 'Model'),
      el('div.inline', null,
        el('input', {
          id: `column-${i}`,
          list: 'models',
          value: column.model,
          spellcheck: 'false',
          placeholder: 'Base or adapter',
          onchange: (event) => {
            column.model = event.target.value.trim();
            this.#chosen = true;
            this.#keep();
            document.querySelector(`#column-${i} ~ button`)
              ?.setAttribute('aria-label', `Remove column ${i + 1}, ${column.model}`);
          },
          oninput: (event) => this.#offer(event.target.value),
          onfocus: (event) => {
            event.target.select();
            this.#offer();
          },
        }),
        many && el('button.quiet.icon', {
          type: 'button',
          'aria-label': `Remove column ${i + 1}, ${column.model}`,
          title: 'Remove',
          onclick: () => this.#remove(i),
        }, '×'))));
    const columns = byId('columns');
    columns.replaceChildren(...pickers);
    if (this.#columns.length < MOST_COLUMNS) {
      columns.append(el('button.quiet.add', {
        type: 'button', id: 'add-column', onclick: () => this.#add(),
      }, '+ Add column'));
    }
    columns.style.setProperty('--columns', String(Math.max(1, pickers.length)));
    this.#state();
  }

  #add() {
    this.#chosen = true;
    const taken = new Set(this.#columns.map((column) => column.model));
    const free = this.#registry.names().find((name) => !taken.has(name)) ?? this.#base;
    this.#columns.push({ model: free });
    this.#keep();
    this.#drawColumns();
    byId(`column-${this.#columns.length - 1}`).focus();
  }

  #remove(index) {
    this.#chosen = true;
    this.#columns.splice(index, 1);
    this.#keep();
    this.#drawColumns();
    byId(`column-${Math.min(index, this.#columns.length - 1)}`).focus();
  }

  #drawEmpty() {
    byId('transcript').replaceChildren(el('div.empty', null,
      el('p.lead', null, 'Ask once, compare the answers'),
      el('p', null, 'The base and its adapters answer side by side, in one batch. Choose above who answers:'
        + ' a name, name@version or name@alias.')));
  }

  #ask() {
    const question = byId('question');
    const text = question.value.trim();
    if (text === '' || this.#running.size > 0 || this.#columns.length === 0) {
      return;
    }
    const wrong = byId('composer').querySelector('input:invalid');
    if (wrong !== null) {
      // Where it is hidden, the browser could not say what is wrong with it.
      byId('settings').open = true;
      wrong.reportValidity();
      return;
    }
    question.value = '';
    this.#grow();
    const transcript = byId('transcript');
    if (this.#turns.length === 0) {
      transcript.replaceChildren();
    }
    const answers = el('div.answers');
    const turn = {
      text,
      answers,
      element: el('article.turn', { 'aria-label': `Turn ${this.#turns.length + 1}` },
        el('div.question', null, el('span.visually-hidden', null, 'You: '), el('p', null, text)),
        answers),
      columns: [],
    };
    this.#turns.push(turn);
    transcript.append(turn.element);
    this.#answer(turn);
    turn.element.scrollIntoView({ block: 'start', behavior: motion() });
  }

  #regenerate() {
    const turn = this.#turns.at(-1);
    if (turn !== undefined && this.#running.size === 0) {
      this.#answer(turn);
    }
  }

  #clear() {
    this.stop();
    this.#turns = [];
    this.#drawEmpty();
    this.#state();
    byId('question').focus();
  }

  /** Ends all answers that are under way. */
  stop() {
    for (const answer of this.#running) {
      answer.abort.abort();
    }
  }

  #answer(turn) {
    turn.columns = this.#columns.map((column) => this.#card(turn, column));
    turn.answers.style.setProperty('--columns', String(turn.columns.length));
    turn.answers.replaceChildren(...turn.columns.map((answer) => answer.element));
    for (const answer of turn.columns) {
      this.#run(turn, answer);
    }
  }

  #card(turn, column) {
    const text = document.createTextNode('');
    const notes = el('div.notes');
    const figures = el('dl.figures');
    const state = el('span.state');
    const answer = {
      column,
      model: column.model,
      content: '',
      text,
      notes,
      figures,
      state,
      abort: new AbortController(),
    };
    answer.element = el('section.answer', { 'aria-label': `Answer of ${column.model}` },
      el('header', null, el('h3', { title: column.model }, column.model || 'No model'), state),
      el('p.text', null, text), notes, figures);
    return answer;
  }

  /** What was said before in a column, as the model is told. */
  #messages(turn, answer) {
    const messages = [];
    const system = byId('composer').elements.system.value.trim();
    if (system !== '') {
      messages.push({ role: 'system', content: system });
    }
    for (const past of this.#turns) {
      messages.push({ role: 'user', content: past.text });
      if (past === turn) {
        break;
      }
      const said = past.columns.find((other) => other.column === answer.column)?.content ?? '';
      if (said === '') {
        // It was not there then, or failed: its conversation begins after that.
        messages.pop();
      } else {
        messages.push({ role: 'assistant', content: said });
      }
    }
    return messages;
  }

  #body(turn, answer) {
    const { temperature, maxTokens, seed } = byId('composer').elements;
    const body = {
      model: answer.model,
      messages: this.#messages(turn, answer),
      stream: true,
      stream_options: { include_usage: true },
    };
    if (temperature.value !== '') {
      body.temperature = Number(temperature.value);
    }
    if (maxTokens.value !== '') {
      body.max_completion_tokens = Number(maxTokens.value);
    }
    if (seed.value !== '') {
      body.seed = Number(seed.value);
    }
    return body;
  }

  async #run(turn, answer) {
    this.#running.add(answer);
    byId('chat-status').textContent = '';
    answer.element.setAttribute('aria-busy', 'true');
    answer.state.textContent = 'waiting';
    this.#state();
    const began = performance.now();
    const shown = { first: null, tokens: 0, usage: null, own: null, reason: null };
    try {
      const response = await request('/v1/chat/completions', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(this.#body(turn, answer)),
        signal: answer.abort.signal,
      }, true);
      let done = false;
      for await (const event of events(response)) {
        if (event.data === '[DONE]') {
          done = true;
          break;
        }
        this.#take(answer, JSON.parse(event.data), shown, began);
      }
      if (!done) {
        throw new ApiError(0, GONE);
      }
      answer.state.textContent = shown.reason === 'length' ? 'cut at max tokens' : '';
    } catch (failure) {
      this.#failed(turn, answer, failure);
    }
    this.#write(answer);
    this.#figures(answer, shown, performance.now() - began);
    answer.told = shown.usage;
    answer.element.removeAttribute('aria-busy');
    this.#running.delete(answer);
    this.#state();
    this.#announce(turn);
  }

  #take(answer, chunk, shown, began) {
    if (chunk.error !== undefined) {
      throw new ApiError(chunk.error.code ?? 500, chunk.error.message);
    }
    shown.usage = chunk.usage ?? shown.usage;
    shown.own = chunk.wardrobe ?? shown.own;
    const choice = chunk.choices?.[0];
    shown.reason = choice?.finish_reason ?? shown.reason;
    const text = choice?.delta?.content;
    if (typeof text === 'string' && text !== '') {
      if (shown.first === null) {
        shown.first = performance.now() - began;
        answer.state.textContent = 'answering';
      }
      shown.tokens++;
      answer.content += text;
      // Once a frame, however fast tokens come; a page that nobody sees draws none.
      if (!this.#writing) {
        this.#writing = true;
        requestAnimationFrame(() => {
          this.#writing = false;
          this.#running.forEach((running) => this.#write(running));
        });
      }
    }
  }

  #write(answer) {
    const written = answer.text.length;
    if (written < answer.content.length) {
      const following = nearEnd();
      answer.text.appendData(answer.content.slice(written));
      if (following) {
        window.scrollTo({ top: document.documentElement.scrollHeight, behavior: 'instant' });
      }
    }
  }

  #failed(turn, answer, failure) {
    if (failure.name === 'AbortError') {
      answer.state.textContent = 'stopped';
      return;
    }
    answer.state.textContent = 'failed';
    answer.element.classList.add('failed');
    answer.notes.append(errorBox(failure));
  }

  #figures(answer, shown, took) {
    const figures = [];
    const add = (name, value, title) => figures.push(el('div', { title }, el('dt', null, name), el('dd', null, value)));
    const own = shown.own;
    const tokens = shown.usage?.completion_tokens;
    const first = own?.first_token_ms ?? shown.first;
    const total = own?.total_ms ?? took;
    if (tokens !== undefined) {
      add('Tokens', count(tokens), `${count(shown.usage.prompt_tokens)} in the prompt`);
      if (tokens > 1 && total > first) {
        add('Tokens/s', decimal(((tokens - 1) * 1000) / (total - first)), 'After the first token');
      }
    }
    if (first !== null && first !== undefined) {
      add('TTFT', millis(first), 'Time to the first token');
    }
    if (own !== null) {
      add('Queue', millis(own.queue_ms ?? 0), 'Waiting for a place in the batch');
      add('Swap-in', millis(own.swap_in_ms ?? 0), 'Waiting for the adapter to become resident');
      const applied = own.adapters?.[0];
      if (applied !== undefined) {
        add('Adapter', el('span.digest', null, `${applied.adapter} ${shortDigest(applied.digest)}`), applied.digest);
      } else {
        add('Adapter', 'none, the base');
      }
    }
    answer.figures.replaceChildren(...figures);
  }

  /** Tells once, when all have ended: one by one they would talk over each other. */
  #announce(turn) {
    if (this.#running.size === 0) {
      byId('chat-status').textContent = turn.columns.map(({ model, state, told }) => {
        const said = told ? `, ${told.completion_tokens} tokens` : '';
        return `${model} ${state.textContent === '' ? 'answered' : state.textContent}${said}.`;
      }).join(' ');
    }
  }

  #state() {
    const running = this.#running.size > 0;
    // A button that goes away takes the focus with it, unless the one in its place gets it.
    const focused = document.activeElement?.id;
    byId('stop').hidden = !running;
    byId('send').hidden = running;
    byId('send').disabled = this.#columns.length === 0;
    if (running && (focused === 'send' || focused === 'regenerate')) {
      byId('stop').focus({ preventScroll: true });
    } else if (!running && focused === 'stop') {
      byId('send').focus({ preventScroll: true });
    }
    byId('regenerate').disabled = running || this.#turns.length === 0;
    byId('clear').disabled = this.#turns.length === 0;
  }
}

function nearEnd() {
  const { scrollHeight, clientHeight, scrollTop } = document.documentElement;
  return scrollHeight - clientHeight - scrollTop < 80;
}

function motion() {
  return matchMedia('(prefers-reduced-motion: reduce)').matches ? 'instant' : 'smooth';
}
