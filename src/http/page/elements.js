// Elements. A view makes a new tree every second; fill() changes what is there to be like it, so that focus, selection,
// and the place where a screen reader stands remain.

import { cut, dateTime, duration, visible } from './text.js';

const SVG = 'http://www.w3.org/2000/svg';

export const byId = (id) => document.getElementById(id);

function make(element, props, children) {
  const isThere = (value) => value !== null && value !== undefined && value !== false;
  for (const [key, value] of Object.entries(props ?? {})) if (isThere(value)) element.setAttribute(key, value);
  element.append(...children.flat(Infinity).filter((child) => isThere(child) && child !== ''));
  return element;
}

export const h = (tag, props, ...children) => make(document.createElement(tag), props, children);
export const s = (tag, props, ...children) => make(document.createElementNS(SVG, tag), props, children);

/** Makes these the children of an element, or of that with this id. */
export function fill(parent, ...nodes) {
  alike(typeof parent === 'string' ? byId(parent) : parent, make(document.createDocumentFragment(), null, nodes));
}

function alike(parent, fresh) {
  let old = parent.firstChild;
  for (const node of [...fresh.childNodes]) {
    if (old === null) {
      parent.append(node);
      continue;
    }
    const next = old.nextSibling;
    if (old.nodeName !== node.nodeName) old.replaceWith(node);
    else if (old.nodeType === Node.TEXT_NODE) { if (old.data !== node.data) old.data = node.data; }
    else {
      for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name);
      for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
      alike(old, node);
    }
    old = next;
  }
  while (old !== null) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
}

/** Shares of a whole, one after another: [share from 0 to 1, class]. For the eye; the numbers stand beside it. */
export function bar(...parts) {
  let x = 0;
  const rects = parts.map(([share, kind]) => {
    const width = Math.max(0, Math.min(share, 1 - x));
    const rect = s('rect', { class: kind, x: `${(100 * x).toFixed(2)}%`, width: `${(100 * width).toFixed(2)}%`, height: '100%' });
    x += width;
    return rect;
  });
  return s('svg', { class: 'bar', 'aria-hidden': 'true' }, rects);
}

export const share = (part, whole) => (whole > 0 ? part / whole : 0);
export const tag = (text, kind) => span(`tag ${kind ?? ''}`, text);
export const cell = (kind, ...children) => h('td', { class: kind }, ...children);
export const row = (title, ...cells) => h('tr', null, h('th', { scope: 'row' }, title), ...cells);
export const span = (kind, ...children) => h('span', { class: kind }, ...children);
export const small = (...children) => h('small', null, ...children);
export const muted = (...children) => h('p', { class: 'muted' }, ...children);
export const dot = (kind) => h('span', { class: `dot ${kind}`, 'aria-hidden': 'true' });
export const pairs = (list, kind) => h('dl', { class: kind }, list.map(([term, what]) => h('div', null, h('dt', null, term), h('dd', null, what))));

export function table(caption, heads, rows) {
  return h('table', null,
    h('caption', { class: 'hidden' }, caption),
    h('thead', null, h('tr', null, heads.map(([text, kind]) => h('th', { scope: 'col', class: kind }, text)))),
    h('tbody', null, rows));
}

/** What somebody named: cut in the middle if it is long, with the whole in the title. */
export const titled = (text, most) => h('bdi', { class: 'name', title: visible(text) }, cut(visible(text), most));

/** A moment, as how long it is before `nowMs`; its date stands in the title. */
export function moment(atMs, nowMs, suffix = ' ago') {
  const props = { datetime: new Date(atMs).toISOString(), title: dateTime.format(atMs) };
  return h('time', props, duration(nowMs - atMs) + suffix);
}
