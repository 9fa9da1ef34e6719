// What is wrong, in words: the worst first, each with since when, where to look, and what to do.

import { brief, clock as at, count, duration, exactly, gist, many, size } from "./words.js";

const LOW_DISK = 200 * 2 ** 20;
const OLD_SECONDS = 60;
const OLD_NOTIFICATION_SECONDS = 600;

/** What is wrong by this status: {tone: "bad" | "warn", what, why, since, todo, href, view}; `since` in microseconds,
 * null where that isn't known. */
export function troubles(status) {
  const found = [
    ...ofStore(status),
    ...ofSession(status),
    ...ofContracts(status),
    ...ofProcessors(status),
    ...ofChannels(status),
    ...ofJobs(status),
    ...ofLetters(status),
    ...ofUpkeep(status),
    ...ofTheRest(status),
  ];
  return [...found.filter((each) => each.tone === "bad"), ...found.filter((each) => each.tone === "warn")];
}

/** How many things need somebody, by view: what the navigation shows. */
export function attention(status) {
  const found = {};
  for (const each of troubles(status)) found[each.view] = (found[each.view] ?? 0) + each.number;
  return found;
}

const bad = (view, what, more) => made("bad", view, what, more);
const warn = (view, what, more) => made("warn", view, what, more);

function made(tone, view, what, { why = "", todo = "", since = null, number = 1, params = {} } = {}) {
  const query = new URLSearchParams(params).toString();
  const href = view === "now" ? null : `#${view}${query && `?${query}`}`;
  return { tone, view: view.split("/")[0], what: brief(what), why: brief(why), todo, since, number, href };
}

function* ofStore({ store = {} }) {
  if (store.ok === false)
    yield bad("now", "Nothing can be stored", {
      why: store.reason,
      since: store.since || null,
      todo: "Messages wait with the broker until this is over; none is lost.",
    });
  else if (store.reason) yield warn("now", store.reason);
  if (store.free_disk_bytes > 0 && store.free_disk_bytes < LOW_DISK)
    yield warn("now", `Only ${size(store.free_disk_bytes)} of disk are free`, {
      why: `The store is at ${store.place}.`,
      todo: "Delete what isn't needed there, or keep less: store.retention.",
    });
}

function* ofSession({ session, started_at }) {
  if (!session || session.state === "connected") return;
  yield bad("now", `No connection with the broker at ${session.url}`, {
    why: session.reason || `The session is ${session.state}.`,
    since: session.disconnected_since ?? started_at,
    todo: "It is tried again by itself. Does the broker run? On the gateway, edgeq doctor says more.",
  });
}

function* ofContracts({ contracts = [] }) {
  for (const each of contracts.toSorted((a, b) => gravity(a) - gravity(b))) {
    const { contract: name, violated = 0, unknown = 0, skipped, last_skipped: last } = each;
    if (violated)
      yield (each.severity === "info" ? warn : bad)("contracts", `${name} is violated`, {
        why: [each.severity, violatedBy(violated, each.violated_subject)].filter(Boolean).join(", "),
        since: each.violated_at,
        number: violated,
      });
    if (unknown)
      yield warn("contracts", `${name} can't be judged`, {
        why: `for ${many(unknown, "subject")}: nothing fresh to judge by`,
        number: 0,
      });
    if (skipped)
      yield warn(last ? `events/${last.event_id}` : "events", `${name} passed over events that it can't judge`, {
        why: Object.entries(skipped)
          .map(([reason, number]) => `${many(number, "event")}: ${reason.replaceAll("_", " ")}`)
          .join(", "),
        number: 0,
      });
  }
}

const gravity = ({ severity }) => (severity === "critical" ? 0 : 1);

function violatedBy(number, subject) {
  if (!subject) return number > 1 ? `by ${many(number, "subject")}` : "";
  return number > 1 ? `by ${brief(subject, 80)} and ${many(number - 1, "other")}` : `by ${brief(subject, 80)}`;
}

function* ofProcessors({ processors = [], now }) {
  for (const each of processors) {
    const since = each.lag_seconds > 0 ? now - each.lag_seconds * 1e6 : null;
    const waiting = `${many(each.lag_events, "event")} wait for it.`;
    if (each.state === "halted")
      yield bad("processors", `Processor ${each.name} has halted`, {
        why: gist(each.error),
        since,
        todo: `${waiting} Mend the cause, then resume it.`,
      });
    else if (each.state === "paused")
      yield warn("processors", `Processor ${each.name} is paused`, { since, todo: `${waiting} Resume it to go on.` });
    else if (each.state === "retrying")
      yield bad("processors", `Processor ${each.name} fails and tries again`, {
        why: gist(each.error),
        since,
        todo: waiting,
      });
    else if (each.state === "not configured")
      yield warn("processors", `Processor ${each.name} is not configured any more`, {
        why: "Its place is kept, and events with it.",
      });
    else if (each.lag_seconds > OLD_SECONDS)
      yield warn("processors", `Processor ${each.name} is ${duration(each.lag_seconds)} behind`, {
        why: gist(each.error),
        todo: waiting,
      });
  }
}

