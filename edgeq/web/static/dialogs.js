// Questions that must be answered before something is done. The browser keeps the focus inside and gives it back.

import { post } from "./api.js";
import { h } from "./dom.js";

/** Ask whether to do it; true when it is so. */
export function confirm(title, sentence, action) {
  const stay = h("button", { type: "button", class: "quiet", onclick: () => dialog.close("") }, "Leave it");
  const go = h("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, action);
  const dialog = h(
    "dialog",
    { "aria-labelledby": "dialog-title" },
    h("h2", { id: "dialog-title" }, title),
    h("p", {}, sentence),
    h("div", { class: "buttons" }, stay, go),
  );
  return shown(dialog);
}

/** Ask for the token and log in with it; true when that worked. */
export function login(why) {
  const field = h("input", { id: "token", type: "password", autocomplete: "current-password", required: true });
  // For what keeps passwords.
  const name = h("input", { type: "text", autocomplete: "username", value: "edgeq", hidden: true });
  const wrong = h("p", { class: "wrong", role: "alert" });
  const enter = h("button", { type: "submit" }, "Log in");
  async function send(event) {
    event.preventDefault();
    enter.disabled = true;
    wrong.textContent = "";
    try {
      await post("login", { token: field.value });
      dialog.close("yes");
    } catch (refused) {
      wrong.textContent = refused.message;
      enter.disabled = false;
      field.select();
    }
  }
  const dialog = h(
    "dialog",
    { "aria-labelledby": "dialog-title" },
    h(
      "form",
      { onsubmit: send },
      h("h2", { id: "dialog-title" }, "Log in"),
      h("p", {}, why),
      name,
      h("label", { for: "token" }, "Token"),
      field,
      h("p", { class: "soft small" }, "It is what web.token says in the gateway's configuration."),
      wrong,
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "button", class: "quiet", onclick: () => dialog.close("") }, "Not now"),
        enter,
      ),
    ),
  );
  return shown(dialog);
}

function shown(dialog) {
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    dialog.showModal();
  });
}
