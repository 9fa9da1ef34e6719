// The page: which view is shown, what it is given, and how it stays up to date.

import { get, post } from "./api.js";
import { confirm, login } from "./dialogs.js";
import { h, patch } from "./dom.js";
import { follow } from "./live.js";
import { link, read } from "./place.js";
import { note } from "./rates.js";
import { attention } from "./trouble.js";
import { duration } from "./words.js";
import * as contracts from "./view_contracts.js";
import * as dead from "./view_dead.js";
import * as events from "./view_events.js";
import * as flow from "./view_flow.js";
import * as jobs from "./view_jobs.js";
import * as now from "./view_now.js";
import * as notifications from "./view_notifications.js";
import * as processors from "./view_processors.js";
import * as routes from "./view_routes.js";

const VIEWS = { now, flow, routes, processors, contracts, notifications, jobs, "dead-letters": dead, events };
const RELOAD_MILLISECONDS = 4_000; // what a view loads is not asked for more often
const part = (id) => document.getElementById(id);

const state = {
  status: null,
  heardAt: 0,
  history: null,
  connected: false,
  data: null,
  error: null,
  loadedAt: 0,
  turn: 0,
  asked: false,
  told: false,
};
const names = Object.keys(VIEWS);
let place = read(location.hash, names);
let again = 0;

function gatewayNow() {
  return state.status.now + (performance.now() - state.heardAt) * 1000;
}

function context() {
  const { status, history, data } = state;
  const width = Math.max(280, part("view").clientWidth); // 0 while the browser has not laid it out
  return {
    ...place,
    status,
    history,
    data,
    width,
    now: gatewayNow(),
    skew: (status.now - state.heardWhen) / 1e6,
    link,
    button,
    redraw: draw,
    go: (view, params) => {
      location.hash = link(view, params);
    },
    older: (next) => next && link(place.view, { ...place.params, before: next }),
  };
}

// --- drawing

function draw() {
  const view = VIEWS[place.view];
  if (!state.status) return;
  part("main").classList.toggle("wide", Boolean(view.wide));
  let content;
  if (view.load && !state.data) content = state.error ? [] : [h("p", { class: "soft" }, "Looking it up …")];
  else content = view.draw(context()).flat().filter(Boolean);
  if (content[0]?.nodeName !== "H1" && !content.some((node) => node.nodeName === "H1"))
    content.unshift(h("h1", { tabindex: -1 }, view.title));
  const shown = view.load ? state.data : state.history;
  const isSaidAbove = state.error?.status === 0 && shown; // the connection is lost, and what stands here is old
  const failed = state.error && !isSaidAbove && h("p", { class: "wrong", role: "alert" }, state.error.message);
  patch(part("view"), [
    h("div", { key: `${place.view}/${place.id}`, class: "view" }, content[0], failed, content.slice(1)),
  ]);
  document.title = `${view.title} · ${state.status.gateway} · edgeq`;
}

function drawFrame() {
  const { status } = state;
  const wanted = status ? attention(status) : {};
  patch(part("list"), [
    h(
      "ul",
      {},
      Object.entries(VIEWS).map(([name, view]) =>
        h(
          "li",
          { key: name },
          h(
            "a",
            { href: `#${name}`, "aria-current": name === place.view ? "page" : null },
            view.title,
            wanted[name] > 0 &&
              h("span", { class: "number" }, `${wanted[name]}`, h("span", { class: "unseen" }, " to look at")),
          ),
        ),
      ),
    ),
  ]);
  if (!status) return;
  part("gateway").textContent = status.gateway;
  part("access-text").textContent = status.may_change
    ? "You may change things."
    : status.can_log_in
      ? "You look only. To change something, log in."
      : "Nothing can be changed here: the configuration names no web.token.";
  part("access").hidden = !(status.may_change || status.can_log_in);
  part("access").textContent = status.may_change ? "Log out" : "Log in";
}

function drawLink() {
  const { connected, status } = state;
  part("live").dataset.state = connected ? "live" : status ? "lost" : "connecting";
  part("live-text").textContent = connected ? "Live" : status ? "Not connected" : "Connecting";
  part("main").classList.toggle("stale", !connected && Boolean(status));
  const lost = part("lost");
  lost.hidden = connected;
  if (connected) return;
  const age = status && duration(Math.round((performance.now() - state.heardAt) / 1000));
  lost.textContent = status
    ? `The connection with the gateway is lost. These figures are ${age} old. Trying again.`
    : "The gateway doesn't answer yet. Trying again.";
}

