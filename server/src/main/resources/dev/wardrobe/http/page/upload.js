// Adapters that are dropped on the page, or chosen: a folder, its two files, or an archive.

import { GONE, askForKey, authorization, messageOf } from '/page/api.js';
import { byId, bytes, el, errorBox, openDialog, refill } from '/page/dom.js';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';
const ARCHIVE = /\.(zip|tar|tar\.gz|tgz)$/i;

/** A dropped folder is looked through so far. */
const MOST_FILES = 2000;
const DEEPEST = 5;

export class Upload {
  #chat;

  /** @param {(name: string) => void} chat shows an adapter in the chat */
  constructor(chat) {
    this.#chat = chat;
    byId('add-adapter').addEventListener('click', () => this.#open({ files: [], name: '' }));
    let depth = 0;
    const shown = (visible) => {
      byId('drop').hidden = !visible;
    };
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
    addEventListener('dragenter', (event) => {
      if (hasFiles(event)) {
        event.preventDefault();
        depth++;
        shown(true);
      }
    });
    addEventListener('dragover', (event) => {
      if (hasFiles(event)) {
        event.preventDefault();
        event.dataTransfer.dropEffect = 'copy';
      }
    });
    addEventListener('dragleave', (event) => {
      if (hasFiles(event)) {
        depth = Math.max(0, depth - 1);
        shown(depth > 0);
      }
    });
    addEventListener('drop', (event) => {
      if (hasFiles(event)) {
        event.preventDefault();
        depth = 0;
        shown(false);
        this.#dropped(event.dataTransfer);
      }
    });
  }

  async #dropped(transfer) {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...transfer.files];
    try {
      const files = entries.length > 0 ? await filesOf(entries) : plain.map((file) => ({ path: file.name, file }));
      this.#open(chosen(files));
    } catch (error) {
      this.#open({ files: [], name: '', error });
    }
  }

  #open(found) {
    for (const open of document.querySelectorAll('dialog.upload')) {
      open.close();
    }
    let files = found.files;
    let sending = null;
    const dialog = openDialog('Add an adapter', (self) => {
      const list = el('div.chosen');
      const problem = el('div');
      const name = el('input', { name: 'name', required: true, value: found.name, spellcheck: 'false', autocomplete: 'off', maxlength: 200 });
      const version = el('input', { name: 'version', placeholder: 'Next number', spellcheck: 'false', autocomplete: 'off', maxlength: 64 });
      const aliases = el('input', { name: 'aliases', placeholder: 'prod, canary', spellcheck: 'false', autocomplete: 'off' });
      const keep = el('input', { type: 'checkbox', name: 'keep' });
      const progress = el('progress', { max: 1, value: 0, hidden: true, 'aria-label': 'Upload' });
      const state = el('p.hint', { role: 'status' });
      const publish = el('button.primary', { type: 'submit' }, 'Publish');
      const take = (next) => {
        files = next.files;
        if (next.name !== '' && name.value === '') {
          name.value = next.name;
        }
        refill(problem, next.error && errorBox(next.error));
        show();
      };
      const show = () => {
        publish.disabled = files.length === 0;
        list.replaceChildren(files.length === 0
          ? el('p.hint', null, `Drop a folder with ${CONFIG} and ${WEIGHTS} on this page, or an archive of one, or choose it here.`)
          : el('ul', null, files.map(({ path, file }) => el('li', null, el('span', null, path), el('span.note', null, bytes(file.size))))));
      };
      const picker = (label, attributes) => {
        const input = el('input.visually-hidden', {
          type: 'file',
          tabindex: -1,
          'aria-hidden': 'true',
          ...attributes,
          onchange: () => {
            const picked = [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
            if (picked.length > 0) {
              try {
                take(chosen(picked));
              } catch (error) {
                take({ files: [], name: '', error });
              }
            }
            input.value = '';
          },
        });
        return [el('button.quiet', { type: 'button', onclick: () => input.click() }, label), input];
      };
      const fields = [name, version, aliases, keep];
      const submit = async (event) => {
        event.preventDefault();
        refill(problem);
        fields.forEach((field) => {
          field.disabled = true;
        });
        publish.disabled = true;
        progress.hidden = false;
        state.textContent = 'Sending';
        try {
          const query = new URLSearchParams({ name: name.value.trim() });
          if (version.value.trim() !== '') {
            query.set('version', version.value.trim());
          }
          aliases.value.split(/[\s,]+/).filter(Boolean).forEach((alias) => query.append('alias', alias));
          if (keep.checked) {
            query.set('keep_latest', 'true');
          }
          sending = new AbortController();
          const answer = await put(query, files, sending.signal, (share) => {
            progress.value = share;
            if (share === 1) {
              progress.removeAttribute('value');
              state.textContent = 'Checking it against the base';
            }
          });
          this.#done(self, answer);
        } catch (error) {
          if (error.name !== 'AbortError') {
            refill(problem, errorBox(error));
          }
          state.textContent = '';
          progress.hidden = true;
          fields.forEach((field) => {
            field.disabled = false;
          });
          publish.disabled = false;
        }
      };
      show();
      refill(problem, found.error && errorBox(found.error));
      return el('form', { onsubmit: submit },
        list,
        el('div.actions.start', null,
          picker('Choose a folder', { webkitdirectory: true }),
          picker('Choose files or an archive', { multiple: true, accept: '.zip,.tar,.gz,.tgz,.json,.safetensors' })),
        el('label', null, 'Name', name),
        el('div.pair', null, el('label', null, 'Version', version), el('label', null, 'Aliases', aliases)),
        el('label.check', null, keep, 'Leave “latest” where it is'),
        problem, progress, state,
        el('div.actions', null,
          el('button.quiet', { type: 'button', onclick: () => self.close() }, 'Cancel'), publish));
    });
    dialog.classList.add('upload');
    dialog.addEventListener('close', () => sending?.abort());
    if (files.length > 0) {
      dialog.querySelector('input[name=name]').focus();
    }
  }

