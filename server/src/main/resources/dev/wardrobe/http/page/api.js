// The server's routes. A key, where it asks for one, stays in this tab.

import { el, openDialog } from '/page/dom.js';

const KEY = 'wardrobe.key';

/** What the server refused, in its words; status 0 where there was no answer. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function keep(given) {
  key = given;
  try {
    sessionStorage.setItem(KEY, given);
  } catch {
    // Then it is asked for again when the page is loaded again.
  }
}

export function authorization() {
  return key === null ? {} : { authorization: `Bearer ${key}` };
}

/** Tells of 'key': one was asked for, and given or not. */
export const keys = new EventTarget();

/** Whether the server has asked for a key. */
let needed = key !== null;

/** Whether the reader would rather not give one: then nothing asks again by itself. */
let declined = false;

export function keyNeeded() {
  return needed;
}

function forget() {
  key = null;
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // It was not kept there.
  }
}

let asking = null;

/** Asks for a key, once however many requests need one; false if there is none. */
export function askForKey(message) {
  const held = key !== null;
  needed = true;
  asking ??= new Promise((resolve) => {
    let given = false;
    const input = el('input', {
      type: 'password', name: 'key', required: true, autocomplete: 'off', spellcheck: 'false',
      // What a header can carry.
      pattern: '\\s*[!-~]+\\s*', title: 'Letters, digits and signs of ASCII, without spaces between them',
    });
    const dialog = openDialog('This server asks for a key', (self) => [
      el('p', null, message),
      el('form', {
        method: 'dialog',
        onsubmit: (event) => {
          event.preventDefault();
          given = true;
          keep(input.value.trim());
          self.close();
        },
      },
      el('label', null, 'API key', input),
      el('p.hint', null, 'It is kept in this tab only, and sent to this server alone.'),
      el('div.actions', null,
        held && el('button.quiet-danger', {
          type: 'button',
          onclick: () => {
            forget();
            self.close();
          },
        }, 'Forget it'),
        el('button.quiet', { type: 'button', onclick: () => self.close() }, 'Cancel'),
        el('button.primary', { type: 'submit' }, 'Use it'))),
    ]);
    dialog.addEventListener('close', () => {
      asking = null;
      declined = !given;
      resolve(given);
      keys.dispatchEvent(new Event('key'));
    });
  });
  return asking;
}

async function refusal(response) {
  const text = await response.text().catch(() => '');
  return new ApiError(response.status, messageOf(text, response.status));
}

export function messageOf(text, status) {
  try {
    const body = JSON.parse(text);
    const message = body.error?.message ?? body.message;
    if (typeof message === 'string' && message !== '') {
      return message;
    }
  } catch {
    // It is not JSON.
  }
  return text.trim() === '' ? `the server answered with status ${status}` : text.slice(0, 1000);
}

/** A failure in words of ours, but for what was given up. */
function lost(failure) {
  return failure.name === 'AbortError' || failure instanceof ApiError ? failure : new ApiError(0, GONE);
}

export const GONE = 'The server cannot be reached. Is it still running?';

/**
 * A response that is not an error.
 *
 * @param {string} path
 * @param {Object} [options] as of fetch
 * @param {boolean} [asks] whether a key is asked for though the reader did not want to give one
 */
export async function request(path, options = {}, asks = false) {
  for (;;) {
    const sent = key;
    let response;
    try {
      response = await fetch(path, {
        ...options,
        headers: { ...options.headers, ...authorization() },
        credentials: 'omit',
        cache: 'no-store',
      });
    } catch (failure) {
      throw lost(failure);
    }
    if (response.ok) {
      return response;
    }
    const refused = await refusal(response);
    if (response.status !== 401) {
      throw refused;
    }
    // Another request may have been given one meanwhile.
    if (sent === key && ((declined && !asks) || !(await askForKey(refused.message)))) {
      throw refused;
    }
  }
}

export async function getJson(path, options) {
  const response = await request(path, options);
  try {
    return await response.json();
  } catch (failure) {
    throw lost(failure);
  }
}

export async function send(method, path, body) {
  const response = await request(path, {
    method,
    headers: { 'content-type': 'application/json' },
    body: method === 'DELETE' ? undefined : JSON.stringify(body ?? {}),
  }, true);
  const text = await response.text();
  return text === '' ? {} : JSON.parse(text);
}

/** An adapter's path: its name may have slashes, which stay. */
export function adapterPath(name) {
  return `/v1/adapters/${name.split('/').map(encodeURIComponent).join('/')}`;
}

/** What comes next, or a failure where nothing comes for so long. */
async function next(reader, patience) {
  let timer;
  try {
    return await (patience === null ? reader.read() : Promise.race([
      reader.read(),
      new Promise((_, reject) => {
        timer = setTimeout(() => reject(new ApiError(0, GONE)), patience);
      }),
    ]));
  } catch (failure) {
    throw lost(failure);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The events of a response, each with `id`, `event` and `data`.
 *
 * @param {Response} response
 * @param {number|null} [patience] milliseconds without a byte after which it counts as lost
 */
export async function* events(response, patience = null) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let event = { id: null, event: 'message', data: [] };
  try {
    for (;;) {
      const { done, value } = await next(reader, patience);
      if (done) {
        return;
      }
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === '') {
          if (event.data.length > 0) {
            yield { id: event.id, event: event.event, data: event.data.join('\n') };
          }
          event = { id: event.id, event: 'message', data: [] };
          continue;
        }
        const colon = line.indexOf(':');
        const field = colon < 0 ? line : line.slice(0, colon);
        const content = colon < 0 ? '' : line.slice(colon + (line[colon + 1] === ' ' ? 2 : 1));
        if (field === 'data') {
          event.data.push(content);
        } else if (field === 'id' || field === 'event') {
          event[field] = content;
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
