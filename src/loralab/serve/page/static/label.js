// Label: choose a file and its classes, or go on with an earlier one.

import { get, post } from "/page/api.js";
import { FileChooser } from "/page/choose_file.js";
import { count, el, field, guarded, replace, select } from "/page/dom.js";
import { openSession } from "/page/session.js";

export const title = "Label";
const STRATEGIES = {
  margin: "rows between two classes first (margin)",
  entropy: "rows between all classes first (entropy)",
  badge: "uncertain rows of different kinds first (badge)",
  random: "in random order",
};

export async function open(root, server, [name]) {
  return name ? openSession(root, name) : openStart(root, server);
}

async function openStart(root, server) {
  root.append(el("h1", {}, "Label your own texts"));
  if (!server.state.may_change) {
    root.append(
      el(
        "p",
        { class: "warning small" },
        "Anybody on the network can reach this server. Labelling writes files, so it needs API keys: start the server with --api-keys.",
      ),
    );
    return;
  }
  const { folder, sessions } = await get("/api/labelling");
  let chosen = null;
  const start = el(
    "button",
    { type: "button", class: "primary", disabled: true, onclick: guarded(begin) },
    "Start labelling",
  );
  const classes = el("textarea", { rows: 4, oninput: check, placeholder: "positive\nnegative", spellcheck: "false" });
  const models = server.state.models;
  const model = select([["", "no model"], ...models.map((one) => [one.model, one.model])], "", (value) => {
    const picked = models.find((one) => one.model === value);
    if (picked) classes.value = picked.classes.join("\n");
    check();
  });
  const strategy = select(
    server.state.strategies.map((key) => [key, STRATEGIES[key]]),
    "margin",
  );
  const chooser = new FileChooser(server, (value) => {
    chosen = value;
    check();
  });
  const named = () =>
    classes.value
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean);
  const missing = el("small", {});
  function check() {
    const names = named();
    const problem = !chosen
      ? "Choose a file and its text column."
      : names.length < 2
        ? "Name at least two classes."
        : new Set(names).size < names.length
          ? "Two classes have the same name."
          : "";
    missing.textContent = problem;
    start.disabled = problem !== "";
  }
  async function begin() {
    const session = await post("/api/labelling", {
      file: chosen.id,
      text: chosen.text,
      name: chosen.file.slice(0, 300),
      classes: named(),
      strategy: strategy.value,
      model: model.value,
    });
    location.hash = `#label/${encodeURIComponent(session.name)}`;
  }
  replace(
    root,
    root.firstChild,
    el(
      "p",
      { class: "lead" },
      "The page shows the rows that teach the classifier most, and suggests a class as soon as it can. A few hundred labels are often enough.",
    ),
    sessions.length > 0 &&
      el("section", {}, el("h2", {}, "Go on labelling"), el("ul", { class: "choices" }, sessions.map(sessionItem))),
    el(
      "section",
      {},
      el("h2", {}, sessions.length ? "Or start with another file" : "Start"),
      el(
        "ol",
        { class: "steps" },
        el("li", {}, el("h3", {}, "Your file"), chooser.root),
        el(
          "li",
          {},
          el("h3", {}, "Its classes"),
          models.length > 0 && field("Take them from a model, which then suggests labels", model),
          field("One class per line", classes),
        ),
        el("li", {}, el("h3", {}, "Which rows come first"), field("Order", strategy)),
      ),
      el("p", { class: "actions" }, start, " ", missing),
      el(
        "p",
        { class: "note" },
        "Each label is saved at once, in the folder ",
        el("code", {}, folder),
        " of the server. You can close this page at any time and go on later.",
      ),
    ),
  );
  check();
}

function sessionItem(session) {
  if (session.problem) return el("li", {}, el("strong", {}, session.name), ` cannot be opened: ${session.problem}`);
  return el(
    "li",
    {},
    el("a", { href: `#label/${encodeURIComponent(session.name)}` }, session.file || session.name),
    ` ${session.labelled.toLocaleString("en")} of ${count(session.total, "row")} labelled, classes ${session.classes.join(", ")} `,
    el("small", {}, session.name),
  );
}
