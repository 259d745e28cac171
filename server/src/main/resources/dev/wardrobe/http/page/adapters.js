// The adapters: where they are, what they are called, who uses them.

import { adapterPath, getJson, send } from '/page/api.js';
import {
  byId, bytes, clock, count, el, errorBox, millis, moment, openDialog, plural, refill, shortDigest,
} from '/page/dom.js';
import { baseOf, versionOf } from '/page/events.js';

const PLACES = {
  PLACE_DEVICE: ['Device', 3],
  PLACE_HOST: ['Host', 2],
  PLACE_DISK: ['Disk', 1],
};

const KINDS = {
  KIND_PUBLISHED: 'published',
  KIND_ALIAS_SET: 'alias set',
  KIND_ALIAS_DELETED: 'alias deleted',
  KIND_LOADING: 'loading',
  KIND_READY: 'on the device',
  KIND_EVICTED: 'off the device',
  KIND_UNLOADED: 'unloaded',
  KIND_DELETED: 'deleted',
  KIND_FAILED: 'failed',
  KIND_SCANNED: 'folders looked through',
  KIND_BOUND: 'bound',
};

const COLUMNS = [
  ['name', 'Name', (row) => row.name],
  ['place', 'Where', (row) => row.place],
  ['aliases', 'Aliases', (row) => row.aliases.length],
  ['requests', 'Requests', (row) => row.requests],
  ['ttft', 'TTFT', (row) => row.ttft],
  ['bytes', 'Size', (row) => row.bytes],
  ['kind', 'Kind', (row) => `${row.kind} ${String(row.rank).padStart(6, '0')}`],
];

const NUMERIC = new Set(['requests', 'ttft', 'bytes']);

const REFRESH_MILLIS = 5000;

export class Adapters {
  #registry;
  #visible;
  #chat;
  #sort = { by: 'name', down: false };
  #page = 0;
  #open = new Set();
  #details = new Map();
  #changed = new Map();
  #head = el('thead');
  #body = el('tbody');
  #drawing = false;

