// The adapters that the server has: listed once, then kept as its events say.

import { ApiError, adapterPath, events, getJson, keys, request } from '/page/api.js';

const PAGE = 1000;
const MOST_EVENTS = 60;

/** Beyond so many changes at once all are listed again. */
const MOST_SINGLE = 40;

const SETTLE_MILLIS = 150;

/** A quiet server sends something every 15 s: a link without it is dead, though nothing says so. */
const PATIENCE_MILLIS = 40_000;

/** So many adapters are asked for in one go, rather than each by itself. */
const MOST_TOGETHER = 400;

/**
 * Tells of 'change' (the entries), 'happened' (an event) and 'link' (whether events come).
 */
export class Registry extends EventTarget {
  /** By name; NAME@VERSION in the store. */
  entries = new Map();

  /** Latest first. */
  happened = [];

  /** 'connecting', 'live' or 'lost'. */
  link = 'connecting';

  error = null;
  scanning = false;

  #revision = null;
  #stale = new Set();
  #timer = null;
  #ready;
  #markReady;
  #hurry = () => {};

  constructor() {
    super();
    // Where it is likely to come back, it is not waited for.
    addEventListener('online', () => this.#hurry());
    document.addEventListener('visibilitychange', () => !document.hidden && this.#hurry());
    keys.addEventListener('key', () => this.#hurry());
    this.#ready = new Promise((resolve) => {
      this.#markReady = resolve;
    });
  }

  /** Settled once the adapters were listed for the first time. */
  get ready() {
    return this.#ready;
  }

  /** Lists and watches from now on, whatever happens. */
  async follow() {
    for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
      try {
        if (this.#revision === null) {
          this.#revision = await this.list();
        }
        await this.#watch(() => {
          wait = 500;
        });
      } catch (failure) {
        // Events that are no longer kept, or another server.
        if (failure instanceof ApiError && failure.status !== 0) {
          this.#revision = null;
        }
        this.error = failure;
      }
      this.#say('lost');
      await new Promise((resolve) => {
        this.#hurry = resolve;
        // Pages that lost the same server do not all come back at once.
        setTimeout(resolve, wait * (0.75 + Math.random() / 2));
      });
    }
  }

  /** Lists all; the revision from which watching misses nothing. */
  async list() {
    const entries = new Map();
    let revision = null;
    let token = '';
    do {
      const page = await getJson(
        `/v1/adapters?page_size=${PAGE}${token === '' ? '' : `&page_token=${encodeURIComponent(token)}`}`,
      );
      for (const entry of page.adapters ?? []) {
        entries.set(entry.name, entry);
      }
      revision ??= page.revision ?? '0';
      this.scanning = page.scanning ?? false;
      token = page.next_page_token ?? '';
    } while (token !== '');
    this.entries = entries;
    this.error = null;
    this.#markReady();
    this.dispatchEvent(new Event('change'));
    return revision;
  }

  async #watch(begun) {
    const response = await request('/v1/adapters:watch', {
      headers: { 'last-event-id': this.#revision },
    });
    this.error = null;
    for await (const { id, event, data } of events(response, PATIENCE_MILLIS)) {
      if (event === 'error') {
        const { message } = JSON.parse(data).error;
        throw new ApiError(/stopping/.test(message) ? 0 : 410, message);
      }
      this.#say('live');
      begun();
      this.#revision = id;
      const happened = JSON.parse(data);
      if (happened.kind !== 'KIND_WATCHING') {
        this.#take(happened);
      }
    }
  }

  #say(link) {
    if (this.link !== link) {
      this.link = link;
      this.dispatchEvent(new Event('link'));
    }
  }

  #take(event) {
    this.happened.unshift(event);
    this.happened.length = Math.min(this.happened.length, MOST_EVENTS);
    this.dispatchEvent(new Event('happened'));
    if (event.kind === 'KIND_SCANNED') {
      this.#stale = null;
    } else if (this.#stale !== null) {
      const base = baseOf(event.name);
      // Aliases point elsewhere, and a published version takes latest from another.
      for (const name of this.entries.keys()) {
        if (baseOf(name) === base) {
          this.#stale.add(name);
        }
      }
      if (event.alias === undefined || event.alias === '') {
        this.#stale.add(event.name);
      }
    }
    this.#timer ??= setTimeout(() => this.#settle(), SETTLE_MILLIS);
  }

  /** Asks for what changed. */
  async #settle() {
    const stale = this.#stale;
    this.#stale = new Set();
    this.#timer = null;
    try {
      if (stale === null || stale.size > MOST_SINGLE) {
        await this.list();
        return;
      }
      await this.refresh(stale);
    } catch {
      // The stream is lost too, and says so.
    }
  }

  /** Asks again for what is shown, whose counters grow without an event. */
  async recount(names) {
    if (names.length > 3 && this.entries.size <= MOST_TOGETHER) {
      await this.list();
    } else {
      await this.refresh(names);
    }
  }

  /** Asks again for some entries. */
  async refresh(names) {
    await Promise.all([...names].map(async (name) => {
      try {
        const { adapter } = await getJson(adapterPath(name));
        // A plain name of the store stands for a version, which is listed by itself.
        if (adapter.name === name) {
          this.entries.set(name, adapter);
        }
      } catch (failure) {
        if (failure instanceof ApiError && failure.status === 404) {
          this.entries.delete(name);
        } else {
          throw failure;
        }
      }
    }));
    this.dispatchEvent(new Event('change'));
  }

  /** Adapters by the name without version, each with its entries. */
  groups() {
    const groups = new Map();
    for (const entry of this.entries.values()) {
      const name = baseOf(entry.name);
      const group = groups.get(name);
      if (group === undefined) {
        groups.set(name, [entry]);
      } else {
        group.push(entry);
      }
    }
    return groups;
  }

  /** All names that can be asked for: adapters, their aliases, their versions. */
  names() {
    const names = [];
    for (const [name, entries] of this.groups()) {
      names.push(name);
      const aliases = new Set(entries.flatMap((entry) => entry.aliases ?? []));
      aliases.delete('latest');
      names.push(...[...aliases].sort().map((alias) => `${name}@${alias}`));
      names.push(...entries.filter((entry) => entry.name !== name).map((entry) => entry.name));
    }
    return names;
  }
}

export function baseOf(name) {
  const at = name.indexOf('@');
  return at < 0 ? name : name.slice(0, at);
}

export function versionOf(name) {
  const at = name.indexOf('@');
  return at < 0 ? '' : name.slice(at + 1);
}
