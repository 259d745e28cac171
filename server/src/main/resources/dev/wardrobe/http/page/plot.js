// Curves over time or steps, in SVG.

import { el } from '/page/dom.js';

const SVG = 'http://www.w3.org/2000/svg';
const HEIGHT = 190;
const LEFT = 68;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 26;

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    element.setAttribute(key, String(value));
  }
  element.append(...children);
  return element;
}

/** Round numbers that span low to high. */
export function ticks(low, high, most) {
  const span = high - low || 1;
  const rough = span / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? 10 * power;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) {
    found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  }
  return found;
}

/**
 * A figure with curves. A point is read off by pointing at it, or with the arrow keys; all are in a
 * table below.
 */
export class Plot {
  #series;
  #options;
  #x = [];
  #ys = [];
  #svg = svg('svg', { 'aria-hidden': 'true', focusable: 'false' });
  #readout = el('p.readout');
  #table = el('div.scroll');
  #details;
  #frame;
  #at = null;
  #drawing = false;

  /**
   * @param {Object} options
   * @param {string} options.title
   * @param {Array<{name: string, tone: number}>} options.series
   * @param {(y: number) => string} options.format of a value
   * @param {(x: number) => string} options.formatX
   * @param {string} options.nameX
   * @param {boolean} [options.fromZero]
   * @param {boolean} [options.binary] whether values are bytes
   */
  constructor(options) {
    this.#options = options;
    this.#series = options.series;
    this.#frame = el('div.plot', {
      tabindex: '0', role: 'group', 'aria-roledescription': 'chart',
      onkeydown: (event) => this.#key(event),
      onpointermove: (event) => this.#point(event),
      onpointerleave: () => this.#select(null),
      onblur: () => this.#select(null),
    });
    this.#frame.append(this.#svg);
    this.#details = el('details', { ontoggle: () => this.#fill() },
      el('summary', null, 'As a table'), this.#table);
    this.element = el('figure.panel.chart', null,
      el('figcaption', null, el('h3', null, options.title), this.#readout),
      this.#frame, this.#details);
    new ResizeObserver(() => this.#draw()).observe(this.#frame);
  }

  /**
   * @param {number[]} x ascending
   * @param {Array<Array<number|null>>} ys of each of the series; null where there is nothing
   */
  update(x, ys) {
    this.#x = x;
    this.#ys = ys;
    if (this.#at !== null) {
      this.#at = Math.min(this.#at, x.length - 1);
    }
    this.#draw();
    this.#fill();
  }

  #latest(of) {
    const values = this.#ys[of] ?? [];
    for (let i = values.length - 1; i >= 0; i--) {
      if (values[i] !== null) {
        return values[i];
      }
    }
    return null;
  }

  #values(i) {
    return this.#series.map((series, s) => {
      const value = i === null ? this.#latest(s) : this.#ys[s]?.[i] ?? null;
      return { series, text: value === null ? '–' : this.#options.format(value) };
    });
  }

  #say() {
    const values = this.#values(this.#at);
    const where = this.#at === null ? '' : `${this.#options.nameX} ${this.#options.formatX(this.#x[this.#at])}: `;
    this.#readout.replaceChildren(
      ...(where === '' ? [] : [el('span.where', null, where)]),
      ...values.map(({ series, text }) => el('span.value', null,
        el(`span.swatch.tone-${series.tone}`, { 'aria-hidden': 'true' }),
        `${series.name} `, el('strong', null, text))),
    );
    this.#frame.setAttribute('aria-label',
      `${this.#options.title}. ${values.map(({ series, text }) => `${series.name} ${text}`).join(', ')}. Arrow keys read values; all are in the table below.`);
  }

  #key(event) {
    const last = this.#x.length - 1;
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10 };
    let to = null;
    if (event.key in moves) {
      to = (this.#at ?? last + (moves[event.key] < 0 ? 1 : 0)) + moves[event.key];
    } else if (event.key === 'Home') {
      to = 0;
    } else if (event.key === 'End') {
      to = last;
    } else if (event.key === 'Escape') {
      this.#readout.removeAttribute('aria-live');
      this.#select(null);
    }
    if (to !== null && last >= 0) {
      event.preventDefault();
      this.#readout.setAttribute('aria-live', 'polite');
      this.#select(Math.max(0, Math.min(last, to)));
    }
  }

  #point(event) {
    if (this.#x.length === 0) {
      return;
    }
    this.#readout.removeAttribute('aria-live');
    const box = this.#frame.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    const low = this.#x[0];
    const value = low + share * (this.#x.at(-1) - low);
    let best = 0;
    for (let i = 1; i < this.#x.length; i++) {
      if (Math.abs(this.#x[i] - value) < Math.abs(this.#x[best] - value)) {
        best = i;
      }
    }
    this.#select(best);
  }

  #select(index) {
    if (this.#at !== index) {
      this.#at = index;
      this.#draw();
    }
  }

  #draw() {
    if (!this.#drawing) {
      this.#drawing = true;
      requestAnimationFrame(() => {
        this.#drawing = false;
        this.#say();
        this.#redraw();
      });
    }
  }

  #redraw() {
    const width = this.#frame.clientWidth;
    if (width === 0) {
      return;
    }
    const { format, formatX, fromZero = true } = this.#options;
    this.#svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    const known = this.#ys.flat().filter((y) => y !== null && Number.isFinite(y));
    if (known.length === 0) {
      this.#svg.replaceChildren(svg('text', { x: width / 2, y: HEIGHT / 2, class: 'nothing', 'text-anchor': 'middle' }, 'Nothing yet'));
      return;
    }
    let low = Math.min(...known);
    let high = Math.max(...known);
    if (fromZero) {
      low = Math.min(0, low);
    }
    if (high - low < 1e-12) {
      high = low + (Math.abs(low) || 1);
    }
    // Bytes are round in the unit that they are shown in.
    const unit = this.#options.binary ? 1024 ** Math.floor(Math.log2(high) / 10) : 1;
    const lines = ticks(low / unit, high / unit, 4).map((y) => y * unit);
    if (lines.length > 1 && lines.at(-1) < high) {
      lines.push(2 * lines.at(-1) - lines.at(-2));
    }
    high = Math.max(high, lines.at(-1));
    low = fromZero ? low : Math.min(low, lines[0]);
    const first = this.#x[0];
    const span = this.#x.at(-1) - first || 1;
    const toX = (x) => LEFT + ((x - first) / span) * (width - LEFT - RIGHT);
    const toY = (y) => TOP + (1 - (y - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (const y of lines) {
      parts.push(
        svg('line', { x1: LEFT, x2: width - RIGHT, y1: toY(y), y2: toY(y), class: 'grid' }),
        svg('text', { x: LEFT - 8, y: toY(y) + 4, 'text-anchor': 'end' }, format(y)));
    }
    for (const x of ticks(first, first + span, Math.max(2, Math.floor(width / 110)))) {
      const anchor = toX(x) > width - 40 ? 'end' : toX(x) < LEFT + 12 ? 'start' : 'middle';
      parts.push(svg('text', { x: toX(x), y: HEIGHT - 7, 'text-anchor': anchor }, formatX(x)));
    }
    this.#ys.forEach((ys, s) => parts.push(...this.#curve(ys, s, toX, toY)));
    if (this.#at !== null && this.#x[this.#at] !== undefined) {
      const x = toX(this.#x[this.#at]);
      parts.push(svg('line', { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM, class: 'cursor' }));
      this.#ys.forEach((ys, s) => {
        const y = ys[this.#at];
        if (y !== null && y !== undefined) {
          parts.push(svg('circle', { cx: x, cy: toY(y), r: 4, class: `dot tone-${this.#series[s].tone}` }));
        }
      });
    }
    this.#svg.replaceChildren(...parts);
  }

  /** Stretches without gaps; a point by itself is a dot. */
  #curve(ys, s, toX, toY) {
    const tone = `tone-${this.#series[s].tone}`;
    const sparse = this.#series[s].sparse ?? false;
    const parts = [];
    let points = [];
    const end = () => {
      if (points.length === 1) {
        const [[x, y]] = points;
        parts.push(svg('circle', { cx: x, cy: y, r: 2.5, class: `dot ${tone}` }));
      } else if (points.length > 1) {
        const path = points.map(([x, y], i) => `${i === 0 ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');
        parts.push(svg('path', { d: path, class: `curve ${tone}` }));
      }
      points = [];
    };
    ys.forEach((y, i) => {
      if (y !== null && Number.isFinite(y)) {
        points.push([toX(this.#x[i]), toY(y)]);
      } else if (!sparse) {
        end();
      }
    });
    end();
    return parts;
  }

  #fill() {
    if (!this.#details.open) {
      return;
    }
    const { format, formatX, nameX, title } = this.#options;
    const step = Math.max(1, Math.ceil(this.#x.length / 60));
    const rows = [];
    for (let i = this.#x.length - 1; i >= 0; i -= step) {
      rows.push(el('tr', null,
        el('th', { scope: 'row' }, formatX(this.#x[i])),
        this.#ys.map((ys) => el('td', null, ys[i] === null ? '–' : format(ys[i])))));
    }
    this.#table.replaceChildren(el('table.plain', null,
      el('caption.visually-hidden', null, title),
      el('thead', null, el('tr', null, el('th', { scope: 'col' }, nameX),
        this.#series.map((series) => el('th', { scope: 'col' }, series.name)))),
      el('tbody', null, rows)));
  }
}