  /**
   * @param {Registry} registry
   * @param {() => boolean} visible whether somebody looks
   * @param {(name: string) => void} chat shows an adapter in the chat
   */
  constructor(registry, visible, chat) {
    this.#registry = registry;
    this.#visible = visible;
    this.#chat = chat;
    byId('adapters-table').append(el('table.adapters', null,
      el('caption.visually-hidden', null, 'Adapters'), this.#head, this.#body));
    const filters = byId('filters');
    filters.addEventListener('submit', (event) => event.preventDefault());
    filters.addEventListener('input', () => {
      this.#page = 0;
      this.draw();
    });
    registry.addEventListener('change', () => this.#refreshDetails());
    registry.addEventListener('change', () => this.draw());
    registry.addEventListener('happened', () => this.#happened());
    registry.addEventListener('link', () => this.draw());
    setInterval(() => this.#refresh(), REFRESH_MILLIS);
  }

  #happened() {
    const event = this.#registry.happened[0];
    this.#changed.set(baseOf(event.name ?? ''), Date.now());
    byId('activity').replaceChildren(...this.#registry.happened.map(activity));
    if (this.#open.has(baseOf(event.name ?? ''))) {
      this.#load(baseOf(event.name));
    }
  }

  /** Counters tell nobody that they grow. */
  async #refresh() {
    if (!this.#visible() || document.hidden || this.#registry.link !== 'live') {
      return;
    }
    const shown = this.#rows().shown.flatMap((row) => row.entries.map((entry) => entry.name));
    try {
      await this.#registry.recount(shown.slice(0, 60));
    } catch {
      // The registry says that the link is lost.
    }
  }

  draw() {
    if (!this.#drawing && this.#visible()) {
      this.#drawing = true;
      requestAnimationFrame(() => {
        this.#drawing = false;
        this.#redraw();
      });
    }
  }

  #rows() {
    const { text, place, rows: size } = byId('filters').elements;
    const wanted = text.value.trim().toLowerCase();
    const rows = [];
    const all = this.#registry.groups();
    for (const [name, entries] of all) {
      const row = rowOf(name, entries);
      const found = wanted === ''
        || name.toLowerCase().includes(wanted)
        || row.aliases.some((alias) => `${name}@${alias}`.toLowerCase().includes(wanted))
        || entries.some((entry) => (entry.digest ?? '').includes(wanted)
          || entry.name.toLowerCase().includes(wanted));
      const there = place.value === ''
        || (place.value === 'broken' ? row.problem !== '' : row.places.has(`PLACE_${place.value}`));
      if (found && there) {
        rows.push(row);
      }
    }
    const [, , key] = COLUMNS.find(([id]) => id === this.#sort.by);
    const direction = this.#sort.down ? -1 : 1;
    rows.sort((a, b) => {
      const left = key(a);
      const right = key(b);
      const order = typeof left === 'string' ? left.localeCompare(right, 'en', { numeric: true }) : left - right;
      return direction * order || a.name.localeCompare(b.name, 'en', { numeric: true });
    });
    const pages = Math.max(1, Math.ceil(rows.length / Number(size.value)));
    this.#page = Math.min(this.#page, pages - 1);
    const from = this.#page * Number(size.value);
    return { all: all.size, found: rows.length, pages, from, shown: rows.slice(from, from + Number(size.value)) };
  }

  #redraw() {
    const rows = this.#rows();
    const entries = [...this.#registry.entries.values()];
    const resident = entries.filter((entry) => entry.resident);
    byId('adapters-summary').textContent = [
      plural(rows.all, 'adapter'),
      `${plural(new Set(resident.map((entry) => entry.digest)).size, 'one', 'of them')} on the device`.replace('1 one', '1'),
      this.#registry.scanning ? 'folders are still being looked through' : null,
    ].filter(Boolean).join(' · ');
    refill(byId('adapters-error'), this.#registry.error !== null && this.#registry.link === 'lost'
      && errorBox(this.#registry.error));
    refill(this.#head, this.#headings());
    const body = rows.shown.flatMap((row) => this.#row(row));
    if (body.length === 0) {
      body.push(el('tr', null, el('td.nothing', { colspan: COLUMNS.length },
        rows.all === 0
          ? 'No adapters yet. Drop a PEFT folder on this page, or choose “Add adapter”.'
          : 'None of this name or place.')));
    }
    refill(this.#body, body);
    this.#pager(rows);
  }

  #headings() {
    return el('tr', null, COLUMNS.map(([id, title]) => {
      const sorted = this.#sort.by === id;
      return el(`th.col-${id}`, {
        scope: 'col', 'aria-sort': sorted ? (this.#sort.down ? 'descending' : 'ascending') : null,
      }, el('button.sort', {
        type: 'button',
        'data-focus': `sort-${id}`,
        onclick: () => {
          this.#sort = { by: id, down: sorted ? !this.#sort.down : NUMERIC.has(id) };
          this.draw();
        },
      }, title, el('span', { 'aria-hidden': 'true' }, sorted ? (this.#sort.down ? ' ↓' : ' ↑') : '')));
    }));
  }

  #pager({ found, pages, from, shown }) {
    const go = (to, text, off) => el('button.quiet', {
      type: 'button',
      disabled: off,
      'data-focus': `page-${text}`,
      onclick: () => {
        this.#page = to;
        this.draw();
      },
    }, text);
    refill(byId('pager'),
      el('p', null, found === 0 ? '' : `${count(from + 1)} to ${count(from + shown.length)} of ${count(found)}`),
      pages > 1 && [
        go(this.#page - 1, 'Previous', this.#page === 0),
        go(this.#page + 1, 'Next', this.#page === pages - 1),
      ]);
  }

  #row(row) {
    const open = this.#open.has(row.name);
    const fresh = Date.now() - (this.#changed.get(row.name) ?? 0) < 2500;
    const cell = (id, label, ...content) => el(`td.col-${id}`, { 'data-label': label }, content);
    const main = el('tr.adapter', { class: fresh ? 'adapter fresh' : 'adapter', 'data-name': row.name },
      el('th.col-name', { scope: 'row' },
        el('button.expand', {
          type: 'button',
          'aria-expanded': String(open),
          'data-focus': `open-${row.name}`,
          onclick: () => this.#toggle(row.name),
        }, el('span.chevron', { 'aria-hidden': 'true' }, '›'), el('span.name', null, row.name)),
        row.stored && el('span.note', null, plural(row.entries.length, 'version')),
        row.pinned && el('span.note', null, 'pinned'),
        row.problem !== '' && el('span.badge.bad', null, 'cannot be used')),
      cell('place', 'Where', places(row)),
      cell('aliases', 'Aliases', row.aliases.length === 0 ? el('span.none', null, '–') : aliasList(row)),
      cell('requests', 'Requests', count(row.requests), row.inUse > 0 && el('span.note', null, `${count(row.inUse)} now`)),
      cell('ttft', 'TTFT', row.ttft === 0 ? el('span.none', null, '–') : millis(row.ttft)),
      cell('bytes', 'Size', row.bytes === 0 ? el('span.none', null, '–') : bytes(row.bytes)),
      cell('kind', 'Kind', row.kind === '' ? el('span.none', null, '–') : `${row.kind} r${row.rank}`));
    return open ? [main, this.#detail(row)] : [main];
  }

  #toggle(name) {
    if (this.#open.delete(name)) {
      this.draw();
      return;
    }
    this.#open.add(name);
    this.draw();
    this.#load(name);
  }

  #refreshDetails() {
    for (const name of this.#open) {
      this.#load(name);
    }
  }

  /** Versions and aliases of what is in the store. */
  async #load(name) {
    const entries = this.#registry.groups().get(name);
    if (entries === undefined || entries.every((entry) => entry.source !== 'store')) {
      return;
    }
    try {
      this.#details.set(name, { release: await getJson(`${adapterPath(name)}/versions`) });
    } catch (error) {
      this.#details.set(name, { error });
    }
    this.draw();
  }

  #detail(row) {
    const detail = this.#details.get(row.name);
    const failed = this.#changed.get(`error ${row.name}`);
    return el('tr.detail', null, el('td', { colspan: COLUMNS.length },
      el('div.detail-body', null,
        failed !== undefined && errorBox(failed),
        detail?.error && errorBox(detail.error),
        row.entries.map((entry) => this.#entry(row, entry)),
        row.stored && detail?.release && this.#aliases(row, detail.release))));
  }

  #entry(row, entry) {
    const [place] = PLACES[entry.place] ?? ['Disk'];
    const version = versionOf(entry.name);
    const button = (text, run, extra = 'quiet') => el(`button.${extra}.small`, {
      type: 'button',
      'aria-label': `${text} ${entry.name}`,
      'data-focus': `${text}-${entry.name}`,
      onclick: run,
    }, text);
    const act = (verb) => () => this.#act(row.name, () => send('POST', `${adapterPath(entry.name)}:${verb}`));
    const facts = [
      entry.kind ? `${entry.kind}, rank ${entry.rank}` : null,
      entry.modules ? plural(entry.modules, 'module') : null,
      Number(entry.parameters ?? 0) > 0 ? `${count(Number(entry.parameters))} parameters` : null,
      entry.published ? `published ${moment(new Date(entry.published))}` : null,
      entry.source === 'start' ? 'given at start' : entry.source === 'root' ? 'from a folder' : null,
    ].filter(Boolean).join(' · ');
    return el('div.entry', null,
      el('div.entry-head', null,
        el('h4', null, version === '' ? entry.name : `Version ${version}`),
        el(`span.badge.${place.toLowerCase()}`, null, place),
        entry.pinned && el('span.badge', null, 'pinned'),
        (entry.aliases ?? []).map((alias) => el('span.badge.alias', null, alias))),
      facts !== '' && el('p.facts', null, facts),
      entry.digest ? el('p.facts', null, el('code.digest', { title: entry.digest }, entry.digest)) : null,
      el('p.facts', null,
        `${plural(Number(entry.requests ?? 0), 'request')}`,
        entry.first_token_ms ? ` · first token after ${millis(entry.first_token_ms)}` : '',
        Number(entry.bytes ?? 0) > 0 ? ` · ${bytes(Number(entry.bytes))}` : ''),
      entry.problem ? el('p.problem', null, entry.problem) : null,
      (entry.warnings ?? []).map((warning) => el('p.warning', null, warning)),
      el('div.actions', null,
        button('Chat', () => this.#chat(entry.name)),
        entry.resident ? button('Unload', act('unload')) : button('Load', act('load')),
        entry.pinned ? button('Unpin', act('unpin')) : button('Pin', act('pin')),
        version !== '' && button('Delete', () => this.#confirmDelete(row, entry), 'quiet-danger')));
  }

  #aliases(row, release) {
    const aliases = release.aliases ?? [];
    return el('div.aliases', null,
      el('div.entry-head', null, el('h4', null, 'Aliases'),
        el('button.quiet.small', {
          type: 'button', 'data-focus': `new-alias-${row.name}`, onclick: () => this.#editAlias(row, release, null),
        }, 'New alias')),
      el('ul', null, aliases.map((alias) => {
        const name = alias.alias;
        const full = `${row.name}@${name}`;
        return el('li', null,
          el('div.alias-line', null,
            el('strong', null, name), ' → ', el('span.target', null, sharesText(alias.shares ?? [])),
            alias.shadow && el('span.note', null, shadowText(alias.shadow))),
          el('p.facts', null, (alias.shares ?? []).map((share) => `${share.version}: ${plural(Number(share.requests ?? 0), 'request')}`).join(' · '),
            alias.changed ? ` · since ${moment(new Date(alias.changed))}` : ''),
          el('div.actions', null,
            el('button.quiet.small', {
              type: 'button', 'aria-label': `Change ${full}`, 'data-focus': `change-${full}`, onclick: () => this.#editAlias(row, release, alias),
            }, 'Change'),
            el('button.quiet.small', {
              type: 'button',
              'aria-label': `Roll back ${full}`,
              'data-focus': `rollback-${full}`,
              disabled: (alias.history ?? []).length === 0,
              title: (alias.history ?? []).length === 0 ? 'Nothing before' : `To ${sharesText(alias.history[0].shares ?? [])}`,
              onclick: () => this.#act(row.name, () => send('POST', `${adapterPath(row.name)}/aliases:rollback`, { alias: name })),
            }, 'Roll back'),
            name !== 'latest' && el('button.quiet-danger.small', {
              type: 'button',
              'aria-label': `Delete alias ${full}`,
              'data-focus': `delete-${full}`,
              onclick: () => this.#act(row.name, () => send('DELETE', `${adapterPath(row.name)}/aliases?alias=${encodeURIComponent(name)}`)),
            }, 'Delete')));
      })));
  }

  async #act(name, action) {
    this.#changed.delete(`error ${name}`);
    try {
      await action();
    } catch (error) {
      this.#changed.set(`error ${name}`, error);
    }
    const entries = this.#registry.groups().get(name) ?? [];
    try {
      await this.#registry.refresh(entries.map((entry) => entry.name));
    } catch {
      // The registry says that the link is lost.
    }
    this.draw();
  }

  #confirmDelete(row, entry) {
    const version = versionOf(entry.name);
    const needed = (entry.aliases ?? []).filter((alias) => alias !== 'latest');
    openDialog(`Delete ${entry.name}?`, (dialog) => {
      const force = el('input', { type: 'checkbox', name: 'force' });
      const problem = el('div');
      const remove = el('button.danger', { type: 'submit' }, 'Delete');
      return [
        el('p', null, 'The version is removed from the store. Requests that use it go on to their end.'),
        el('form', {
          onsubmit: async (event) => {
            event.preventDefault();
            remove.disabled = true;
            try {
              await send('DELETE', `${adapterPath(row.name)}/versions?version=${encodeURIComponent(version)}`
                + (force.checked ? '&force=true' : ''));
              dialog.close();
            } catch (error) {
              problem.replaceChildren(errorBox(error));
              remove.disabled = false;
            }
          },
        },
        needed.length > 0 && el('label.check', null, force,
          `Also take it out of the aliases that point at it: ${needed.join(', ')}`),
        problem,
        el('div.actions', null,
          el('button.quiet', { type: 'button', onclick: () => dialog.close() }, 'Keep it'), remove)),
      ];
    });
  }

  #editAlias(row, release, alias) {
    const versions = (release.versions ?? []).map((entry) => versionOf(entry.name)).reverse();
    openDialog(alias === null ? `New alias of ${row.name}` : `Change ${row.name}@${alias.alias}`, (dialog) => {
      const shares = el('div.shares');
      const problem = el('div');
      const choice = (name, chosen, label, none) => el('select', { name, 'aria-label': label },
        none && el('option', { value: '' }, none),
        versions.map((version) => el('option', { value: version, selected: version === chosen }, version)));
      const addShare = (version, weight) => {
        const line = el('div.share', null,
          choice('version', version, 'Version'),
          el('input', { name: 'weight', type: 'number', min: 1, max: 1000000, value: weight, 'aria-label': 'Weight' }),
          el('button.quiet.icon', {
            type: 'button',
            'aria-label': 'Remove this share',
            onclick: () => shares.childElementCount > 1 && line.remove(),
          }, '×'));
        shares.append(line);
      };
      for (const share of alias?.shares ?? [{ version: versions[0], weight: 1 }]) {
        addShare(share.version, share.weight ?? 1);
      }
      const label = el('input', { name: 'alias', required: true, value: alias?.alias ?? '', disabled: alias !== null, placeholder: 'prod' });
      const shadow = choice('shadow', alias?.shadow?.version, 'Shadow version', 'None');
      const fraction = el('input', {
        name: 'fraction', type: 'number', min: 0, max: 100, step: 'any', value: alias?.shadow ? 100 * (alias.shadow.fraction ?? 1) : 100, 'aria-label': 'Shadow, in percent',
      });
      const save = el('button.primary', { type: 'submit' }, 'Save');
      return el('form', {
        onsubmit: async (event) => {
          event.preventDefault();
          save.disabled = true;
          const body = {
            alias: label.value.trim(),
            shares: [...shares.children].map((line) => ({
              version: line.querySelector('select').value,
              weight: Number(line.querySelector('input').value),
            })),
          };
          if (shadow.value !== '') {
            body.shadow = { version: shadow.value, fraction: Number(fraction.value) / 100 };
          }
          try {
            await send('POST', `${adapterPath(row.name)}/aliases`, body);
            dialog.close();
          } catch (error) {
            problem.replaceChildren(errorBox(error));
            save.disabled = false;
          }
        },
      },
      el('label', null, 'Alias', label),
      el('fieldset', null, el('legend', null, 'Points at, by weight'), shares,
        el('button.quiet.small', { type: 'button', onclick: () => addShare(versions[0], 1) }, 'Divide among another')),
      el('fieldset', null, el('legend', null, 'Shadow: asked too, its answers dropped, in percent of requests'),
        el('div.share', null, shadow, fraction)),
      problem,
      el('div.actions', null,
        el('button.quiet', { type: 'button', onclick: () => dialog.close() }, 'Cancel'), save));
    });
  }
}

/** A name with all of its versions, as one line. */
function rowOf(name, entries) {
  const nearest = entries.reduce((best, entry) => ((PLACES[entry.place]?.[1] ?? 0) > (PLACES[best.place]?.[1] ?? 0) ? entry : best));
  const targets = new Map();
  for (const entry of entries) {
    for (const alias of entry.aliases ?? []) {
      targets.set(alias, [...(targets.get(alias) ?? []), versionOf(entry.name)]);
    }
  }
  const timed = entries.filter((entry) => entry.first_token_ms);
  const latest = entries.find((entry) => (entry.aliases ?? []).includes('latest')) ?? entries.at(-1);
  return {
    name,
    entries,
    targets,
    stored: entries.some((entry) => entry.source === 'store'),
    aliases: [...targets.keys()].sort(),
    places: new Set(entries.map((entry) => entry.place)),
    place: PLACES[nearest.place]?.[1] ?? 0,
    pinned: entries.some((entry) => entry.pinned),
    problem: entries.find((entry) => entry.problem)?.problem ?? '',
    requests: entries.reduce((sum, entry) => sum + Number(entry.requests ?? 0), 0),
    inUse: entries.reduce((sum, entry) => sum + (entry.in_use ?? 0), 0),
    ttft: timed.length === 0 ? 0 : timed.reduce((sum, entry) => sum + entry.first_token_ms, 0) / timed.length,
    bytes: Number(latest.bytes ?? 0),
    kind: latest.kind ?? '',
    rank: latest.rank ?? 0,
  };
}

function places(row) {
  return el('div.chips', null, Object.entries(PLACES)
    .filter(([place]) => row.places.has(place))
    .map(([, [name]]) => {
      const number = row.entries.filter((entry) => PLACES[entry.place]?.[0] === name).length;
      return el(`span.badge.${name.toLowerCase()}`, null, row.entries.length > 1 ? `${name} ${number}` : name);
    }));
}

function aliasList(row) {
  return el('ul.chips', null, row.aliases.map((alias) => el('li.badge.alias', { 'data-alias': alias },
    `${alias} → ${row.targets.get(alias).join(', ')}`)));
}

function sharesText(shares) {
  const sum = shares.reduce((all, share) => all + (share.weight ?? 1), 0);
  return shares.length === 1
    ? shares[0].version
    : shares.map((share) => `${share.version} (${Math.round((100 * (share.weight ?? 1)) / sum)} %)`).join(', ');
}

function shadowText(shadow) {
  const traffic = shadow.traffic ?? {};
  const share = `${Math.round(100 * (shadow.fraction ?? 1))} %`;
  const completed = Number(traffic.completed ?? 0);
  return `shadow ${shadow.version} (${share}): ${count(completed)} compared, ${count(Number(traffic.identical ?? 0))} the same`;
}

function activity(event) {
  const name = event.alias ? `${event.name}@${event.alias}` : event.name ?? '';
  const kind = KINDS[event.kind] ?? event.kind;
  return el('li', { class: event.kind === 'KIND_FAILED' ? 'bad' : null },
    el('time', { datetime: event.time }, clock(new Date(event.time))),
    el('span.what', null, name !== '' && el('strong', null, name), ` ${kind}`),
    event.detail ? el('span.why', null, event.detail) : null,
    !event.detail && event.digest ? el('span.why.digest', { title: event.digest }, shortDigest(event.digest)) : null);
}
