// The page: what is seen, and what is told to whom.

import { Adapters } from '/page/adapters.js';
import { askForKey, authorization, getJson, keyNeeded, keys } from '/page/api.js';
import { Chat } from '/page/chat.js';
import { Live } from '/page/charts.js';
import { byId } from '/page/dom.js';
import { Registry } from '/page/events.js';
import { Training } from '/page/runs.js';
import { Upload } from '/page/upload.js';

const VIEWS = ['chat', 'adapters', 'live', 'training'];
const THEMES = ['auto', 'light', 'dark'];
const RETRY_MILLIS = 1500;
const SLOWEST_MILLIS = 12_000;

const visible = (view) => () => !byId(`view-${view}`).hidden;

const registry = new Registry();
const chat = new Chat(registry);
const chatWith = (name) => {
  // Without an event, which would take the focus from the message.
  history.pushState(null, '', '#chat');
  show();
  chat.show(name);
};
const adapters = new Adapters(registry, visible('adapters'), chatWith);
const live = new Live(visible('live'));
const training = new Training(visible('training'));
new Upload(chatWith);

function show() {
  const asked = location.hash.slice(1);
  const there = VIEWS.includes(asked) && !document.querySelector(`[data-view=${asked}]`).parentElement.hidden;
  const view = there ? asked : 'chat';
  for (const each of VIEWS) {
    byId(`view-${each}`).hidden = each !== view;
    const link = document.querySelector(`[data-view=${each}]`);
    if (each === view) {
      link.setAttribute('aria-current', 'page');
    } else {
      link.removeAttribute('aria-current');
    }
  }
  document.title = `${view[0].toUpperCase()}${view.slice(1)} · Wardrobe`;
  adapters.draw();
  live.wake();
  if (view === 'training') {
    training.wake();
  }
}

function theme(chosen) {
  if (chosen === 'auto') {
    delete document.documentElement.dataset.theme;
  } else {
    document.documentElement.dataset.theme = chosen;
  }
  try {
    localStorage.setItem('wardrobe.theme', chosen);
  } catch {
    // It lasts until the page is left, then.
  }
  const names = { auto: 'Automatic', light: 'Light', dark: 'Dark' };
  const signs = { auto: '◐', light: '☀', dark: '☾' };
  const button = byId('theme');
  button.textContent = signs[chosen];
  button.setAttribute('aria-label', `Theme: ${names[chosen]}`);
  button.title = `Theme: ${names[chosen]}`;
}

function link() {
  const says = { connecting: 'Connecting', live: 'Connected', lost: 'Not connected' };
  byId('link').textContent = says[registry.link];
  byId('link').dataset.state = registry.link;
}

async function begin() {
  for (let wait = RETRY_MILLIS; ; wait = Math.min(wait * 2, SLOWEST_MILLIS)) {
    try {
      await chat.begin(await identify());
      return;
    } catch (failure) {
      byId('model').textContent = failure.message;
      byId('model').title = failure.message;
      await new Promise((resolve) => {
        keys.addEventListener('key', resolve, { once: true });
        setTimeout(resolve, wait);
      });
    }
  }
}

/** Says what the server serves; the base's name. */
async function identify() {
  const models = await getJson('/v1/models');
  // Not every key may ask for it.
  const info = await getJson('/v1/info').catch(() => ({}));
  const base = models.data.find((model) => model.parent === null || model.parent === undefined)?.id ?? info.model ?? '';
  byId('model').textContent = [info.model ?? base, info.quantization === 'none' ? null : info.quantization?.toUpperCase(), info.version]
    .filter(Boolean).join(' · ');
  byId('model').title = info.backend ?? '';
  return base;
}

function key() {
  byId('key').hidden = !keyNeeded();
}

/** What was not there when the page began may be there after the server did. */
function again() {
  if (registry.link === 'live') {
    training.find().then((found) => found && show());
    if (wasLost) {
      identify().catch(() => {});
    }
  }
  wasLost = registry.link === 'lost';
}

let wasLost = false;

const kept = document.documentElement.dataset.theme ?? 'auto';
theme(kept);
byId('theme').addEventListener('click', () => {
  const now = document.documentElement.dataset.theme ?? 'auto';
  theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});
byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  byId('main').focus();
});
addEventListener('hashchange', () => {
  show();
  byId('main').focus({ preventScroll: true });
  scrollTo(0, 0);
});
byId('key').addEventListener('click', async () => {
  const given = await askForKey('The key in use, if any, is replaced; what was shown with it is asked for again.');
  if (given || authorization().authorization === undefined) {
    location.reload();
  }
});
keys.addEventListener('key', key);
key();
registry.addEventListener('link', link);
registry.addEventListener('link', again);
link();
show();
registry.follow();
begin();
