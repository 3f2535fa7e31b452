// Asks Tollgate, and knows what time it is there.

import { duration } from './text.js';

const ANSWER_TIMEOUT_MS = 5000;

export const request = (path) => fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });

let heardMs = null;
let heardAt = 0;

/** Tollgate has just said what time it is. */
export function hear(nowMs) {
  heardMs = nowMs;
  heardAt = performance.now();
}

export const tollgateNow = () => (heardMs === null ? Date.now() : heardMs + (performance.now() - heardAt));

/** Why there was no answer. */
export function reasonOf(error) {
  if (error.name === 'TimeoutError') return `it took longer than ${duration(ANSWER_TIMEOUT_MS)}`;
  // The words for a connection that fails differ from browser to browser.
  return error instanceof TypeError && /fetch|network|load/i.test(error.message) ? 'it cannot be reached' : error.message;
}
