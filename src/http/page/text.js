// Text. Whatever a client or Redis said goes through visible(), and into the page as text alone.

const KEY_CHARACTERS = 40;
export const THIN = '\u202f';

// Blanks at the ends too.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]|^\p{Zs}+|\p{Zs}+$/gu;
const utf8 = new TextEncoder();

/** The text with what does not print, or turns the direction of what follows, as the bytes that it is. */
export function visible(text) {
  return String(text).replace(UNSEEN, (unseen) => Array.from(utf8.encode(unseen), (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join(''));
}

/** At most so many characters of it, cut in the middle but not within an escape. */
export function cut(text, most = KEY_CHARACTERS) {
  if (text.length <= most) return text;
  const pieces = text.match(/\\x[0-9a-f]{2}|\\.|[^]/gu);
  const half = (pieces) => {
    let length = 0;
    return pieces.slice(0, pieces.findIndex((piece) => (length += piece.length) > most / 2));
  };
  return `${half(pieces).join('')}…${half(pieces.reverse()).reverse().join('')}`;
}

/** As a sentence of its own, whoever wrote it. */
export function sentence(text) {
  const seen = visible(text ?? '').trim();
  return seen && seen[0].toUpperCase() + seen.slice(1) + (/[.!?]$/.test(seen) ? '' : '.');
}

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });
export const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4, useGrouping: 'always' });
/** In whole up to 10,000 million. */
export const count = (number) => (number < 1e10 ? grouped : compact).format(number);

export function rate(perSecond) {
  if (perSecond >= 100) return short.format(perSecond);
  return perSecond >= 10 || Number.isInteger(perSecond) ? count(perSecond) : Math.max(perSecond, 0.1).toFixed(1);
}

/** Never 0 % or 100 % of what is only nearly so; a dash if there is no whole. */
export function percent(part, whole) {
  if (whole === 0) return '–';
  const share = (100 * part) / whole;
  if (share > 0 && share < 0.1) return `under 0.1${THIN}%`;
  if (share < 100 && share >= 99.9) return `over 99.9${THIN}%`;
  const shown = share < 10 || share > 99 ? share.toFixed(1).replace(/\.0$/, '') : share.toFixed(0);
  return `${shown}${THIN}%`;
}

export function micros(us) {
  if (us === null || us === undefined) return '–';
  if (us < 1000) return `${short.format(us)}${THIN}µs`;
  return us < 1e6 ? `${short.format(us / 1000)}${THIN}ms` : `${short.format(us / 1e6)}${THIN}s`;
}

/** In its two largest units. */
export function duration(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))}${THIN}ms`;
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  let seconds = Math.floor(ms / 1000);
  const first = units.findIndex(([, size]) => seconds >= size);
  return units.slice(first, first + 2).map(([unit, size]) => {
    const whole = Math.floor(seconds / size);
    seconds -= whole * size;
    return whole > 0 ? `${whole}${THIN}${unit}` : '';
  }).filter(Boolean).join(' ');
}

export const clockTime = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
export const dateTime = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'long' });

/** `100 1s 5000 1h` as 100 / 1 s, 5,000 / 1 h; what is more than pairs stays as it is written. */
export function limitsText(limits) {
  if (!/^(\d+ \w+( |$))+$/.test(limits)) return visible(limits);
  const pairs = limits.match(/\d+ \w+/g).map((pair) => pair.split(' '));
  return pairs.map(([limit, window]) => `${count(Number(limit))}\u00a0/\u00a0${window.replace(/(\d)([a-z])/, `$1${THIN}$2`)}`).join(', ');
}

export const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
export const mean = (numbers) => (numbers.length ? sum(numbers) / numbers.length : 0);
