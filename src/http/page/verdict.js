// The state, in a sentence.

import { count, cut, mean, percent, rate, sentence, sum, visible } from './text.js';
import { byId, fill, h, moment, pairs, s, span } from './elements.js';

const RECENT_POINTS = 10;

export const isUnasked = ({ answers }) => sum(Object.values(answers)) === 0;
export function recentRates(history) {
  const [allowed, denied, degraded] = ['allowed', 'denied', 'degraded'].map((kind) => mean(history[kind].slice(-RECENT_POINTS)));
  return { allowed, denied, degraded, all: allowed + denied + degraded };
}

const checksASecond = (all) => `${rate(all)}\u00a0${rate(all) === '1' ? 'check' : 'checks'} a second`;

function traffic({ all, denied }) {
  if (all === 0) return 'No check in the last 10 seconds.';
  return `${checksASecond(all)}, ${denied > 0 ? percent(denied, all) : 'none'} denied.`;
}

const FALLBACKS = { open: 'every check is allowed', closed: 'every check is denied', error: 'every check gets an error' };

// A verdict is what the top of the page says: mark, the title's word, head, tail, facts as [term, text], what is spoken.

export function degradedVerdict(state) {
  const { nodes, fallback, now_ms: nowMs, state: { since_ms: sinceMs, cause, advice } } = state;
  const rates = recentRates(state.history);
  const primaries = nodes.filter(({ role }) => role === 'primary');
  const down = primaries.filter(({ up }) => !up).length;
  const isPart = state.mode === 'cluster' && down > 0 && down < primaries.length;
  const who = isPart ? `${down} of ${primaries.length} primaries` : 'Redis';
  const [has, is, its] = isPart && down > 1 ? ['have', 'are', 'their'] : ['has', 'is', 'its'];
  const what = `: answers${isPart ? ` for ${its} keys` : ''} are degraded.`;
  const [before, after, spoken] = down > 0
    ? [`${who} ${has} been down for `, what, `${who} ${is} down${what}`]
    : ['Answers have been degraded for ', '.', 'Answers are degraded.'];
  const mode = FALLBACKS[fallback.mode] ?? `local buckets admit ${percent(fallback.ratio, 1)} of each limit`;
  const load = rates.all === 0 ? traffic(rates) : `${checksASecond(rates.all)}, ${percent(rates.degraded, rates.all)} of them degraded.`;
  const facts = [
    ['Cause', sentence(cause)],
    ['What to do', sentence(advice)],
    ['Meanwhile', `${sentence(isPart ? `for those keys ${mode}` : mode)} ${load}`],
  ].filter(([, text]) => text);
  return { mark: 'bad', word: 'Degraded', head: [before, moment(sinceMs, nowMs, ''), after], facts, spoken: [spoken, sentence(cause), sentence(advice)].join(' ') };
}

export function exactVerdict(state) {
  const bad = troubles(state);
  const shared = { mark: bad.length ? 'warn' : 'good', facts: [...bad, ...news(state)] };
  // Without the figures, which change without being news.
  const spokenOf = (head) => [head, ...bad.map(([, text, said]) => said ?? text)].join(' ');
  if (isUnasked(state)) {
    const head = 'Ready. No check has come yet.';
    return { ...shared, word: 'Ready', head: [head], spoken: spokenOf(head) };
  }
  const head = state.mode === 'embedded' ? 'All exact, without a Redis.' : 'All exact.';
  return { ...shared, word: 'Exact', head: [head], tail: traffic(recentRates(state.history)), spoken: spokenOf(head) };
}

const MODES_OF_ALL = { off: 'Nothing is limited', shadow: 'Nothing is enforced', block: 'Every check is denied' };

/** What is not as it should be though all answers are exact. */
function troubles({ nodes, clients, policies_mode: ofAll }) {
  const down = nodes.filter((node) => !node.up).length;
  const warned = nodes.filter((node) => node.up && node.problem);
  const facts = [];
  if (MODES_OF_ALL[ofAll?.mode]) {
    const text = `${MODES_OF_ALL[ofAll.mode]}: the mode of all policies is ${ofAll.mode}.`;
    facts.push(['Mode of all', `${text} RL.POLICY MODE * default ends that.`, text]);
  }
  if (down) facts.push(['Redis', `${down} of ${nodes.length} nodes ${down === 1 ? 'is' : 'are'} down, which no check needs now.`]);
  if (warned.length) {
    const more = warned.length > 1 ? ` And ${warned.length - 1} more, below.` : '';
    facts.push(['Warning', `${sentence(warned[0].problem)} ${sentence(warned[0].advice)}${more}`]);
  }
  if (clients.connected >= 0.9 * clients.max) {
    facts.push(['Clients', `${count(clients.connected)} of at most ${count(clients.max)}: soon more are turned away.`, 'Nearly as many clients as are let in.']);
  }
  return facts;
}

/** What is well, but who looks at three in the morning wants to know. */
function news({ history, fallback, policies }) {
  const facts = [];
  const degraded = sum(history.degraded) * history.step_s;
  if (degraded > 0) {
    const left = fallback.unwritten > 0 ? ` Admissions still to be written to Redis: ${count(fallback.unwritten)}.` : '';
    facts.push(['Lately', `Degraded answers in the last 10 minutes: ${count(degraded)}.${left}`]);
  }
  const loose = policies.filter(({ mode }) => mode === 'shadow' || mode === 'off');
  if (loose.length) {
    const named = loose.slice(0, 3).map(({ name, mode }) => `${cut(visible(name), 24)} (${mode})`).join(', ');
    facts.push(['Not enforced', `${named}${loose.length > 3 ? ` and ${loose.length - 3} more` : ''}.`]);
  }
  return facts;
}

const MARKS = { good: 'M5 12.5l4.5 4.5L19 7.5', warn: 'M12 5.5v8M12 17.2v.6', bad: 'M7 7l10 10M17 7L7 17', lost: 'M6 12h12' };
const ICON_COLOURS = { good: '2f8f5f', warn: 'c98a00', bad: 'd0402f', lost: '888888' };
const iconOf = (colour) => `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='6' fill='%23${colour}'/%3E%3C/svg%3E`;

export function showVerdict({ mark, word, head, tail, facts, spoken }) {
  byId('state').className = mark;
  const sign = s('svg', { viewBox: '0 0 24 24', class: 'mark', 'aria-hidden': 'true' }, s('path', { d: MARKS[mark] }));
  fill('sentence', sign, span(null, h('strong', null, head), tail && [' ', span('soft', tail)]));
  fill('why', facts.length > 0 && pairs(facts));
  const [title, icon] = [`${word} · Tollgate`, iconOf(ICON_COLOURS[mark])];
  if (document.title !== title) document.title = title;
  if (byId('icon').href !== icon) byId('icon').href = icon;
  if (byId('spoken').textContent !== spoken) byId('spoken').textContent = spoken;
}
