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

let asking = null;

/** Asks for a key, once however many requests need one; false if there is none. */
export function askForKey(message) {
  asking ??= new Promise((resolve) => {
    let given = false;
    const input = el('input', {
      type: 'password', name: 'key', required: true, autocomplete: 'off', spellcheck: 'false',
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
        el('button.quiet', { type: 'button', onclick: () => self.close() }, 'Cancel'),
        el('button.primary', { type: 'submit' }, 'Use it'))),
    ]);
    dialog.addEventListener('close', () => {
      asking = null;
      resolve(given);
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

export const GONE = 'The server cannot be reached. Is it still running?';

/** A response that is not an error. */
export async function request(path, options = {}) {
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
      if (failure.name === 'AbortError') {
        throw failure;
      }
      throw new ApiError(0, GONE);
    }
    if (response.ok) {
      return response;
    }
    const refused = await refusal(response);
    if (response.status !== 401) {
      throw refused;
    }
    // Another request may have been given one meanwhile.
    if (sent === key && !(await askForKey(refused.message))) {
      throw refused;
    }
  }
}

export async function getJson(path, options) {
  return (await request(path, options)).json();
}

export async function send(method, path, body) {
  const response = await request(path, {
    method,
    headers: { 'content-type': 'application/json' },
    body: method === 'DELETE' ? undefined : JSON.stringify(body ?? {}),
  });
  const text = await response.text();
  return text === '' ? {} : JSON.parse(text);
}

/** An adapter's path: its name may have slashes, which stay. */
export function adapterPath(name) {
  return `/v1/adapters/${name.split('/').map(encodeURIComponent).join('/')}`;
}

/** The events of a response, each with `id`, `event` and `data`. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let event = { id: null, event: 'message', data: [] };
  try {
    for (;;) {
      const { done, value } = await reader.read();
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
