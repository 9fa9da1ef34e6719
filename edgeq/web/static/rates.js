// How often things happen, told from what two statuses counted.

const WINDOW = 30e6; // microseconds
let seen = [];

/** Remember a status. */
export function note(status) {
  if (status.started_at !== seen.at(-1)?.started_at) seen = []; // counters begin anew
  seen.push(status);
  while (seen.length > 2 && seen[1].now <= status.now - WINDOW) seen.shift();
}

/** By how much `read(status)` grew each second, lately; null when it can't be told yet. */
export function perSecond(read) {
  const [first, last] = [seen[0], seen.at(-1)];
  if (!first || first === last || last.now <= first.now) return null;
  return Math.max(0, (read(last) ?? 0) - (read(first) ?? 0)) / ((last.now - first.now) / 1e6);
}

/** Rates of what is on the page in several views. */
export const routeRate = (topic) =>
  perSecond((status) => status.routes?.find((route) => route.topic === topic)?.messages);
export const processorRate = (name) => perSecond((status) => counter(status, "edgeq_processed_total")[name]);
export const channelRate = (name) => perSecond((status) => status.notifications?.[name]?.sent);

/** A counter's values by label; empty when the gateway tells of none. */
export function counter(status, name) {
  return status.counters?.[name] ?? {};
}
