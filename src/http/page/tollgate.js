// Policies, and Tollgate itself.

import { count, cut, duration, limitsText, percent, THIN, visible } from './text.js';
import { bar, cell, fill, h, muted, pairs, row, share, small, span, table, tag, titled } from './elements.js';

const MODES = { enforce: ['enforced'], shadow: ['shadow', 'warn'], off: ['off', 'warn'], block: ['blocks', 'bad'] };

export function showPolicies({ policies, uptime_s: uptimeS }) {
  fill('policies-summary', policies.length > 0 && `since the start, ${duration(uptimeS * 1000)} ago`);
  const rows = policies.map(({ name: title, limits, mode, allowed, denied, near_limit: near }) => {
    const all = allowed + denied;
    const [word, kind] = MODES[mode] ?? [visible(mode)];
    return row([titled(title, 32), h('small', { title: visible(limits) }, cut(limitsText(limits), 60))],
      cell(null, kind ? tag(word, kind) : word),
      cell('number checks', count(all)),
      cell('number', percent(near, all)),
      cell('number', percent(denied, all)),
      cell('shares', all > 0 && bar([share(allowed - near, all), 'allowed'], [share(near, all), 'near'], [share(denied, all), 'denied'])));
  });
  fill('policy-rows', rows.length === 0
    ? muted('None. Limits stand in the calls themselves.')
    : [
      table('Policies', [['Policy'], ['Mode'], ['Checks', 'number checks'], ['Near limit', 'number'], ['Denied', 'number'], ['Shares', 'shares']], rows),
      h('p', { class: 'muted note-below' }, `Near the limit: allowed with more than 80${THIN}% of it used. A policy in shadow denies nobody; what it would have denied counts as denied.`),
    ]);
}

export function showItself({ clients, answers, forwarded, failed_logins: failedLogins, fallback, mode, uptime_s: uptimeS }) {
  fill('itself-since', `up for ${duration(uptimeS * 1000)}`);
  const degraded = answers.degraded_allowed + answers.degraded_denied;
  const bad = (number) => span(number > 0 ? 'bad-text' : null, count(number));
  const rows = [
    ['Clients', [`${count(clients.connected)} of ${count(clients.max)}`, bar([share(clients.connected, clients.max), clients.connected >= 0.9 * clients.max ? 'denied' : 'allowed'])]],
    ['Clients turned away', bad(clients.rejected)],
    ['Logins that failed', bad(failedLogins)],
    ['Checks allowed', [count(answers.allowed + answers.allowed_by_share + answers.allowed_by_policy + answers.shadow_denied), answers.shadow_denied > 0 && small(`${count(answers.shadow_denied)} by shadow alone`)]],
    ['Checks denied', [count(answers.denied + answers.denied_cached), answers.denied_cached > 0 && small(`${percent(answers.denied_cached, answers.denied + answers.denied_cached)} from memory`)]],
    ['Checks refused', bad(answers.refused)],
  ];
  if (mode !== 'embedded') {
    rows.push(
      ['Degraded answers', [count(degraded), degraded > 0 && small(`${percent(answers.degraded_allowed, degraded)} allowed`)]],
      ['Local buckets', [count(fallback.buckets), small(fallback.mode === 'local' ? `at ${percent(fallback.ratio, 1)} of limits` : `fallback is ${visible(fallback.mode)}`)]],
      ['To be written to Redis', count(fallback.unwritten)],
      ['Dropped, never written', bad(fallback.dropped)],
      ['Other commands passed on', count(forwarded)],
    );
  }
  fill('itself-rows', pairs(rows));
}