function* ofChannels({ notifications = {} }) {
  for (const [name, each] of Object.entries(notifications)) {
    const why = each.last_error ?? each.error;
    if (each.dead)
      yield bad("notifications", `${many(each.dead, "notification")} could not be sent by ${name}`, {
        why,
        number: each.dead,
        todo: "Mend the channel, then try them again.",
        params: { state: "dead", channel: name },
      });
    else if (each.last_error)
      yield warn("notifications", `Channel ${name} fails`, {
        why,
        since: each.oldest_queued_at,
        todo: `${many(each.queued, "notification")} ${each.queued === 1 ? "waits" : "wait"}, and will be tried again.`,
      });
    else if (each.oldest_seconds > OLD_NOTIFICATION_SECONDS)
      yield warn("notifications", `A notification waits for ${name}`, { since: each.oldest_queued_at });
  }
}

function* ofJobs({ jobs = [], workers = [], breakers = [] }) {
  for (const { queue, dead, ready, paused, oldest_ready_seconds: oldest } of jobs) {
    if (dead)
      yield bad("jobs", `${many(dead, "job")} of queue ${queue} ${dead === 1 ? "is" : "are"} dead`, {
        why: "They aren't tried again by themselves.",
        number: dead,
        todo: "Look at their errors, mend the cause, then try them again.",
        params: { queue, state: "dead" },
      });
    if (paused)
      yield warn("jobs", `Queue ${queue} is paused`, { todo: `${many(ready, "job")} wait. Resume it to go on.` });
    else if (oldest > OLD_SECONDS)
      yield warn("jobs", `A job has waited ${duration(oldest)} in queue ${queue}`, {
        why: `${many(ready, "job")} are ready.`,
      });
  }
  for (const { queue, overdue } of workers) {
    if (overdue)
      yield bad("jobs", `${many(overdue, "job")} of queue ${queue} did not end in time`, {
        why: "They can't be stopped while this process runs.",
        todo: "isolation: process on the queue would end them.",
      });
  }
  for (const { name, state, error } of breakers) {
    if (state !== "closed")
      yield warn("jobs", `Jobs that need ${name} wait`, {
        why: error ? gist(error) : `Its circuit breaker is ${state.replace("_", " ")}.`,
        todo: "It is tried again by itself.",
      });
  }
}

function* ofLetters({ dead_letters = [] }) {
  const total = dead_letters.reduce((sum, each) => sum + each.count, 0);
  if (!total) return;
  yield warn("dead-letters", `${many(total, "dead letter")} ${total === 1 ? "waits" : "wait"} for a decision`, {
    why: `from ${[...new Set(dead_letters.map((each) => each.source))].join(", ")}`,
    since: dead_letters.reduce((least, each) => Math.min(least, each.oldest_at), Infinity),
    number: total,
    todo: "Redrive them once the cause is gone, or discard them.",
  });
}

function* ofUpkeep({ retention = {}, backup, counters = {} }) {
  if (retention.trouble) yield bad("now", "The store can't be kept within its limits", { why: retention.trouble });
  if (retention.waits_until)
    yield warn("now", "Old events are about to be deleted", {
      why: `by store.retention, from ${exactly(retention.waits_until)} on`,
    });
  const unseen = Object.values(counters.edgeq_events_dropped_total ?? {}).reduce((sum, each) => sum + each, 0);
  if (unseen)
    yield bad("processors", `${many(unseen, "event")} were deleted before all processors had seen them`, {
      why: "The hard limits of store.retention forced it, since the start.",
      number: 0,
    });
  if (backup?.last_error)
    yield bad("now", "The last backup failed", {
      why: gist(backup.last_error),
      todo: backup.last_success_at ? `The newest one is of ${at(backup.last_success_at)}.` : "There is none yet.",
    });
}

function* ofTheRest({ crashed = [], heartbeat, clock, routes, leader, retention }) {
  if (routes?.length === 0)
    yield warn("routes", "No routes are configured", { why: "Nothing is taken from the broker.", number: 0 });
  for (const each of crashed)
    yield warn("now", `${each.name} has crashed ${times(each.crashes)} and was started again`, {
      why: gist(each.last_error),
      todo: "That is a defect of edgeq, and stands in its log.",
    });
  if (heartbeat?.last_error)
    yield warn("now", "The heartbeat doesn't get through", {
      why: heartbeat.last_error,
      since: heartbeat.last_success_at,
    });
  if (leader === null) yield warn("now", "No member of the group leads", { why: "Schedules and upkeep wait for one." });
  if (retention?.doubts_clock)
    yield warn("now", "The gateway's clock isn't believed", {
      why: "It has leapt, and nothing says that it is right now.",
      todo: "On the gateway, timedatectl says more.",
    });
  else if (clock.synchronised === false)
    yield warn("now", "The gateway's clock is not synchronised", {
      why: "Times may be wrong.",
      todo: "On the gateway, timedatectl says more.",
    });
}

const times = (number) => (number === 1 ? "once" : `${count(number)} times`);
