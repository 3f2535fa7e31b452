// Redis: its nodes, and when they last came and went.

import { micros, sentence, visible } from './text.js';
import { cell, dot, fill, h, moment, muted, row, small, span, table, tag, titled } from './elements.js';

const CHANGES_SHOWN = 5;

const TITLES = { redis: 'Redis', sentinel: 'Redis by Sentinel', cluster: 'Redis Cluster', embedded: 'No Redis' };

export function showStore({ mode, nodes, now_ms: nowMs }) {
  fill('store-title', TITLES[mode] ?? visible(mode));
  const up = nodes.filter((node) => node.up).length;
  fill('store-summary', nodes.length > 1 && `${up} of ${nodes.length} up`);
  if (nodes.length === 0) {
    fill('nodes', h('p', null, mode === 'embedded'
      ? 'Embedded: what was admitted is counted in this process’s own memory, and forgotten when it stops.'
      : 'No node is known yet.'));
    fill('changes');
    return;
  }
  fill('nodes', table('Nodes', [['Node'], ['State'], ['Round trip', 'number'], ['Breaker', 'end']], nodes.map((node) => nodeRows(node, nowMs))));
  const changes = nodes.flatMap((node) => (node.changes ?? []).map((change) => ({ ...change, addr: node.addr }))).sort((a, b) => b.at_ms - a.at_ms);
  fill('changes', h('h3', null, 'Last changes'), changes.length === 0
    ? muted('None since the start.')
    : h('ul', null, changes.slice(0, CHANGES_SHOWN).map(({ at_ms: atMs, up, cause, addr }) => h('li', null,
      dot(up ? 'good' : 'bad'),
      span(null, nodes.length > 1 && [titled(addr, 30), ' '], up ? 'came up' : 'went down', !up && cause ? `: ${visible(cause)}` : ''),
      moment(atMs, nowMs)))));
}

function nodeRows(node, nowMs) {
  const { addr, role, slots, up, since_ms: sinceMs, breaker, round_trip_us: roundTripUs, problem, advice } = node;
  return [
    row([titled(addr), small(visible(role), slots && `, slots ${visible(slots).replaceAll('-', '\u2011')}`)],
      cell(null, dot(!up ? 'bad' : problem ? 'warn' : 'good'), up ? 'Up' : 'Down',
        sinceMs > 0 && small(moment(sinceMs, nowMs, ''))),
      cell('number', micros(up ? roundTripUs : null)),
      cell('end', breaker === 'closed' ? 'closed' : tag(visible(breaker), 'bad'))),
    problem && h('tr', { class: 'note' }, h('td', { colspan: 4 }, `${sentence(problem)} ${sentence(advice)}`)),
  ];
}
