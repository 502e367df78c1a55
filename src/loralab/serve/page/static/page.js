// The page: its views, which one is shown, and what all of them know of the server.

import { get } from "/page/api.js";
import { el, guarded, replace } from "/page/dom.js";
import * as errors from "/page/errors.js";
import * as files from "/page/files.js";
import * as label from "/page/label.js";
import * as runs from "/page/runs.js";
import * as trying from "/page/try.js";

const VIEWS = { try: trying, files, errors, label, runs };
const main = document.getElementById("main");
let shown = null;

// server.state is what /api/state answers; refresh() asks again, such as after a model was loaded.
const server = {
  state: null,
  async refresh() {
    this.state = await get("/api/state");
    return this.state;
  },
};

const show = guarded(async () => {
  const [name, ...parts] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const view = VIEWS[name] ? name : "try";
  if (!VIEWS[name] && location.hash && location.hash !== "#main") history.replaceState(null, "", "#try");
  if (location.hash === "#main") return main.focus();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const first = shown === null;
  shown?.close?.();
  const root = el("div", { class: `view-${view}` });
  main.replaceChildren(root);
  shown = { root };
  document.title = `${VIEWS[view].title} · loralab`;
  await server.refresh();
  replace(document.getElementById("about"), about(server.state));
  const close = await VIEWS[view].open(root, server, parts).catch((error) => {
    root.append(el("p", { class: "warning", role: "alert" }, error.message));
  });
  if (shown.root === root) shown.close = close;
  else close?.(); // another view was chosen meanwhile
  if (!first) main.focus({ preventScroll: true });
});

function about(state) {
  const folder = state.folder ? `Runs: ${state.folder}. ` : "";
  return [
    `loralab ${state.version}. ${folder}Labels: ${state.labels}. Everything stays on this server. `,
    el("a", { href: "/docs" }, "API"),
  ];
}

addEventListener("hashchange", show);
show();
