// Jobs and queues: how much is to do, what runs, what failed; and one job with all that is known of it.

import { get } from "./api.js";
import { h } from "./dom.js";
import { badge, empty, facts, filters, item, list, raw, table } from "./parts.js";
import { ago, brief, count, duration, gist, pretty, when } from "./words.js";

const STATES = ["", "available", "executing", "scheduled", "retryable", "completed", "cancelled", "dead"];
const OPEN = ["available", "executing", "scheduled", "retryable"];

export const title = "Jobs and queues";
export const reloads = true;

export async function load({ params, id }) {
  if (id) return get(`jobs/${encodeURIComponent(id)}`);
  const { queue, state, before } = params;
  const [queues, jobs] = await Promise.all([get("queues"), get("jobs", { queue, state, before })]);
  return { queues: queues.items, jobs };
}

export function draw(ctx) {
  return ctx.id ? one(ctx.data, ctx) : all(ctx);
}

function all(ctx) {
  const { queues, jobs } = ctx.data;
  const head = h("h1", { tabindex: -1 }, "Jobs and queues");
  if (!queues.length && !jobs.items.length) {
    return [
      head,
      empty(
        "There are no queues and no jobs.",
        "Jobs come from routes with dispatch, from schedules, from sources and from programs; " +
          "their queues stand under jobs.queues in the configuration.",
      ),
    ];
  }
  return [
    head,
    table(
      "Queues",
      ["Queue", "State", "#Ready", "#Running", "#Later", "#Dead", "Oldest waits", ""],
      queues.map((each) => queueRow(each, ctx)),
    ),
    h("h2", {}, "Jobs"),
    filters(ctx, "Choose jobs", [
      { name: "queue", label: "Queue", options: ["", ...queues.map((each) => each.queue)] },
      { name: "state", label: "State", options: STATES },
    ]),
    jobs.items.length
      ? list(
          "Jobs",
          jobs.items.map((each) => shown(each, ctx)),
          ctx.older(jobs.next),
        )
      : empty("There is no such job."),
  ];
}

function queueRow(each, ctx) {
  const path = `queues/${encodeURIComponent(each.queue)}`;
  const about = `queue ${each.queue}`;
  return {
    key: `queue:${each.queue}`,
    cells: [
      each.queue,
      each.paused ? badge("paused") : badge("open", "ok"),
      count(each.ready),
      count(each.executing),
      count(each.delayed),
      count(each.dead),
      each.oldest_ready_seconds > 0 ? duration(each.oldest_ready_seconds) : "–",
      each.paused
        ? ctx.button("Resume", { path: `${path}/resume`, about, done: `Queue ${each.queue} goes on` })
        : ctx.button("Pause", {
            path: `${path}/pause`,
            about,
            done: `Queue ${each.queue} is paused: no more of its jobs begin`,
          }),
    ],
  };
}

function shown(each, ctx) {
  return item({
    key: `job:${each.id}`,
    href: `#jobs/${each.id}`,
    title: `#${each.id} ${each.kind}`,
    badges: [badge(each.state)],
    line: [
      each.queue,
      " · created ",
      when(each.created_at),
      ` (${ago(each.created_at, ctx.now)}) · attempt ${each.attempt} of ${each.max_attempts}`,
    ],
    more: [progress(each), each.error && h("p", { class: "wrong" }, gist(each.error))],
    buttons: buttons(each, ctx),
  });
}

function buttons(each, ctx) {
  const about = `job #${each.id}`;
  return [
    each.state === "dead" &&
      ctx.button("Try again", { path: `jobs/${each.id}/retry`, about, done: `Job #${each.id} is to run again` }),
    OPEN.includes(each.state) &&
      ctx.button("Cancel", {
        path: `jobs/${each.id}/cancel`,
        about,
        done: `Job #${each.id} is cancelled`,
        danger: true,
        confirm: [
          `Cancel job #${each.id}?`,
          `It won't be done${each.state === "executing" ? " to its end" : ""}, and stays in the list as cancelled.`,
        ],
      }),
  ];
}

function one(job, ctx) {
  return [
    h("p", {}, h("a", { href: "#jobs" }, "All jobs")),
    h("h1", { tabindex: -1 }, `Job #${job.id}`),
    h(
      "section",
      { class: "card", key: `job:${job.id}` },
      h(
        "div",
        { class: "head" },
        h("h2", {}, brief(job.kind, 200)),
        badge(job.state),
        h("div", { class: "buttons end" }, buttons(job, ctx)),
      ),
      facts(
        ["Queue", job.queue],
        ["Priority", job.priority],
        ["Attempt", `${job.attempt} of ${job.max_attempts}`],
        ["Created", when(job.created_at)],
        ["Due", when(job.run_at)],
        ["Ended", job.finished_at && when(job.finished_at)],
        ["Worker", job.lease_owner],
        ["Unique key", job.unique_key && brief(job.unique_key)],
        ["Needs", job.needs],
        ["Waits for", job.blocked_by],
        ["Reason", job.reason],
        ["Cause", job.cause_id && h("a", { href: `#events/${job.cause_id}` }, `event #${job.cause_id}`)],
      ),
      progress(job),
      h("h3", {}, "Arguments"),
      raw("Arguments", pretty(job.args)),
      job.result !== null && job.result !== undefined && [h("h3", {}, "Result"), raw("Result", pretty(job.result))],
      job.error && [h("h3", {}, "Error"), raw("Error", job.error)],
    ),
  ];
}

function progress(each) {
  if (each.progress === null || each.progress === undefined) return null;
  return typeof each.progress === "number" && each.progress <= 1
    ? h(
        "p",
        {},
        h("progress", { max: 1, value: each.progress, "aria-label": `Progress of job ${each.id}` }),
        ` ${Math.round(each.progress * 100)} %`,
      )
    : h("p", {}, `Progress: ${brief(pretty(each.progress), 300)}`);
}