  #done(dialog, answer) {
    const name = answer.adapter.name;
    const body = el('div', null,
      el('p', null, el('strong', null, name),
        answer.existed ? ' was there already, with the same content.' : ' is published and can be asked for.'),
      (answer.adapter.warnings ?? []).map((warning) => el('p.warning', null, warning)),
      el('div.actions', null,
        el('button.quiet', { type: 'button', onclick: () => dialog.close() }, 'Close'),
        el('button.primary', {
          type: 'button',
          onclick: () => {
            dialog.close();
            this.#chat(name);
          },
        }, 'Chat with it')));
    dialog.querySelector('form').replaceWith(body);
    body.querySelector('button.primary').focus();
  }
}

/** Files below what was dropped. */
async function filesOf(entries) {
  const found = [];
  const look = async (entry, path, depth) => {
    if (found.length >= MOST_FILES) {
      return;
    }
    if (entry.isFile) {
      found.push({
        path,
        file: await new Promise((resolve, reject) => {
          entry.file(resolve, reject);
        }),
      });
    } else if (depth < DEEPEST) {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((resolve, reject) => {
          reader.readEntries(resolve, reject);
        });
        if (some.length === 0) {
          break;
        }
        for (const child of some) {
          await look(child, `${path}/${child.name}`, depth + 1);
        }
      }
    }
  };
  for (const entry of entries) {
    await look(entry, entry.name, 0);
  }
  return found;
}

/** Of many files those to send, and a name that they suggest. */
function chosen(files) {
  const folderOf = (path) => path.slice(0, path.lastIndexOf('/') + 1);
  const fileOf = (path) => path.slice(path.lastIndexOf('/') + 1);
  const depth = (folder) => folder.split('/').length;
  const folders = new Map();
  for (const each of files) {
    const name = fileOf(each.path);
    if (name === CONFIG || name === WEIGHTS) {
      const folder = folderOf(each.path);
      folders.set(folder, { ...folders.get(folder), [name]: each });
    }
  }
  const whole = [...folders].filter(([, pair]) => pair[CONFIG] && pair[WEIGHTS])
    .sort(([a], [b]) => depth(a) - depth(b));
  if (whole.length > 0) {
    const [folder, pair] = whole[0];
    if (whole.length > 1 && depth(whole[1][0]) === depth(folder)) {
      throw new Error(`There is an adapter in ${folder} and one in ${whole[1][0]}. Add them one by one.`);
    }
    return { files: [pair[CONFIG], pair[WEIGHTS]], name: suggested(folder.replace(/\/$/, '')) };
  }
  const archives = files.filter(({ path }) => ARCHIVE.test(path));
  if (archives.length === 1 || (files.length === 1 && archives.length === 0)) {
    const only = archives[0] ?? files[0];
    return { files: [only], name: suggested(fileOf(only.path).replace(ARCHIVE, '')) };
  }
  throw new Error(archives.length > 1
    ? 'There are several archives. Add them one by one.'
    : `Expected ${CONFIG} and ${WEIGHTS} in one folder, or an archive with them, got neither among ${files.length} files.`);
}

function suggested(path) {
  return path.slice(path.lastIndexOf('/') + 1).replace(/[^A-Za-z0-9._-]+/g, '-').replace(/^[^A-Za-z0-9]+|[^A-Za-z0-9]+$/g, '')
    .replace(/([._-])[._-]+/g, '$1');
}

/** Sends files; XMLHttpRequest, since fetch does not tell how far it is. */
async function put(query, files, signal, progress) {
  for (;;) {
    const { status, text } = await new Promise((resolve, reject) => {
      const form = new FormData();
      for (const { path, file } of files) {
        form.append('file', file, path.slice(path.lastIndexOf('/') + 1));
      }
      const request = new XMLHttpRequest();
      request.open('POST', `/v1/adapters:upload?${query}`);
      for (const [name, value] of Object.entries(authorization())) {
        request.setRequestHeader(name, value);
      }
      request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : 0);
      request.upload.onload = () => progress(1);
      request.onload = () => resolve({ status: request.status, text: request.responseText });
      request.onerror = () => reject(new Error(GONE));
      request.onabort = () => reject(new DOMException('given up', 'AbortError'));
      signal.addEventListener('abort', () => request.abort());
      request.send(form);
    });
    if (status === 200) {
      return JSON.parse(text);
    }
    if (status !== 401 || !(await askForKey(messageOf(text, status)))) {
      throw new Error(messageOf(text, status));
    }
  }
}
