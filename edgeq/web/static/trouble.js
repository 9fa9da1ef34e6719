// What is wrong, in words: the worst first, each with where to look and, if there is something, what to do.

import { brief, count, duration, many, size } from "./words.js";

const LOW_DISK = 200 * 2 ** 20;
const OLD_SECONDS = 60;

/** What is wrong by this status: {tone: "bad" | "warn", what, why, view}. */
export function troubles(status) {
  const found = [
    ...ofStore(status),
    ...ofSession(status),
    ...ofContracts(status),
    ...ofProcessors(status),
    ...ofChannels(status),
    ...ofJobs(status),
    ...ofLetters(status),
    ...ofTheRest(status),
  ];
  return [...found.filter((each) => each.tone === "bad"), ...found.filter((each) => each.tone === "warn")];
}

/** How many things need somebody, by view: what the navigation shows. */
export function attention(status) {
  const found = {};
  for (const each of troubles(status)) found[each.view] = (found[each.view] ?? 0) + (each.number ?? 1);
  return found;
}

const bad = (view, what, why = "", number = 1) => ({ tone: "bad", view, what, why: brief(why), number });
const warn = (view, what, why = "", number = 1) => ({ tone: "warn", view, what, why: brief(why), number });

function* ofStore({ store = {} }) {
  if (store.ok === false)
    yield bad(
      "now",
      "Nothing can be stored",
      `${store.reason ?? ""}. Messages wait with the broker until this is over; none is lost.`,
    );
  if (store.free_disk_bytes > 0 && store.free_disk_bytes < LOW_DISK) {
    yield warn("now", `Only ${size(store.free_disk_bytes)} of disk are free`, `The store is at ${store.place}.`);
  }
}

function* ofSession({ session }) {
  if (!session || session.state === "connected") return;
  yield bad(
    "now",
    `No connection with the broker at ${session.url}`,
    session.reason || `The session is ${session.state}.`,
  );
}

function* ofContracts({ contracts = [] }) {
  for (const each of contracts) {
    const { violated = 0, unknown = 0 } = each.states ?? each;
    if (violated)
      yield bad("contracts", `${each.contract ?? each.name} is violated`, `by ${many(violated, "subject")}`, violated);
    if (unknown)
      yield warn(
        "contracts",
        `${each.contract ?? each.name} can't be judged`,
        `for ${many(unknown, "subject")}: nothing fresh to judge by`,
        0,
      );
  }
}

function* ofProcessors({ processors = [] }) {
  for (const each of processors) {
    if (each.state === "halted") yield bad("processors", `Processor ${each.name} has halted`, each.error);
    else if (each.state === "paused")
      yield warn("processors", `Processor ${each.name} is paused`, `${many(each.lag_events, "event")} wait for it`);
    else if (each.state === "retrying")
      yield bad("processors", `Processor ${each.name} fails and tries again`, each.error);
    else if (each.state === "not configured")
      yield warn(
        "processors",
        `Processor ${each.name} is not configured any more`,
        "Its place is kept, and events with it.",
      );
    else if (each.lag_seconds > OLD_SECONDS)
      yield warn("processors", `Processor ${each.name} is ${duration(each.lag_seconds)} behind`, each.error);
  }
}

function* ofChannels({ notifications = {} }) {
  for (const [name, each] of Object.entries(notifications)) {
    if (each.dead)
      yield bad(
        "notifications",
        `${many(each.dead, "notification")} could not be sent by ${name}`,
        each.last_error ?? each.error,
        each.dead,
      );
    else if (each.last_error) yield warn("notifications", `Channel ${name} fails`, each.last_error);
    else if (each.oldest_seconds > 600)
      yield warn("notifications", `A notification has waited ${duration(each.oldest_seconds)} for ${name}`);
  }
}

function* ofJobs({ jobs = [], workers = [], breakers = [] }) {
  for (const each of jobs) {
    if (each.dead)
      yield bad(
        "jobs",
        `${many(each.dead, "job")} of queue ${each.queue} ${each.dead === 1 ? "is" : "are"} dead`,
        "They were tried as often as they may be.",
        each.dead,
      );
    if (each.paused) yield warn("jobs", `Queue ${each.queue} is paused`, `${many(each.ready, "job")} wait`);
    else if (each.oldest_ready_seconds > OLD_SECONDS)
      yield warn("jobs", `A job has waited ${duration(each.oldest_ready_seconds)} in queue ${each.queue}`);
  }
  for (const each of workers) {
    if (each.overdue)
      yield bad(
        "jobs",
        `${many(each.overdue, "job")} of queue ${each.queue} did not end in time`,
        "and can't be stopped while this process runs",
      );
  }
  for (const each of breakers) {
    if (each.state && each.state !== "closed")
      yield warn("jobs", `Jobs that need ${each.name} wait`, `Its circuit breaker is ${each.state}.`);
  }
}

function* ofLetters({ dead_letters = [] }) {
  const total = dead_letters.reduce((sum, each) => sum + each.count, 0);
  const places = [...new Set(dead_letters.map((each) => each.source))].join(", ");
  if (total)
    yield warn(
      "dead-letters",
      `${many(total, "dead letter")} ${total === 1 ? "waits" : "wait"} for a decision`,
      `from ${places}`,
      total,
    );
}

function* ofTheRest({ crashed = [], heartbeat, clock, routes }) {
  if (routes?.length === 0) yield warn("routes", "No routes are configured", "Nothing is taken from the broker.", 0);
  for (const each of crashed)
    yield warn(
      "now",
      `${each.name} has crashed ${each.crashes === 1 ? "once" : `${count(each.crashes)} times`} and was started again`,
      each.last_error,
    );
  if (heartbeat?.last_error) yield warn("now", "The heartbeat doesn't get through", heartbeat.last_error);
  if (synchronised(clock) === false)
    yield warn("now", "The gateway's clock is not synchronised", "Times may be wrong. See timedatectl on the gateway.");
}

/** Whether the gateway's clock is synchronised; null when nobody knows. */
export function synchronised(clock) {
  return typeof clock === "object" ? (clock?.synchronised ?? null) : (clock ?? null);
}
