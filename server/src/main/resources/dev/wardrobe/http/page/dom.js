// Elements and words. Text from elsewhere becomes text nodes and attributes, never markup.

/**
 * An element.
 *
 * @param {string} name of the element, with classes: 'p.error'
 * @param {Object} [attributes] 'on...' are listeners; false, null and undefined leave one out
 * @param {...(Node|string|number|null|Array)} children
 */
export function el(name, attributes, ...children) {
  const [tag, ...classes] = name.split('.');
  const element = document.createElement(tag);
  if (classes.length > 0) {
    element.classList.add(...classes);
  }
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key.startsWith('on')) {
      element.addEventListener(key.slice(2), value);
    } else if (value === true) {
      element.setAttribute(key, '');
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(key, String(value));
    }
  }
  element.append(...flat(children));
  return element;
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

export function byId(id) {
  return document.getElementById(id);
}

/** A box that says what went wrong, where it did. */
export function errorBox(error, ...actions) {
  return el('div.error', { role: 'alert' }, el('p', null, error.message ?? String(error)), actions);
}

/**
 * Shows an error in an element, or none. One that is there already stays as it is, so that what is
 * asked for again and again is not read out again and again.
 */
export function showError(element, error) {
  const text = error === null ? '' : error.message ?? String(error);
  if (text !== element.textContent) {
    element.replaceChildren(...(error === null ? [] : [errorBox(error)]));
  }
}

function focusOn(element, key) {
  for (const candidate of element.querySelectorAll('[data-focus]')) {
    if (candidate.getAttribute('data-focus') === key) {
      candidate.focus({ preventScroll: true });
      return;
    }
  }
}

/** Puts children into an element, and the focus back to where it was, by `data-focus`. */
export function refill(element, ...children) {
  const focused = element.contains(document.activeElement)
    ? document.activeElement.getAttribute('data-focus')
    : null;
  element.replaceChildren(...flat(children));
  if (focused !== null) {
    focusOn(element, focused);
  }
}

/**
 * A dialog that is gone once it is closed.
 *
 * @param {string} title
 * @param {(dialog: HTMLDialogElement) => Array} content
 */
export function openDialog(title, content) {
  const id = `dialog-${Math.random().toString(36).slice(2)}`;
  const dialog = el('dialog', { 'aria-labelledby': id });
  const before = document.activeElement;
  dialog.append(el('h2', { id }, title), ...flat([content(dialog)]));
  dialog.addEventListener('close', () => {
    dialog.remove();
    if (before instanceof HTMLElement && before.isConnected) {
      before.focus();
    } else if (before?.dataset?.focus !== undefined) {
      // It was drawn anew meanwhile.
      focusOn(document.body, before.dataset.focus);
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

export function count(value) {
  return number.format(value);
}

export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function decimal(value) {
  return value === 0 ? '0' : value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let rest = value;
  while (rest >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit++;
  }
  return unit === 0 ? `${rest} B` : `${decimal(rest)} ${units[unit]}`;
}

export function millis(value) {
  return value === 0 ? '0 ms' : value >= 1000 ? `${decimal(value / 1000)} s` : `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;
}

/** 'sha256:0123456789ab…' */
export function shortDigest(digest) {
  return digest.length > 19 ? `${digest.slice(0, 19)}…` : digest;
}

export function clock(date) {
  return date.toLocaleTimeString('en-GB');
}

export function moment(date) {
  return `${date.toLocaleDateString('en-CA')} ${date.toLocaleTimeString('en-GB')}`;
}