// --- getting what is shown

async function load() {
  const turn = (state.turn += 1);
  const view = VIEWS[place.view];
  state.loadedAt = performance.now();
  try {
    const given = { ...place, now: gatewayNow() };
    const [data, history] = await Promise.all([view.load?.(given), view.wantsHistory ? get("history") : null]);
    if (turn !== state.turn) return; // somebody went on
    Object.assign(state, { data: data ?? null, history: history ?? state.history, error: null });
  } catch (error) {
    if (turn !== state.turn) return;
    state.error = error;
  }
  draw();
}

function reloadSoon() {
  const view = VIEWS[place.view];
  if (!(view.reloads || view.wantsHistory) || (place.params.before && !state.error)) return;
  clearTimeout(again);
  again = setTimeout(load, Math.max(0, RELOAD_MILLISECONDS - (performance.now() - state.loadedAt)));
}

function onStatus(status) {
  const first = state.status === null;
  if (!first && status.version !== state.status.version) return location.reload(); // an upgrade has another page
  Object.assign(state, { status, heardAt: performance.now(), heardWhen: Date.now() * 1000 });
  note(status);
  drawFrame();
  draw();
  if (first) load();
  else reloadSoon();
}

function onLink(connected) {
  if (connected !== state.connected)
    say(connected ? "Connected with the gateway" : "The connection with the gateway is lost");
  state.connected = connected;
  drawLink();
  if (!connected && !state.status) askWhy();
}

// The stream says nothing of why it is refused; the status does.
async function askWhy() {
  try {
    await get("status");
  } catch (refused) {
    if (refused.status !== 401) part("lost").textContent = `${refused.message} Trying again.`;
    else if (!state.asked) {
      state.asked = true; // once; there is a button for later
      part("access").hidden = false;
      await enter("This gateway shows itself only to those who have the token.");
    }
  }
}

// --- changing something

function button(words, { path, body, about, done, confirm: question, danger, then }) {
  if (!state.status.may_change && !state.status.can_log_in) return null;
  const onclick = async () => {
    if (!state.status.may_change && !(await enter("To change something, the gateway wants to know that you may.")))
      return;
    if (question && !(await confirm(...question, words))) return;
    try {
      await post(path, body);
      tell(`${done}.`);
      if (then && place.id) {
        state.told = true; // it is still to be read where one comes to
        location.hash = then;
        return;
      }
    } catch (refused) {
      tell(`That was not done: ${refused.message}`, "wrong");
      if (refused.status === 401) await renew(); // the session is over
    }
    await load();
  };
  return h(
    "button",
    {
      type: "button",
      class: danger ? "quiet danger-text" : "quiet",
      "aria-label": `${words} ${about.slice(0, 120)}`,
      onclick,
      key: words,
    },
    words,
  );
}

async function enter(why) {
  if (document.querySelector("dialog[open]") || !(await login(why))) return false;
  await renew();
  return true;
}

async function renew() {
  const status = await get("status").catch(() => null);
  if (status) onStatus(status);
  reconnect();
}

async function onAccess() {
  if (!state.status?.may_change) return enter("With the token you may change things here.");
  await post("logout").catch(() => null);
  tell("You are logged out.");
  return renew();
}

function tell(words, tone = "") {
  part("notice").className = `notice ${tone}`;
  part("notice").textContent = words;
}

function say(words) {
  part("said").textContent = words;
}

// --- beginning

function onMove() {
  place = read(location.hash, names);
  clearTimeout(again);
  Object.assign(state, { data: null, error: null });
  if (!state.told) tell("");
  state.told = false;
  openMenu(false);
  drawFrame();
  draw();
  part("view").querySelector("h1")?.focus();
  window.scrollTo(0, 0);
  if (state.status) load();
}

function openMenu(open) {
  part("menu").setAttribute("aria-expanded", String(open));
  part("views").classList.toggle("open", open);
}

part("menu").onclick = () => openMenu(part("menu").getAttribute("aria-expanded") !== "true");
part("access").onclick = onAccess;
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault(); // the address says which view is shown
  part("main").focus();
};
window.addEventListener("hashchange", onMove);
let drawnWidth = 0;
new ResizeObserver(() => {
  if (part("view").clientWidth === drawnWidth) return;
  drawnWidth = part("view").clientWidth;
  draw();
}).observe(part("main"));
setInterval(() => state.connected || drawLink(), 1_000);
drawFrame();
const reconnect = follow(onStatus, onLink);
