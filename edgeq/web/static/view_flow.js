// The flow: from the broker through the routes into the store, and on to processors, queues and channels.

import { h } from "./dom.js";
import { picture } from "./picture.js";
import { channelRate, processorRate, routeRate } from "./rates.js";
import { count, rate } from "./words.js";

const MOST = 12;

export const title = "Flow";
export const wide = true;

export function draw({ status, width }) {
  const stages = [
    { name: "Broker", boxes: [broker(status)] },
    { name: "Routes", boxes: few((status.routes ?? []).map(route), "routes", (box) => box.rate ?? 0) },
    { name: "Store", boxes: [store(status)] },
    {
      name: "Processors and queues",
      boxes: [
        ...few((status.processors ?? []).map(processor), "processors", trouble),
        ...few(queues(status), "queues", trouble),
      ],
    },
    { name: "Channels", boxes: few(Object.entries(status.notifications ?? {}).map(channel), "channels", trouble) },
  ].filter((stage) => stage.boxes.length);
  return [
    h("h1", { tabindex: -1 }, "Flow"),
    h(
      "p",
      { class: "soft" },
      "A message comes in on the left, or at the top, and is acknowledged once it is stored. Thicker lines carry more.",
    ),
    h("div", {}, picture("The way of the messages", stages, lines(stages), width)),
    h(
      "p",
      { class: "soft small" },
      "Verdicts on contracts, and what jobs and processors decide, go back into the store as events.",
    ),
  ];
}

function lines(stages) {
  const of = (name) => stages.find((stage) => stage.name === name)?.boxes ?? [];
  const all = (from, to) => from.flatMap((a) => to.map((b) => ({ from: a.id, to: b.id, ...moved(a, b) })));
  const couriers = of("Processors and queues").filter((box) => box.kind === "courier");
  return [
    ...all(of("Broker"), of("Routes")),
    ...all(of("Routes"), of("Store")),
    ...all(of("Store"), of("Processors and queues")),
    ...all(couriers, of("Channels")),
  ];
}

function moved(a, b) {
  const thin = [a, b].find((box) => !["broker", "store"].includes(box.id) && box.kind !== "courier") ?? b;
  return {
    rate: thin.rate ?? 0,
    tone: a.id === "broker" || thin.tone === "bad" ? (a.id === "broker" ? a.tone : thin.tone) : "",
  };
}

function broker({ session, rates }) {
  const connected = session?.state === "connected";
  return {
    id: "broker",
    name: session?.url ?? "broker",
    href: "#now",
    tone: connected ? "ok" : "bad",
    rate: rates?.messages_per_second,
    says: connected ? rate(rates?.messages_per_second) : (session?.state ?? "starting"),
    also: session?.waiting ? `${count(session.waiting)} waiting` : "",
  };
}

function route(each) {
  const perSecond = routeRate(each.topic);
  return {
    id: `route:${each.topic}`,
    name: each.topic,
    href: "#routes",
    rate: perSecond,
    tone: perSecond > 0 ? "ok" : "",
    says: rate(perSecond),
  };
}

function store({ store: { head, ok } = {}, rates }) {
  return {
    id: "store",
    name: "Events",
    href: "#events",
    tone: ok === false ? "bad" : "ok",
    rate: rates?.events_per_second,
    says: ok === false ? "takes nothing" : rate(rates?.events_per_second),
    also: head ? `#${head}` : "",
  };
}

function processor(each) {
  const tone = { halted: "bad", retrying: "bad", paused: "warn", "not configured": "warn" }[each.state] ?? "ok";
  const lag = each.lag_events ? `${count(each.lag_events)} behind` : "up to date";
  return {
    id: `processor:${each.name}`,
    kind: each.kind,
    name: each.name,
    href: "#processors",
    tone,
    rate: processorRate(each.name),
    says: tone === "ok" ? lag : `${each.state} · ${lag}`,
    also: rate(processorRate(each.name)),
  };
}

function queues({ jobs = [], workers = [] }) {
  const names = [...new Set([...workers.map((each) => each.queue), ...jobs.map((each) => each.queue)])];
  return names.map((name) => {
    const {
      ready = 0,
      executing = 0,
      delayed = 0,
      dead = 0,
      paused = false,
    } = jobs.find((each) => each.queue === name) ?? {};
    return {
      id: `queue:${name}`,
      name: `queue ${name}`,
      href: `#jobs?queue=${encodeURIComponent(name)}`,
      rate: executing,
      tone: dead ? "bad" : paused ? "warn" : "ok",
      says: executing ? `${count(ready)} ready, ${count(executing)} run` : `${count(ready)} ready`,
      also: paused ? "paused" : dead ? `${count(dead)} dead` : delayed ? `${count(delayed)} later` : "",
    };
  });
}

function channel([name, each]) {
  return {
    id: `channel:${name}`,
    name,
    href: `#notifications?channel=${encodeURIComponent(name)}`,
    rate: channelRate(name),
    tone: each.dead ? "bad" : each.last_error ? "warn" : "ok",
    says: each.queued ? `${count(each.queued)} waiting` : `${count(each.sent)} sent`,
    also: each.dead ? `${count(each.dead)} given up` : each.last_error ? "failing" : "",
  };
}

const trouble = (box) => ({ bad: 2, warn: 1 })[box.tone] ?? 0;

// The most interesting of many, in their own order, and how many more there are.
function few(boxes, noun, interest) {
  if (boxes.length <= MOST) return boxes;
  const shown = new Set(boxes.toSorted((a, b) => interest(b) - interest(a)).slice(0, MOST - 1));
  const rest = {
    id: `more:${noun}`,
    name: `${boxes.length - shown.size} more ${noun}`,
    says: "",
    href: { routes: "#routes", processors: "#processors", queues: "#jobs" }[noun] ?? "#notifications",
  };
  return [...boxes.filter((box) => shown.has(box)), rest];
}
